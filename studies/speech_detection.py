"""Compare ways of finding the speech of an utterance, by ser-align-mini's UA and by where they cut.

    pip install --no-deps silero-vad==6.2.3
    python -m studies.speech_detection --data_dir RAVDESS

The utterances are those of its validation actors, in each version of studies/disturbances.py. The error of a cut is its
mean distance, over both ends, from where the same method cuts the utterance as it was recorded. Silero VAD is measured
if it is installed.
"""

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score

from core.librosa_loading import load_librosa
from core.loading import load_pipeline
from core.shipped import MINI_MODEL
from fields_ser_align import SAMPLING_RATE
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from speech_ser_align import TRIM_DB, trim
from studies.disturbances import DISTURBANCES, disturb
from studies.limits import read_utterances
from studies.reporting import RELIABILITY, write_study

BATCH = 16
Method = Callable[[np.ndarray], tuple[int, int]]  # (samples,) to the start and the end of the speech


def cut_with_librosa(top_db: float) -> Method:
    def cut(waveform: np.ndarray) -> tuple[int, int]:
        _, (start, end) = load_librosa().effects.trim(waveform, top_db=top_db)
        return int(start), int(end)

    return cut


def cut_with_trim(waveform: np.ndarray) -> tuple[int, int]:
    start, speech = trim(waveform, TRIM_DB)
    return start, start + len(speech)


def make_silero() -> Method:
    from silero_vad import get_speech_timestamps, load_silero_vad

    model = load_silero_vad()

    def cut(waveform: np.ndarray) -> tuple[int, int]:
        found = get_speech_timestamps(torch.from_numpy(waveform), model, sampling_rate=SAMPLING_RATE)
        return (found[0]["start"], found[-1]["end"]) if found else (0, len(waveform))

    return cut


def compare_methods(data_dir: Path) -> None:
    recordings, labels, actors = read_utterances(data_dir, "validation")
    recognize = load_pipeline(str(MINI_MODEL))
    methods: dict[str, Method] = {
        "peak - 30 dB": cut_with_librosa(30),
        "peak - 40 dB": cut_with_librosa(40),
        "ours": cut_with_trim,
    }
    if importlib.util.find_spec("silero_vad"):
        methods["Silero VAD"] = make_silero()
    rows, ua = [], {}
    for name in DISTURBANCES:
        found = {method: measure_method(recognize, cut, name, recordings, labels) for method, cut in methods.items()}
        ua[name] = {method: score for method, (score, _) in found.items()}
        cells = [f"{method}: {100 * score:.1f} % ({error:.0f} ms)" for method, (score, error) in found.items()]
        rows.append({"what": name, "measured": "; ".join(cells)})
        print(name, cells, flush=True)
    write_study(
        RELIABILITY / "speech_detection.json",
        "Finding speech",
        "python -m studies.speech_detection --data_dir RAVDESS",
        rows,
        f"UA of ser-align-mini on the {len(recordings)} utterances of its validation actors, "
        f"{' and '.join(actors)}, and in brackets the mean error of a cut. Each method cuts the same recordings. The "
        "model was trained with ours; `peak - 30 dB` is `librosa.effects.trim(top_db=30)`.",
        ua=ua,
    )


def measure_method(
    recognize: SpeechEmotionRecognitionPipeline,
    cut: Method,
    name: str,
    recordings: list[np.ndarray],
    labels: list[str],
) -> tuple[float, float]:
    """UA, and the mean error of an end of the cut in ms."""
    waveforms, later = disturb(name, recordings)
    cuts = [cut(waveform) for waveform in waveforms]
    expected = np.array([cut(recording) for recording in recordings]) + np.array(later)[:, None]
    error = float(np.abs(np.array(cuts) - expected).mean() * 1000 / SAMPLING_RATE)
    pieces = [waveform[start:end] for waveform, (start, end) in zip(waveforms, cuts)]
    predictions: list[str] = []
    id2label: dict[int, str] = recognize.model.config.id2label  # type: ignore[assignment]
    for first in range(0, len(pieces), BATCH):
        scores = recognize.score_waveforms(pieces[first : first + BATCH])["probabilities"]
        predictions += [id2label[int(index)] for index in scores.argmax(dim=1)]
    return float(balanced_accuracy_score(labels, predictions)), error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, type=Path, metavar="RAVDESS", help="holds Actor_01 to Actor_24")
    compare_methods(parser.parse_args().data_dir)


if __name__ == "__main__":
    main()
