"""Compare two training processes with one, with the same global batch: losses, weights and throughput.

    python -m benchmarks.two_processes --clips 16 --repetitions 3

Trains stage 2 with EAL and FUAL on an encoder of wav2vec2-base size with random weights, in bucket batches, with one
thread per process, and without dropout, which two processes would sample differently. Writes
docs/results/two_processes.json and prints the ratio last.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.clips import clips
from benchmarks.training_speed import arguments, epoch_seconds, normalize, ours
from core.json_files import write_json
from recipe.results import library_versions

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "docs" / "results" / "two_processes.json"
NO_DROPOUT = dict.fromkeys(
    ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "mask_time_prob"), 0.0
)


def run_benchmark(count: int, batch_size: int, repetitions: int) -> None:
    runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repetitions):
            for processes in runs:
                runs[processes].append(launch(processes, count, batch_size, Path(folder)))
                print(f"{processes} processes: {count / runs[processes][-1]['seconds']:.3f} utterances per second")
        weights = [load_file(f"{folder}/{processes}.safetensors") for processes in runs]
    losses = [run[0]["losses"] for run in runs.values()]
    seconds = {processes: median(run["seconds"] for run in done) for processes, done in runs.items()}
    result = {
        "clips": count,
        "batch_size": batch_size,
        "repetitions": repetitions,
        "seconds": seconds,
        "ratio": seconds[1] / seconds[2],
        "largest_difference": {
            "losses": max(abs(one - two) for one, two in zip(*losses, strict=True)),
            "weights": max(float((value - weights[1][name]).abs().max()) for name, value in weights[0].items()),
        },
        "versions": library_versions(),
    }
    write_json(RESULT, result)
    print(result["largest_difference"])
    print(f"ratio {result['ratio']:.2f}")


def launch(processes: int, count: int, batch_size: int, folder: Path) -> dict[str, Any]:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    own = [
        "-m",
        "benchmarks.two_processes",
        "--clips",
        str(count),
        "--batch_size",
        str(batch_size),
        "--worker",
        str(folder),
    ]
    command = [sys.executable, *launcher, *own]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads((folder / f"{processes}.json").read_text(encoding="utf-8"))


def work(count: int, batch_size: int, folder: Path) -> None:
    """Train one epoch in this process, together with the other processes started by torchrun."""
    set_verbosity_error()
    disable_progress_bar()
    processes = int(os.environ["WORLD_SIZE"])
    settings = arguments(str(folder / "trainer"), batch_size // processes)
    settings.logging_strategy, settings.logging_steps = "steps", 1
    settings.ddp_find_unused_parameters = True
    inputs = [normalize(waveform) for waveform in clips(count)]
    trainer = ours(inputs, [index % 4 for index in range(count)], settings, count // batch_size, NO_DROPOUT)
    seconds = epoch_seconds(trainer)
    if trainer.is_world_process_zero():
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        (folder / f"{processes}.json").write_text(json.dumps({"seconds": seconds, "losses": losses}), encoding="utf-8")
        model = trainer.accelerator.unwrap_model(trainer.model)
        save_file({name: value.contiguous() for name, value in model.state_dict().items()},
                  folder / f"{processes}.safetensors")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        torch.set_num_threads(1)
        work(given.clips, given.batch_size, given.worker)
    else:
        run_benchmark(given.clips, given.batch_size, given.repetitions)


if __name__ == "__main__":
    main()
