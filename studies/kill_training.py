"""Does a run that is killed again and again end with the same weights and scores, to the last bit?

    python studies/kill_training.py

Trains both stages of a tiny waveform encoder on a part of the demo corpus, once undisturbed, then again under kill -9
of all its processes, each time started anew with the same command; with one process and with two. Some kills come at a
random moment, others as soon as the run is in a phase that they would seldom hit. Where the run really was is told by
the functions that it was in just before. Then the newest checkpoint is cut short, once in each of its files, and the
disk is made too small. About fifteen minutes on two CPU cores.
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

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import psutil

from core.json_files import read_lines
from recipe.checkpoints import checkpoints_in, is_complete
from studies.reporting import write_study

ENCODER = {"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ENCODER |= {"intermediate_size": 48, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "layerdrop": 0.0}
ENCODER |= {"num_conv_pos_embedding_groups": 2, "hidden_dropout": 0.1, "mask_time_prob": 0.1, "mask_time_length": 5}
SPEAKERS = [f"speaker_{number:02d}" for number in (1, 2, 3, 4, 5, 6)]
# Dropout, SpecAugment, speeds, an average of the weights, batches by duration and both caches: all that could differ.
OPTIONS = ["--corpus", "demo", "--encoder", "none", "--encoder_config", json.dumps(ENCODER), "--use_cpu"]
OPTIONS += ["--only", json.dumps({"speaker": SPEAKERS}), "--num_folds", "3"]
OPTIONS += ["--num_epochs", "4", "--logging_steps", "3"]
OPTIONS += ["--learning_rate", "1e-3", "--pooling_learning_rate", "1e-3", "--classifier_learning_rate", "1e-3"]
OPTIONS += ["--speed_factors", "0.9", "1.0", "--bucket_batches", "4", "--ema_decay", "0.9"]
# A run that writes a hundred times a second which functions it is in, innermost first.
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
# The innermost of these functions on the stack says what a run was doing, or else it was starting.
PHASES = {
    "keep_features": "writing the kept outputs of the convolutions",
    "training_step": "in an update",
    "_run_epoch": "in an update",
    "evaluate": "evaluating",
    "_save_checkpoint": "writing a checkpoint",
    "delete_older": "deleting an older checkpoint",
    "save_and_score": "saving and scoring a stage",
    "run_stage": "starting a stage",
}
# Of each stage, in the order in which a run comes by; None is a random moment within these seconds.
AIMS = {
    1: ("keep_features", None, "training_step", "evaluate", "_save_checkpoint", "save_and_score"),
    2: ("build_model", "training_step", None, "_save_checkpoint", "save_and_score"),
}
RANDOM_SECONDS = (4, 9)


def main(processes: list[int], seed: int, output: Path) -> None:
    random.seed(seed)
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for count in processes:
            run = Run(folder, count)
            run.end("whole")
            kills = [run.killed("killed", stage, aim) for stage, aims in AIMS.items() for aim in aims]
            phases = Counter(phase for phase in kills if phase is not None)
            run.end("killed")
            named = "1 process" if count == 1 else f"{count} processes"
            for phase, number in phases.items():
                rows.append({"what": f"{named}: kill -9 {phase}", "measured": str(number)})
            differs = difference(run.output("whole"), run.output("killed"))
            what = f"{named}: weights, predictions, scores and losses after these {phases.total()} kills"
            rows.append({"what": what, "measured": differs or "equal to the last bit"})
            print(rows[-1], flush=True)
        run = Run(folder, processes[0])
        rows += [cut_short(run, name) for name in ("model.safetensors", "optimizer.pt", "trainer_state.json")]
        rows.append(on_a_full_disk(run))
    write_study(
        output,
        title="Training that is killed, cut short or out of room",
        command="python studies/kill_training.py",
        rows=rows,
        notes="On a CPU, with --num_workers 0. All processes of a run are killed at once; the phase is that of the "
        "first one, by the functions that it was in just before.",
    )


class Run:
    """The command of one run, with this number of processes."""

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

    def end(self, name: str) -> str:
        """Let it run to its end; what it printed."""
        process = self.start(name, subprocess.PIPE)
        printed, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors[-3000:]
        return printed

    def killed(self, name: str, stage: int, aim: str | None) -> str | None:
        """Kill it in this function of the stage, or at a random moment; the phase it was in, None if it ended first."""
        for path in self.stacks.iterdir():
            path.unlink()
        errors = self.folder / "errors.txt"
        process = self.start(name, errors.open("w"), start_new_session=True)
        deadline = time.time() + random.uniform(*RANDOM_SECONDS)
        first_results = self.output(name) / "stage1" / "results.json"
        functions: list[str] = []
        while process.poll() is None:
            time.sleep(0.02)
            functions = self._stack()
            if aim is None and time.time() > deadline:
                break
            if aim in functions and stage == 1 + first_results.is_file():
                break
        if process.poll() is not None:
            assert process.returncode == 0, errors.read_text()[-3000:]
            print(f"{aim}: the run was at its end")
            return None
        time.sleep(0 if aim is None else random.uniform(0, 0.05))
        functions = self._stack()
        kill_all(process)
        phase = next((PHASES[function] for function in functions if function in PHASES), "starting")
        print(f"stage {1 + first_results.is_file()}, {aim or 'a random moment'}: killed {phase}", flush=True)
        return phase

    def _stack(self) -> list[str]:
        """Functions that the first process is in, innermost first; none where it does not train yet."""
        path = self.stacks / "0"
        return path.read_text().splitlines() if path.is_file() else []


def kill_all(process: subprocess.Popen) -> None:
    """The launcher and all processes that it started, which are in groups of their own."""
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
    psutil.wait_procs(everyone[1:], timeout=30)


def difference(expected: Path, found: Path) -> str | None:
    """The first file or value in which two runs differ; times are left out."""
    for stage in ("stage1", "stage2"):
        for name in ("model.safetensors", "predictions.jsonl"):
            for part in (name, f"last/{name}"):
                if (expected / stage / part).read_bytes() != (found / stage / part).read_bytes():
                    return f"{stage}/{part} differs"
        results = [json.loads((folder / stage / "results.json").read_text()) for folder in (expected, found)]
        for name in ("scores", "history", "epochs"):
            if results[0][name] != results[1][name]:
                return f"{name} of {stage} differ"
        if losses(expected / stage) != losses(found / stage):
            return f"logged losses of {stage} differ"
    return None


def losses(stage_dir: Path) -> list[dict]:
    return [line for line in read_lines(stage_dir / "training_log.jsonl") if "loss" in line]


def cut_short(run: Run, name: str) -> dict[str, str]:
    """A run is killed, its newest checkpoint loses half of a file, and it goes on from the one before."""
    output = f"cut_{name}"
    process = run.start(output, start_new_session=True)
    checkpoints = run.output(output) / "stage1" / "checkpoints"
    while sum(map(is_complete, checkpoints_in(checkpoints))) < 2:
        time.sleep(0.02)
    kill_all(process)
    before, newest = [path for path in checkpoints_in(checkpoints) if is_complete(path)][-2:]
    os.truncate(newest / name, (newest / name).stat().st_size // 2)
    printed = run.end(output)
    assert f"{newest} is incomplete" in printed and f"resuming from {before}\n" in printed, printed
    differs = difference(run.output("whole"), run.output(output))
    measured = differs or "goes on from the checkpoint before, equal to the last bit"
    return {"what": f"newest checkpoint with half of its {name}", "measured": measured}


def on_a_full_disk(run: Run) -> dict[str, str]:
    """No file can outgrow a limit that the optimizer's state is beyond; then it can."""
    limit = (150_000, 150_000)  # bytes
    process = run.start("full", subprocess.PIPE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    errors = process.communicate(timeout=900)[1]
    lines = [line for line in errors.splitlines() if "error: " in line]  # below a progress bar
    assert process.returncode == 1 and len(lines) == 1 and "Traceback" not in errors, errors[-3000:]
    print(lines[0])
    run.end("full")
    differs = difference(run.output("whole"), run.output("full"))
    measured = differs or "one line says so; with room again, equal to the last bit"
    return {"what": "no room for a checkpoint (files limited in size)", "measured": measured}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/results/reliability/kill_training.json")
    given = parser.parse_args()
    main(given.processes, given.seed, given.output)
