"""Reads the audio files of a corpus as 16 kHz mono waveforms.

Decoding, resampling and trimming use the model's own code, so that training and inference get the same audio.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from core.errors import InputError
from recording_ser_align import (
    SAMPLING_RATE,
    check_rate,
    describe_recording,
    mix_down,
    open_audio,
    read_samples,
    resample,
)
from speech_ser_align import trim

__all__ = ["AUDIO_SUFFIXES", "SAMPLING_RATE", "Excerpt", "as_excerpt", "measure_peak", "read_audio", "read_duration"]

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif")
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
    """Read the duration of a file from its header, in seconds.

    Raises:
        InputError: the file is missing, empty or not audio.
    """
    with _name_refusals(), open_audio(path) as file:
        check_rate(file.samplerate, describe_recording(path))
        duration = file.frames / file.samplerate
    if duration <= 0:
        raise InputError(f"{describe_recording(path)} {EMPTY}")
    return duration


def read_audio(recording: str | Path | Excerpt, trim_db: float | None = None) -> np.ndarray:
    """Read a file, or an excerpt of it, as a 16 kHz mono waveform.

    Args:
        recording: any format in `AUDIO_SUFFIXES`, at any sampling rate; channels are averaged.
        trim_db: trim leading and trailing audio that is more than this many dB below the loudest frame; None disables
            trimming.

    Returns:
        float32 (samples,), within [-1, 1] for integer formats.

    Raises:
        InputError: the file is missing, empty, damaged or not audio, or contains values that are not finite.
    """
    with _name_refusals():
        blocks, rate = _read_samples(recording)
        parts = list(resample(mix_down(blocks), rate))
    if not any(map(len, parts)):
        raise InputError(f"{describe_recording(str(recording))} {EMPTY}")
    _, waveform = trim(np.concatenate(parts), trim_db)
    return np.ascontiguousarray(waveform)


def measure_peak(recording: str | Path | Excerpt) -> float:
    """Decode a file or an excerpt, at its own rate, and return half the range of its mono mix: 0 for a constant.

    Raises:
        InputError: as in `read_audio`.
    """
    with _name_refusals():
        blocks, _ = _read_samples(recording)
        ranges = [(block.min(), block.max()) for block in mix_down(blocks) if len(block)]
    if not ranges:
        raise InputError(f"{describe_recording(str(recording))} {EMPTY}")
    lowest, highest = zip(*ranges)
    return float(max(highest) - min(lowest)) / 2


def _read_samples(recording: str | Path | Excerpt) -> tuple[Iterator[np.ndarray], int]:
    """As `read_samples`; an excerpt is sought out, so that a long file is not decoded for each of its utterances."""
    excerpt = as_excerpt(recording)
    return read_samples(excerpt.path, allow_ffmpeg=False) if excerpt.is_whole else read_samples(_cut(excerpt))


def _cut(excerpt: Excerpt) -> dict[str, Any]:
    """The samples of an excerpt, (samples, channels), and their rate. Raises ValueError."""
    with open_audio(excerpt.path) as file:
        rate = file.samplerate
        first = round(excerpt.start * rate)
        last = file.frames if excerpt.end is None else round(excerpt.end * rate)
        try:
            file.seek(min(first, file.frames))
            samples = file.read(max(0, last - first), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{describe_recording(str(excerpt))} is damaged ({error}); export it again") from None
    return {"array": samples, "sampling_rate": rate}


@contextmanager
def _name_refusals() -> Iterator[None]:
    """Raise InputError for recordings that cannot be read in this block."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from None
