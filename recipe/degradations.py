"""Degradations: what telephones, codecs, rooms, noise and recorders do to speech, waveform to waveform.

Each function takes and returns a waveform (samples,), float32 at 16 kHz. recipe/augmentation.py draws their parameters
for training, and experiments/robustness.py fixes them to test a model.
"""

from io import BytesIO
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
from scipy.signal import butter, oaconvolve, sosfilt

from core.audio import SAMPLING_RATE
from speech_ser_align import TRIM_DB, trim

Law = Literal["ULAW", "ALAW"]  # as soundfile names them
Colour = Literal["white", "pink"]
Codec = Literal["mp3", "opus", "gsm"]

TELEPHONE_RATE = 8000  # Hz, of narrowband telephony
TELEPHONE_BAND = (300.0, 3400.0)  # Hz (ITU-T G.712)
LEVEL_FRAME = SAMPLING_RATE // 50  # samples: 20 ms
PAUSE_DB = 30.0  # a frame this far below the loudest one is a pause
LOWEST_PINK = 20.0  # Hz: below it, pink noise is white
# What libsndfile maps the compression levels 0 to 1 to, in kb/s: MPEG-2 Layer III at 16 kHz, and Opus with one channel.
MP3_RATES, OPUS_RATES = (160.0, 8.0), (256.0, 6.0)


def measure_speech_level(waveform: np.ndarray) -> float:
    """The RMS of a waveform without its pauses: of the frames of 20 ms at most 30 dB below the loudest one."""
    frames = np.pad(waveform, (0, -len(waveform) % LEVEL_FRAME)).reshape(-1, LEVEL_FRAME)
    powers = np.mean(np.square(frames, dtype=np.float64), axis=1)
    return float(np.sqrt(powers[powers >= powers.max() * 10 ** (-PAUSE_DB / 10)].mean()))


# ------------------------------------------------------------------------------------------- transmission


def pass_telephone(waveform: np.ndarray, law: Law, is_filtered: bool) -> np.ndarray:
    """Pass through a telephone line: 8 kHz, and the 8 bits of G.711.

    Args:
        law: ULAW (North America, Japan) or ALAW (elsewhere).
        is_filtered: whether the line also cuts what is outside 300 to 3400 Hz.
    """
    narrow = soxr.resample(waveform, SAMPLING_RATE, TELEPHONE_RATE)
    if is_filtered:
        narrow = sosfilt(butter(4, TELEPHONE_BAND, "bandpass", fs=TELEPHONE_RATE, output="sos"), narrow)
    return resample_to(len(waveform), pass_file(narrow, TELEPHONE_RATE, "WAV", law), TELEPHONE_RATE)


def pass_codec(waveform: np.ndarray, codec: Codec, kilobits: float = 13.0) -> np.ndarray:
    """Encode and decode a waveform.

    Args:
        codec: mp3 or opus at 16 kHz, or gsm, the full rate of GSM 06.10 at 8 kHz.
        kilobits: of mp3 and opus, per second; gsm has 13. Below 40, the delay of mp3 stays in the waveform.
    """
    if codec == "gsm":
        narrow = soxr.resample(waveform, SAMPLING_RATE, TELEPHONE_RATE)
        return resample_to(len(waveform), pass_file(narrow, TELEPHONE_RATE, "WAV", "GSM610"), TELEPHONE_RATE)
    if codec == "mp3":
        settings = {"compression_level": find_compression(kilobits, MP3_RATES), "bitrate_mode": "CONSTANT"}
        return pass_file(waveform, SAMPLING_RATE, "MP3", "MPEG_LAYER_III", **settings)
    return pass_file(waveform, SAMPLING_RATE, "OGG", "OPUS", compression_level=find_compression(kilobits, OPUS_RATES))


def find_compression(kilobits: float, rates: tuple[float, float]) -> float:
    """The compression level of libsndfile, from 0 to 1, for a bit rate in kb/s."""
    most, least = rates
    return (most - kilobits) / (most - least)


def pass_file(waveform: np.ndarray, rate: int, container: str, encoding: str, **settings: Any) -> np.ndarray:
    """Write a waveform of any rate to a file in memory, and read it again."""
    file = BytesIO()
    soundfile.write(file, to_pcm(waveform), rate, format=container, subtype=encoding, **settings)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return decoded


def to_pcm(waveform: np.ndarray) -> np.ndarray:
    """Round to 16-bit integers; what exceeds full scale is clipped."""
    return np.clip(np.round(waveform * 32768), -32768, 32767).astype(np.int16)


def limit_band(waveform: np.ndarray, cutoff: float) -> np.ndarray:
    """Remove what is above `cutoff` Hz, as in a recording with twice that sampling rate."""
    narrow = soxr.resample(waveform, SAMPLING_RATE, 2 * cutoff)
    return resample_to(len(waveform), narrow, 2 * cutoff)


def resample_to(length: int, waveform: np.ndarray, rate: float) -> np.ndarray:
    """Resample from `rate` to 16 kHz, and cut or pad to a length in samples."""
    wide = soxr.resample(waveform, rate, SAMPLING_RATE).astype(np.float32)[:length]
    return np.pad(wide, (0, length - len(wide)))


# --------------------------------------------------------------------------------------- room and noise


def reverberate(waveform: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolve with a room impulse response; the direct sound keeps its place, and the speech its level."""
    start = int(np.abs(response).argmax())
    wet = oaconvolve(waveform, response)[start : start + len(waveform)]
    gain = measure_speech_level(waveform) / max(measure_speech_level(wet), 1e-12)
    return (gain * wet).astype(np.float32)


def make_noise(colour: Colour, length: int, rng: np.random.Generator) -> np.ndarray:
    """White noise, or pink noise, which has equal power in each octave: (length,)."""
    noise = rng.standard_normal(length, dtype=np.float32)
    if colour == "white":
        return noise
    spectrum = np.fft.rfft(noise)
    frequencies = np.fft.rfftfreq(length, 1 / SAMPLING_RATE)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, LOWEST_PINK)), length).astype(np.float32)


def mix_voices(voices: list[np.ndarray], length: int, rng: np.random.Generator) -> np.ndarray:
    """Babble: voices of equal level that begin anywhere in their utterance and repeat it, (length,)."""
    babble = np.zeros(length, np.float32)
    for voice in voices:
        start = int(rng.integers(len(voice)))
        level = max(measure_speech_level(voice), 1e-12)
        babble += np.resize(np.roll(voice, -start), length) / np.float32(level)
    return babble


def cut_noise(recording: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Cut noise out of a recording (samples,) from anywhere; a shorter one is repeated: (length,)."""
    start = int(rng.integers(len(recording)))
    return recording[(start + np.arange(length)) % len(recording)]


def add_noise(waveform: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Add noise (samples,) of any level at a signal-to-noise ratio in dB, relative to the level of the speech."""
    level = measure_speech_level(waveform) * 10 ** (-snr / 20)
    gain = level / max(float(np.sqrt(np.mean(np.square(noise, dtype=np.float64)))), 1e-12)
    return waveform + np.float32(gain) * noise


# ----------------------------------------------------------------------------------- recorder and editing


def change_level(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    """Change the level of a recording and store it with 16 bits, which a low level wastes and a high one exceeds."""
    return (to_pcm(waveform * 10 ** (gain_db / 20)) / 32768).astype(np.float32)


def shift_offset(waveform: np.ndarray, offset: float) -> np.ndarray:
    """Add a constant (DC), relative to full scale."""
    return waveform + np.float32(offset)


def clip(waveform: np.ndarray, share: float) -> np.ndarray:
    """Clip this share of the samples, the largest ones, as a recorder does that is set too high."""
    limit = np.quantile(np.abs(waveform), 1 - share)
    return np.clip(waveform, -limit, limit).astype(np.float32)


def add_silence(
    waveform: np.ndarray, before: float, after: float, floor_db: float, rng: np.random.Generator
) -> np.ndarray:
    """Add a pause at each end, in seconds, with white noise at `floor_db` relative to the level of the speech."""
    level = np.float32(measure_speech_level(waveform) * 10 ** (floor_db / 20))
    ends = [level * make_noise("white", round(seconds * SAMPLING_RATE), rng) for seconds in (before, after)]
    return np.concatenate([ends[0], waveform, ends[1]])


def cut_speech(waveform: np.ndarray, seconds: float, position: float = 0.0) -> np.ndarray:
    """Keep this much of the speech, without the silence around it; all of it if it is shorter.

    Args:
        position: of the part within the speech, from 0 (the beginning) to 1 (the end).
    """
    _, speech = trim(waveform, TRIM_DB)
    size = round(seconds * SAMPLING_RATE)
    start = round(position * max(0, len(speech) - size))
    return speech[start : start + size]
