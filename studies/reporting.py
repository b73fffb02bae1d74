"""Writes the JSON file of a study, which becomes a section of docs/RELIABILITY.md."""

from pathlib import Path
from typing import Any

from core.json_files import write_json
from recipe.results import library_versions

RELIABILITY = Path(__file__).parent.parent / "docs" / "results" / "reliability"


def write_study(path: Path, title: str, command: str, rows: list[dict[str, str]], notes: str, **more: Any) -> None:
    """Write the results of a study as JSON.

    Args:
        command: the command that reproduces them.
        rows: `what` was measured, and the result (`measured`).
        more: further values that the study stores.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"title": title, "command": command, "rows": rows, "notes": notes, "versions": library_versions()}
    write_json(path, {**content, **more})
