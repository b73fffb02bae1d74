"""Acoustic features: those of openSMILE itself, and of transformers' own encoder, of one utterance at a time."""

import json

import numpy as np
import opensmile
import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperModel

from core import acoustic
from core.acoustic import EncoderFeatures, OpenSmileFeatures, build_features
from core.errors import InputError

WAVEFORM = (0.1 * np.random.default_rng(0).standard_normal(20_000)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "size", "feature_set"),
    [("egemaps", 88, opensmile.FeatureSet.eGeMAPSv02), ("compare", 6373, opensmile.FeatureSet.ComParE_2016)],
)
def test_functionals_are_those_of_opensmile_with_its_version(name, size, feature_set):
    features = build_features({"features": name})
    described = features.select(features.describe(WAVEFORM))
    smile = opensmile.Smile(feature_set, opensmile.FeatureLevel.Functionals)
    assert described.shape == (size,) and described.dtype == np.float32
    np.testing.assert_array_equal(described, smile.process_signal(WAVEFORM, 16_000).to_numpy()[0])
    assert features.settings == {"features": name, "opensmile": opensmile.__version__}


@pytest.mark.parametrize(("first", "last", "layers"), [(1, None, (1, 2)), (0, 1, (0, 1)), (2, 2, (2,))])
def test_statistics_are_those_of_the_layers_of_transformers_without_padding(tiny_whisper, first, last, layers):
    """Whisper's own encoder takes 30 s, here 5; a shorter input needs its positions cut."""
    features = EncoderFeatures(tiny_whisper, {}, first, last)
    described = features.select(features.describe(WAVEFORM))
    whisper = WhisperModel.from_pretrained(tiny_whisper).encoder.eval()
    log_mel = WhisperFeatureExtractor.from_pretrained(tiny_whisper)(WAVEFORM, sampling_rate=16_000, padding=False)
    inputs = torch.tensor(np.asarray(log_mel["input_features"][0]))[None]
    with torch.no_grad():
        hidden = torch.nn.functional.gelu(whisper.conv1(inputs))
        hidden = torch.nn.functional.gelu(whisper.conv2(hidden)).transpose(1, 2)
        hidden = hidden + whisper.embed_positions.weight[: hidden.shape[1]]
        states = [hidden]
        for layer in whisper.layers:
            output = layer(states[-1], attention_mask=None)
            states.append(output[0] if isinstance(output, tuple) else output)
    chosen = [states[number][0].double().numpy() for number in layers]
    expected = np.concatenate([*(each.mean(axis=0) for each in chosen), *(each.std(axis=0) for each in chosen)])
    np.testing.assert_allclose(described, expected, atol=2e-4)


def test_the_digest_changes_with_the_weights_and_not_with_the_layers(tiny_whisper, tmp_path):
    first, other = EncoderFeatures(tiny_whisper, {}, 1), EncoderFeatures(tiny_whisper, {}, 0, 1)
    assert first.digest == other.digest and first.settings != other.settings
    whisper = WhisperModel.from_pretrained(tiny_whisper)
    with torch.no_grad():
        whisper.encoder.layers[1].fc2.bias.add_(1)
    whisper.save_pretrained(tmp_path)
    WhisperFeatureExtractor(feature_size=16).save_pretrained(tmp_path)
    changed = EncoderFeatures(str(tmp_path), {}, 1)
    assert changed.digest != first.digest
    assert changed.settings["encoder_digest"] != first.settings["encoder_digest"]
    json.dumps(first.settings)


def test_an_utterance_longer_than_the_encoder_takes_is_cut_to_its_middle(tiny_whisper):
    features = EncoderFeatures(tiny_whisper, {}, 1)
    longest = int(features.model.config.longest_seconds * 16_000)
    long = (0.1 * np.random.default_rng(1).standard_normal(longest + 2_000)).astype(np.float32)
    np.testing.assert_array_equal(features.describe(long), features.describe(long[1_000:-1_000]))


def test_what_has_no_features_is_refused_in_one_line(tiny_whisper, monkeypatch):
    for build, message in (
        (lambda: EncoderFeatures("/nowhere", {}, 1), "--encoder /nowhere is not a folder"),
        (
            lambda: EncoderFeatures(tiny_whisper, {}, 1, 3),
            "--first_layer 1 and --last_layer 3 are no range .* it has 2",
        ),
        (lambda: EncoderFeatures(tiny_whisper, {}, 2, 1), "--first_layer 2 and --last_layer 1 are no range"),
        (lambda: OpenSmileFeatures("egemaps").describe(WAVEFORM[:1500]), "lasts 0.094 s; openSMILE needs at least 0.1"),
        (lambda: EncoderFeatures(tiny_whisper, {}, 1).describe(WAVEFORM[:100]), "one frame of the encoder needs"),
    ):
        with pytest.raises(InputError, match=message):
            build()
    monkeypatch.setattr(acoustic, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"pip install -r requirements-opensmile.txt \(openSMILE has audEERING's resear"
    ):
        OpenSmileFeatures("egemaps")
