"""Reads the audio files of a corpus as 16 kHz mono waveforms.

Decoding, resampling and trimming use the model's own code, so that training and inference get the same audio.
"""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from core.errors import InputError
from decoding_ser_align import (
    FFMPEG_SUFFIXES,
    SOUNDFILE_SUFFIXES,
    VIDEO_SUFFIXES,
    Samples,
    describe_recording,
    encode_path,
    read_header,
)
from recording_ser_align import SAMPLING_RATE, check_rate, mix_down, read_samples, resample
from speech_ser_align import trim

__all__ = [
    "AUDIO_SUFFIXES",
    "SAMPLING_RATE",
    "VIDEO_SUFFIXES",
    "Excerpt",
    "as_excerpt",
    "read_audio",
    "read_duration",
    "scan_audio",
]

AUDIO_SUFFIXES = (*SOUNDFILE_SUFFIXES, *FFMPEG_SUFFIXES)
EMPTY = "contains no audio (0 samples); remove it or record it again"


class Excerpt(NamedTuple):
    """A file, or a part of it between two times in seconds; `end` None is the end of the file."""

    path: str
    start: float = 0.0
    end: float | None = None

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.end is None

    def __str__(self) -> str:
        end = "its end" if self.end is None else f"{self.end:g} s"
        return self.path if self.is_whole else f"{self.path} from {self.start:g} s to {end}"


def as_excerpt(recording: str | Path | Excerpt) -> Excerpt:
    """An excerpt as it is, and a file as the excerpt that is the whole of it."""
    return recording if isinstance(recording, Excerpt) else Excerpt(str(recording))


def read_duration(path: str | Path) -> float:
    """Read the duration of a file from its header, in seconds; files that only ffmpeg can read are decoded.

    Raises:
        InputError: the file is missing, empty or not audio.
    """
    with _name_refusals():
        samples, rate = read_header(path) or _count_samples(path)
        check_rate(rate, describe_recording(path))
    if samples <= 0:
        raise InputError(f"{describe_recording(path)} {EMPTY}")
    return samples / rate


def _count_samples(path: str | Path) -> tuple[int, int]:
    decoded = read_samples(path)
    return sum(map(len, decoded.blocks)), decoded.rate


def read_audio(recording: str | Path | Excerpt, trim_db: float | None = None) -> np.ndarray:
    """Read a file, or an excerpt of it, as a 16 kHz mono waveform.

    Args:
        recording: any format that soundfile or ffmpeg can read, at any sampling rate; channels are averaged.
        trim_db: trim leading and trailing audio that is more than this many dB below the loudest frame; None disables
            trimming.

    Returns:
        float32 (samples,), within [-1, 1] for integer formats.

    Raises:
        InputError: the file is missing, empty, damaged or not audio, or contains values that are not finite.
    """
    with _name_refusals():
        samples = _read_samples(recording)
        parts = list(resample(mix_down(samples.blocks), samples.rate))
    if not any(map(len, parts)):
        raise InputError(f"{describe_recording(str(recording))} {EMPTY}")
    _, waveform = trim(np.concatenate(parts), trim_db)
    return np.ascontiguousarray(waveform)


class Scan(NamedTuple):
    """What decoding a file or an excerpt once has shown."""

    peak: float  # half the range of the mono mix: 0 for a constant
    digest: str  # of the mono mix: copies have the same, whatever their names and lossless formats
    lost: float  # share of the samples that the header promises and the file does not hold; 0 for an excerpt


def scan_audio(recording: str | Path | Excerpt) -> Scan:
    """Decode a file or an excerpt, at its own rate.

    Raises:
        InputError: as in `read_audio`.
    """
    digest, ranges = hashlib.blake2b(digest_size=16), []
    with _name_refusals():
        samples = _read_samples(recording)
        digest.update(str(samples.rate).encode())
        for block in mix_down(samples.blocks):
            if len(block):
                digest.update(block.astype(np.float32, copy=False).tobytes())
                ranges.append((block.min(), block.max()))
    if not ranges:
        raise InputError(f"{describe_recording(str(recording))} {EMPTY}")
    lowest, highest = zip(*ranges)
    return Scan(float(max(highest) - min(lowest)) / 2, digest.hexdigest(), samples.lost)


def _read_samples(recording: str | Path | Excerpt) -> Samples:
    """Read a file or an excerpt at its own rate. Raises ValueError.

    An excerpt is read from its start, so that a long file is not decoded for each of its utterances.
    """
    excerpt = as_excerpt(recording)
    header = None if excerpt.is_whole else read_header(excerpt.path)
    if header is None:
        whole = read_samples(excerpt.path)
        return whole if excerpt.is_whole else whole._replace(blocks=_select(whole, excerpt), lost=0.0)
    num_samples, rate = header
    first, last = (min(end, num_samples) for end in _find_range(excerpt, rate))
    try:
        samples, _ = soundfile.read(encode_path(excerpt.path), last - first, first, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{describe_recording(str(excerpt))} is damaged ({error}); export it again") from None
    return read_samples({"array": samples.mean(axis=1), "sampling_rate": rate})


def _find_range(excerpt: Excerpt, rate: int) -> tuple[int, int]:
    """The first sample of an excerpt, and the one after its last."""
    return round(excerpt.start * rate), sys.maxsize if excerpt.end is None else round(excerpt.end * rate)


def _select(whole: Samples, excerpt: Excerpt) -> Iterator[np.ndarray]:
    """The (samples, channels) blocks of an excerpt of a file."""
    first, last = _find_range(excerpt, whole.rate)
    start = 0
    for block in whole.blocks:
        yield block[max(0, first - start) : max(0, last - start)]
        start += len(block)


@contextmanager
def _name_refusals() -> Iterator[None]:
    """Raise InputError for recordings that cannot be read in this block."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from None
