"""Time and memory of a training step of stage 2 compared with stage 1.

    python -m benchmarks.method_cost --repetitions 15

Trains a wav2vec2-base encoder with random weights and frozen convolutions on one batch: stage 1 (attentive pooling,
CE), stage 2 (CLS pooling, CE + EAL + FUAL), and stage 2 with CE only, each from raw audio and from cached outputs of
the convolutions. Memory is the peak of a separate process. Writes docs/results/method_cost.json and prints the ratios
last.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.clips import MEDIAN
from benchmarks.measuring import in_turn, medians, peak_megabytes
from configuration_ser_align import SERAlignConfig
from core.audio import SAMPLING_RATE
from core.json_files import write_json
from modeling_ser_align import SERAlignForAudioClassification
from recipe.results import library_versions

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "docs" / "results" / "method_cost.json"
SYSTEMS: dict[str, dict[str, Any]] = {
    "stage 1": {"pooling": "attentive"},
    "stage 2": {"pooling": "cls"},
    "stage 2, CE alone": {"pooling": "cls", "eal_weight": 0.0, "fual_weight": 0.0},
}


def run_benchmark(repetitions: int, batch_size: int) -> None:
    result: dict[str, Any] = {"batch_size": batch_size, "seconds_of_audio": MEDIAN, "repetitions": repetitions}
    for inputs in ("raw audio", "cached convolutions"):
        steps = {name: make_step(name, inputs, batch_size) for name in SYSTEMS}
        times = in_turn(steps, repetitions)
        seconds = medians(times)
        memory = {name: measure_peak(name, inputs, batch_size) for name in SYSTEMS}
        result[inputs] = {
            "seconds": times,
            "peak_megabytes": memory,
            "stage_2_over_stage_1": seconds["stage 2"] / seconds["stage 1"],
            "losses_over_none": seconds["stage 2"] / seconds["stage 2, CE alone"],
            "memory_stage_2_over_stage_1": memory["stage 2"] / memory["stage 1"],
            "memory_losses_over_none": memory["stage 2"] / memory["stage 2, CE alone"],
        }
    write_json(RESULT, result | {"threads": torch.get_num_threads(), "versions": library_versions()})
    for inputs in ("raw audio", "cached convolutions"):
        print(inputs, {name: round(value, 3) for name, value in result[inputs].items() if "over" in name})


def make_step(name: str, inputs: str, batch_size: int) -> Callable[[], None]:
    torch.manual_seed(0)
    model = SERAlignForAudioClassification(SERAlignConfig(**SYSTEMS[name])).train()
    waveforms = torch.randn(batch_size, int(MEDIAN * SAMPLING_RATE))
    is_raw = inputs == "raw audio"
    given: dict[str, Tensor] = {
        "input_values" if is_raw else "extracted_features": waveforms if is_raw else model.extract_features(waveforms)
    }
    labels = torch.arange(batch_size) % model.config.num_labels
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-5)

    def step() -> None:
        model(**given, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure_peak(name: str, inputs: str, batch_size: int) -> float:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(run_steps, name, inputs, batch_size).result()


def run_steps(name: str, inputs: str, batch_size: int) -> float:
    step = make_step(name, inputs, batch_size)
    for _ in range(2):
        step()
    return peak_megabytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--batch_size", type=int, default=2)
    given = parser.parse_args()
    run_benchmark(given.repetitions, given.batch_size)


if __name__ == "__main__":
    main()
