"""The log-mel front end of the small encoders."""

import json

import numpy as np
import pytest

from core.loading import load_feature_extractor
from feature_extraction_ser_align import SERAlignFeatureExtractor


def speech_like(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    times = np.arange(int(seconds * 16000)) / 16000
    tone = sum(np.sin(2 * np.pi * 140 * k * times) / k for k in range(1, 20))
    return (0.1 * tone * np.abs(np.sin(3 * times)) + 0.001 * rng.normal(size=len(times))).astype(np.float32)


def reference(waveform: np.ndarray, stride: int = 4) -> np.ndarray:
    """The feature extractor's docstring in float64 NumPy, one window at a time, with hand-made mel filters."""

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    corners = np.linspace(mel(20), mel(8000), 82)
    frequencies = mel(np.arange(257) * 16000 / 512)
    filters = np.zeros((80, 257))
    for index in range(80):
        low, centre, high = corners[index : index + 3]
        rise, fall = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
        filters[index] = np.maximum(0, np.minimum(rise, fall))
    rows = []
    for start in range(0, len(waveform) - 399, 160):
        window = waveform[start : start + 400].astype(np.float64)
        window = window - window.mean()
        emphasised = np.array([window[0] - 0.97 * window[0], *(window[1:] - 0.97 * window[:-1])])
        shape = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
        power = np.abs(np.fft.fft(emphasised * shape, 512)[:257]) ** 2
        rows.append(10 * np.log10(filters @ power))
    decibels = np.maximum(rows, np.max(rows) - 80)
    values = (decibels - decibels.mean()) / 20
    return values[: len(values) // stride * stride].reshape(-1, 80 * stride)


def test_frames_are_those_of_the_docstring_in_float64():
    waveform = speech_like(0.73)
    found = SERAlignFeatureExtractor()(waveform, sampling_rate=16000)["input_features"][0]
    expected = reference(waveform)
    assert found.shape == expected.shape == (17, 320)
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("gain", [0.01, 0.3, 20.0])
def test_gain_does_not_matter_but_level_within_an_utterance_does(gain):
    extractor, waveform = SERAlignFeatureExtractor(), speech_like(1.0)
    plain = extractor(waveform)["input_features"][0]
    np.testing.assert_allclose(extractor(gain * waveform)["input_features"][0], plain, atol=2e-3)
    louder_end = waveform * np.where(np.arange(16000) < 8000, 0.3, 1)
    assert np.abs(extractor(louder_end)["input_features"][0] - plain).max() > 0.2


def test_silence_is_finite_and_flat():
    values = SERAlignFeatureExtractor()(np.zeros(8000, np.float32))["input_features"][0]
    assert np.abs(values).max() < 1e-4


def test_a_batch_holds_each_utterance_as_it_is_alone():
    extractor, waveforms = SERAlignFeatureExtractor(stride=2), [speech_like(0.5, 1), speech_like(1.1, 2)]
    together = extractor(waveforms, sampling_rate=16000, return_tensors="pt")
    assert together["attention_mask"].sum(1).tolist() == [24, 54]
    for index, waveform in enumerate(waveforms):
        alone = extractor(waveform, return_tensors="pt")["input_features"][0]
        np.testing.assert_array_equal(together["input_features"][index, : len(alone)], alone)
    assert not together["input_features"][0, 24:].any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros(879, np.float32),), "879 samples (0.0549 s); one frame needs at least 880 (0.0550 s)"),
        ((np.zeros(8000, np.float32), 8000), "sampling_rate=8000: resample the waveform to 16000 Hz first"),
    ],
)
def test_refusals_say_what_is_valid(arguments, message):
    with pytest.raises(ValueError) as error:
        SERAlignFeatureExtractor()(*arguments)
    assert message in str(error.value)


def test_a_folder_gives_the_extractor_back_without_running_its_code(tmp_path):
    SERAlignFeatureExtractor(stride=2, dynamic_range=60.0).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["auto_map"] == {"AutoFeatureExtractor": "feature_extraction_ser_align.SERAlignFeatureExtractor"}
    (tmp_path / "feature_extraction_ser_align.py").write_text("raise SystemExit('ran the folder's code')")
    (tmp_path / "config.json").write_text("{}")
    again = load_feature_extractor(str(tmp_path))
    assert type(again) is SERAlignFeatureExtractor
    assert (again.stride, again.dynamic_range) == (2, 60.0)
