"""Recordings of any length and format: read block by block, cut at pauses into phrases.

A model that has learned from utterances scores utterances best, so a recording is given to it as what people
say between two pauses. Memory does not grow with the recording.

Part of the model as it travels on the Hugging Face Hub: imports nothing of the project.
"""

import io
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr

SAMPLING_RATE = 16_000
BLOCK_SECONDS = 30.0
BLOCK_VALUES = 2**24  # at most so many samples of all channels at once, whatever a header says: 64 MB
# Ours. Beyond these a header is damaged; beyond 32-bit integers that are kept as floats, samples are.
LOWEST_RATE, HIGHEST_RATE = 4_000, 400_000
LARGEST_SAMPLE = 2.0**31
FULL_SCALE, CLIPPED_SHARE = 0.99, 0.01  # ours: a recording with a larger share of samples up there is clipped
FRAME, HOP = 2048, 512  # samples: levels are measured over 128 ms, every 32 ms
SILENCE_DB = -80.0  # relative to full scale: a recording that never exceeds it holds no speech
# Ours, on validation actors, clean and in noise: where speech ends, in dB below the loudest, or above the noise.
SPEECH_RANGE_DB, LEAST_RANGE_DB, ABOVE_NOISE_DB = 40.0, 20.0, 6.0
# What ffmpeg may take a file for: containers that hold their sound themselves, and no playlists that name other files.
FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,w64,wav,webm,wv"
)
SHORTEST_PHRASE = 0.1  # seconds: a click is no phrase


class Phrase(NamedTuple):
    """A stretch of speech between two pauses."""

    start: int  # in samples at 16 kHz, from the beginning of the recording
    waveform: np.ndarray  # (samples,), float32


# ------------------------------------------------------------------------------------------- reading


def read_blocks(recording: Any, channel: int | None = None) -> Iterator[np.ndarray]:
    """A recording as 16 kHz mono blocks of 30 seconds, the last one shorter; warns of a clipped one.

    Args:
        recording: path of an audio file, its bytes, an open binary file, a waveform at 16 kHz as (samples,) or
            (samples, channels), or a dict with `array` (or `raw`) and `sampling_rate`. Whatever soundfile reads;
            a file that it cannot read goes through ffmpeg, if that is installed.
        channel: the channel to take, counted from 0; None is the mean of all.

    Yields:
        float32 (samples,).

    Raises:
        ValueError: as [`samples_of`], or no such channel; one line.
    """
    blocks, rate = samples_of(recording)
    resampler = None if rate == SAMPLING_RATE else soxr.ResampleStream(rate, SAMPLING_RATE, 1, quality="HQ")
    heard = clipped = 0
    for block in blocks:
        if channel is not None and channel >= block.shape[1]:
            raise ValueError(
                f"{name_of(recording)} has {block.shape[1]} channels, counted from 0; there is no {channel}"
            )
        heard += block.size
        clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        mono = block.mean(axis=1) if channel is None else np.ascontiguousarray(block[:, channel])
        yield mono if resampler is None else resampler.resample_chunk(mono)
    if clipped > CLIPPED_SHARE * heard:
        warnings.warn(
            f"{name_of(recording)} is clipped: {clipped / heard:.0%} of its samples are at full scale, which changes "
            "how a voice sounds; record it with less gain",
            stacklevel=2,
        )
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def samples_of(recording: Any) -> tuple[Iterator[np.ndarray], int]:
    """The samples of a recording as it holds them, in blocks of at most 30 seconds, and their rate in Hz.

    Args:
        recording: as for [`read_blocks`].

    Returns:
        blocks, float32 (samples, channels), read when they are asked for; fewer than 30 seconds of many channels at
        a high rate.

    Raises:
        ValueError: no such file, no audio, a rate that no recording of speech has, and when the blocks are read:
            damaged, samples that are not finite or far too large; one line.
    """
    if isinstance(recording, str | Path | bytes | bytearray | io.IOBase):
        blocks, rate = _file_blocks(recording)
    else:
        blocks, rate = _array_blocks(recording)
    check_rate(rate, name_of(recording))
    return _checked(blocks, name_of(recording)), rate


def check_rate(rate: int, name: str) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(
            f"{name} has a sample rate of {rate} Hz; valid are {LOWEST_RATE} to {HIGHEST_RATE} Hz: export it again"
        )


def _checked(blocks: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
    for block in blocks:
        largest = np.abs(block).max(initial=0.0)
        if not np.isfinite(largest):
            raise ValueError(f"{name} holds samples that are not finite numbers; export it again")
        if largest > LARGEST_SAMPLE:
            raise ValueError(f"{name} holds samples of {largest:.2g}; valid are -1 to 1: export it again")
        yield block


def name_of(recording: Any) -> str:
    return printable(str(recording)) if isinstance(recording, str | Path) else "the recording"


def printable(text: str) -> str:
    """On one line: a file name may hold anything, also what a terminal would obey."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _array_blocks(recording: Any) -> tuple[Iterator[np.ndarray], int]:
    rate: Any = SAMPLING_RATE
    if isinstance(recording, dict):
        array, rate = recording.get("array", recording.get("raw")), recording.get("sampling_rate")
        if array is None or not isinstance(rate, int) or rate <= 0:
            raise ValueError("a dict is a recording if it has array (or raw) and sampling_rate in Hz")
    else:
        array = recording
    samples = np.asarray(array)
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise ValueError(
            f"a {type(recording).__name__} of shape {samples.shape} is no recording: give a path, bytes, or a "
            "waveform (samples,) or (samples, channels)"
        )
    if samples.dtype.kind in "iu":
        samples = samples / np.float32(np.iinfo(samples.dtype).max)
    samples = samples.astype(np.float32, copy=False)
    samples = samples[:, None] if samples.ndim == 1 else samples
    size = int(BLOCK_SECONDS * rate)
    return (samples[start : start + size] for start in range(0, len(samples), size)), rate


class _UnknownFormat(ValueError):
    """A file that soundfile cannot read; ffmpeg may."""


def _file_blocks(recording: Any) -> tuple[Iterator[np.ndarray], int]:
    try:
        file = open_audio(recording)
    except _UnknownFormat as error:
        if not isinstance(recording, str | Path):
            raise
        if not shutil.which("ffmpeg"):
            raise ValueError(f"{error}, or install ffmpeg") from None
        return _ffmpeg_blocks(str(recording)), SAMPLING_RATE
    return _soundfile_blocks(file, name_of(recording)), file.samplerate


def open_audio(recording: str | Path | bytes | bytearray | io.IOBase) -> soundfile.SoundFile:
    """A file, its path or its bytes, open for reading. Raises ValueError if it is missing or no audio; one line."""
    name = name_of(recording)
    source: Any = io.BytesIO(recording) if isinstance(recording, bytes | bytearray) else recording
    if isinstance(recording, str | Path):
        if not os.path.isfile(recording):  # a pipe would never end
            raise ValueError(f"{name} is no file" if os.path.exists(recording) else f"{name}: no such audio file")
        if not os.access(recording, os.R_OK):
            raise ValueError(f"{name} may not be read: change its permissions")
        source = soundfile_path(recording)
    try:
        return soundfile.SoundFile(source)
    except (soundfile.LibsndfileError, TypeError) as error:  # the latter for the name of headerless audio, a.raw
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        raise _UnknownFormat(
            f"{name} cannot be read as audio ({_one_line(reason)}); WAV, FLAC, OGG and MP3 can: convert it"
        ) from None


def soundfile_path(path: str | Path) -> str | bytes:
    """A path as soundfile opens it even where its name is no UTF-8."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def _soundfile_blocks(file: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    size = min(int(BLOCK_SECONDS * file.samplerate), BLOCK_VALUES // file.channels)
    with file:
        while True:
            try:
                block = file.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise ValueError(f"{name} is damaged ({_one_line(error.error_string)}); export it again") from None
            if len(block) == 0:
                return
            yield block


def _ffmpeg_blocks(path: str) -> Iterator[np.ndarray]:
    """Any of the formats; its channels are mixed by ffmpeg."""
    source = ["-protocol_whitelist", "file,pipe", "-format_whitelist", FFMPEG_FORMATS, "-i", f"file:{path}"]
    target = ["-map", "a:0", "-ac", "1", "-ar", str(SAMPLING_RATE), "-f", "f32le", "pipe:1"]
    command = ["ffmpeg", "-nostdin", "-v", "error", *source, *target]
    # A damaged file makes ffmpeg say more than a pipe holds, and it would wait for ever.
    with (
        tempfile.TemporaryFile() as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages) as process,
    ):
        assert process.stdout is not None
        size = 4 * int(BLOCK_SECONDS * SAMPLING_RATE)
        while data := process.stdout.read(size):
            yield np.frombuffer(data, "<f4").reshape(-1, 1)
        if process.wait():
            messages.seek(0)
            said = messages.read().decode(errors="replace").strip().splitlines()
            reason = re.sub(r"\[[^]]*\]\s*", "", said[-1]) if said else "ffmpeg failed"
            raise ValueError(f"{printable(path)} cannot be read as audio ({_one_line(reason)})")


def _one_line(reason: str) -> str:
    return printable(" ".join(reason.split()).rstrip("."))


# -------------------------------------------------------------------------------------------- speech


def frame_levels(waveform: np.ndarray) -> np.ndarray:
    """Level over 128 ms around each multiple of 32 ms: (samples,) to (frames,), dB of full scale, at least -100."""
    squares = np.pad(np.square(waveform, dtype=np.float64), FRAME // 2)
    sums = np.concatenate([[0.0], np.cumsum(squares)])
    starts = np.arange(0, len(waveform) + 1, HOP)
    return 10 * np.log10(np.maximum((sums[starts + FRAME] - sums[starts]) / FRAME, 1e-10))


def loud_intervals(waveform: np.ndarray, threshold_db: float) -> np.ndarray:
    """Stretches above a level: (intervals, 2), samples. As `librosa.effects.split`, without its slow import."""
    loud = np.concatenate([[0], (frame_levels(waveform) > threshold_db).astype(int), [0]])
    edges = np.flatnonzero(np.diff(loud))
    return np.minimum(edges.reshape(-1, 2) * HOP, len(waveform))


def trimmed(waveform: np.ndarray, trim_db: float | None) -> tuple[int, np.ndarray]:
    """Cut beginning and end that are `trim_db` below the peak, as training did; also the samples cut before."""
    if trim_db is None or len(waveform) == 0:
        return 0, waveform
    intervals = loud_intervals(waveform, frame_levels(waveform).max() - trim_db)
    start, end = int(intervals[0, 0]), int(intervals[-1, 1])
    return start, waveform[start:end]


def phrases(blocks: Iterator[np.ndarray], pause: float) -> Iterator[Phrase]:
    """Cut a recording at its pauses.

    What is speech is decided by its level against the last minute, see [`speech_threshold`]. Memory is bounded: a
    phrase that does not end within a minute is cut where it is quietest.

    Args:
        blocks: 16 kHz mono, each (samples,) of at most 30 seconds.
        pause: seconds of quiet that end a phrase.

    Yields:
        the phrases in order, each at least 0.1 s long; none in a recording without speech.
    """
    buffer, start = np.zeros(0, np.float32), 0  # what is not decided yet, and where it begins
    before, threshold = np.zeros(0), 0.0  # levels of the block before, and above which level is speech now
    limit = int(2 * BLOCK_SECONDS * SAMPLING_RATE)
    for block in blocks:
        if len(block) == 0:
            continue
        levels = frame_levels(block)
        buffer = np.concatenate([buffer, block])
        threshold = speech_threshold(np.concatenate([before, levels]))
        before = levels
        spans = phrase_spans(buffer, threshold, pause)
        # The last phrase may go on in the next block.
        done, rest = len(buffer), []
        if spans and len(buffer) - spans[-1][1] < pause * SAMPLING_RATE:
            *spans, rest = spans
            done = rest[0]
        yield from _cut(buffer, start, spans)
        buffer, start = buffer[done:], start + done
        while len(buffer) >= limit:
            cut = _quietest(buffer)
            yield from _cut(buffer, start, [[0, cut]])
            buffer, start = buffer[cut:], start + cut
    if len(buffer):
        yield from _cut(buffer, start, phrase_spans(buffer, threshold, pause))


def speech_threshold(levels: np.ndarray) -> float:
    """Level in dB above which a frame is speech, from the levels of up to a minute.

    40 dB below the loudest frame, or 6 dB above the noise floor (the 5th percentile) if that is higher, but at most
    20 dB below the loudest frame, since without pauses the quietest frames are speech.
    """
    loudest, noise = levels.max(), np.percentile(levels, 5)
    return max(loudest - SPEECH_RANGE_DB, min(noise + ABOVE_NOISE_DB, loudest - LEAST_RANGE_DB), SILENCE_DB)


def phrase_spans(waveform: np.ndarray, threshold_db: float, pause: float) -> list[list[int]]:
    """[start, end] in samples of what is loud, joined over gaps shorter than a pause."""
    spans: list[list[int]] = []
    for start, end in loud_intervals(waveform, threshold_db).tolist():
        if spans and start - spans[-1][1] < pause * SAMPLING_RATE:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    return spans


def _cut(buffer: np.ndarray, offset: int, spans: list[list[int]]) -> Iterator[Phrase]:
    for start, end in spans:
        if end - start >= SHORTEST_PHRASE * SAMPLING_RATE:
            yield Phrase(offset + start, buffer[start:end])


def _quietest(buffer: np.ndarray) -> int:
    """Where to cut what has no pause: the quietest place of its second half, in samples."""
    levels = frame_levels(buffer)[: -FRAME // 2 // HOP]  # the last ones are measured beyond its end
    half = len(levels) // 2
    return int((half + np.argmin(levels[half:])) * HOP)
