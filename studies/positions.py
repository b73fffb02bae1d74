"""Measure whether an utterance gets the same label in a long recording as alone, and at two places of one recording.

    python -m studies.positions --data_dir RAVDESS

Each utterance of ser-align-mini's validation and test actors stands twice, at random places, in one recording,
between pauses of 0.3 to 1.5 s of digital silence or of noise at the level of the room. Its label there is the one that
the timeline gives to most of it.
"""

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from core.loading import load_pipeline
from core.shipped import MINI_MODEL
from fields_ser_align import SAMPLING_RATE
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from speech_ser_align import TRIM_DB, measure_levels, trim
from studies.disturbances import make_pink_noise
from studies.limits import read_utterances
from studies.reporting import RELIABILITY, write_study

SHORTEST_PAUSE, LONGEST_PAUSE = 0.3, 1.5  # seconds
NOISE_PERCENTILE = 10  # of the levels of an utterance: the noise of its room
PAUSES = ("digital silence", "room noise")
Place = tuple[int, float, float]  # an utterance, and where its speech starts and ends in seconds


def build_recording(utterances: list[np.ndarray], pauses: str, rng: np.random.Generator) -> tuple[Any, list[Place]]:
    """A recording, (samples,), in which each utterance stands twice, and the places of all of them."""
    parts: list[np.ndarray] = []
    places, position = [], 0
    for index in rng.permutation(np.repeat(np.arange(len(utterances)), 2)).tolist():
        samples = int(rng.uniform(SHORTEST_PAUSE, LONGEST_PAUSE) * SAMPLING_RATE)
        pause = np.zeros(samples)
        if pauses == "room noise":
            level = np.percentile(measure_levels(utterances[index]), NOISE_PERCENTILE)
            pause = 10 ** (level / 20) * make_pink_noise(samples, rng)
        start, speech = trim(utterances[index], TRIM_DB)
        first = position + samples + start
        places.append((index, first / SAMPLING_RATE, (first + len(speech)) / SAMPLING_RATE))
        parts += [pause.astype(np.float32), utterances[index]]
        position += samples + len(utterances[index])
    return np.concatenate(parts), places


def find_label(timeline: list[dict[str, Any]], start: float, end: float) -> str | None:
    """The label that a timeline gives to most of a stretch, in seconds."""
    shares: dict[str, float] = {}
    for segment in timeline:
        overlap = min(segment["end"], end) - max(segment["start"], start)
        if overlap > 0:
            shares[segment["label"]] = shares.get(segment["label"], 0.0) + overlap
    return max(shares, key=lambda label: shares[label]) if shares else None


def measure_positions(
    recognize: SpeechEmotionRecognitionPipeline, utterances: list[np.ndarray], alone: list[str], pauses: str
) -> tuple[float, float]:
    """The share of places with the label of the utterance alone, and of utterances with one label at both places."""
    recording, places = build_recording(utterances, pauses, np.random.default_rng(0))
    answer: Any = recognize(recording, return_timeline=True)
    labels = sorted((index, str(find_label(answer["timeline"], start, end))) for index, start, end in places)
    as_alone = [label == alone[index] for index, label in labels]
    same = [one[1] == other[1] for one, other in list(pairwise(labels))[::2]]
    return float(np.mean(as_alone)), float(np.mean(same))


def run_study(data_dir: Path) -> None:
    utterances: list[np.ndarray] = []
    for part in ("validation", "test"):
        utterances += read_utterances(data_dir, part)[0]
    recognize = load_pipeline(str(MINI_MODEL))
    alone = [recognize(utterance)[0]["label"] for utterance in utterances]  # type: ignore[index]
    rows, shares = [], {}
    for pauses in PAUSES:
        as_alone, same = shares[pauses] = measure_positions(recognize, utterances, alone, pauses)
        rows += [
            {"what": f"same label as alone, pauses of {pauses}", "measured": f"{100 * as_alone:.1f} %"},
            {"what": f"same label at both places, pauses of {pauses}", "measured": f"{100 * same:.1f} %"},
        ]
    notes = (
        f"The {len(utterances)} utterances of ser-align-mini's validation and test actors, each twice in a long "
        "recording. The ends of a phrase are cut by its own levels, as those of an utterance alone. What remains: an "
        "utterance with a pause of more than 0.25 s becomes two phrases, one of more than 2 s is scored in windows, "
        "and ends move by up to 8 ms."
    )
    command = "python -m studies.positions --data_dir RAVDESS"
    write_study(RELIABILITY / "positions.json", "Utterances in a long recording", command, rows, notes, shares=shares)
    print(*rows, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, type=Path, metavar="RAVDESS", help="holds Actor_01 to Actor_24")
    run_study(parser.parse_args().data_dir)


if __name__ == "__main__":
    main()
