"""What makes an answer doubtful is measured while a recording is read, and said in every output."""

import csv
import html
import io
import json
import warnings

import numpy as np
import pytest
import soundfile
import soxr
from conftest import ROOT
from running import lines_of, predict

from decoding_ser_align import describe_recording
from quality_ser_align import FEWEST_FRAMES, HOP, RecordingQuality
from recording_ser_align import read_blocks
from studies.bandwidth import CORPORA, NARROWED, save, triggers_warning

SPEECH, RATE = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")
CALL = NARROWED["at 8 kHz"](SPEECH)  # at 44.1 kHz
SAID = "contains no speech above 4 kHz, but the model was trained on speech up to 7.8 kHz, so its scores are unreliable"


def measure(recording):
    quality = RecordingQuality()
    for _ in read_blocks(recording, quality=quality):
        pass
    return quality


@pytest.fixture
def call(tmp_path):
    """Speech of 8 kHz that was saved at 44.1 kHz."""
    soundfile.write(tmp_path / "call.wav", CALL, 44_100)
    return tmp_path / "call.wav"


@pytest.mark.parametrize("name", NARROWED)
def test_narrow_speech_is_found_whatever_rate_its_header_states(name):
    assert not triggers_warning(save(soxr.resample(SPEECH, RATE, 44_100)))
    assert triggers_warning(save(NARROWED[name](SPEECH)))


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_speech_that_was_upsampled_without_a_filter_has_images_and_no_speech_above_4_khz(rate):
    narrow = soxr.resample(SPEECH, RATE, 8000)
    times = np.arange(int(len(narrow) * rate / 8000)) * 8000 / rate
    for wide in (
        np.interp(times, np.arange(len(narrow)), narrow),
        narrow[np.minimum(times.astype(int), len(narrow) - 1)],
    ):
        quality = measure((wide.astype(np.float32), rate))
        assert quality.is_mirrored() and quality.measure_bandwidth() == 4000
    assert not measure((soxr.resample(SPEECH, RATE, rate), rate)).is_mirrored()


def test_an_offset_is_no_speech():
    assert measure(SPEECH + np.float32(0.3)).find_problems("a.wav", None) == {}


@pytest.mark.slow
@pytest.mark.parametrize("corpus", CORPORA)
def test_speech_of_the_full_band_is_not_warned_of_and_the_same_speech_with_less_is(corpus, corpora):
    """Every file is in docs/RELIABILITY.md; here, thirty of each corpus."""
    files = sorted(corpora.glob(CORPORA[corpus]))
    if not files:
        pytest.skip(f"{corpora} does not hold {corpus}")
    chosen = files[:: len(files) // 30]
    assert [path.name for path in chosen if triggers_warning(path)] == []
    for name in ("at 8 kHz", "at 12 kHz", "µ-law at 8 kHz"):
        narrow = [save(NARROWED[name](np.concatenate(list(read_blocks(path))))) for path in chosen]
        assert all(map(triggers_warning, narrow)), name


def test_the_bandwidth_is_that_of_the_filter_and_of_a_low_header():
    for rate in (8000, 11_025, 12_000):
        narrow = soxr.resample(SPEECH, RATE, rate)
        for recording in ((narrow, rate), (soxr.resample(narrow, rate, 48_000), 48_000)):
            assert measure(recording).measure_bandwidth() == pytest.approx(rate / 2, abs=260)
    shortest = FEWEST_FRAMES * HOP // 4  # too short for a measurement: the header alone tells
    assert measure((SPEECH[8000 : 8000 + shortest], 8000)).measure_bandwidth() == 4000
    assert measure(SPEECH[8000 : 8000 + shortest]).measure_bandwidth() is None
    assert measure(np.zeros(RATE)).measure_bandwidth() is None


def test_the_size_of_blocks_and_silence_around_it_hardly_change_the_bandwidth():
    found = []
    for seconds in (0.5, 1, 30):
        quality = RecordingQuality()
        size = int(seconds * RATE)
        list(quality.watch_waveform(SPEECH[start : start + size] for start in range(0, len(SPEECH), size)))
        found.append(quality.measure_bandwidth())
    padded = np.concatenate([np.zeros(10 * RATE, np.float32), SPEECH, np.zeros(30 * RATE, np.float32)])
    assert max(found) - min(found) <= 250
    assert abs(measure(padded).measure_bandwidth() - found[-1]) <= 250


@pytest.mark.parametrize("heard", [None, 8000.0, 7750.0, 4000.0])
def test_a_model_of_telephone_speech_warns_of_no_call_and_an_old_model_does(heard):
    problems = measure((CALL, 44_100)).find_problems("call.wav", heard)
    assert list(problems) == ([] if heard == 4000 else ["bandwidth"])


def test_8_bits_are_warned_of_where_their_noise_is_near_the_speech():
    quiet = 0.3 * SPEECH / np.abs(SPEECH).max()
    for waveform, expected in ((quiet, ["resolution"]), (3 * quiet, [])):
        eight = np.round(128 * waveform + 128).clip(0, 255).astype(np.uint8)
        assert list(measure(eight).find_problems("a.wav", None)) == expected
    assert measure(quiet).find_problems("a.wav", None) == {}


@pytest.mark.parametrize("gain", [0.05, 2.0**15, 2.0**30])
def test_the_gain_of_floats_does_not_change_the_bandwidth(gain):
    for waveform, rate, expected in ((SPEECH, RATE, 7750), (CALL, 44_100, 4000)):
        assert measure((gain * waveform, rate)).measure_bandwidth() == expected


def test_floats_on_the_scale_of_integers_get_the_same_answer_and_a_warning(recognize):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = recognize(30_000 * SPEECH)
    expected = recognize(SPEECH)
    assert [entry["label"] for entry in found] == [entry["label"] for entry in expected]
    np.testing.assert_allclose([e["score"] for e in found], [e["score"] for e in expected], atol=1e-3)
    assert ["but full scale is 1; they are read as they are" in str(w.message) for w in caught] == [True]


def test_the_pipeline_warns_and_its_dict_says_so(recognize, call):
    with pytest.warns(UserWarning, match=SAID):
        recognize(call)
    with pytest.warns(UserWarning, match=f"call.wav {SAID}"):
        answer = recognize(call, return_timeline=True)
    assert [line for line in answer["warnings"] if SAID in line] == answer["warnings"] != []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert recognize(SPEECH, return_timeline=True)["warnings"] == []


@pytest.mark.slow
def test_the_command_warns_and_its_files_say_so(call, tmp_path):
    for suffix in ("jsonl", "csv"):
        run = predict(call, ROOT / "examples" / "speech.flac", "--output", tmp_path / f"a.{suffix}")
        assert [line for line in run.stderr.splitlines() if line.startswith("warning: ")] == [
            line for line in run.stderr.splitlines() if f"warning: {call} {SAID}" in line
        ]
        assert run.stderr.count(SAID) == 1
    narrow, wide = lines_of(tmp_path / "a.jsonl")
    assert len(narrow["warnings"]) == 1 and SAID in narrow["warnings"][0] and wide["warnings"] == []
    narrow, wide = csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8"))
    assert SAID in narrow["warnings"] and wide["warnings"] == ""


@pytest.mark.slow
def test_a_stream_warns_once_and_each_of_its_lines_says_so():
    content = io.BytesIO()
    soundfile.write(content, CALL, 44_100, format="WAV", subtype="PCM_16")
    run = predict("-", stdin=content.getvalue())
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [len(line["warnings"]) for line in lines[2:]] == [1] * (len(lines) - 2)
    assert run.stderr.count("warning: the stream contains no speech above 4 kHz") == 1
    soundfile.write(content := io.BytesIO(), SPEECH, RATE, format="WAV", subtype="PCM_16")
    run = predict("-", stdin=content.getvalue())
    assert "warning" not in run.stderr and '"warnings": []' in run.stdout


@pytest.mark.slow
def test_the_page_says_so(recognize, call):
    from demo.answers import answer_upload

    _, page = answer_upload(recognize, str(call))
    assert f'<p class="wrong">{describe_recording("call.wav")} {html.escape(SAID)}' in page


@pytest.mark.parametrize("share", [1.0, 0.97])
def test_a_recorder_with_one_inverted_input_is_named(share):
    stereo = np.stack([SPEECH, -share * SPEECH], axis=1)
    problems = measure((stereo, RATE)).find_problems("call.wav", None)
    assert list(problems) == ["channels"] and "channel=0 or --channels each" in problems["channels"]


@pytest.mark.parametrize("others", [[0.0], [1.0], [0.0] * 7])
def test_a_silent_or_an_equal_channel_cancels_nothing(others):
    stereo = np.stack([SPEECH, *(share * SPEECH for share in others)], axis=1)
    assert measure((stereo, RATE)).find_cancellation("call.wav") is None


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "AU", "W64"])
def test_half_of_a_download_is_called_cut_short(kind):
    whole = io.BytesIO()
    soundfile.write(whole, SPEECH, RATE, format=kind)
    assert measure(whole.getvalue()).find_problems("call.wav", None) == {}
    half = measure(whole.getvalue()[: len(whole.getvalue()) // 2])
    seconds = len(SPEECH) / RATE
    expected = f"call.wav is cut short: it holds {seconds / 2:.1f} of {seconds:.1f} s"
    assert half.find_problems("call.wav", None)["length"].startswith(expected)


@pytest.mark.parametrize("size", [0, 2**32 - 1])
def test_a_recorder_that_writes_to_a_pipe_knows_no_length(size):
    whole = io.BytesIO()
    soundfile.write(whole, SPEECH, RATE, format="WAV", subtype="PCM_16")
    content = bytearray(whole.getvalue())
    content[40:44] = size.to_bytes(4, "little")
    assert measure(bytes(content)).lost == 0
    for recording in (bytes(content), io.BufferedReader(io.BytesIO(content))):
        read = np.concatenate(list(read_blocks(recording)))
        np.testing.assert_allclose(read, SPEECH, atol=1 / 32768)


def test_an_empty_file_with_a_title_is_not_read_as_samples():
    whole = io.BytesIO()
    with soundfile.SoundFile(whole, "w", RATE, 1, format="WAV", subtype="PCM_16") as file:
        file.write(np.zeros(0))
    content = whole.getvalue() + b"LIST" + (4).to_bytes(4, "little") + b"INFO"
    assert sum(map(len, read_blocks(content))) == 0


def test_a_recording_that_is_cut_short_keeps_its_other_warnings():
    quality = measure(SPEECH)
    quality.lost = 0.5
    assert set(quality.find_problems("call.wav", None, seconds=0.3)) == {"length", "short"}
    assert set(quality.find_problems("call.wav", None, seconds=5.0)) == {"length"}
