"""Check that a run that is killed repeatedly ends with bit-identical weights and scores.

    python -m studies.kill_training

Trains both stages of a tiny waveform encoder on part of the demo corpus, with one process and with two: first
undisturbed, then with repeated kill -9 of all processes, each time restarted with the same command. Some kills come at
a random moment; others target a phase that random kills rarely hit. The call stack just before the kill shows the
phase. The study also truncates the newest checkpoint, once in each of its files, and makes the disk too small. It takes
about fifteen minutes on two CPU cores.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import IO, Any

import psutil

from core.json_files import read_lines
from recipe.checkpoints import checkpoints_in, is_complete
from studies.reporting import write_study

ROOT = Path(__file__).parent.parent
ENCODER = {"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ENCODER |= {"intermediate_size": 48, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "layerdrop": 0.0}
ENCODER |= {"num_conv_pos_embedding_groups": 2, "hidden_dropout": 0.1, "mask_time_prob": 0.1, "mask_time_length": 5}
SPEAKERS = [f"speaker_{number:02d}" for number in (1, 2, 3, 4, 5, 6)]
# Everything that could differ: dropout, SpecAugment, speed perturbation, EMA, bucket batches and both caches.
OPTIONS = ["--corpus", "demo", "--encoder", "none", "--encoder_config", json.dumps(ENCODER), "--use_cpu"]
OPTIONS += ["--only", json.dumps({"speaker": SPEAKERS}), "--num_folds", "3"]
OPTIONS += ["--num_epochs", "4", "--logging_steps", "3"]
OPTIONS += ["--learning_rate", "1e-3", "--pooling_learning_rate", "1e-3", "--classifier_learning_rate", "1e-3"]
OPTIONS += ["--speed_factors", "0.9", "1.0", "--bucket_batches", "4", "--ema_decay", "0.9"]
# A run that writes its call stack a hundred times per second, innermost function first.
TRACED = """
import os, runpy, sys, threading, time, traceback

def watch():
    path = os.path.join(os.environ["STACKS"], os.environ.get("RANK", "0"))
    while frame := sys._current_frames().get(threading.main_thread().ident):
        stack = traceback.walk_stack(frame)
        with open(path + ".new", "w") as file:
            file.write("\\n".join(frame.f_code.co_name for frame, _ in stack))
        os.replace(path + ".new", path)
        time.sleep(0.01)

threading.Thread(target=watch, daemon=True).start()
runpy.run_path("train.py", run_name="__main__")
"""
# The innermost of these functions on the stack names the phase of a run; otherwise it was starting.
PHASES = {
    "fill_cache": "filling the feature cache",
    "training_step": "during an update",
    "_run_epoch": "during an update",
    "evaluate": "evaluating",
    "_save_checkpoint": "writing a checkpoint",
    "delete_older": "deleting an older checkpoint",
    "save_and_score": "saving and scoring a stage",
    "run_stage": "starting a stage",
}
# For each stage, in the order of a run; None is a random moment within RANDOM_SECONDS.
AIMS = {
    1: ("fill_cache", None, "training_step", "evaluate", "_save_checkpoint", "save_and_score"),
    2: ("build_model", "training_step", None, "_save_checkpoint", "save_and_score"),
}
RANDOM_SECONDS = (4, 9)


def run_study(processes: list[int], seed: int, output: Path) -> None:
    random.seed(seed)
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for count in processes:
            run = Run(folder, count)
            run.finish("whole")
            kills = [run.kill("killed", stage, aim) for stage, aims in AIMS.items() for aim in aims]
            phases = Counter(phase for phase in kills if phase is not None)
            run.finish("killed")
            named = "1 process" if count == 1 else f"{count} processes"
            for phase, number in phases.items():
                rows.append({"what": f"{named}: kill -9 {phase}", "measured": str(number)})
            differs = find_difference(run.output("whole"), run.output("killed"))
            what = f"{named}: weights, predictions, scores and losses after {phases.total()} kills"
            rows.append({"what": what, "measured": differs or "bit-identical"})
            print(rows[-1], flush=True)
        run = Run(folder, processes[0])
        rows += [truncate_checkpoint(run, name) for name in ("model.safetensors", "optimizer.pt", "trainer_state.json")]
        rows.append(fill_disk(run))
    write_study(
        output,
        title="Killed training, damaged checkpoints and full disks",
        command="python -m studies.kill_training",
        rows=rows,
        notes="On a CPU, with --num_workers 0. All processes of a run are killed at once; the phase is that of the "
        "first process, from its call stack just before the kill.",
    )


class Run:
    """Build the command of one run with this number of processes."""

    def __init__(self, folder: Path, processes: int):
        self.folder = folder
        self.processes = processes
        self.stacks = folder / "stacks"
        self.stacks.mkdir(exist_ok=True)
        (folder / "traced.py").write_text(TRACED)

    def output(self, name: str) -> Path:
        return self.folder / f"{name}{self.processes}"

    def start(self, name: str, output: int | IO[str] = subprocess.DEVNULL, **options: Any) -> subprocess.Popen:
        torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(self.processes), "--master_port", "29641"]
        command = [sys.executable, *(torchrun if self.processes > 1 else []), str(self.folder / "traced.py"), *OPTIONS]
        command += ["--data_dir", str(self.folder / "demo"), "--output_dir", str(self.output(name))]
        variables = {"STACKS": str(self.stacks), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        options |= {"cwd": ROOT, "env": {**os.environ, **variables}, "text": True}
        return subprocess.Popen(command, stdout=output, stderr=output, **options)

    def finish(self, name: str) -> str:
        """Run it to the end; return its output."""
        process = self.start(name, subprocess.PIPE)
        printed, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-3000:]
        return printed

    def kill(self, name: str, stage: int, aim: str | None) -> str | None:
        """Kill it in this function of the stage or at a random moment; returns its phase, None if it had finished."""
        for path in self.stacks.iterdir():
            path.unlink()
        errors = self.folder / "errors.txt"
        process = self.start(name, errors.open("w"), start_new_session=True)
        deadline = time.time() + random.uniform(*RANDOM_SECONDS)
        first_results = self.output(name) / "stage1" / "results.json"
        functions: list[str] = []
        while process.poll() is None:
            time.sleep(0.02)
            functions = self._read_stack()
            if aim is None and time.time() > deadline:
                break
            if aim in functions and stage == 1 + first_results.is_file():
                break
        if process.poll() is not None:
            assert process.returncode == 0, errors.read_text()[-3000:]
            print(f"{aim}: the run finished first")
            return None
        time.sleep(0 if aim is None else random.uniform(0, 0.05))
        functions = self._read_stack()
        kill_all(process)
        phase = next((PHASES[function] for function in functions if function in PHASES), "starting")
        print(f"stage {1 + first_results.is_file()}, {aim or 'a random moment'}: killed {phase}", flush=True)
        return phase

    def _read_stack(self) -> list[str]:
        """Read the call stack of the first process, innermost function first; empty before training."""
        path = self.stacks / "0"
        return path.read_text().splitlines() if path.is_file() else []


def kill_all(process: subprocess.Popen) -> None:
    """Kill the launcher and all processes that it started, which have their own process groups."""
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    psutil.wait_procs(everyone[1:], timeout=30)


def find_difference(expected: Path, found: Path) -> str | None:
    """Find the first file or value in which two runs differ, except for times; None if they are equal."""
    for stage in ("stage1", "stage2"):
        for name in ("model.safetensors", "predictions.jsonl"):
            for part in (name, f"last/{name}"):
                if (expected / stage / part).read_bytes() != (found / stage / part).read_bytes():
                    return f"{stage}/{part} differs"
        results = [json.loads((folder / stage / "results.json").read_text()) for folder in (expected, found)]
        for name in ("scores", "history", "epochs"):
            if results[0][name] != results[1][name]:
                return f"{name} of {stage} differ"
        if read_losses(expected / stage) != read_losses(found / stage):
            return f"logged losses of {stage} differ"
    return None


def read_losses(stage_dir: Path) -> list[dict]:
    return [line for line in read_lines(stage_dir / "training_log.jsonl") if "loss" in line]


def truncate_checkpoint(run: Run, name: str) -> dict[str, str]:
    """Kill a run and truncate a file of its newest checkpoint; it must resume from the checkpoint before."""
    output = f"cut_{name}"
    process = run.start(output, start_new_session=True)
    checkpoints = run.output(output) / "stage1" / "checkpoints"
    while sum(map(is_complete, checkpoints_in(checkpoints))) < 2:
        time.sleep(0.02)
    kill_all(process)
    before, newest = [path for path in checkpoints_in(checkpoints) if is_complete(path)][-2:]
    os.truncate(newest / name, (newest / name).stat().st_size // 2)
    printed = run.finish(output)
    assert f"deleted {newest}: " in printed and f"resuming from {before}\n" in printed, printed
    differs = find_difference(run.output("whole"), run.output(output))
    measured = differs or "resumes from the previous checkpoint, bit-identical"
    return {"what": f"newest checkpoint with a truncated {name}", "measured": measured}


def fill_disk(run: Run) -> dict[str, str]:
    """Limit the file size to less than the optimizer state, then lift the limit."""
    limit = (150_000, 150_000)  # bytes
    process = run.start("full", subprocess.PIPE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    errors = process.communicate(timeout=900)[1]
    lines = [line for line in errors.splitlines() if "error: " in line]  # below a progress bar
    assert process.returncode == 1 and len(lines) == 1 and "Traceback" not in errors, errors[-3000:]
    print(lines[0])
    run.finish("full")
    differs = find_difference(run.output("whole"), run.output("full"))
    measured = differs or "one-line error; with enough space again, bit-identical"
    return {"what": "not enough space for a checkpoint (file size limit)", "measured": measured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/results/reliability/kill_training.json")
    given = parser.parse_args()
    run_study(given.processes, given.seed, given.output)


if __name__ == "__main__":
    main()
