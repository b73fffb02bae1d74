"""Reads and writes JSON and JSON Lines files; errors name the damaged file."""

import json
import os
from pathlib import Path
from typing import Any

from core.errors import InputError, writing


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    _write_atomically(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a stage folder. Raises InputError if it is incomplete."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path} is incomplete or not JSON: remove {path.parent} and train it again") from None


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write a JSON Lines file atomically."""
    _write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))


def _write_atomically(path: Path, text: str) -> None:
    """Write a file: a kill or power failure leaves either the old or the new content, as do two processes at once."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    with writing(path), unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSON Lines file. Raises InputError, with the line number, if a line is incomplete."""
    if not path.is_file():
        raise InputError(f"{path} is missing: remove {path.parent} and run the experiment again")
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            raise InputError(
                f"{path}, line {number} is incomplete: remove {path.parent} and run the experiment again, which "
                "retrains only this cell"
            ) from None
    return lines
