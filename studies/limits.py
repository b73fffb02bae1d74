"""Evaluate the shipped model on telephone speech and on untrimmed silence.

    python -m studies.limits --data_dir RAVDESS

The utterances of its test actors are scored in three versions: trimmed as in training; trimmed, then resampled to 8 kHz
and back to simulate a telephone; and untrimmed, with the silence around the speech.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import soxr
from sklearn.metrics import balanced_accuracy_score
from transformers import pipeline

from core.json_files import read_json
from core.librosa_loading import load_librosa
from fields_ser_align import SAMPLING_RATE
from studies.reporting import RELIABILITY, write_study

MODEL = Path(__file__).parent.parent / "models" / "ser-align-mini"
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # 01 to 08 in file names


def measure_limits(data_dir: Path) -> None:
    actors = read_json(MODEL / "results.json")["speakers"]["test"]
    files = sorted(path for actor in actors for path in data_dir.glob(f"Actor_{actor}/03-01-*"))
    if not files:
        sys.exit(f"error: {data_dir} has no Actor_{actors[0]}; give the directory of Actor_01 to Actor_24")
    labels = [EMOTIONS[int(path.name[6:8]) - 1] for path in files]
    recordings = [load_librosa().load(path, sr=SAMPLING_RATE)[0] for path in files]
    trimmed = [load_librosa().effects.trim(recording, top_db=30)[0] for recording in recordings]
    versions = {
        "trimmed, 16 kHz": trimmed,
        "trimmed, 8 kHz as over a telephone": [narrow_band(waveform) for waveform in trimmed],
        "with the silence around the speech, 16 kHz": recordings,
    }
    ua = {name: measure_ua(waveforms, labels) for name, waveforms in versions.items()}
    rows = [{"what": name, "measured": f"UA {100 * value:.1f} %"} for name, value in ua.items()]
    command = "python -m studies.limits --data_dir RAVDESS"
    notes = (
        f"The shipped model on the {len(files)} utterances of its test actors, {' and '.join(actors)}; chance is "
        f"{100 / len(EMOTIONS):.1f} %. `predict.py` and the pipeline of this project trim silence; "
        '`pipeline("audio-classification")` and a bare forward pass do not.'
    )
    write_study(RELIABILITY / "limits.json", "Telephone speech and silence", command, rows, notes, ua=ua)


def narrow_band(waveform: np.ndarray) -> np.ndarray:
    """Resample to 8 kHz and back to 16 kHz, which removes everything above 4 kHz."""
    telephone = soxr.resample(waveform, SAMPLING_RATE, SAMPLING_RATE // 2)
    return soxr.resample(telephone, SAMPLING_RATE // 2, SAMPLING_RATE)


def measure_ua(waveforms: list[np.ndarray], labels: list[str]) -> float:
    classify = pipeline("audio-classification", str(MODEL), trust_remote_code=True)
    return float(balanced_accuracy_score(labels, [classify(waveform, top_k=1)[0]["label"] for waveform in waveforms]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data_dir", required=True, type=Path, metavar="RAVDESS", help="directory that contains Actor_01 to Actor_24"
    )
    measure_limits(parser.parse_args().data_dir)


if __name__ == "__main__":
    main()
