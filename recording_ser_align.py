"""Reads recordings, for both training and inference.

Any format and sampling rate becomes 16 kHz mono float32, block by block, so memory use does not grow with the length.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

import io
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

try:  # where transformers looks for no requirement: the model alone loads without them
    import soundfile
    import soxr
except ImportError as error:
    raise ImportError(f"recordings are read with soundfile and soxr ({error}): pip install soundfile soxr") from error

try:
    from .fields_ser_align import SAMPLING_RATE, printable
except ImportError:
    if __package__:
        raise
    from fields_ser_align import SAMPLING_RATE, printable

BLOCK_SECONDS = 30.0
BLOCK_VALUES = 2**24  # samples of all channels in one block, whatever the header says: 64 MB
# Ours. A rate outside these limits indicates a damaged header. Some files store 32-bit integers as floats; larger
# samples indicate damage.
LOWEST_RATE, HIGHEST_RATE = 4_000, 400_000
LARGEST_SAMPLE = 2.0**31
FULL_SCALE, CLIPPED_SHARE = 0.99, 0.01  # ours: a recording is clipped if more than 1% of its samples reach 0.99
# Formats that ffmpeg may open: containers with their own audio, but no playlists, which refer to other files.
FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,w64,wav,webm,wv"
)


def read_blocks(recording: Any, channel: int | None = None) -> Iterator[np.ndarray]:
    """Read a recording as 16 kHz mono blocks of 30 seconds; the last one is shorter. Warns if it is clipped.

    Args:
        recording: path of an audio file, its bytes, an open binary file, a waveform at 16 kHz as (samples,) or
            (samples, channels), or a dict with `array` (or `raw`) and `sampling_rate`. Files that soundfile cannot
            read go through ffmpeg if it is installed.
        channel: the channel to read, counted from 0; None averages all channels.

    Yields:
        float32 (samples,).

    Raises:
        ValueError: as in [`read_samples`], or there is no such channel. The message is one line.
    """
    name = describe_recording(recording)
    blocks, rate = read_samples(recording)
    yield from resample(mix_down(_warn_if_clipped(blocks, name), channel, name), rate)


def read_samples(recording: Any, allow_ffmpeg: bool = True) -> tuple[Iterator[np.ndarray], int]:
    """Read the samples of a recording at its own sampling rate, with all of its channels.

    Args:
        recording: as for [`read_blocks`].
        allow_ffmpeg: whether to use ffmpeg for files that soundfile cannot read.

    Returns:
        blocks, float32 (samples, channels), of at most 30 seconds, decoded on demand; and the sampling rate in Hz.
        Blocks are shorter if many channels at a high rate would need more than 64 MB.

    Raises:
        ValueError: the file is missing, is not audio, or has an implausible sampling rate. While the blocks are read:
            the file is damaged, or contains samples that are not finite or far too large. The message is one line.
    """
    if isinstance(recording, str | Path | bytes | bytearray | io.IOBase):
        blocks, rate = _read_file(recording, allow_ffmpeg)
    else:
        blocks, rate = _read_array(recording)
    name = describe_recording(recording)
    check_rate(rate, name)
    return _check_samples(blocks, name), rate


def mix_down(blocks: Iterable[np.ndarray], channel: int | None = None, name: str = "") -> Iterator[np.ndarray]:
    """Average the channels of each block, or take one of them: (samples, channels) to (samples,).

    Raises:
        ValueError: the recording, called `name`, has no such channel.
    """
    for block in blocks:
        if channel is not None and channel >= block.shape[1]:
            count = f"{block.shape[1]} channel{'s' if block.shape[1] > 1 else ''}"
            raise ValueError(f"{name} has {count}; channel {channel} does not exist (channels start at 0)")
        yield block.mean(axis=1) if channel is None else np.ascontiguousarray(block[:, channel])


def resample(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Resample the blocks of one recording, (samples,), from `rate` in Hz to 16 kHz; a block may come out empty."""
    if rate == SAMPLING_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLING_RATE, 1, quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def check_rate(rate: int, name: str) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(
            f"{name} has a sampling rate of {rate} Hz, outside the valid range of {LOWEST_RATE} to {HIGHEST_RATE} Hz; "
            "export it again"
        )


def describe_recording(recording: Any) -> str:
    """The name of a recording in messages: its path on one line, or `the recording`."""
    return printable(str(recording)) if isinstance(recording, str | Path) else "the recording"


def _describe_reason(message: str) -> str:
    """Format a library's message as part of ours."""
    return printable(" ".join(message.split()).rstrip("."))


def _check_samples(blocks: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
    for block in blocks:
        largest = np.abs(block).max(initial=0.0)
        if not np.isfinite(largest):
            raise ValueError(f"{name} contains samples that are not finite numbers; export it again")
        if largest > LARGEST_SAMPLE:
            raise ValueError(
                f"{name} contains a sample of {largest:.2g}, but samples must be from -1 to 1; export it again"
            )
        yield block


def _warn_if_clipped(blocks: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
    total = clipped = 0
    for block in blocks:
        total += block.size
        clipped += int(np.count_nonzero(np.abs(block) >= FULL_SCALE))
        yield block
    if clipped > CLIPPED_SHARE * total:
        warnings.warn(
            f"{name} is clipped: {clipped / total:.0%} of its samples are at full scale, which distorts the voice; "
            "record it at a lower gain",
            stacklevel=2,
        )


def _read_array(recording: Any) -> tuple[Iterator[np.ndarray], int]:
    rate: Any = SAMPLING_RATE
    if isinstance(recording, dict):
        array, rate = recording.get("array", recording.get("raw")), recording.get("sampling_rate")
        if array is None or not isinstance(rate, int) or rate <= 0:
            raise ValueError("a recording given as a dict needs array (or raw) and sampling_rate in Hz")
    else:
        array = recording
    samples = np.asarray(array)
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise ValueError(
            f"a {type(recording).__name__} of shape {samples.shape} is not a recording: give a path, bytes, or a "
            "waveform (samples,) or (samples, channels)"
        )
    if samples.dtype.kind in "iu":
        samples = samples / np.float32(np.iinfo(samples.dtype).max)
    samples = samples.astype(np.float32, copy=False)
    samples = samples[:, None] if samples.ndim == 1 else samples
    size = int(BLOCK_SECONDS * rate)
    return (samples[start : start + size] for start in range(0, len(samples), size)), rate


class _UnknownFormat(ValueError):
    """soundfile cannot read this file, but ffmpeg may."""


def _read_file(recording: Any, allow_ffmpeg: bool) -> tuple[Iterator[np.ndarray], int]:
    try:
        file = open_audio(recording)
    except _UnknownFormat as error:
        if not allow_ffmpeg or not isinstance(recording, str | Path):
            raise
        if not shutil.which("ffmpeg"):
            raise ValueError(f"{error}, or install ffmpeg") from None
        return _read_with_ffmpeg(str(recording)), SAMPLING_RATE
    return _read_with_soundfile(file, describe_recording(recording)), file.samplerate


def open_audio(recording: str | Path | bytes | bytearray | io.IOBase) -> soundfile.SoundFile:
    """Open an audio file, given as a path, bytes or a binary file. Raises a one-line ValueError if it cannot."""
    name = describe_recording(recording)
    source: Any = io.BytesIO(recording) if isinstance(recording, bytes | bytearray) else recording
    if isinstance(recording, str | Path):
        if not os.path.isfile(recording):  # reading a pipe might never end
            raise ValueError(f"{name} is not a file" if os.path.exists(recording) else f"{name}: no such audio file")
        if not os.access(recording, os.R_OK):
            raise ValueError(f"{name} is not readable: change its permissions")
        source = encode_path(recording)
    try:
        return soundfile.SoundFile(source)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless audio, such as a.raw
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        raise _UnknownFormat(
            f"{name} cannot be read as audio ({_describe_reason(reason)}); convert it to WAV, FLAC, OGG or MP3"
        ) from None


def encode_path(path: str | Path) -> str | bytes:
    """A path in the form that soundfile opens, even if its name is not valid UTF-8."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def _read_with_soundfile(file: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    size = min(int(BLOCK_SECONDS * file.samplerate), BLOCK_VALUES // file.channels)
    with file:
        while True:
            try:
                block = file.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                reason = _describe_reason(error.error_string)
                raise ValueError(f"{name} is damaged ({reason}); export it again") from None
            if len(block) == 0:
                return
            yield block


def _read_with_ffmpeg(path: str) -> Iterator[np.ndarray]:
    """Decode to 16 kHz mono: ffmpeg mixes the channels and resamples."""
    source = ["-protocol_whitelist", "file,pipe", "-format_whitelist", FFMPEG_FORMATS, "-i", f"file:{path}"]
    target = ["-map", "a:0", "-ac", "1", "-ar", str(SAMPLING_RATE), "-f", "f32le", "pipe:1"]
    command = ["ffmpeg", "-nostdin", "-v", "error", *source, *target]
    # Messages go to a file: on a damaged recording, ffmpeg writes more than a pipe can hold and would block forever.
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
            lines = messages.read().decode(errors="replace").strip().splitlines()
            reason = re.sub(r"\[[^]]*\]\s*", "", lines[-1]) if lines else "ffmpeg failed"
            raise ValueError(f"{describe_recording(path)} cannot be read as audio ({_describe_reason(reason)})")
