"""Reading recordings, against librosa, soundfile and hand-made cases."""

import io

import librosa
import numpy as np
import pytest
import soundfile

from core.escaping import printable
from recording_ser_align import SAMPLING_RATE, describe_recording, read_blocks


def voice(seconds, level=0.3, seed=0):
    return (level * np.random.default_rng(seed).standard_normal(int(seconds * SAMPLING_RATE))).astype(np.float32)


def read(recording, channel=None):
    return np.concatenate(list(read_blocks(recording, channel)))


@pytest.mark.parametrize("form", ["wav", "flac", "ogg", "mp3"])
def test_a_file_its_bytes_and_its_waveform_are_read_alike(form, tmp_path):
    path = tmp_path / f"a.{form}"
    soundfile.write(path, librosa.tone(440, sr=16000, duration=2.0) * 0.5, 16000)
    expected, _ = soundfile.read(path, dtype="float32")
    for recording in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), expected):
        np.testing.assert_allclose(read(recording), expected, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000])
def test_other_rates_and_channels_become_16_khz_mono_as_librosa_resamples(rate, tmp_path):
    times = np.arange(int(65 * rate)) / rate  # more than two blocks
    stereo = np.stack([0.4 * np.sin(2 * np.pi * 300 * times), 0.2 * np.sin(2 * np.pi * 500 * times)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, rate, subtype="FLOAT")
    for channel, mono in ((None, stereo.mean(axis=1)), (0, stereo[:, 0]), (1, stereo[:, 1])):
        expected = librosa.resample(mono, orig_sr=rate, target_sr=16000, res_type="soxr_hq")
        found = read(tmp_path / "a.wav", channel)
        assert len(found) == len(expected)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_arrays_of_integers_and_dicts_are_recordings():
    waveform = (10000 * np.sin(np.arange(8000) / 5)).astype(np.int16)
    np.testing.assert_allclose(read(waveform), waveform / 32767, atol=1e-6)
    assert len(read({"array": waveform, "sampling_rate": 8000})) == 16000
    assert len(read({"raw": np.stack([waveform, waveform], axis=1), "sampling_rate": 8000})) == 16000


@pytest.mark.parametrize(
    "recording, message",
    [
        ("no.wav", "no.wav: no such audio file"),
        (b"text, not audio", "the recording cannot be read as audio"),
        (np.zeros((3, 4, 5)), "a ndarray of shape \\(3, 4, 5\\) is not a recording"),
        ({"array": [0.0]}, "array \\(or raw\\) and sampling_rate"),
        (np.array([0.0, np.nan]), "not finite"),
        (np.array(["a"]), "is not a recording"),
    ],
)
def test_what_is_no_recording_is_one_line(recording, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(recording)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("two\nlines \x1b[31m.wav", "two\\nlines \\x1b[31m.wav"),
        ("Ünï 声.wav", "Ünï 声.wav"),
        ("it's.wav", "it's.wav"),
        ('it\'s "a".wav', 'it\'s "a".wav'),
        ("C:\\a.wav", "C:\\a.wav"),
        ("\udcff.wav", "\\udcff.wav"),
        ("\u202e.wav", "\\u202e.wav"),
    ],
)
def test_names_are_escaped_as_in_the_rest_of_the_project(name, shown):
    assert describe_recording(name) == printable(name) == shown


def test_a_channel_that_is_not_there_and_a_file_cut_short(tmp_path):
    soundfile.write(tmp_path / "a.flac", voice(3), 16000)
    with pytest.raises(ValueError, match="has 1 channel; channel 1 does not exist"):
        read(tmp_path / "a.flac", channel=1)
    (tmp_path / "b.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"b\.flac"):
        read(tmp_path / "b.flac")


def test_samples_of_32_bit_integers_are_read_and_larger_ones_are_not():
    assert read(np.array([2.0**31, -(2.0**31)], np.float32)).max() == 2.0**31
    with pytest.raises(ValueError, match=r"contains a sample of 4.3e\+09, but samples must be from -1 to 1"):
        read(np.array([0.0, 2.0**32], np.float32))
