"""Runs the project's scripts in separate processes, as users do."""

import ctypes
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conftest import ROOT

# A few updates of the quickstart's model, on any corpus; learning rates high enough to move.
BRIEF = ["--config", "run_configs/quickstart.yaml", "--num_epochs", "2", "--max_steps", "4", "--logging_steps", "1"]
BRIEF += ["--use_cpu", "--batch_size", "8"]
# On a part of the demo corpus: 320 utterances; each fold tests a woman and a man.
SPEAKERS = [f"speaker_{number:02}" for number in range(1, 11)]
SHORT = [*BRIEF, "--only", json.dumps({"speaker": SPEAKERS})]
FILES = {
    *("config.json", "model.safetensors", "preprocessor_config.json", "predictions.jsonl"),
    *("modeling_ser_align.py", "configuration_ser_align.py"),
}

# To import torch, transformers, datasets and librosa takes longer than most runs of these tests: one process does it
# for all of them, and each run is forked from it.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["experiments.run", "inference.terminal", "tests.preload"])


def environment(online=False):
    return {**os.environ, "HF_HUB_OFFLINE": "0" if online else "1", "OMP_NUM_THREADS": "1"}


def run_anew(script, *argv, launcher=(), online=False, expect=0, cwd=ROOT, **variables):
    """`python script argv` in a new process, or by a launcher such as torchrun; its folder and variables may differ."""
    command = [sys.executable, *launcher, ROOT / script, *map(str, argv)]
    settings = {**environment(online), **variables}
    run = subprocess.run(
        command, cwd=cwd, env=settings, capture_output=True, encoding="utf-8", errors="backslashreplace", timeout=600
    )
    assert run.returncode == expect, run.stderr[-3000:]
    return run


def run_script(script, *argv, stdin=b"", expect=0, **variables):
    """The same, but faster: forks a process that has already imported the libraries."""
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        for path, content in zip(streams, (stdin, b"", b"")):
            path.write_bytes(content)
        settings = {**environment(), **variables}
        process = FORKED.Process(target=become, args=(script, list(map(str, argv)), settings, streams))
        process.start()
        process.join(timeout=600)
        stdout, stderr = (path.read_text(encoding="utf-8") for path in streams[1:])
    assert process.exitcode == expect, stderr[-3000:]
    return subprocess.CompletedProcess(argv, process.exitcode, stdout, stderr)


def run_together(script, *argv, port):
    """Two processes of one run, as torchrun starts them; what they print comes one after the other."""

    def run_one(rank):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        variables = {name: str(value) for name, value in place.items()}
        return run_script(script, *argv, **variables, MASTER_ADDR="127.0.0.1")

    with ThreadPoolExecutor(2) as at_once:
        runs = list(at_once.map(run_one, range(2)))
    stdout, stderr = ("".join(getattr(run, stream) for run in runs) for stream in ("stdout", "stderr"))
    return subprocess.CompletedProcess(argv, 0, stdout, stderr)


def become(script, argv, variables, streams):
    """Turns a forked process into `python script argv`, or `python -m`, whose standard streams are these files."""
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR), number)
    sys.stdin = os.fdopen(0, encoding="utf-8")  # that of a forked process reads nothing
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(ROOT)
    sys.argv = [script, *argv]
    if script.endswith(".py"):
        runpy.run_path(script, run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__", alter_sys=True)


def train(*argv, **options):
    return run_script("train.py", *argv, **options)


def predict(*argv, **options):
    """With the mini model unless another is given: it is faster."""
    return run_script("predict.py", *argv, *(() if "--model" in argv else ("--model", "mini")), **options)


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


def obey_permissions(function):
    """Call a function that file permissions apply to, and to the processes that it starts, even where root runs it.

    Linux keeps capabilities per thread: those of root to read any file are dropped in a thread of its own.
    """
    if os.geteuid() != 0:
        return function()
    with ThreadPoolExecutor(1, initializer=drop_capabilities) as thread:
        return thread.submit(function).result()


CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2  # linux/capability.h
PR_CAPBSET_DROP = 24  # linux/prctl.h
CAPABILITY_VERSION_3 = 0x20080522


def drop_capabilities():
    """Those of this thread that let root read and write any file, for it and its child processes."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    calls = [libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) for number in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)]
    calls.append(libc.capget(header, data))
    for index in range(3):  # effective, permitted and inheritable, of the first 32 capabilities
        data[index] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    calls.append(libc.capset(header, data))
    assert not any(calls), os.strerror(ctypes.get_errno())
