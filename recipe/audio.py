"""Reading audio files: any rate, mono or stereo, to 16 kHz mono float32."""

from pathlib import Path

import librosa
import numpy as np
import soundfile

from recipe.errors import InputError

SAMPLING_RATE = 16_000
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif")


def audio_duration(path: str | Path) -> float:
    """Seconds of audio in a file, read from its header. Raises InputError if it is missing, empty or no audio."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such audio file")
    try:
        duration = soundfile.info(str(path)).duration
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read as audio ({error}); valid are {', '.join(AUDIO_SUFFIXES)}") from None
    if duration <= 0:
        raise InputError(f"{path} holds no audio (0 samples); remove it or record it again")
    return duration


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
    audio_duration(path)
    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"{path} is damaged ({error}); export it again") from None
    if not np.isfinite(samples).all():
        raise InputError(f"{path} holds samples that are not finite numbers; export it again")
    waveform = samples.mean(axis=1)
    if rate != SAMPLING_RATE:
        waveform = librosa.resample(waveform, orig_sr=rate, target_sr=SAMPLING_RATE, res_type="soxr_hq")
    if trim_db is not None and np.abs(waveform).max() > 0:
        waveform, _ = librosa.effects.trim(waveform, top_db=trim_db)
    return np.ascontiguousarray(waveform)
