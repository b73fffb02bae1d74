"""Sounds that accompany speech: other voices, wind, hum, clicks and music. Part of studies/limits.py."""

from collections.abc import Callable

import numpy as np
from scipy.signal import butter, sosfilt

from fields_ser_align import SAMPLING_RATE
from speech_ser_align import TRIM_DB, trim
from studies.disturbances import make_pink_noise
from studies.sounds import hum, list_chords, list_melody, mix

NUM_VOICES = 6  # in babble
CLICKS = 8  # a second
SNRS = (20, 10, 0)  # dB
Noise = Callable[[int, np.random.Generator], np.ndarray]  # samples to a waveform of any level


def make_babble(voices: list[np.ndarray]) -> Noise:
    """Several other people who speak at once.

    Args:
        voices: utterances of other speakers, each (samples,).
    """
    spoken = [trim(voice, TRIM_DB)[1] / trim(voice, TRIM_DB)[1].std() for voice in voices]

    def babble(samples: int, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.choice(len(spoken), NUM_VOICES)
        return np.sum([np.resize(np.roll(spoken[n], rng.integers(len(spoken[n]))), samples) for n in chosen], axis=0)

    return babble


def make_wind(samples: int, rng: np.random.Generator) -> np.ndarray:
    """A rumble below 300 Hz, in gusts."""
    rumble = np.cumsum(rng.standard_normal(samples))
    times = np.arange(samples) / SAMPLING_RATE
    gusts = 1 + 0.8 * np.sin(2 * np.pi * 0.4 * times + rng.uniform(0, 6)) + 0.3 * np.sin(2 * np.pi * 1.1 * times)
    return sosfilt(butter(2, (20, 300), "band", fs=SAMPLING_RATE, output="sos"), rumble) * gusts


def make_mains_hum(samples: int, rng: np.random.Generator) -> np.ndarray:
    return np.resize(hum(50), samples)


def make_clicks(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Bursts of 10 ms, of different strengths, as of a keyboard."""
    waveform = np.zeros(samples + 400)
    for start in rng.integers(0, samples, max(1, CLICKS * samples // SAMPLING_RATE)):
        waveform[start : start + 400] += rng.exponential() * rng.standard_normal(400) * np.exp(-np.arange(400) / 40)
    return waveform[:samples]


def make_music(notes: list[tuple[float, np.ndarray]]) -> Noise:
    music = mix(notes)
    return lambda samples, rng: np.resize(np.roll(music, rng.integers(len(music))), samples)


def list_noises(voices: list[np.ndarray]) -> dict[str, Noise]:
    return {
        "babble of six voices": make_babble(voices),
        "wind": make_wind,
        "mains hum": make_mains_hum,
        "clicks": make_clicks,
        "chords": make_music(list_chords(3, 1)),
        "a melody": make_music(list_melody(3, 1)),
        "room noise": make_pink_noise,
    }


def add_noise(waveform: np.ndarray, noise: Noise, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Add a sound to an utterance, (samples,), `snr_db` below the power of its speech."""
    added = noise(len(waveform), rng)
    speech = np.sqrt(np.mean(np.square(trim(waveform, TRIM_DB)[1], dtype=np.float64)))
    level = speech * 10 ** (-snr_db / 20) / np.sqrt(np.mean(np.square(added)))
    return (waveform + level * added).astype(np.float32)
