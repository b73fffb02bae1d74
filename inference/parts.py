"""Keeps records in a folder next to --output until all are complete, so that an interrupted run can resume."""

import argparse
import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from core.errors import InputError, writing
from inference.answers import Job
from inference.outputs import Record

# Options that may change when a run is resumed.
NOT_RECORDED = ("recordings", "device", "batch_size", "overwrite", "quiet", "format")


def name_parts(output: str) -> Path:
    return Path(f"{output.rstrip('/')}.parts")


def is_interrupted(options: argparse.Namespace) -> bool:
    """Whether an earlier run with this --output stopped before its end."""
    return options.output is not None and name_parts(options.output).is_dir()


def open_parts(options: argparse.Namespace) -> Path:
    """Create the folder, or open that of an interrupted run.

    Raises:
        InputError: the interrupted run had different options.
    """
    parts = name_parts(options.output)
    settings = {name: value for name, value in sorted(vars(options).items()) if name not in NOT_RECORDED}
    path = parts / "options.json"
    if not path.is_file():
        with writing(parts):
            parts.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings), encoding="utf-8")
        return parts
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        command = _describe_option(changed[0], before.get(changed[0]))
        raise InputError(f"{parts} contains the results of a run {command}: use the same options again, or remove it")
    for cut_short in parts.glob("part*.jsonl"):  # so that the next record starts a new line
        with cut_short.open("a", encoding="utf-8") as file:
            file.write("\n")
    return parts


def _describe_option(name: str, value: Any) -> str:
    if value is None or value is False:
        return f"without --{name}"
    return f"with --{name}" if value is True else f"with --{name} {value}"


def keep_record(parts: Path | None, process: int, record: Record) -> None:
    """Append a record to the file of this process."""
    if parts is not None:
        with writing(parts), (parts / f"part-{process}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def read_parts(parts: Path | None) -> dict[Job, Record]:
    """Read all records so far, of this run and of interrupted ones; a truncated line is ignored."""
    records: dict[Job, Record] = {}
    for path in sorted(parts.glob("part*.jsonl")) if parts else ():
        for line in path.read_text(encoding="utf-8").split("\n"):
            with contextlib.suppress(json.JSONDecodeError):
                record = json.loads(line)
                records[Job(record["file"], record["channel"])] = record
    return records


def remove_parts(parts: Path | None) -> None:
    if parts is not None:
        shutil.rmtree(parts)
