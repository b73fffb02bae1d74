"""UA, speed and size of the ONNX export with 32-bit and 8-bit weights.

    python -m benchmarks.onnx_export --data_dir RAVDESS --models outputs/ravdess-mini/fold?-seed0/cls_eal_fual/stage2

Measures the UA of each stage folder on its own test speakers, and of all folders together, from the stored PyTorch
predictions and from ONNX Runtime with 32-bit and 8-bit weights. Time is measured from waveform to scores, including
feature extraction, on one thread with one utterance at a time. PyTorch and ONNX Runtime take turns, and the result is
the median of the passes. Writes docs/results/onnx.json and prints the ratios last.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from sklearn.metrics import balanced_accuracy_score
from tqdm.auto import tqdm
from transformers.utils.logging import disable_progress_bar

from core.audio import SAMPLING_RATE, read_audio
from core.errors import InputError
from core.json_files import read_json, read_lines, write_json
from core.loading import load_model
from inference.onnx_export import export, pad_utterances
from inference.onnx_int8 import quantize
from recipe.corpora import load_corpus
from recipe.results import library_versions

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "docs" / "results" / "onnx.json"
NUM_TIMED, PASSES = 20, 21  # utterances in a pass
Scorer = Callable[[np.ndarray], np.ndarray]  # (samples,) to logits (classes,)


def run_benchmark(stage_dirs: list[Path], data_dir: str) -> None:
    logging.disable(logging.WARNING)
    disable_progress_bar()
    torch.set_num_threads(1)
    rows = load_corpus("ravdess", data_dir)
    paths = {row["id"]: row["audio"]["path"] for row in rows.remove_columns("label")}
    folds, decisions = [], []
    speed: dict[str, Any] = {}
    for stage_dir in tqdm(stage_dirs, leave=False):
        results = read_json(stage_dir / "results.json")
        lines = [line for line in read_lines(stage_dir / "predictions.jsonl") if line["split"] == "test"]
        waveforms = [read_audio(paths[line["id"]], results["arguments"]["trim_db"]) for line in lines]
        with tempfile.TemporaryDirectory() as directory:
            scorers, size = export_model(stage_dir, Path(directory))
            of_fold = collect_decisions(lines, waveforms, scorers)
            speed = speed or measure_speed(waveforms[:NUM_TIMED], scorers)
        folds.append({"fold": results["fold"], **score_decisions(of_fold)})
        decisions.append(of_fold)
    everything = {name: np.concatenate([of_fold[name] for of_fold in decisions]) for name in decisions[0]}
    content = {
        "what": __doc__.partition("\n")[0],
        "ua": {"folds": folds, "all": score_decisions(everything)},
        "megabytes": size,
        "speed": speed,
        "versions": library_versions() | {"onnxruntime": onnxruntime.__version__},
    }
    write_json(RESULT, content)
    print("\n".join(format_report(content)))


def export_model(stage_dir: Path, directory: Path) -> tuple[dict[str, Scorer], dict[str, float]]:
    """Load PyTorch and both ONNX models as functions of a waveform, with the file sizes in MB."""
    model, extractor = load_model(str(stage_dir))
    paths = {"fp32": directory / "model.onnx", "int8": directory / "model.int8.onnx"}
    export(model, extractor, paths["fp32"])
    quantize(paths["fp32"], paths["int8"])

    @torch.inference_mode()
    def pytorch(waveform: np.ndarray) -> np.ndarray:
        return model(**extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")).logits[0].numpy()

    sizes = {name: round(path.stat().st_size / 1e6, 2) for name, path in paths.items()}
    return {"pytorch": pytorch, **{name: make_onnx_scorer(path) for name, path in paths.items()}}, sizes


def make_onnx_scorer(path: Path) -> Scorer:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda waveform: session.run(["logits"], pad_utterances([waveform]))[0][0]


def collect_decisions(lines: list[dict[str, Any]], waveforms: list[np.ndarray], scorers: dict[str, Scorer]) -> dict:
    """Get labels, stored PyTorch predictions and ONNX predictions, as class indices (utterances,)."""
    labels = list(lines[0]["probabilities"])
    decisions = {
        "label": np.array([labels.index(line["label"]) for line in lines]),
        "pytorch": np.array([labels.index(line["prediction"]) for line in lines]),
    }
    for name in ("fp32", "int8"):
        decisions[name] = np.array([scorers[name](waveform).argmax() for waveform in waveforms])
    return decisions


def score_decisions(decisions: dict[str, np.ndarray]) -> dict[str, Any]:
    """Compute the UA in percent, and the number of utterances whose label differs from PyTorch."""
    return {
        "num_utterances": len(decisions["label"]),
        "ua": {
            name: round(100 * balanced_accuracy_score(decisions["label"], decisions[name]), 3)
            for name in ("pytorch", "fp32", "int8")
        },
        "other_label": {name: int((decisions[name] != decisions["pytorch"]).sum()) for name in ("fp32", "int8")},
    }


def measure_speed(waveforms: list[np.ndarray], scorers: dict[str, Scorer]) -> dict[str, Any]:
    """Measure milliseconds per second of audio: the median over alternating passes."""
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    for _ in range(PASSES):
        for name, scorer in scorers.items():
            start = time.perf_counter()
            for waveform in waveforms:
                scorer(waveform)
            seconds[name].append(time.perf_counter() - start)
    audio = sum(map(len, waveforms)) / SAMPLING_RATE
    times = {name: median(passes) for name, passes in seconds.items()}
    return {
        "ms_per_second_of_audio": {name: round(1000 * taken / audio, 3) for name, taken in times.items()},
        "fp32_over_pytorch": round(times["pytorch"] / times["fp32"], 2),
        "int8_over_pytorch": round(times["pytorch"] / times["int8"], 2),
        "int8_over_fp32": round(times["fp32"] / times["int8"], 2),
        "passes": PASSES,
        "mean_seconds_of_audio": round(audio / len(waveforms), 2),
        "threads": 1,
    }


def format_report(content: dict[str, Any]) -> list[str]:
    folds = [(f"fold {fold['fold']}", fold) for fold in content["ua"]["folds"]]
    lines = [f"{'':8}{'utterances':>11}{'PyTorch':>9}{'fp32':>8}{'int8':>8}   other labels"]
    for name, part in [*folds, ("all", content["ua"]["all"])]:
        ua, other = part["ua"], part["other_label"]
        lines.append(
            f"{name:8}{part['num_utterances']:11}{ua['pytorch']:9.2f}{ua['fp32']:8.2f}{ua['int8']:8.2f}"
            f"   {other['fp32']} and {other['int8']}"
        )
    speed, size = content["speed"], content["megabytes"]
    times = ", ".join(f"{name} {value:.2f}" for name, value in speed["ms_per_second_of_audio"].items())
    return [
        *lines,
        f"ms per second of audio: {times}",
        f"size: fp32 {size['fp32']} MB, int8 {size['int8']} MB, ratio {size['fp32'] / size['int8']:.2f}",
        f"speed, times as fast: fp32 / PyTorch {speed['fp32_over_pytorch']:.2f}, int8 / PyTorch "
        f"{speed['int8_over_pytorch']:.2f}, int8 / fp32 {speed['int8_over_fp32']:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data_dir", required=True, metavar="RAVDESS", help="directory that contains Actor_01 to Actor_24"
    )
    parser.add_argument(
        "--models", required=True, nargs="+", type=Path, metavar="DIR", help="stage folders trained on RAVDESS"
    )
    own = parser.parse_args()
    try:
        run_benchmark(own.models, own.data_dir)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
