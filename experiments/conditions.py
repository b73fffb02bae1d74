"""The conditions of a robustness test: degradations with fixed parameters and seeds, read from a YAML file.

All parameters are those of recipe/degradations.py. Noise, babble and rooms are not those of training: their seeds are
of another kind, and babble is made of voices that the model has not been trained on.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from core.errors import InputError
from recipe import degradations
from recipe.arguments import read_yaml
from recipe.augmentation import MakeBabble
from recipe.rooms import check_rooms, simulate_room

KEYS = ("title", "seed", "output_dir", "conditions")
# The lowest and highest parameter of each degradation; those of LINES are laws instead.
STEPS = {
    "first": (0.1, 60.0),  # seconds
    "silence": (0.0, 60.0),
    "room": (0.15, 1.5),
    "white": (-20.0, 60.0),  # dB
    "pink": (-20.0, 60.0),
    "babble": (-20.0, 60.0),
    "noise": (-20.0, 60.0),
    "gain": (-60.0, 40.0),
    "dc": (-1.0, 1.0),  # of full scale
    "clip": (0.0, 0.5),  # of the samples
    "band_limit": (500.0, 8000.0),  # Hz
    "mp3": (8.0, 160.0),  # kb/s
    "opus": (6.0, 256.0),
    "gsm": (13.0, 13.0),
}
LINES = ("telephone", "line")
NUM_ROOMS = 32  # of each reverberation time; an utterance has the same one for every model
TESTING = 1  # third number of all seeds; those of training have two, which NumPy fills up with zeros
SILENCE_FLOOR = -60.0  # dB, relative to the level of the speech


@dataclass(frozen=True)
class Condition:
    """A name, and the parameter of each degradation in turn; none for recordings as they are."""

    name: str
    steps: dict[str, Any]

    def apply(
        self, waveform: np.ndarray, seed: int, make_babble: MakeBabble, noises: Sequence[np.ndarray] = ()
    ) -> np.ndarray:
        """(samples,) to (samples,). The same noise, voices and room geometry in every condition of an utterance.

        Args:
            noises: recordings (samples,) that the degradation `noise` is cut from.
        """
        key = zlib.crc32(waveform.tobytes())
        for kind, value in self.steps.items():
            waveform = _apply_step(waveform, kind, value, (seed, key, TESTING), make_babble, noises)
        return waveform


@dataclass(frozen=True)
class RobustnessTest:
    """The conditions to test in, and where to write the report."""

    path: Path
    title: str
    seed: int
    output_dir: Path
    conditions: tuple[Condition, ...]

    @property
    def has_noise(self) -> bool:
        """Whether a condition adds noise from files."""
        return any("noise" in condition.steps for condition in self.conditions)


def _apply_step(
    waveform: np.ndarray,
    kind: str,
    value: Any,
    seed: tuple[int, ...],
    make_babble: MakeBabble,
    noises: Sequence[np.ndarray],
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    match kind:
        case "first":
            return degradations.cut_speech(waveform, value)
        case "silence":
            return degradations.add_silence(waveform, value, value, SILENCE_FLOOR, rng)
        case "room":
            room = (seed[0], int(rng.integers(NUM_ROOMS)), TESTING)
            return degradations.reverberate(waveform, simulate_room(room, value, value))
        case "white" | "pink":
            return degradations.add_noise(waveform, degradations.make_noise(kind, len(waveform), rng), value)
        case "babble":
            return degradations.add_noise(waveform, make_babble(len(waveform), rng), value)
        case "noise":
            noise = degradations.cut_noise(noises[int(rng.integers(len(noises)))], len(waveform), rng)
            return degradations.add_noise(waveform, noise, value)
        case "gain":
            return degradations.change_level(waveform, value)
        case "dc":
            return degradations.shift_offset(waveform, value)
        case "clip":
            return degradations.clip(waveform, value)
        case "band_limit":
            return degradations.limit_band(waveform, value)
        case "mp3" | "opus" | "gsm":
            return degradations.pass_codec(waveform, kind, value)
        case _:
            return degradations.pass_telephone(waveform, value, is_filtered=kind == "line")


def read_robustness_test(path: str) -> RobustnessTest:
    """Read the YAML file of a robustness test.

    Raises:
        InputError: the file cannot be read, or a key, a degradation or a parameter is invalid.
    """
    content = read_yaml(path)
    for name in content:
        if name not in KEYS:
            raise InputError(f"{path}: unknown key '{name}'; valid keys: {', '.join(KEYS)}")
    given = content.get("conditions")
    if not isinstance(given, dict) or not given:
        raise InputError(f"{path} has no conditions, so it does not test saved models: leave out --model")
    conditions = tuple(_read_condition(path, str(name), steps) for name, steps in given.items())
    seed = content.get("seed", 0)
    if not isinstance(seed, int) or seed < 0:
        raise InputError(f"{path}: seed={seed!r} must be a whole number of at least 0")
    if any("room" in condition.steps for condition in conditions):
        check_rooms()
    output_dir = Path(content.get("output_dir", "outputs/robustness"))
    return RobustnessTest(Path(path), str(content.get("title", "Robustness")), seed, output_dir, conditions)


def _read_condition(path: str, name: str, steps: Any) -> Condition:
    where = f"{path}: {name}"
    if not isinstance(steps, dict):
        raise InputError(f"{where}: give degradations with their parameter, such as {{white: 20}}, not {steps!r}")
    for kind, value in steps.items():
        if kind not in (*STEPS, *LINES):
            raise InputError(f"{where}: '{kind}' is not one of {', '.join((*STEPS, *LINES))}")
        laws = get_args(degradations.Law)
        if kind in LINES and value not in laws:
            raise InputError(f"{where}: {kind}={value!r} is not one of {', '.join(laws)}")
        if kind in STEPS:
            low, high = STEPS[kind]
            if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
                raise InputError(f"{where}: {kind}={value!r} is not a number from {low:g} to {high:g}")
    return Condition(name, steps)
