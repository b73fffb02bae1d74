"""Synthetic voices: a source-filter model that babbles vowels. This is NOT speech.

The demo corpus and the examples on the demo page use it. The output is deterministic: every machine gets the same
samples.
"""

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from recording_ser_align import SAMPLING_RATE


@dataclass(frozen=True)
class Emotion:
    """How an emotion changes a speaker's voice. Each utterance varies around these values."""

    pitch: float  # semitones above the speaker's own
    pitch_range: float  # semitones of movement within a syllable
    pitch_slope: float  # semitones from the first to the last syllable
    pace: float  # factor on the speaker's pace
    loudness: float  # dB
    tilt: float  # one-pole lowpass of the source: the higher, the darker the voice
    breath: float  # share of noise in the source


EMOTIONS = {
    "angry": Emotion(2.0, -3.5, -2.0, 1.25, 5.0, 0.55, 0.02),
    "happy": Emotion(3.5, 4.5, 2.0, 1.15, 2.5, 0.70, 0.03),
    "neutral": Emotion(0.0, 1.2, -1.0, 1.00, 0.0, 0.80, 0.03),
    "sad": Emotion(-1.5, -0.8, -3.0, 0.75, -5.0, 0.92, 0.10),
}
# First three formants in Hz of five vowels of an average adult male (textbook values, rounded).
VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))
BANDWIDTHS = (80, 100, 140)


@dataclass(frozen=True)
class Speaker:
    name: str
    gender: str
    pitch: float  # Hz
    vocal_tract: float  # factor on the formants
    pace: float
    liveliness: float  # factor on what an emotion does to the voice


def make_speaker(index: int) -> Speaker:
    """Create the voice with this number; even numbers are male, odd numbers female."""
    rng = np.random.default_rng([1, index])
    female = index % 2 == 1
    return Speaker(
        name=f"speaker_{index + 1:02d}",
        gender="female" if female else "male",
        pitch=rng.uniform(175, 230) if female else rng.uniform(95, 135),
        vocal_tract=rng.uniform(1.08, 1.22) if female else rng.uniform(0.92, 1.06),
        pace=rng.uniform(0.9, 1.1),
        liveliness=rng.uniform(0.75, 1.25),
    )


@dataclass(frozen=True)
class Manner:
    """How one utterance is spoken; the units are those of `Emotion`."""

    pitch: float
    movement: float  # semitones within a syllable
    slope: float  # semitones from the first to the last syllable
    pace: float  # factor on the speaker's pace
    tilt: float
    loudness: float

    @property
    def arousal(self) -> float:
        """From -1 to 1: how loud, high and fast the utterance is, each with the same weight. Ours."""
        parts = self.loudness / 6, self.pitch / 4, np.log(self.pace) / np.log(1.3)
        return float(np.clip(np.mean(parts), -1, 1))

    @property
    def valence(self) -> float:
        """From -1 to 1: whether the pitch rises, in syllables and over the utterance. Ours, and no fact of speech."""
        return float(np.clip(np.mean((self.movement / 5, self.slope / 4)), -1, 1))


def draw_manner(speaker: Speaker, emotion: Emotion, rng: np.random.Generator) -> Manner:
    """Draw how an utterance is spoken; `synthesise` begins with this."""
    life = speaker.liveliness
    pitch = emotion.pitch * life + rng.normal(0, 1.0)
    movement = emotion.pitch_range * life * rng.uniform(0.6, 1.4)
    pace = emotion.pace ** (life * rng.uniform(0.6, 1.4))
    tilt = np.clip(emotion.tilt + rng.normal(0, 0.05), 0.3, 0.97)
    loudness = emotion.loudness * life + rng.normal(0, 1.5)
    return Manner(pitch, movement, emotion.pitch_slope * life, pace, float(tilt), loudness)


def synthesise(speaker: Speaker, emotion: Emotion, rng: np.random.Generator) -> np.ndarray:
    """Synthesise one utterance with faint background noise: float32 (samples,) at 16 kHz."""
    manner = draw_manner(speaker, emotion, rng)
    pace = speaker.pace * manner.pace
    num_syllables = int(rng.integers(4, 8))
    syllables = []
    for position in np.linspace(0, 1, num_syllables):
        length = int(SAMPLING_RATE * 0.2 / pace * rng.uniform(0.85, 1.15))
        semitones = manner.pitch + manner.slope * position + manner.movement * np.linspace(-0.5, 0.5, length)
        f0 = speaker.pitch * 2 ** ((semitones + rng.normal(0, 0.4)) / 12)
        source = _make_source(f0, manner.tilt, emotion.breath, rng)
        formants = np.array(VOWELS[rng.integers(len(VOWELS))]) * speaker.vocal_tract
        syllables.append(_filter_formants(source, formants) * _make_envelope(length))
        syllables.append(np.zeros(int(SAMPLING_RATE * 0.04 / pace)))
    speech = np.concatenate(syllables)
    speech *= 0.05 * 10 ** (manner.loudness / 20) / np.sqrt(np.mean(speech**2))
    return (speech + rng.normal(0, 0.002, len(speech))).astype(np.float32)


def _make_source(f0: np.ndarray, tilt: float, breath: float, rng: np.random.Generator) -> np.ndarray:
    """Glottal pulses at the pitch `f0` in Hz (samples,), darkened by a lowpass, with breath noise."""
    phase = np.cumsum(f0 / SAMPLING_RATE) + rng.uniform()
    pulses = np.diff(np.floor(phase), prepend=np.floor(phase[0]))
    voiced = lfilter([1 - tilt], [1, -tilt], pulses - pulses.mean())
    return voiced + breath * voiced.std() * 4 * rng.normal(size=len(f0))


def _filter_formants(source: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Apply one two-pole resonator per formant, in series."""
    for frequency, bandwidth in zip(formants, BANDWIDTHS):
        radius = np.exp(-np.pi * bandwidth / SAMPLING_RATE)
        angle = 2 * np.pi * min(frequency, 7000) / SAMPLING_RATE
        poles = [1, -2 * radius * np.cos(angle), radius**2]
        source = lfilter([sum(poles)], poles, source)
    return source


def _make_envelope(length: int) -> np.ndarray:
    """Raised-cosine fade in and out, each a sixth of the syllable."""
    ramp = max(1, length // 6)
    edge = 0.5 - 0.5 * np.cos(np.pi * np.arange(ramp) / ramp)
    return np.concatenate([edge, np.ones(length - 2 * ramp), edge[::-1]])
