"""Reading recordings, against librosa, soundfile and hand-made cases."""

import io
import tempfile
import threading
import wave
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT
from sounds import voice

from core.escaping import printable
from inference.live import open_stream
from quality_ser_align import RecordingQuality
from recording_ser_align import count_channels, describe_recording, read_blocks


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
    np.testing.assert_allclose(read(waveform), waveform / 32768, atol=1e-7)
    assert len(read({"array": waveform, "sampling_rate": 8000})) == 16000
    assert len(read({"raw": np.stack([waveform, waveform], axis=1), "sampling_rate": 8000})) == 16000


@pytest.mark.parametrize(
    "recording, message",
    [
        ("no.wav", "no.wav: no such audio file"),
        (b"text, not audio", "the recording cannot be read as audio"),
        (np.zeros((3, 4, 5)), "an object of type ndarray of shape \\(3, 4, 5\\) is not a recording"),
        ({"array": [0.0]}, "array \\(or raw\\) and sampling_rate"),
        (np.array([0.0, np.nan]), "not finite"),
        (
            np.array(["a"]),
            "an object of type ndarray of shape \\(1,\\) is not a recording: give a path, bytes, an open",
        ),
        (None, "an object of type NoneType is not a recording: give a path"),
        ({"audio": {}, "label": 0}, 'a dict with audio, label is not a recording: .* give row\\["audio"\\]$'),
        (
            iter([np.zeros(9)]),
            "type list_iterator is not a recording: .*; and several recordings as a list or generator",
        ),
        (map(str, "ab"), "an object of type map is not a recording"),
        ((np.zeros(9), np.zeros(9)), "an object of type tuple is not a recording: .* several recordings as a list"),
        ({"a": 1}.values(), "an object of type dict_values is not a recording"),
        (
            16000,
            r"the number 16000 is not a recording: .* a waveform with its sampling rate as a tuple, \(waveform, rate",
        ),
        (np.ma.masked_greater(np.arange(9.0), 5), r"a masked array is not a recording: .* array.filled\(0\)"),
        (
            np.zeros((3, 3000)),
            r"may be a batch or one recording of 3 channels: give a batch as a list of waveforms, and",
        ),
        (np.zeros((3000, 9)), "a waveform with 9 channels is not a recording, which has at most 8: give a batch as a"),
        (b"", "the recording holds no bytes: it is empty"),
        ({"array": [0.0], "sampling_rate": 44100.5}, "a sampling rate of 44100.5 is not a whole number of Hz"),
        ({"array": [0.0], "sampling_rate": "16000"}, "a sampling rate of '16000' is not a whole number"),
        ((np.zeros(9), True), "a sampling rate of True"),
        ({"bytes": None, "path": None}, "a dict with bytes, path is not a recording"),
        (("a.wav", 16000), "an object of type tuple is not a recording: give a path"),
        ([[0.0, 0.1], [0.0]], "an object of type list is not a recording"),
        (np.zeros((80, 3000)), "may be a batch or one recording of 80 channels"),
        (np.zeros(99, np.uint16), "type uint16 have an unknown range; convert them to int16 or float32"),
        (np.array([2**40]), "type int64 have an unknown range"),
        (np.zeros(9, complex), "is not a recording"),
        (io.StringIO("text"), 'opened in text mode: open it with mode "rb"'),
        (
            "https://example.org/a.wav",
            "is a URL, and URLs are not downloaded by default: download it, or set allow_urls=True",
        ),
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


SPEECH = ROOT / "examples" / "speech.flac"


def test_integers_of_32_bits_that_hold_16_bit_samples_are_read_as_these_and_silence_stays_silent():
    samples = np.round(9000 * voice(1)).astype(np.int16)
    for kind in (np.int32, np.int64):
        np.testing.assert_array_equal(read(samples.astype(kind)), samples / np.float32(32768))
    whole = samples.astype(np.int32) * 2**12
    np.testing.assert_array_equal(read(whole), whole / np.float32(2**31))
    hiss = 256 * np.random.default_rng(0).integers(-3, 4, 16000).astype(np.int32)  # the last bits of 24
    assert np.abs(read(hiss)).max() < 1e-6


def test_an_open_file_is_read_from_its_beginning_wherever_others_left_it(tmp_path):
    soundfile.write(tmp_path / "a.wav", voice(1), 16000, subtype="FLOAT")
    with (tmp_path / "a.wav").open("rb") as file:
        for position in (0, 4, 9999):
            file.seek(position)
            np.testing.assert_array_equal(read(file), voice(1))
        file.read()
        np.testing.assert_array_equal(read(file), voice(1))
    stream = io.BufferedReader(Pipe((tmp_path / "a.wav").read_bytes()))
    stream.read()
    with pytest.raises(ValueError, match="a stream that was read to its end before"):
        read(stream)


def test_two_rows_without_a_rate_may_be_a_batch_which_is_said_and_with_a_rate_they_are_stereo():
    waveform = np.stack([voice(1), 0.5 * voice(1)])
    for recording, expected in ((waveform, True), ((waveform, 16000), False), (waveform.T, False), (voice(1), False)):
        quality = RecordingQuality()
        list(read_blocks(recording, quality=quality))
        assert ("batch" in quality.find_problems("the recording", None)) == expected
    quality = RecordingQuality()
    list(read_blocks(waveform, 1, quality))
    assert "batch" not in quality.find_problems("the recording", None)


@pytest.mark.parametrize("kind", ["uint8", "int8", "int16", "int32", "int64", "64-bit integers of 32-bit samples"])
def test_integers_are_scaled_by_the_range_of_their_type(kind):
    """Against the same samples as a WAV file, which libsndfile scales."""
    samples = np.random.default_rng(0).integers(-128, 128, 4000)
    bits = {"uint8": 8, "int8": 8, "int16": 16, "int32": 32, "int64": 16}.get(kind, 32)
    samples = samples * 2 ** (bits - 8)
    samples[0] = -(2 ** (bits - 1))
    given = samples + 128 if kind == "uint8" else samples
    given = given.astype(kind if kind[0] != "6" else "int64")
    content = io.BytesIO()
    soundfile.write(content, samples / 2.0 ** (bits - 1), 16000, format="WAV", subtype="DOUBLE")
    np.testing.assert_array_equal(read(given), read(content.getvalue()))


def test_a_wav_file_of_8_bits_an_array_and_a_stream_of_it_are_alike():
    samples = np.random.default_rng(0).integers(0, 256, 16000).astype(np.uint8)
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setparams((1, 1, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    _, stream = open_stream(io.BytesIO(content.getvalue()), RecordingQuality())
    np.testing.assert_array_equal(read(samples), read(content.getvalue()))
    np.testing.assert_array_equal(np.concatenate(list(stream)), read(samples))


@pytest.mark.parametrize("kind", ["mp3", "au", "caf", "rf64"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_file_on_standard_input_is_never_read_as_raw_samples(tmp_path, kind, rate):
    path = tmp_path / f"speech.{kind}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(rate).astype(np.float32), rate, format=kind)
    content, _ = open_stream(io.BytesIO(path.read_bytes()), RecordingQuality())
    assert content == path.read_bytes()


def test_raw_samples_on_standard_input_are_read_as_such():
    samples = np.random.default_rng(0).integers(-9000, 9000, 16000).astype("<i2")
    content, stream = open_stream(io.BytesIO(samples.tobytes()), RecordingQuality())
    assert content is None
    np.testing.assert_allclose(np.concatenate(list(stream)), samples / 32768, atol=1e-6)


class Decoder:
    """What torchcodec's AudioDecoder offers."""

    def __init__(self, data, rate):
        self.samples = SimpleNamespace(data=data, sample_rate=rate)

    def get_all_samples(self):
        return self.samples


def list_forms():
    """One second of stereo at 8 kHz in each form that a library gives."""
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 2)).astype(np.float32)
    content = io.BytesIO()
    soundfile.write(content, stereo, 8000, format="WAV", subtype="FLOAT")
    content = content.getvalue()
    spooled = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    spooled.write(content)
    spooled.seek(0)
    tensor = torch.from_numpy(stereo.T.copy())
    return stereo, {
        "bytes": content,
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
        "open file": io.BytesIO(content),
        "spooled file": spooled,
        "pipe": io.BufferedReader(Pipe(content)),
        "undecoded row of datasets": {"bytes": content, "path": "a.wav"},
        "decoded row of datasets": {"array": stereo.T, "sampling_rate": 8000, "path": "a.wav"},
        "row with a NumPy rate": {"array": stereo, "sampling_rate": np.int64(8000)},
        "transformers": {"raw": stereo, "sampling_rate": 8000},
        "torchcodec": Decoder(tensor, 8000),
        "torchaudio": (tensor, 8000),
        "librosa": (stereo.T, 8000.0),
        "Gradio": (8000, stereo),
        "double": (stereo.astype(np.float64), 8000),
        "tensor that needs a gradient": (tensor.clone().requires_grad_(), 8000),
        "nested lists": (stereo.tolist(), 8000),
    }


class Pipe(io.RawIOBase):
    """A stream that cannot seek."""

    def __init__(self, content):
        self.rest = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.rest.readinto(buffer)


@pytest.mark.parametrize("form", list_forms()[1])
def test_every_form_in_which_libraries_give_audio_is_read_alike(form):
    stereo, forms = list_forms()
    for channel, mono in ((None, stereo.mean(axis=1)), (1, stereo[:, 1])):
        expected = librosa.resample(mono, orig_sr=8000, target_sr=16000, res_type="soxr_hq")
        np.testing.assert_allclose(read(list_forms()[1][form], channel), expected, atol=1e-6)
    assert count_channels(forms[form]) == 2


def test_one_channel_of_torchaudio_and_whole_numbers_of_16_bits_are_recordings():
    waveform = voice(1)
    np.testing.assert_array_equal(read(torch.from_numpy(waveform)[None]), waveform)
    half = torch.from_numpy(waveform).to(torch.bfloat16)
    np.testing.assert_array_equal(read(half), half.float().numpy())
    whole = np.round(10000 * waveform).astype(np.int64)
    np.testing.assert_array_equal(read(whole.tolist()), (whole / 32768).astype(np.float32))


def test_the_longer_axis_is_time_and_the_first_of_two_that_are_equal():
    square = np.array([[0.25, 0.5], [0.75, 1.0]], np.float32)
    np.testing.assert_array_equal(read(square, channel=1), [0.5, 1.0])
    assert len(read(np.zeros((2, 3), np.float32))) == 3


def test_a_path_in_any_form_is_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", voice(1), 16000, subtype="FLOAT")
    for path in ("a.wav", Path("a.wav"), {"path": "a.wav"}, {"path": Path("a.wav"), "bytes": None}):
        np.testing.assert_array_equal(read(path), voice(1))


@pytest.fixture
def address():
    """Where the example recording is served."""
    handler = partial(SimpleHTTPRequestHandler, directory=ROOT / "examples")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_address_is_fetched_only_where_the_user_allows_it(address):
    with pytest.raises(ValueError, match="set allow_urls=True"):
        read(f"{address}/speech.flac")
    found = np.concatenate(list(read_blocks(f"{address}/speech.flac", allow_urls=True)))
    np.testing.assert_array_equal(found, read(SPEECH))
    for url, message in ((f"{address}/no.wav", "cannot be downloaded .*404"), (f"file://{SPEECH}", "is not an http")):
        with pytest.raises(ValueError, match=message):
            list(read_blocks(url, allow_urls=True))
