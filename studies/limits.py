"""Evaluate ser-align-mini on telephone speech, with silence, offsets and noises, and on short clips.

    python -m studies.limits --data_dir RAVDESS

The utterances of its test actors are scored as recorded, in each version of studies/disturbances.py, with each sound of
studies/noises.py, cut to the middle of their speech, and resampled to 8 kHz and back to simulate a telephone. What
scores them is transformers' own pipeline, whose warnings are counted.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from transformers import pipeline

from core.audio import read_audio
from core.json_files import read_json
from core.shipped import MINI_MODEL
from fields_ser_align import SAMPLING_RATE
from speech_ser_align import TRIM_DB, trim
from studies.disturbances import DISTURBANCES, disturb, resample_through
from studies.noises import SNRS, add_noise, list_noises
from studies.reporting import RELIABILITY, write_study

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")  # 01 to 08 in file names
TELEPHONE = "8 kHz as over a telephone"
CLIPS = (0.3, 0.5, 1.0, 1.5)  # seconds of speech
STEP = 10  # every tenth utterance of the validation actors is a voice of the babble


def measure_limits(data_dir: Path) -> None:
    recordings, labels, actors = read_utterances(data_dir, "test")
    versions = {name: disturb(name, recordings)[0] for name in DISTURBANCES}
    versions[TELEPHONE] = [resample_through(recording, 8000) for recording in recordings]
    for name, noise in list_noises(read_utterances(data_dir, "validation")[0][::STEP]).items():
        for snr in SNRS:
            rng = np.random.default_rng(0)
            versions[f"{name}, {snr} dB SNR"] = [add_noise(recording, noise, snr, rng) for recording in recordings]
    for seconds in CLIPS:
        versions[f"the middle {seconds:g} s of the speech"] = [cut_middle(each, seconds) for each in recordings]
    measured = {name: measure_ua(waveforms, labels) for name, waveforms in versions.items()}
    ua = {name: value for name, (value, *_) in measured.items()}
    rows = [
        {"what": name, "measured": f"UA {100 * value:.1f} %; of {len(recordings)}: {warned} warned of, {unsure} unsure"}
        for name, (value, warned, unsure) in measured.items()
    ]
    command = "python -m studies.limits --data_dir RAVDESS"
    notes = (
        f"ser-align-mini on the {len(recordings)} utterances of its test actors, {' and '.join(actors)}; chance "
        f"is {100 / len(EMOTIONS):.1f} %. Noise is given relative to the loudest moment of the speech, or as the ratio "
        "of their powers (SNR). Noise in the pauses alone does no harm, but may be warned of. No simple measure tells "
        "babble, gusts of wind, clicks and soft music from clean speech without false alarms, so recordings with these "
        "may be scored without a warning. The feature extractor trims "
        'silence, so `pipeline("audio-classification")`, which is measured here, gives the same answers as the '
        "pipeline of this project."
    )
    write_study(RELIABILITY / "limits.json", "Telephone speech, silence and noise", command, rows, notes, ua=ua)


def read_utterances(data_dir: Path, part: str) -> tuple[list[np.ndarray], list[str], list[str]]:
    """The waveforms and labels of the `validation` or `test` actors of ser-align-mini, and these actors."""
    actors = read_json(MINI_MODEL / "results.json")["speakers"][part]
    files = sorted(path for actor in actors for path in data_dir.glob(f"Actor_{actor}/03-01-*"))
    if not files:
        sys.exit(f"error: {data_dir} has no Actor_{actors[0]}; give the directory of Actor_01 to Actor_24")
    return [read_audio(path) for path in files], [EMOTIONS[int(path.name[6:8]) - 1] for path in files], actors


def cut_middle(waveform: np.ndarray, seconds: float) -> np.ndarray:
    """The middle of the speech of an utterance, of this duration if it lasts as long."""
    _, speech = trim(waveform, TRIM_DB)
    margin = max(0, len(speech) - int(seconds * SAMPLING_RATE)) // 2
    return speech[margin : len(speech) - margin]


def measure_ua(waveforms: list[np.ndarray], labels: list[str]) -> tuple[float, int, int]:
    """The UA of ser-align-mini, how many of the waveforms it warns of, and of how many it is unsure."""
    classify = pipeline("audio-classification", str(MINI_MODEL), trust_remote_code=True)
    found, num_warned, num_unsure = [], 0, 0
    for waveform in waveforms:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            (best,) = classify(waveform, top_k=1)
        found.append(best["label"])
        num_warned += bool(caught)
        num_unsure += best["score"] < classify.model.config.unsure_below
    return float(balanced_accuracy_score(labels, found)), num_warned, num_unsure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, type=Path, metavar="RAVDESS", help="holds Actor_01 to Actor_24")
    measure_limits(parser.parse_args().data_dir)


if __name__ == "__main__":
    main()
