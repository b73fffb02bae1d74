"""What came of an input: how it ended, in a process of its own or in this one. Part of studies/strangers.py."""

import contextlib
import multiprocessing
import os
import resource
import runpy
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

RIGHT, WARNED, REFUSED = "right", "warned", "refused"
SILENT, TRACEBACK = "**wrong in silence**", "**traceback**"
OUTCOMES = (RIGHT, WARNED, REFUSED, SILENT, TRACEBACK)
MEGABYTES, SECONDS = 6000, 900  # limits of a process
TOLERANCE = 0.3  # of a score: another codec or a longer pause changes an answer a little
ROOT = Path(__file__).parent.parent


class Outcome(NamedTuple):
    """One of `OUTCOMES`, and what was said."""

    kind: str
    words: str


class Run(NamedTuple):
    """A process that has ended."""

    status: int
    stdout: str
    stderr: str


def run_script(script: str, *argv: Any) -> Run:
    """`python script argv` in a process that is forked from this one, which has imported the libraries."""
    with tempfile.TemporaryDirectory() as name:
        streams = [Path(name, stream) for stream in ("stdin", "stdout", "stderr")]
        for path in streams:
            path.touch()
        process = multiprocessing.get_context("fork").Process(target=_become, args=(script, argv, streams))
        process.start()
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        stdout, stderr = (path.read_text(encoding="utf-8", errors="replace") for path in streams[1:])
    return Run(process.exitcode or 0, stdout, stderr)


def _become(script: str, argv: tuple[Any, ...], streams: list[Path]) -> None:
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR), number)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    resource.setrlimit(resource.RLIMIT_AS, (MEGABYTES * 2**20,) * 2)
    sys.argv = [script, *map(str, argv)]
    runpy.run_path(str(ROOT / script), run_name="__main__")


def judge(is_right: bool, warned: list[str], detail: str) -> Outcome:
    """The outcome of an answer, with the warnings that came with it."""
    if warned:
        return Outcome(WARNED, warned[0])
    return Outcome(RIGHT if is_right else SILENT, detail)


def judge_run(run: Run, is_right: Callable[[], bool]) -> Outcome:
    """The outcome of a script; whether its answer is right matters only if it gave one."""
    lines = run.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if "Traceback" in run.stderr or (run.status and len(errors) != 1):
        return Outcome(TRACEBACK, f"exit status {run.status}: {' / '.join(lines[-1:])}")
    if errors:
        return Outcome(REFUSED, errors[0])
    return judge(is_right(), [line for line in lines if line.startswith("warning: ")], run.stdout[:200])


def judge_call(call: Callable[[], Any], is_right: Callable[[Any], bool]) -> Outcome:
    """The outcome of a Python call, which may refuse with a ValueError of one line."""
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(None):
        warnings.simplefilter("always")
        try:
            answer = call()
        except ValueError as error:
            message = str(error)
            return Outcome(REFUSED if message and "\n" not in message else TRACEBACK, message)
        except Exception as error:
            return Outcome(TRACEBACK, f"{type(error).__name__}: {error}")
    return judge(is_right(answer), [str(warning.message) for warning in caught], str(answer)[:200])


def is_close(found: dict[str, float], expected: dict[str, float]) -> bool:
    """Whether two answers have the same label, with nearly the same score."""
    best = max(expected, key=expected.__getitem__)
    return max(found, key=found.__getitem__, default="") == best and abs(found[best] - expected[best]) <= TOLERANCE
