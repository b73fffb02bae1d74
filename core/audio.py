"""Reads the audio files of a corpus as 16 kHz mono waveforms.

Decoding, resampling and trimming use the model's own code, so that training and inference get the same audio.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from core.errors import InputError
from decoding_ser_align import FFMPEG_SUFFIXES, SOUNDFILE_SUFFIXES, VIDEO_SUFFIXES, describe_recording, read_header
from recording_ser_align import SAMPLING_RATE, check_rate, mix_down, read_samples, resample
from speech_ser_align import trim

__all__ = ["AUDIO_SUFFIXES", "SAMPLING_RATE", "VIDEO_SUFFIXES", "measure_peak", "read_audio", "read_duration"]

AUDIO_SUFFIXES = (*SOUNDFILE_SUFFIXES, *FFMPEG_SUFFIXES)
EMPTY = "contains no audio (0 samples); remove it or record it again"


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
    blocks, rate, _ = read_samples(path)
    return sum(map(len, blocks)), rate


def read_audio(path: str | Path, trim_db: float | None = None) -> np.ndarray:
    """Read a file as a 16 kHz mono waveform.

    Args:
        path: any format that soundfile or ffmpeg can read, at any sampling rate; channels are averaged.
        trim_db: trim leading and trailing audio that is more than this many dB below the loudest frame; None disables
            trimming.

    Returns:
        float32 (samples,), within [-1, 1] for integer formats.

    Raises:
        InputError: the file is missing, empty, damaged or not audio, or contains values that are not finite.
    """
    with _name_refusals():
        blocks, rate, _ = read_samples(path)
        parts = list(resample(mix_down(blocks), rate))
    if not any(map(len, parts)):
        raise InputError(f"{describe_recording(path)} {EMPTY}")
    _, waveform = trim(np.concatenate(parts), trim_db)
    return np.ascontiguousarray(waveform)


def measure_peak(path: str | Path) -> float:
    """Decode a whole file at its own sampling rate, and return the largest magnitude of its mono mix.

    Raises:
        InputError: as in `read_audio`.
    """
    with _name_refusals():
        blocks, _, _ = read_samples(path)
        peaks = [np.abs(block).max() for block in mix_down(blocks) if len(block)]
    if not peaks:
        raise InputError(f"{describe_recording(path)} {EMPTY}")
    return float(max(peaks))


@contextmanager
def _name_refusals() -> Iterator[None]:
    """Raise InputError for recordings that cannot be read in this block."""
    try:
        yield
    except ValueError as error:
        raise InputError(str(error)) from None
