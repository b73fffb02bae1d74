"""The size and the speed of each system, beside the scores that these buy: a section of an experiment's report."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score

from core.audio import SAMPLING_RATE
from core.loading import load_model
from experiments.report import make_environment
from experiments.systems import System
from experiments.tables import write_csv

TEMPLATE = Path(__file__).parent / "sizes_template.md"
SECONDS, REPETITIONS = 4, 9


def measure_size(stage_dir: Path) -> dict[str, float]:
    """The size of a trained model and its latency on one core.

    Returns:
        `encoder` and `head`, numbers of parameters, the head being all that is not the encoder; `megabytes` of the
        weights on disk; `milliseconds` from a waveform of four seconds to its scores, the median of nine.
    """
    model, extractor = load_model(str(stage_dir), option="")
    extract: Any = extractor
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    waveform = 0.1 * np.random.default_rng(0).standard_normal(SECONDS * SAMPLING_RATE, dtype=np.float32)

    @torch.inference_mode()
    def score() -> Any:
        return model(**extract(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt", is_trimmed=True))

    return {
        "encoder": encoder,
        "head": sum(parameter.numel() for parameter in model.parameters()) - encoder,
        "megabytes": sum(path.stat().st_size for path in stage_dir.glob("*.safetensors")) / 1e6,
        "milliseconds": 1000 * time_on_one_core(score),
    }


def time_on_one_core(run: Callable[[], Any]) -> float:
    """The median seconds of a call, after one that does not count."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run()
        seconds = []
        for _ in range(REPETITIONS):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return median(seconds)


def build_size_table(systems: list[System], sizes: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """A row for each measured system: its scores as means over runs, and its size."""
    rows = []
    for system in (system for system in systems if system.key in sizes):
        scores = [run.compute_scores("best") for run in system.runs]
        weighted = [weigh_f1(run.lines["best"]) for run in system.runs]
        rows.append(
            {
                "system": system.name,
                "ua": float(np.mean([score["ua"] for score in scores])),
                "wa": float(np.mean([score["wa"] for score in scores])),
                "weighted_f1": float(np.mean(weighted)),
                **sizes[system.key],
            }
        )
    return rows


def weigh_f1(lines: list[dict[str, Any]]) -> float:
    """F1 of each class, weighted by its number of utterances."""
    return float(f1_score(*([line[name] for line in lines] for name in ("label", "prediction")), average="weighted"))


def append_sizes(report: Path, rows: list[dict[str, Any]]) -> None:
    """Append the section to report.md and write sizes.csv beside it."""
    write_csv(report.parent / "sizes.csv", rows)
    template = make_environment().from_string(TEMPLATE.read_text(encoding="utf-8"))
    section = template.render(rows=rows, seconds=SECONDS, repetitions=REPETITIONS)
    report.write_text(f"{report.read_text(encoding='utf-8').rstrip()}\n\n{section}\n", encoding="utf-8")
