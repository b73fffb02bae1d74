"""Damaged and unusual audio files: the readers, predict.py and the page give a one-line error or a result."""

import io
import os
import re
import struct
import subprocess
import tracemalloc
from collections import Counter

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from conftest import ROOT
from running import lines_of, obey_permissions, run_anew

from core.audio import read_audio, read_duration
from core.errors import InputError
from decoding_ser_align import FFMPEG_SUFFIXES, SOUNDFILE_SUFFIXES, VIDEO_SUFFIXES, encode_path
from inference.files import find_recordings
from inference.live import open_stream
from quality_ser_align import RecordingQuality
from recording_ser_align import count_channels, read_blocks, read_samples
from studies.fuzz_audio import OUTCOMES, READERS, outcomes

pytestmark = pytest.mark.slow

RATE = 16000
VOICE = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")[0][-2 * RATE :]
NO_SPEECH = "contains no speech: it is empty or silent"


def write(path, samples, rate=RATE, subtype=None):
    soundfile.write(encode_path(path), samples, rate, subtype=subtype, format=path.suffix[1:])


def write_header(path, rate=RATE, promised=None):
    """A 16-bit WAV file of the voice with the given header fields."""
    data = (20000 * VOICE).astype("<i2").tobytes()
    promised = len(data) if promised is None else promised
    start = struct.pack("<4sI4s4sI", b"RIFF", min(36 + promised, 2**32 - 1), b"WAVE", b"fmt ", 16)
    layout = struct.pack("<HHIIHH4sI", 1, 1, rate, 2 * rate % 2**32, 2, 16, b"data", promised)
    path.write_bytes(start + layout + data[:promised])


def write_flac_of_six_days(path):
    """A file whose header declares 2^33 samples (34 GB as floats) but that contains two seconds."""
    write(path, VOICE)
    content = bytearray(path.read_bytes())
    content[21] |= 0x02  # of the 36 bits that count the samples, the 34th
    path.write_bytes(content)


def clipped(path):
    write(path, np.clip(100 * VOICE, -1, 1))


# How to make the file, and what both readers say; None where they read it.
READ = {
    "24 bit.wav": lambda path: write(path, VOICE, subtype="PCM_24"),
    "8 channels.wav": lambda path: write(path, np.stack([VOICE] * 8, axis=1)),
    "384 kHz.flac": lambda path: write(path, np.repeat(VOICE, 24), 384_000),
    "four gigabytes.wav": lambda path: write_header(path, promised=2**32 - 16),
    "offset.wav": lambda path: write(path, 0.3 + 0.5 * VOICE, subtype="FLOAT"),
    "loud floats.wav": lambda path: write(path, 30000 * VOICE, subtype="FLOAT"),
    "clipped.wav": clipped,
    "ünï code 語.wav": lambda path: write(path, VOICE),
    "two\nlines \x1b[31m.wav": lambda path: write(path, VOICE),
    os.fsdecode(b"\xff not utf-8.wav"): lambda path: write(path, VOICE),
}
SILENT = {
    "one sample.wav": lambda path: write(path, [0.5]),
    "silent.wav": lambda path: write(path, np.zeros(RATE)),
    "denormal.wav": lambda path: write(path, np.full(RATE, 1e-40), subtype="FLOAT"),
}
REFUSED = {
    "empty.wav": (lambda path: path.touch(), "cannot be read as audio"),
    "text.wav": (
        lambda path: path.write_text("no\naudio"),
        "cannot be read as audio (Format not recognised); convert it to WAV",
    ),
    "headerless.raw": (lambda path: path.write_bytes(bytes(99)), "cannot be read as audio"),
    "six days.flac": (write_flac_of_six_days, "is damaged"),
    "nan.wav": (lambda path: write(path, [0.1, np.nan] * RATE, subtype="FLOAT"), "samples that are not finite"),
    "inf.wav": (lambda path: write(path, [0.1, -np.inf] * RATE, subtype="DOUBLE"), "samples that are not finite"),
    "huge.wav": (lambda path: write(path, [0.1, -1e30] * RATE, subtype="FLOAT"), "contains a sample of 1e+30, but"),
    "0 Hz.wav": (lambda path: write_header(path, rate=0), "cannot be read as audio"),
    "1 Hz.wav": (lambda path: write_header(path, rate=1), "of 1 Hz, outside the valid range of 4000 to 400000 Hz"),
    "2147483647 Hz.wav": (lambda path: write_header(path, rate=2**31 - 1), "has a sampling rate of 2147483647 Hz"),
    "4294967295 Hz.wav": (lambda path: write_header(path, rate=2**32 - 1), "cannot be read as audio"),
    "folder.wav": (lambda path: path.mkdir(), "is not a file"),
    "broken link.wav": (lambda path: path.symlink_to("nowhere"), "no such audio file"),
    "pipe.wav": (os.mkfifo, "is not a file"),
    "closed.wav": (lambda path: (write(path, VOICE), path.chmod(0)), "is not readable: change its permissions"),
    "no\nfile.wav": (lambda path: None, "no such audio file"),
}


PROBLEMS = {"clipped.wav": ["clipping"], "loud floats.wav": ["scale"]}


def made(folder, name):
    """The file of the zoo."""
    make = {**READ, **SILENT}.get(name) or REFUSED[name][0]
    make(folder / name)
    return folder / name


def blocks_of(path, quality=None):
    return np.concatenate([np.zeros(0, np.float32), *read_blocks(path, quality=quality)])


# ------------------------------------------------------------------------------------------- readers


@pytest.mark.parametrize("name", [*READ, *SILENT])
def test_what_is_odd_but_audio_is_read_for_inference_and_for_training(tmp_path, name):
    path = made(tmp_path, name)
    quality = RecordingQuality()
    answered, trained = blocks_of(path, quality), read_audio(path)
    assert answered.dtype == trained.dtype == np.float32 and np.isfinite(answered).all()
    assert len(answered) == len(trained) == (1 if name == "one sample.wav" else RATE * read_duration(path))
    np.testing.assert_array_equal(answered, trained)
    assert list(quality.find_problems("", None)) == PROBLEMS.get(name, [])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_audio_is_one_line_that_names_it_for_inference_and_for_training(tmp_path, name, monkeypatch):
    path = made(tmp_path, name)
    monkeypatch.setenv("PATH", "")  # without ffmpeg
    tracemalloc.start()
    with pytest.raises(ValueError) as answered:
        obey_permissions(lambda: blocks_of(path))
    with pytest.raises(InputError) as trained:
        obey_permissions(lambda: read_audio(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(trained.value) == str(answered.value)
    assert REFUSED[name][1] in str(answered.value) and str(answered.value).isprintable()
    assert str(answered.value).startswith(f"{tmp_path}/{name}".replace("\n", "\\n"))
    assert peak < 200e6, "memory for what a header promises"


def test_a_header_alone_holds_no_audio(tmp_path):
    write(tmp_path / "header.wav", [])
    assert len(blocks_of(tmp_path / "header.wav")) == 0
    with pytest.raises(InputError, match="contains no audio \\(0 samples\\); remove it or record it again"):
        read_audio(tmp_path / "header.wav")


@pytest.mark.parametrize("rate", [0, 1, 2**31])
def test_the_rate_of_an_array_is_checked_as_that_of_a_file(rate):
    with pytest.raises(ValueError, match=r"sampling_rate in Hz|sampling rate of"):
        blocks_of({"array": VOICE, "sampling_rate": rate})


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [(24, 2**31 - 1, "has a sampling rate of 2147483647 Hz"), (34, 64, "has 64-bit samples"), (22, 0, "bad # of")],
)
def test_the_header_of_a_stream_is_checked_as_that_of_a_file(tmp_path, at, value, message):
    write(tmp_path / "a.wav", VOICE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[at : at + 4] = struct.pack("<I", value) if at == 24 else struct.pack("<H", value) + content[at + 2 : at + 4]
    with pytest.raises(InputError, match=message):
        open_stream(io.BytesIO(content), RecordingQuality())


@pytest.mark.parametrize("share", [0.005, 0.02])
def test_one_percent_of_the_samples_at_full_scale_is_clipped(share):
    waveform = np.tile([0.1, -0.2], 50 * RATE).astype(np.float32)  # four blocks
    waveform[: int(share * len(waveform))] = -1.0
    quality = RecordingQuality()
    blocks_of(waveform, quality)
    said = quality.find_problems("the recording", None).get("clipping", "")
    assert said.startswith("the recording is clipped: 2% of its" if share > 0.01 else "") and bool(said) == (
        share > 0.01
    )


def test_damaged_files_are_read_or_refused(tmp_path):
    """The first few of the thousands of files in studies/fuzz_audio.py."""
    found = list(outcomes(range(120), tmp_path))
    for reader in READERS:
        counts = Counter(line[reader] for line in found)
        assert counts.keys() == set(OUTCOMES), counts
        assert min(counts.values()) > 15


# -------------------------------------------------------------------------------------------- ffmpeg


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """ffmpeg on the PATH, as after an installation; calls it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return lambda *argv: subprocess.run(["ffmpeg", "-v", "error", *argv], cwd=tmp_path, check=True)


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.wv", "a.aac", "a.3gp", "a.mp2"])
def test_a_file_of_ffmpegs_on_standard_input_is_never_read_as_raw_samples(ffmpeg, tmp_path, name):
    write(tmp_path / "voice.wav", VOICE)
    ffmpeg("-i", "voice.wav", *(["-c:a", "aac"] if name.endswith("3gp") else []), name)
    content, _ = open_stream(io.BytesIO((tmp_path / name).read_bytes()), RecordingQuality())
    assert content == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.mkv", "two\nlines.mp4", "-a.m4a", "pipe:1.m4a"])
def test_what_soundfile_cannot_read_is_read_by_ffmpeg(ffmpeg, tmp_path, name):
    write(tmp_path / "voice.wav", VOICE)
    ffmpeg("-i", "voice.wav", f"file:{name}")
    samples = blocks_of(tmp_path / name)
    assert np.corrcoef(samples[: len(VOICE)], VOICE[: len(samples)])[0, 1] > 0.99


def test_a_late_track_and_a_gap_keep_their_place_in_time(ffmpeg, tmp_path):
    write(tmp_path / "voice.wav", VOICE)
    ffmpeg("-itsoffset", "3", "-i", "voice.wav", "-f", "lavfi", "-i", "color=s=64x64:r=10:d=8", "late.mp4")
    shift = "asetpts='if(gt(T,1),PTS+2/TB,PTS)'"
    ffmpeg("-i", "voice.wav", "-af", f"aselect='lt(t,0.5)+gt(t,1)',{shift}", "-c:a", "flac", "gap.mkv")
    late, gap = blocks_of(tmp_path / "late.mp4"), blocks_of(tmp_path / "gap.mkv")
    assert np.abs(late[: 3 * RATE - 500]).max() < 0.01
    assert np.corrcoef(late[3 * RATE :][: len(VOICE)], VOICE[: len(late) - 3 * RATE])[0, 1] > 0.99
    tail = RATE + 4096  # the first block after the gap begins at most this late
    assert np.abs(gap[tail : 3 * RATE]).max() < 0.01 and len(gap) == pytest.approx(len(VOICE) + 2 * RATE, abs=2000)
    np.testing.assert_allclose(gap[2 * RATE + tail :], VOICE[tail:], atol=1e-3)


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.mkv", "a.aac", "a.flv"])
def test_all_channels_and_the_rate_are_those_of_the_container(ffmpeg, tmp_path, name):
    """The first speaker on the left, the second on the right."""
    left, right = np.concatenate([VOICE, 0 * VOICE]), np.concatenate([0 * VOICE, VOICE])
    write(tmp_path / "voices.wav", np.stack([left, right], axis=1))
    ffmpeg("-i", "voices.wav", "-ar", "44100" if name != "a.webm" else "48000", name)
    for recording in (tmp_path / name, (tmp_path / name).read_bytes(), io.BytesIO((tmp_path / name).read_bytes())):
        assert count_channels(recording) == 2
    assert read_samples(tmp_path / name).rate == (44100 if name != "a.webm" else 48000)
    for channel in (0, 1):
        found = np.concatenate(list(read_blocks(tmp_path / name, channel)))
        halves = [np.square(found[: len(VOICE)]).sum(), np.square(found[len(VOICE) :]).sum()]
        assert halves[channel] > 20 * halves[1 - channel]  # a codec smears over the seam
    with pytest.raises(ValueError, match=f"{name} has 2 channels; channel 2 does not exist"):
        list(read_blocks(tmp_path / name, 2))


def test_a_decoder_that_is_left_early_ends(ffmpeg, tmp_path):
    write(tmp_path / "voice.wav", np.tile(VOICE, 60))
    ffmpeg("-i", "voice.wav", "a.m4a")
    blocks, *_ = read_samples(tmp_path / "a.m4a")
    next(blocks)
    process = blocks.gi_frame.f_locals["blocks"].gi_frame.f_locals["process"]
    blocks.close()
    assert process.poll() is not None


def test_a_folder_is_searched_for_what_can_be_read(ffmpeg, tmp_path):
    """Each suffix is written by soundfile or ffmpeg where one of them can, and then read."""
    write(tmp_path / "voice.wav", VOICE)
    formats = {
        ".wave": "WAV",
        ".mp2": None,
        ".oga": "OGG",
        ".aif": "AIFF",
        ".aifc": "AIFF",
        ".snd": "AU",
        ".sph": "NIST",
    }
    for suffix in SOUNDFILE_SUFFIXES:
        form = formats.get(suffix, suffix[1:].upper())
        if suffix in (".opus", ".mp2"):
            ffmpeg("-i", "voice.wav", f"a{suffix}")
        else:
            soundfile.write(tmp_path / f"a{suffix}", VOICE, RATE, format=form)
    cannot = {".amr", ".awb", ".ape"}  # formats that ffmpeg reads but does not write
    muxers = {".weba": "webm", ".m4b": "ipod", ".m4v": "mp4"}
    for suffix in (*FFMPEG_SUFFIXES, *VIDEO_SUFFIXES):
        if suffix not in cannot:
            form = ("-f", muxers[suffix]) if suffix in muxers else ()
            rate = ("-ar", "44100") if suffix == ".flv" else ()
            codec = ("-c:a", "aac") if suffix in (".3gp", ".3g2") else ()
            ffmpeg("-i", "voice.wav", *codec, *rate, *form, f"a{suffix}")
    found = find_recordings([str(tmp_path)])
    every = {*SOUNDFILE_SUFFIXES, *FFMPEG_SUFFIXES, *VIDEO_SUFFIXES} - cannot
    assert {os.path.splitext(name)[1] for name in found} == every
    for name in found:
        waveform = blocks_of(name)
        assert len(waveform) / RATE == pytest.approx(len(VOICE) / RATE, abs=0.2), name
        assert read_duration(name) == pytest.approx(len(waveform) / RATE, abs=0.2), name


PLAYLISTS = {
    "list.ffconcat": "ffconcat version 1.0\nfile voice.m4a\n",
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2,\nvoice.m4a\n#EXT-X-ENDLIST\n",
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_ffmpeg_opens_no_list_that_names_other_files_or_addresses(ffmpeg, tmp_path, name):
    write(tmp_path / "voice.wav", VOICE)
    ffmpeg("-i", "voice.wav", "voice.m4a")
    (tmp_path / name).write_text(PLAYLISTS[name])
    if name == "list.ffconcat":
        ffmpeg("-i", name, "copy.wav")  # what it would do by itself
    with pytest.raises(ValueError, match=f"^{tmp_path}/{name} cannot be read as audio \\([^\n]*\\)$"):
        blocks_of(tmp_path / name)


def test_what_ffmpeg_finds_damaged_is_read_or_refused_in_one_line(ffmpeg, tmp_path):
    path = tmp_path / "minute.m4a"
    write(tmp_path / "voice.wav", np.tile(VOICE, 30))
    ffmpeg("-i", "voice.wav", path.name)
    whole = path.read_bytes()
    content, random = bytearray(whole), np.random.default_rng(0)
    for at in random.integers(1000, len(whole) - 9000, size=2500):  # neither the beginning nor the index at the end
        content[at] ^= 1 << random.integers(8)
    path.write_bytes(content)
    decoded = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "f32le", "pipe:1"], capture_output=True)
    assert len(decoded.stderr) > 2**16, "more than fits into a pipe"
    assert len(decoded.stdout) // 4 < len(blocks_of(path)) == 30 * len(VOICE)  # what is lost is silence
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"^{path} cannot be read as audio \([^\n]*\)$"):
        blocks_of(path)


# --------------------------------------------------------------------------------- command and page


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """All bad files in one folder, with two intact files among them."""
    folder = tmp_path_factory.mktemp("zoo")
    for name in (*READ, *SILENT, *REFUSED):
        made(folder, name)
    return folder


@pytest.mark.slow
def test_predict_answers_what_can_be_read_and_says_of_the_rest_why(zoo, tmp_path):
    argv = ("--model", "mini", "--channels", "each", "--quiet", "--output", tmp_path / "out.jsonl")
    run = obey_permissions(lambda: run_anew("predict.py", zoo / "*", *argv, expect=1))
    records = {os.path.basename(record["file"]): record for record in lines_of(tmp_path / "out.jsonl")}
    assert records.keys() == {path.name for path in zoo.iterdir() if not path.is_dir()}
    assert "Traceback" not in run.stderr
    for name in READ:
        assert sum(records[name]["scores"].values()) == pytest.approx(1, abs=1e-4)
    for name in SILENT:
        assert records[name]["error"].endswith(f"{NO_SPEECH} (channel 0)")
    failed = [line for line in run.stderr.split("\n") if line.startswith("error: ")]
    assert sorted(failed) == sorted(f"error: {record['error']}" for record in records.values() if "error" in record)
    assert len(failed) == sum("error" in record for record in records.values())
    warned = [line for line in run.stderr.split("\n") if line.startswith("warning: ")]
    assert sorted(line.split(".wav ")[0] for line in warned) == [
        f"warning: {zoo}/clipped",
        f"warning: {zoo}/loud floats",
    ]
    assert sorted(f"warning: {line}" for record in records.values() for line in record.get("warnings", [])) == sorted(
        warned
    )
    assert len(run.stderr.strip().split("\n")) == len(failed) + len(warned) + 2  # the model and the summary


@pytest.mark.parametrize("name", [*SILENT, *REFUSED, "clipped.wav", "two\nlines \x1b[31m.wav"])
def test_the_page_answers_in_one_line(recognize, tmp_path, name):
    from demo.answers import answer_upload

    (tmp_path / "upload").mkdir()
    path = made(tmp_path / "upload", name)
    _, page = obey_permissions(lambda: answer_upload(recognize, str(path)))
    if name in READ:
        assert "Sounds most like" in page
        assert ("clipped.wav is clipped: " in page) == (name == "clipped.wav") and str(tmp_path) not in page
    else:
        (said,) = re.findall(r'<p class="wrong" role="alert">([^<]*)</p>', page)
        assert said and str(tmp_path) not in said and said.isprintable()
