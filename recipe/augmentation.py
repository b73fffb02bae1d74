"""Augmentation of training utterances, on the waveform, for every corpus and encoder.

Speed, pitch, noise and mixing are drawn from torch's generator, whose state is restored when a run resumes. Whether and
how an utterance is degraded depends only on its seed, which the sampler draws for each epoch (`SeededSampler`), and on
its waveform: neither on the number of worker processes nor on where a run was resumed.
"""

import itertools
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from core.audio import SAMPLING_RATE
from core.errors import InputError
from core.librosa_loading import load_librosa
from recipe import degradations
from recipe.augmentation_options import DEGRADATIONS, AugmentationFields, Degradation
from recipe.options import DataArguments
from recipe.rooms import check_rooms, simulate_room

MOST_DEGRADED = 4.0  # degraded variants for each plain one in what is fitted to all at once
DEGRADING = ("degradations", "max_degradations", "degraded_variants")  # options that need degrade_probability

# Ranges of the degradations, drawn uniformly; all are ours, and docs/TRAINING.md says what they follow.
CUT_SECONDS = (1.0, 3.0)
ROOMS, REVERBERATION_TIMES = 64, (0.2, 1.0)  # seconds; from small offices to lecture rooms
SILENCE_SECONDS, SILENCE_FLOORS = (0.0, 2.0), (-70.0, -25.0)  # dB, relative to the level of the speech
SNRS = (0.0, 30.0)  # dB
NUM_VOICES = (3, 7)
GAINS = (-40.0, 10.0)  # dB
OFFSETS = (-0.02, 0.02)  # of full scale
CLIPPED_SHARES = (0.005, 0.1)
CUTOFFS = (3000.0, 7000.0)  # Hz
BIT_RATES: dict[degradations.Codec, tuple[float, float]] = {  # kb/s
    "mp3": (16.0, 64.0),
    "opus": (8.0, 32.0),
    "gsm": (13.0, 13.0),
}


@dataclass(frozen=True)
class Variant:
    """How one utterance is changed; the default leaves it unchanged."""

    speed: float = 1.0
    pitch_steps: float = 0.0
    noise_snr: float | None = None
    # Seed of a degradation, which the preparer applies; not in repr(), by which older feature caches name their files.
    degradation: int | None = field(default=None, repr=False)

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
    degrade_probability: float = 0.0
    degradations: Sequence[str] = ()
    max_degradations: int = 1
    degraded_variants: int = 0

    def __post_init__(self) -> None:
        if self.mix_probability > 1:
            raise InputError(
                f"--mix_probability {self.mix_probability:g} is not a probability: give a number from 0 to 1"
            )

    @property
    def degrades(self) -> bool:
        return self.degrade_probability > 0

    @property
    def has_babble(self) -> bool:
        return self.degrades and "babble" in self.degradations

    @property
    def is_endless(self) -> bool:
        """Whether an utterance is degraded in a new way each time, so that its variants cannot be listed."""
        return self.degrades and self.degraded_variants == 0

    def plain_variants(self) -> list[Variant]:
        """All variants that are not degraded."""
        noises: Sequence[float | None] = self.noise_snrs or [None]
        return [Variant(*choice) for choice in itertools.product(self.speed_factors, self.pitch_steps, noises)]

    def variants(self) -> list[Variant]:
        """All variants that `draw` can return, unless they are endless."""
        number = self.degraded_variants if self.degrades else 0
        return [*self.plain_variants(), *(self._list_degraded(range(number)))]

    def fitting_variants(self) -> list[Variant]:
        """Variants in about the proportion of training, for what is fitted to all of them at once."""
        if not self.is_endless:
            return self.variants()
        plain = [] if self.degrade_probability == 1 else self.plain_variants()
        odds = self.degrade_probability / (1 - self.degrade_probability) if plain else 1.0
        number = len(self.plain_variants()) * min(odds, MOST_DEGRADED)
        return [*plain, *self._list_degraded(range(max(1, round(number))))]

    def _list_degraded(self, numbers: Sequence[int]) -> list[Variant]:
        """The degraded variants with these numbers; they take the plain variants in turn."""
        plain = self.plain_variants()
        return [replace(plain[number % len(plain)], degradation=number) for number in numbers]

    def draw(self, seed: int = 0) -> Variant:
        """Draw a variant.

        Args:
            seed: decides whether and how the utterance is degraded.
        """
        plain = Variant(choose(self.speed_factors), choose(self.pitch_steps), choose(self.noise_snrs or [None]))
        return self.draw_degraded(plain, seed)

    def draw_degraded(self, plain: Variant, seed: int) -> Variant:
        """Draw a degraded variant with the given probability, and otherwise return the plain one."""
        rng = np.random.default_rng(seed)
        if rng.random() >= self.degrade_probability:
            return plain
        if self.degraded_variants > 0:
            return self._list_degraded([int(rng.integers(self.degraded_variants))])[0]
        variants = self.plain_variants()
        return replace(variants[rng.integers(len(variants))], degradation=int(rng.integers(2**63)))


UNCHANGED = Augmentation()


def build_augmentation(data: DataArguments) -> Augmentation:
    return Augmentation(**{field.name: getattr(data, field.name) for field in fields(AugmentationFields)})


def check_augmentation(data: DataArguments) -> None:
    """Raise InputError if a library that a degradation needs is not installed."""
    if build_augmentation(data).degrades and "room" in data.degradations:
        check_rooms()


def describe_degradation(data: DataArguments) -> list[str]:
    """Say how many utterances are degraded, and how; empty if none are and no option asks for it."""
    if data.degrade_probability > 0:
        versions = f"{data.degraded_variants} versions of each" if data.degraded_variants else "anew each time"
        share = f"{100 * data.degrade_probability:g} % of the training utterances"
        return [f"  {share} are degraded, {versions}: {', '.join(data.degradations)}"]
    defaults = AugmentationFields()
    given = [f"--{name}" for name in DEGRADING if getattr(data, name) != getattr(defaults, name)]
    return [f"  --degrade_probability is 0, so {' '.join(given)} has no effect"] if given else []


def choose(choices: Sequence[Any]) -> Any:
    return choices[int(torch.randint(len(choices), ()))]


# --------------------------------------------------------------------------------------------- degradation

# Makes babble of a length for an utterance.
MakeBabble = Callable[[int, np.random.Generator], np.ndarray]


def degrade(waveform: np.ndarray, augmentation: Augmentation, seed: int, make_babble: MakeBabble) -> np.ndarray:
    """Degrade a recording in one to `max_degradations` ways: (samples,) to (samples,), of another length if cut.

    They are applied in the order in which a recording meets them: first what happens in the room, then in the recorder
    and on the line.

    Args:
        seed: `Variant.degradation`; the same seed degrades each utterance in its own way.
        make_babble: makes (samples,) of babble.
    """
    rng = np.random.default_rng([seed, zlib.crc32(waveform.tobytes())])
    number = min(int(rng.integers(1, augmentation.max_degradations + 1)), len(augmentation.degradations))
    chosen = rng.choice(list(augmentation.degradations), number, replace=False).tolist()
    for kind in DEGRADATIONS:
        if kind in chosen:
            waveform = _degrade_once(waveform, kind, rng, make_babble)
    return waveform


def _degrade_once(
    waveform: np.ndarray, kind: Degradation, rng: np.random.Generator, make_babble: MakeBabble
) -> np.ndarray:
    match kind:
        case "cut":
            return degradations.cut_speech(waveform, rng.uniform(*CUT_SECONDS), rng.random())
        case "room":
            room = (0, int(rng.integers(ROOMS)))
            return degradations.reverberate(waveform, simulate_room(room, *REVERBERATION_TIMES))
        case "silence":
            before, after = rng.uniform(*SILENCE_SECONDS, 2)
            return degradations.add_silence(waveform, before, after, rng.uniform(*SILENCE_FLOORS), rng)
        case "noise":
            noise = degradations.make_noise(("white", "pink")[rng.integers(2)], len(waveform), rng)
            return degradations.add_noise(waveform, noise, rng.uniform(*SNRS))
        case "babble":
            return degradations.add_noise(waveform, make_babble(len(waveform), rng), rng.uniform(*SNRS))
        case "gain":
            return degradations.change_level(waveform, rng.uniform(*GAINS))
        case "dc":
            return degradations.shift_offset(waveform, rng.uniform(*OFFSETS))
        case "clip":
            return degradations.clip(waveform, rng.uniform(*CLIPPED_SHARES))
        case "band_limit":
            return degradations.limit_band(waveform, rng.uniform(*CUTOFFS))
        case "telephone":
            return degradations.pass_telephone(waveform, ("ULAW", "ALAW")[rng.integers(2)], bool(rng.integers(2)))
        case "codec":
            codec = list(BIT_RATES)[rng.integers(len(BIT_RATES))]
            return degradations.pass_codec(waveform, codec, rng.uniform(*BIT_RATES[codec]))
