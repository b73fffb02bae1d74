"""Reading the audio files of a corpus as 16 kHz mono waveforms.

Decoding, resampling and trimming are those of recording_ser_align.py, so that training hears what inference hears.
"""

from pathlib import Path

import numpy as np

from core.errors import InputError
from recording_ser_align import (
    SAMPLING_RATE,
    check_rate,
    describe_recording,
    mix_down,
    open_audio,
    read_samples,
    resample,
    trim,
)

__all__ = ["AUDIO_SUFFIXES", "SAMPLING_RATE", "read_audio", "read_duration"]

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif")
EMPTY = "holds no audio (0 samples); remove it or record it again"


def read_duration(path: str | Path) -> float:
    """Read the duration of a file from its header, in seconds.

    Raises:
        InputError: the file is missing, empty or not audio.
    """
    try:
        with open_audio(path) as file:
            check_rate(file.samplerate, describe_recording(path))
            duration = file.frames / file.samplerate
    except ValueError as error:
        raise InputError(str(error)) from None
    if duration <= 0:
        raise InputError(f"{describe_recording(path)} {EMPTY}")
    return duration


def read_audio(path: str | Path, trim_db: float | None = None) -> np.ndarray:
    """Read a file as a 16 kHz mono waveform.

    Args:
        path: any format of `AUDIO_SUFFIXES`, any rate; channels are averaged.
        trim_db: cut leading and trailing audio that is more than this many dB below the loudest frame; None keeps
            everything.

    Returns:
        float32 (samples,), within [-1, 1] for integer formats.

    Raises:
        InputError: the file is missing, empty, damaged or not audio, or holds values that are not finite.
    """
    try:
        blocks, rate = read_samples(path, allow_ffmpeg=False)
        parts = list(resample(mix_down(blocks), rate))
    except ValueError as error:
        raise InputError(str(error)) from None
    if not any(map(len, parts)):
        raise InputError(f"{describe_recording(path)} {EMPTY}")
    _, waveform = trim(np.concatenate(parts), trim_db)
    return np.ascontiguousarray(waveform)
