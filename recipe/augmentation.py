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
    mix: str = "whole"

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
    return Augmentation(data.speed_factors, data.pitch_steps, data.noise_snrs, data.mix_probability, data.mix)


def choose(choices: Sequence[Any]) -> Any:
    return choices[int(torch.randint(len(choices), ()))]
