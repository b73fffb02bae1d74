"""Reading audio files: any rate, mono or stereo, to 16 kHz mono float32.

What is refused, and in which words, is decided in recording_ser_align.py, for training as for inference.
"""

from pathlib import Path

import numpy as np

from core.errors import InputError
from core.librosa_loading import load_librosa
from recording_ser_align import SAMPLING_RATE, check_rate, name_of, open_audio, samples_of

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif")
EMPTY = "holds no audio (0 samples); remove it or record it again"


def audio_duration(path: str | Path) -> float:
    """Seconds of audio in a file, read from its header. Raises InputError if it is missing, empty or no audio."""
    try:
        with open_audio(path) as file:
            check_rate(file.samplerate, name_of(path))
            duration = file.frames / file.samplerate
    except ValueError as error:
        raise InputError(str(error)) from None
    if duration <= 0:
        raise InputError(f"{name_of(path)} {EMPTY}")
    return duration


def read_mono(path: str | Path) -> tuple[np.ndarray, int]:
    """A file at its own rate, its channels averaged: float32 (samples,), Hz. Raises InputError as `read_audio`."""
    audio_duration(path)
    try:
        blocks, rate = samples_of(path)
        parts = [block.mean(axis=1) for block in blocks]
    except ValueError as error:
        raise InputError(str(error)) from None
    if not parts:  # although the header promises some
        raise InputError(f"{name_of(path)} {EMPTY}")
    return np.concatenate(parts), rate


def read_audio(path: str | Path, trim_db: float | None = None) -> np.ndarray:
    """A file as a 16 kHz mono waveform.

    Args:
        path: any format of `AUDIO_SUFFIXES`, any rate; channels are averaged.
        trim_db: cut leading and trailing audio that is this many dB below the peak; None keeps everything.

    Returns:
        float32 (samples,), within [-1, 1] for integer formats.

    Raises:
        InputError: the file is missing, empty, no audio, or holds values that are not finite.
    """
    waveform, rate = read_mono(path)
    if rate != SAMPLING_RATE:
        waveform = load_librosa().resample(waveform, orig_sr=rate, target_sr=SAMPLING_RATE, res_type="soxr_hq")
    if trim_db is not None and np.abs(waveform).max() > 0:
        waveform, _ = load_librosa().effects.trim(waveform, top_db=trim_db)
    return np.ascontiguousarray(waveform)
