"""Whisper as an encoder: its own features on inputs as long as the utterance, from any of its checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CORPORA, TINY_ENCODERS, assert_same_encoder, batch, tiny_model, utterances
from running import fresh
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from configuration_ser_align import SERAlignConfig
from core.audio import read_audio
from core.loading import load_model
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from speech_ser_align import trim
from whisper_features_ser_align import SERAlignWhisperFeatureExtractor

LABELS = {"id2label": {0: "angry", 1: "happy", 2: "sad"}}


@pytest.fixture
def whisper_base(corpora) -> Path:
    """The real weights, which lie beside the corpora."""
    folder = corpora.parent / "encoders" / "whisper-base"
    if not folder.is_dir():
        pytest.skip(f"real weights: {folder} is not there, beside {CORPORA}")
    return folder


@pytest.fixture
def speech(corpora) -> list[np.ndarray]:
    """Utterances of RAVDESS."""
    paths = sorted((corpora / "ravdess").glob("Actor_0[1-4]/*"))[::16]
    return [read_audio(path, None) for path in paths]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """With an envelope, so that its loudest moment is in one place."""
    samples = int(seconds * 16000)
    envelope = 10 ** (-3 * np.linspace(-1, 1, samples) ** 2)
    return (0.1 * np.random.default_rng(seed).standard_normal(samples) * envelope).astype(np.float32)


def tiny_checkpoint(folder: Path, head: type = WhisperForConditionalGeneration, **settings):
    """A whole Whisper of random weights, no two of them alike."""
    torch.manual_seed(1)
    whole = head(AutoConfig.for_model(**{**TINY_ENCODERS["whisper"], **settings})).eval()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    whole.save_pretrained(folder)
    return whole


# ------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("seconds", [0.011, 0.1, 1.0, 7.77, 29.995, 30.0, 30.005])
@pytest.mark.parametrize("feature_size", [80, 128])
def test_log_mel_frames_are_those_of_whisper_without_its_padding(seconds, feature_size):
    waveform = noise(seconds)
    padded = WhisperFeatureExtractor(feature_size)(waveform, sampling_rate=16000, return_tensors="pt")
    found = SERAlignWhisperFeatureExtractor(feature_size)(waveform, sampling_rate=16000, return_tensors="pt")
    frames = len(waveform) // 160
    assert found["input_features"].shape == (1, frames, feature_size) and found["attention_mask"].sum() == frames
    expected = padded["input_features"][0].T[:frames]
    torch.testing.assert_close(found["input_features"][0], expected, atol=1e-6, rtol=0)


def test_a_batch_of_log_mel_frames_holds_each_utterance_as_it_is_alone():
    extractor, waveforms = SERAlignWhisperFeatureExtractor(), [noise(0.5, 1), noise(1.1, 2)]
    together = extractor(waveforms, sampling_rate=16000, return_tensors="pt")
    assert together["attention_mask"].sum(1).tolist() == [50, 110]
    for index, waveform in enumerate(waveforms):
        alone = extractor(waveform, return_tensors="pt")["input_features"][0]
        torch.testing.assert_close(together["input_features"][index, : len(alone)], alone, atol=0, rtol=0)
    assert not together["input_features"][0, 50:].any()


def test_an_utterance_is_trimmed_like_any_other():
    """Half a second of silence on either side, and no change of the speech itself, whatever its offset."""
    speech = (0.1 * np.random.default_rng(0).standard_normal(10000) + 0.01).astype(np.float32)
    padded = np.pad(speech, 8000)
    trimming = SERAlignWhisperFeatureExtractor(trim_db=40.0)
    found = trimming(padded)["input_features"][0]
    start, trimmed = trim(padded, 40.0)
    assert 7000 < start <= 8000 and 62 <= len(found) <= 75
    plain = SERAlignWhisperFeatureExtractor()
    np.testing.assert_array_equal(found, plain(trimmed)["input_features"][0])
    np.testing.assert_array_equal(
        trimming(padded, is_trimmed=True)["input_features"][0], plain(padded)["input_features"][0]
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros(159, np.float32),), "159 samples (0.0099 s); one frame needs at least 160 (0.0100 s)"),
        ((np.zeros(8000, np.float32), 8000), "sampling_rate=8000: resample the waveform to 16000 Hz first"),
    ],
)
def test_refusals_of_the_feature_extractor_say_what_is_valid(arguments, message):
    with pytest.raises(ValueError) as error:
        SERAlignWhisperFeatureExtractor()(*arguments)
    assert message in str(error.value)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_frames_of_30_s_are_those_of_the_librarys_own_model(tmp_path, attention):
    whole = tiny_checkpoint(tmp_path, WhisperModel, max_source_positions=1500, num_mel_bins=80)
    model = SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path), **LABELS).eval()
    model.set_attn_implementation(attention)
    theirs = WhisperFeatureExtractor()(noise(30), sampling_rate=16000, return_tensors="pt").input_features
    ours = model.config.build_feature_extractor()(noise(30), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected = whole.encoder(theirs).last_hidden_state
        found, mask = model.encode(**ours)
    assert mask.shape == (1, 1500) and mask.all()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_real_speech_of_30_s_gets_the_frames_of_the_real_whisper(whisper_base, speech):
    recording = np.concatenate(speech * 8)[:480000]
    reference, info = WhisperEncoder.from_pretrained(
        whisper_base, key_mapping={r"^model\.encoder\.": ""}, dtype=torch.float32, output_loading_info=True
    )
    assert len(recording) == 480000 and not info["missing_keys"]
    theirs = WhisperFeatureExtractor()(recording, sampling_rate=16000, return_tensors="pt").input_features
    model = SERAlignForAudioClassification.from_pretrained_encoder(str(whisper_base), **LABELS).eval()
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # the folder holds 16 bits
    ours = model.config.build_feature_extractor()(recording, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected, (found, _) = reference.eval()(theirs).last_hidden_state, model.encode(**ours)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_real_speech_is_exact_in_a_batch(whisper_base, speech):
    model = SERAlignForAudioClassification.from_pretrained_encoder(str(whisper_base), **LABELS).eval()
    extractor = model.config.build_feature_extractor()
    together = model(**extractor(speech[:5], sampling_rate=16000, return_tensors="pt"))
    for index, waveform in enumerate(speech[:5]):
        alone = model(**extractor(waveform, sampling_rate=16000, return_tensors="pt"))
        torch.testing.assert_close(together.logits[index], alone.logits[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_gives_an_utterance_the_same_gradients_alone_and_in_a_batch(checkpointing):
    """The sum of the losses of two utterances alone is twice the loss of their batch; no dropout, no SpecAugment."""
    gradients = []
    for alone in (True, False):
        model = tiny_model("whisper", freeze_feature_encoder=False).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        inputs, labels = utterances(model, [1.31, 0.5]), torch.tensor([2, 0])
        if alone:
            losses = [model(input_features=x[None], labels=y[None]).loss for x, y in zip(inputs, labels)]
            (sum(losses) / 2).backward()
        else:
            model(**batch(model, inputs, padding=5.0), labels=labels).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert "encoder.conv1.weight" in gradients[0] and gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, atol=1e-6, rtol=1e-4, msg=name)


# ---------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("head", [WhisperForConditionalGeneration, WhisperModel, "encoder"])
def test_any_whisper_checkpoint_gives_its_encoder_and_no_decoder(head, tmp_path):
    whole = tiny_checkpoint(tmp_path, WhisperForConditionalGeneration if head == "encoder" else head)
    encoder = (whole.model if hasattr(whole, "model") else whole).encoder
    if head == "encoder":
        encoder.save_pretrained(tmp_path)
    model = SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path), **LABELS)
    assert_same_encoder(model.encoder, encoder)
    assert not any("decoder" in name for name in model.state_dict())


def test_weights_of_16_bits_load_in_32(tmp_path):
    whole = tiny_checkpoint(tmp_path)
    whole.half().save_pretrained(tmp_path)
    model = SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path), **LABELS)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.encoder.conv1.weight, whole.model.encoder.conv1.weight.float())


def test_a_whisper_checkpoint_that_lacks_encoder_weights_is_refused(tmp_path):
    tiny_checkpoint(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.encoder.layers.1.fc1.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"is missing 1 encoder weights, for example layers\.1\.fc1\.weight"):
        SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path))


# --------------------------------------------------------------------------------------------- lengths


def test_an_utterance_over_30_s_is_refused_by_the_model():
    settings = {**TINY_ENCODERS["whisper"], "max_source_positions": 1500}
    model = SERAlignForAudioClassification(SERAlignConfig(encoder_config=settings, **LABELS)).eval()
    message = (
        r"utterance 1 of the batch has 3001 log-mel frames \(30\.0 s\); a whisper encoder takes at most 3000 \(30 s"
    )
    with pytest.raises(ValueError, match=message):
        model(**batch(model, utterances(model, [0.5, 30.01])))
    assert model(input_features=torch.zeros(1, 3000, 16)).frame_mask.shape == (1, 1500)


def test_features_of_the_librarys_own_extractor_are_refused():
    model = tiny_model("whisper")
    with pytest.raises(ValueError, match=r"expected \(batch, frames, 16\): .* config\.build_feature_extractor\(\)"):
        model(input_features=torch.zeros(1, 16, 300))


def test_a_recording_longer_than_the_encoder_takes_is_covered_by_windows():
    """The tiny encoder takes 5 s, the recording lasts 12 s: phrases and windows, each within the limit."""
    model = tiny_model("whisper")
    assert model.config.longest_seconds == pytest.approx(5)
    recognize = SpeechEmotionRecognitionPipeline(
        model=model, feature_extractor=model.config.build_feature_extractor(), device="cpu"
    )
    answer = recognize(noise(12), return_timeline=True)
    assert sum(entry["score"] for entry in answer["scores"]) == pytest.approx(1)
    assert answer["timeline"][-1]["end"] == pytest.approx(12, abs=3)  # the end is too quiet for speech
    with pytest.raises(ValueError, match=r"window=6 is not a number of seconds from 0\.\d+ to 5"):
        recognize(noise(12), window=6)


# ------------------------------------------------------------------------------------------ saved folder

SCRIPT = """
import json, sys
import numpy as np, torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline
folder, case = sys.argv[1], np.load(sys.argv[2])
model = AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True).eval()
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    logits = model(**extractor(case["waveform"], sampling_rate=16000, return_tensors="pt")).logits
recognize = pipeline("speech-emotion-recognition", folder, trust_remote_code=True)
scores = {entry["label"]: entry["score"] for entry in recognize(case["waveform"])}
print("RESULT" + json.dumps({"logits": logits.tolist(), "scores": scores, "librosa": "librosa" in sys.modules}))
"""


@pytest.mark.slow
def test_a_fresh_process_loads_a_whisper_based_folder(tmp_path):
    model = tiny_model("whisper")
    extractor = model.config.build_feature_extractor()
    folder = tmp_path / "model"
    SpeechEmotionRecognitionPipeline(model=model, feature_extractor=extractor).save_pretrained(folder)
    np.savez(tmp_path / "case.npz", waveform=noise(1.5))
    with torch.no_grad():
        expected = model(**extractor(noise(1.5), sampling_rate=16000, return_tensors="pt")).logits
    result, _ = fresh(SCRIPT, folder, tmp_path / "case.npz", home=tmp_path / "hf")
    np.testing.assert_allclose(result["logits"], expected, atol=1e-5)
    assert set(result["scores"]) == {"angry", "happy", "sad"} and not result["librosa"]
    saved = json.loads((folder / "preprocessor_config.json").read_text())
    assert saved["feature_extractor_type"] == "SERAlignWhisperFeatureExtractor"
    (folder / "whisper_features_ser_align.py").write_text("raise SystemExit('ran the folder's code')")
    again, its_extractor = load_model(str(folder))
    assert type(its_extractor) is SERAlignWhisperFeatureExtractor and its_extractor.longest == 500
    assert_same_encoder(again.encoder, model.encoder)
