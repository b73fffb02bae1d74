"""Measure what it costs to degrade an utterance, by kind of degradation.

    python -m benchmarks.degradation_cost

The utterance is examples/speech.flac, cut to four seconds. The time is that of the processor, the median over draws,
and includes trimming the result; rooms are simulated before, and their time is given apart.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from core.audio import SAMPLING_RATE, read_audio
from core.json_files import write_json
from core.shipped import ROOT
from recipe.augmentation import REVERBERATION_TIMES, Augmentation, degrade
from recipe.augmentation_options import DEGRADATIONS
from recipe.degradations import Codec, mix_voices, pass_codec
from recipe.rooms import simulate_room
from speech_ser_align import TRIM_DB, trim

TARGET = Path("docs/results/degradation_cost.json")
SECONDS = 4
REPETITIONS = 35
CODECS: dict[Codec, float] = {"mp3": 32.0, "opus": 16.0, "gsm": 13.0}  # kb/s
NUM_VOICES = 5


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    waveform = read_audio(ROOT / "examples" / "speech.flac")[: SECONDS * SAMPLING_RATE]
    runs: dict[str, Callable[[int], None]] = {
        **{kind: partial(degrade_by, kind, waveform) for kind in DEGRADATIONS if kind != "codec"},
        **{f"codec {name}": partial(code, name, rate, waveform) for name, rate in CODECS.items()},
    }
    found = {name: measure_milliseconds(run) for name, run in runs.items()}
    rooms = measure_milliseconds(lambda number: simulate_room((number,), *REVERBERATION_TIMES))
    write_json(TARGET, {"seconds": SECONDS, "milliseconds": found, "room_milliseconds": rooms})
    print("\n".join(f"{name:14} {value:8.1f} ms" for name, value in {**found, "simulate a room": rooms}.items()))


def degrade_by(kind: str, waveform: np.ndarray, number: int) -> None:
    """Degrade a waveform in one of four ways, and trim it again."""

    def make_babble(length: int, rng: np.random.Generator) -> np.ndarray:
        return mix_voices([np.roll(waveform, 1000 * voice) for voice in range(NUM_VOICES)], length, rng)

    augmentation = Augmentation(degrade_probability=1, degradations=(kind,))
    trim(degrade(waveform, augmentation, number % 4, make_babble), TRIM_DB)


def code(codec: Codec, kilobits: float, waveform: np.ndarray, number: int) -> None:
    trim(pass_codec(waveform, codec, kilobits), TRIM_DB)


def measure_milliseconds(run: Callable[[int], Any]) -> float:
    """The median processor time of `run(number)`, after four calls that load and simulate what it needs."""
    for number in range(4):
        run(number)
    spent = []
    for number in range(4, REPETITIONS):
        start = time.process_time()
        run(number)
        spent.append(time.process_time() - start)
    return 1000 * median(spent)


if __name__ == "__main__":
    main()
