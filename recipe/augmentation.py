"""Augmentation of training utterances, on the waveform, for every corpus and encoder.

All random choices use torch's generator, whose state is restored when a run resumes.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core.audio import SAMPLING_RATE
from core.errors import InputError
from core.librosa_loading import load_librosa
from recipe.options import DataArguments

MIX_SNRS = (-5.0, 10.0)


@dataclass(frozen=True)
class Variant:
    """How one utterance is changed; the default leaves it unchanged."""

    speed: float = 1.0
    pitch_steps: float = 0.0
    noise_snr: float | None = None

    def apply(self, waveform: np.ndarray) -> np.ndarray:
        """(samples,) to (samples,); a change of speed changes the length."""
        if self.speed != 1.0:  # pitch and formants change with speed, like another voice (Ko et al. 2015)
            waveform = load_librosa().resample(waveform, orig_sr=SAMPLING_RATE * self.speed, target_sr=SAMPLING_RATE)
        if self.pitch_steps:
            waveform = load_librosa().effects.pitch_shift(waveform, sr=SAMPLING_RATE, n_steps=self.pitch_steps)
        if self.noise_snr is not None:
            level = np.sqrt(np.mean(waveform**2)) * 10 ** (-self.noise_snr / 20)
            noise = np.random.default_rng(len(waveform)).standard_normal(len(waveform), dtype=np.float32)
            waveform = waveform + level * noise
        return waveform


@dataclass(frozen=True)
class Augmentation:
    """The variants of training utterances to draw from. The options of the same names describe the fields."""

    speed_factors: Sequence[float] = (1.0,)
    pitch_steps: Sequence[float] = (0.0,)
    noise_snrs: Sequence[float] = ()
    mix_probability: float = 0.0

    def __post_init__(self) -> None:
        if self.mix_probability > 1:
            raise InputError(
                f"--mix_probability {self.mix_probability:g} is not a probability: give a number from 0 to 1"
            )

    def variants(self) -> list[Variant]:
        """All variants that `draw` can return."""
        noises: Sequence[float | None] = self.noise_snrs or [None]
        return [Variant(*choice) for choice in itertools.product(self.speed_factors, self.pitch_steps, noises)]

    def draw(self) -> Variant:
        return Variant(choose(self.speed_factors), choose(self.pitch_steps), choose(self.noise_snrs or [None]))


UNCHANGED = Augmentation()


def build_augmentation(data: DataArguments) -> Augmentation:
    return Augmentation(data.speed_factors, data.pitch_steps, data.noise_snrs, data.mix_probability)


def choose(choices: Sequence[Any]) -> Any:
    return choices[int(torch.randint(len(choices), ()))]


def mix(first: np.ndarray, second: np.ndarray, snr: float, offset: float) -> tuple[np.ndarray, float]:
    """Overlay a second utterance on the first and keep its length; energy-adaptive mixing after Wang et al. 2025.

    Args:
        first, second: (samples,).
        snr: level of the first above the second, in dB.
        offset: position of the shorter one within the longer one, from 0 to 1.

    Returns:
        the mixture, (samples,), and the weight of the second label: the second utterance's share of the energy,
        counted only where it overlaps the first. The formula is our reading of arXiv 2512.04551.
    """
    if not second.any():
        return first, 0.0
    start = int(offset * abs(len(first) - len(second)))
    gain = np.sqrt(np.mean(np.square(first)) / np.mean(np.square(second))) * 10 ** (-snr / 20)
    second = np.float32(gain) * second
    if len(second) >= len(first):
        return first + second[start : start + len(first)], _label_share(snr, coverage=1.0)
    both = first.copy()
    both[start : start + len(second)] += second
    return both, _label_share(snr, coverage=len(second) / len(first))


def _label_share(snr: float, coverage: float) -> float:
    energy = coverage * 10 ** (-snr / 10)
    return energy / (1 + energy)


def draw_mix() -> tuple[float, float]:
    """Draw a signal-to-noise ratio within `MIX_SNRS`, in dB, and an offset from 0 to 1."""
    low, high = MIX_SNRS
    position, offset = torch.rand(2).tolist()
    return low + (high - low) * position, offset
