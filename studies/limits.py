"""Evaluate the shipped model on telephone speech, and with silence, noise, clicks and offsets.

    python -m studies.limits --data_dir RAVDESS

The utterances of its test actors are scored as recorded, in each version of studies/disturbances.py, and resampled to
8 kHz and back to simulate a telephone. What scores them is transformers' own pipeline.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from transformers import pipeline

from core.audio import read_audio
from core.json_files import read_json
from core.shipped import SHIPPED_MODEL
from studies.disturbances import DISTURBANCES, disturb, resample_through
from studies.reporting import RELIABILITY, write_study

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # 01 to 08 in file names
TELEPHONE = "8 kHz as over a telephone"


def measure_limits(data_dir: Path) -> None:
    recordings, labels, actors = read_utterances(data_dir, "test")
    versions = {name: disturb(name, recordings)[0] for name in DISTURBANCES}
    versions[TELEPHONE] = [resample_through(recording, 8000) for recording in recordings]
    ua = {name: measure_ua(waveforms, labels) for name, waveforms in versions.items()}
    rows = [{"what": name, "measured": f"UA {100 * value:.1f} %"} for name, value in ua.items()]
    command = "python -m studies.limits --data_dir RAVDESS"
    notes = (
        f"The shipped model on the {len(recordings)} utterances of its test actors, {' and '.join(actors)}; chance "
        f"is {100 / len(EMOTIONS):.1f} %. Noise is given relative to the loudest moment of the speech. The feature "
        'extractor trims silence, so `pipeline("audio-classification")`, which is measured here, gives the same '
        "answers as the pipeline of this project."
    )
    write_study(RELIABILITY / "limits.json", "Telephone speech, silence and noise", command, rows, notes, ua=ua)


def read_utterances(data_dir: Path, part: str) -> tuple[list[np.ndarray], list[str], list[str]]:
    """The waveforms and labels of the `validation` or `test` actors of the shipped model, and these actors."""
    actors = read_json(SHIPPED_MODEL / "results.json")["speakers"][part]
    files = sorted(path for actor in actors for path in data_dir.glob(f"Actor_{actor}/03-01-*"))
    if not files:
        sys.exit(f"error: {data_dir} has no Actor_{actors[0]}; give the directory of Actor_01 to Actor_24")
    return [read_audio(path) for path in files], [EMOTIONS[int(path.name[6:8]) - 1] for path in files], actors


def measure_ua(waveforms: list[np.ndarray], labels: list[str]) -> float:
    classify = pipeline("audio-classification", str(SHIPPED_MODEL), trust_remote_code=True)
    return float(balanced_accuracy_score(labels, [classify(waveform, top_k=1)[0]["label"] for waveform in waveforms]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, type=Path, metavar="RAVDESS", help="holds Actor_01 to Actor_24")
    measure_limits(parser.parse_args().data_dir)


if __name__ == "__main__":
    main()
