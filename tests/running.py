"""Runs the project's scripts in processes of their own, as their users do."""

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from conftest import ROOT

# A few updates of the quickstart's model; learning rates high enough to move.
SHORT = ["--config", "run_configs/quickstart.yaml", "--num_epochs", "2", "--max_steps", "4", "--logging_steps", "1"]
SHORT += ["--use_cpu", "--batch_size", "8"]
FILES = {
    *("config.json", "model.safetensors", "preprocessor_config.json", "predictions.jsonl"),
    *("modeling_ser_align.py", "configuration_ser_align.py"),
}

# To import torch, transformers and datasets takes longer than most runs of these tests: one process does it for all of
# them, and each run is forked from it.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["recipe.run", "experiment", "inference.terminal"])


def environment(online=False):
    return {**os.environ, "HF_HUB_OFFLINE": "0" if online else "1", "OMP_NUM_THREADS": "1"}


def run_anew(script, *argv, launcher=(), online=False, expect=0):
    """`python script argv` in a new process, or by a launcher such as torchrun."""
    command = [sys.executable, *launcher, script, *map(str, argv)]
    run = subprocess.run(command, cwd=ROOT, env=environment(online), capture_output=True, text=True, timeout=600)
    assert run.returncode == expect, run.stderr[-3000:]
    return run


def run_script(script, *argv, launcher=(), stdin=b"", expect=0):
    """The same, sooner: without a launcher in a process that is forked from one which has imported the libraries."""
    if launcher:
        return run_anew(script, *argv, launcher=launcher, expect=expect)
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        for path, content in zip(streams, (stdin, b"", b"")):
            path.write_bytes(content)
        process = FORKED.Process(target=become, args=(script, list(map(str, argv)), environment(), streams))
        process.start()
        process.join(timeout=600)
        stdout, stderr = (path.read_text(encoding="utf-8") for path in streams[1:])
    assert process.exitcode == expect, stderr[-3000:]
    return subprocess.CompletedProcess(argv, process.exitcode, stdout, stderr)


def become(script, argv, variables, streams):
    """Turns a forked process into `python script argv` whose standard streams are these files."""
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR), number)
    sys.stdin = os.fdopen(0, encoding="utf-8")  # that of a forked process reads nothing
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(ROOT)
    sys.argv = [script, *argv]
    runpy.run_path(script, run_name="__main__")


def train(*argv, **options):
    return run_script("train.py", *argv, **options)


def predict(*argv, **options):
    return run_script("predict.py", *argv, **options)


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def fresh(script, *argv, home, cwd="/", **environment):
    """What a script prints after RESULT, as JSON, in a process without this project or a network; also its run."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), **environment}
    command = [sys.executable, "-c", script, *map(str, argv)]
    run = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.split("RESULT")[1]), run
