"""Runs train.py in a process of its own, as its users do."""

import json
import os
import subprocess
import sys

from conftest import ROOT

# A few updates of the quickstart's model; learning rates high enough to move.
SHORT = ["--config", "run_configs/quickstart.yaml", "--num_epochs", "2", "--max_steps", "4", "--logging_steps", "1"]
SHORT += ["--use_cpu", "--batch_size", "8"]
FILES = {
    *("config.json", "model.safetensors", "preprocessor_config.json", "predictions.jsonl"),
    *("modeling_ser_align.py", "configuration_ser_align.py"),
}


def environment(offline="1"):
    return {**os.environ, "HF_HUB_OFFLINE": offline, "OMP_NUM_THREADS": "1"}


def train(*argv, launcher=(), expect=0, offline="1"):
    command = [sys.executable, *launcher, "train.py", *map(str, argv)]
    run = subprocess.run(command, cwd=ROOT, env=environment(offline), capture_output=True, text=True, timeout=600)
    assert run.returncode == expect, run.stderr[-3000:]
    return run


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
