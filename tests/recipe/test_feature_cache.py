"""The feature cache: the frozen part runs once, its cached output is exact, and training is unchanged."""

import json

import numpy as np
import pytest
import torch
from conftest import TINY_ENCODERS, batch, tiny_model, utterances, write_wav
from datasets import DatasetDict
from running import SPEAKERS, lines_of, train
from safetensors.torch import load_file

from core.audio import Excerpt
from core.hashing import hash_frozen_part
from feature_extraction_ser_align import SERAlignWaveformExtractor
from recipe.augmentation import Augmentation, Variant
from recipe.babble import Voices
from recipe.batching import Collator
from recipe.corpora import load_corpus
from recipe.feature_cache import FeatureCache, fill_cache, remove_cache
from recipe.preparing import UtterancePreparer

pytestmark = pytest.mark.slow

FROZEN = [
    *((name, {}) for name in TINY_ENCODERS if name not in ("wav2vec2-bert", "whisper")),
    *((name, {"freeze_encoder_layers": 1}) for name in TINY_ENCODERS if not name.endswith("-group")),
    *((name, {"freeze_encoder_layers": 2, "layer_mix": "weighted"}) for name in ("wavlm-layer", "whisper")),
    *(("whisper", {"average_frames": 2, "freeze_encoder_layers": layers}) for layers in (0, 1)),
]


@pytest.mark.parametrize(("encoder", "fields"), FROZEN, ids=str)
def test_the_model_takes_what_its_frozen_part_made_as_the_input(encoder, fields):
    """Losses and gradients too, padded in a batch, after a batch of other lengths."""
    model = tiny_model(encoder, **fields)
    inputs = utterances(model, [1.3, 0.4, 0.9])
    model(**batch(model, utterances(model, [0.7, 0.2], seed=1)))
    features = [model.extract_features(waveform[None])[0] for waveform in inputs]
    labels = torch.tensor([0, 1, 2])
    found = []
    assert features[0].shape[1] == model.config.extracted_size
    for given, name in ((inputs, model.main_input_name), (features, "extracted_features")):
        model.zero_grad()
        padded = batch(model, given, padding=7.0)
        padded[name] = padded.pop(model.main_input_name)
        output = model(**padded, labels=labels)
        output.loss.backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        mask = output.frame_mask
        found.append(
            [output.logits, output.loss, output.frame_logits[mask], output.frame_weights, mask.float(), gradients]
        )
    for left, right in zip(*found):
        torch.testing.assert_close(left, right, atol=2e-6, rtol=1e-4)


def test_an_output_is_found_again_only_for_the_same_audio_treatment_and_weights(tmp_path):
    model, other = tiny_model(), tiny_model(seed=1)
    path = write_wav(tmp_path / "a.wav", seed=0)
    kept = FeatureCache(tmp_path / "kept", hash_frozen_part(model))

    def preparer(trim_db=None, max_duration=None, cache=kept, degradations=(), most=1, voices=None):
        extractor = SERAlignWaveformExtractor(return_attention_mask=True, trim_db=trim_db)
        augmentation = Augmentation(degradations=degradations, max_degradations=most)
        return UtterancePreparer(
            extractor, model.config.shortest_samples, max_duration, augmentation, feature_cache=cache, voices=voices
        )

    spoken = [Excerpt(str(write_wav(tmp_path / f"voice{index}.wav", seed=index))) for index in range(3)]
    one, two = Voices(spoken, ["a", "b", "b"]), Voices(spoken, ["a", "a", "b"])

    first = preparer().locate_features(path, Variant())
    same = write_wav(tmp_path / "b.wav", seed=0)
    assert preparer().locate_features(same, Variant()) == first  # the same bytes under another name
    others = [
        preparer().locate_features(write_wav(tmp_path / "c.wav", seed=1), Variant()),
        preparer().locate_features(path, Variant(speed=0.9)),
        preparer(trim_db=30).locate_features(path, Variant()),
        preparer(max_duration=0.2).locate_features(path, Variant()),
        preparer(cache=FeatureCache(tmp_path / "kept", hash_frozen_part(other))).locate_features(path, Variant()),
        preparer().locate_features(path, Variant(degradation=0)),
        preparer().locate_features(path, Variant(degradation=1)),
        preparer(degradations=("noise",)).locate_features(path, Variant(degradation=1)),
        preparer(degradations=("noise",), most=2).locate_features(path, Variant(degradation=1)),
        *(preparer(voices=voices).locate_features(path, Variant(degradation=1)) for voices in (one, two)),
    ]
    assert len({first, *others}) == 12
    assert preparer(degradations=("noise",), voices=one).locate_features(path, Variant()) == first
    assert hash_frozen_part(tiny_model(freeze_feature_encoder=False)) == hash_frozen_part(model)
    layers = [tiny_model(freeze_encoder_layers=1, layer_mix=mix) for mix in ("last", "weighted")]
    layers.append(tiny_model(freeze_encoder_layers=1, average_frames=2))
    assert len({hash_frozen_part(each) for each in (model, *layers)}) == 4
    with torch.no_grad():
        layers[0].encoder.encoder.layers[1].final_layer_norm.bias.add_(1)
        assert hash_frozen_part(layers[0]) == hash_frozen_part(tiny_model(freeze_encoder_layers=1))  # it is trained
        layers[0].encoder.encoder.layers[0].final_layer_norm.bias.add_(1)
        assert hash_frozen_part(layers[0]) != hash_frozen_part(tiny_model(freeze_encoder_layers=1))
    features = model.extract_features(preparer().extract(preparer().read_waveform(path, Variant()))[None])[0]
    kept.write(first, features)
    prepared = preparer().prepare(path)
    assert torch.equal(prepared, features)
    assert preparer().input_name == "extracted_features"
    collated = Collator("extracted_features")(
        [{"extracted_features": prepared, "labels": 0}, {"extracted_features": prepared[:9], "labels": 1}]
    )
    assert collated["attention_mask"].sum(dim=1).tolist() == [len(prepared), 9]
    assert [path.suffix for path in kept.folder.iterdir()] == [".npy"]


TINY_RUN = [
    "--corpus", "demo", "--only", json.dumps({"speaker": SPEAKERS[:4]}), "--num_folds", "4",
    "--encoder", "none", "--use_cpu", "--num_epochs", "4", "--max_steps", "8",
    "--batch_size", "8", "--logging_steps", "1", "--speed_factors", "1.0", "1.1",
    "--encoder_config",
    '{"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, '
    '"intermediate_size": 48, "conv_dim": [16, 16, 16, 16, 16, 16, 16], "num_conv_pos_embeddings": 16, '
    '"num_conv_pos_embedding_groups": 2, "layerdrop": 0.0, "mask_time_prob": 0.0}',
]  # fmt: skip


WHISPER_RUN = [
    *("--encoder_config", json.dumps({**TINY_ENCODERS["whisper"], "encoder_layers": 3, "max_source_positions": 1500})),
    *("--freeze_encoder_layers", "2", "--layer_mix", "weighted", "--statistics_layers", "1"),
]


DEGRADED_RUN = [*TINY_RUN[-2:], "--degrade_probability", "0.7", "--degraded_variants", "2", "--num_epochs", "8"]


@pytest.mark.parametrize(
    ("options", "part"),
    [([], "convolutions"), (WHISPER_RUN, "convolutions and 2 layers"), (DEGRADED_RUN, "convolutions")],
)
def test_training_with_kept_outputs_is_the_same_training(options, part, demo, tmp_path):
    """Both stages, two speeds: loss curves and predictions agree, and the outputs go when the run is done."""
    runs = {}
    for name in ("true", "false"):
        output = tmp_path / name
        run = [*TINY_RUN[:-2], *(options or TINY_RUN[-2:])]
        runs[name] = train(*run, "--data_dir", demo, "--output_dir", output, "--cache_features", name)
        assert not (output / "features").exists()
    assert runs["true"].stdout.count(f"the frozen {part} run once; their output takes 0.0") == 2
    for stage in ("stage1", "stage2"):
        logs = [lines_of(tmp_path / name / stage / "training_log.jsonl") for name in runs]
        losses = [[line["loss"] for line in log if "loss" in line] for log in logs]
        assert len(losses[0]) == 8
        np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
        weights = [load_file(tmp_path / name / stage / "model.safetensors") for name in runs]
        for key, value in weights[0].items():
            torch.testing.assert_close(value, weights[1][key], atol=1e-4, rtol=1e-3)
        predictions = [lines_of(tmp_path / name / stage / "predictions.jsonl") for name in runs]
        for left, right in zip(*predictions, strict=True):
            assert left["probabilities"] == pytest.approx(right["probabilities"], abs=1e-4)


@pytest.mark.parametrize(
    "option, reason",
    [
        (["--mix_probability", "0.5"], "--mix_probability creates new audio every time"),
        (
            ["--degrade_probability", "0.5", "--degradations", "gain"],
            "--degrade_probability creates new audio every time; --degraded_variants 8 computes 8 versions once",
        ),
        (["--freeze_feature_encoder", "false"], "they are trained"),
        (["--num_epochs", "3"], "3 epochs are too few for 2 variants"),
    ],
)
def test_it_says_why_the_convolutions_run_in_every_epoch(option, reason, demo, tmp_path):
    run = train(*TINY_RUN, "--stage", "1", "--max_steps", "1", "--data_dir", demo, "--output_dir", tmp_path, *option)
    assert f"the convolutions run in every epoch: {reason}" in run.stdout


def test_entries_that_a_power_failure_has_damaged_are_computed_again(demo, tmp_path):
    model = tiny_model()
    cache = FeatureCache(tmp_path, hash_frozen_part(model))
    preparer = UtterancePreparer(
        SERAlignWaveformExtractor(return_attention_mask=True), model.config.shortest_samples, feature_cache=cache
    )
    split = DatasetDict({"train": load_corpus("demo", str(demo)).select(range(4))})
    fill_cache(model, {"train": preparer}, split)
    whole = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    empty, cut, zeros, intact = whole
    empty.write_bytes(b"")
    cut.write_bytes(whole[cut][: len(whole[cut]) // 2])
    zeros.write_bytes(whole[zeros][:128] + bytes(len(whole[zeros]) - 128))
    written = intact.stat().st_mtime_ns
    fill_cache(model, {"train": preparer}, split)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == whole
    assert intact.stat().st_mtime_ns == written


def test_only_what_was_kept_is_removed(tmp_path):
    kept = FeatureCache(tmp_path / "features", hash_frozen_part(tiny_model()))
    path = kept.locate(write_wav(tmp_path / "a.wav"))
    kept.write(path, torch.zeros(3, 16))
    mine = kept.folder / "mine.npy"
    mine.touch()
    remove_cache(kept.folder)
    assert list(kept.folder.iterdir()) == [mine]
    mine.unlink()
    remove_cache(kept.folder)
    remove_cache(kept.folder)  # where nothing is
    assert not kept.folder.exists()


def test_folders_of_features_are_shared_and_stay(demo, tmp_path):
    shared = ["--data_dir", demo, "--feature_cache_dir", tmp_path / "kept", "--stage", "1", "--max_steps", "1"]
    train(*TINY_RUN, *shared, "--output_dir", tmp_path / "a")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()}
    train(*TINY_RUN, *shared, "--output_dir", tmp_path / "b", "--seed", "0")
    assert files and {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()} == files
