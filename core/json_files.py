"""JSON and JSON Lines files that survive a kill, and whose damage is named."""

import json
import os
from pathlib import Path
from typing import Any

from core.errors import InputError, writing


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON file, written in one step: a kill or a power failure leaves the old one or the new one."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    with writing(path), unfinished.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a stage folder. Raises InputError if it is incomplete."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path} is incomplete or not JSON: remove {path.parent} and train it again") from None


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """A JSON Lines file."""
    with writing(path):
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A JSON Lines file. Raises InputError that names an incomplete line."""
    if not path.is_file():
        raise InputError(f"{path} is missing: remove {path.parent} and run the experiment again")
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            raise InputError(
                f"{path}, line {number} is incomplete: remove {path.parent} and run the experiment again, which trains "
                "this cell alone"
            ) from None
    return lines
