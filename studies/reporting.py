"""What each study of reliability leaves: one section of docs/RELIABILITY.md."""

from pathlib import Path
from typing import Any

from core.json_files import write_json
from recipe.results import library_versions

RELIABILITY = Path(__file__).parent.parent / "docs" / "results" / "reliability"


def write_study(path: Path, title: str, command: str, rows: list[dict[str, str]], notes: str, **more: Any) -> None:
    """The results of a study as JSON.

    Args:
        command: that makes them again.
        rows: `what` was measured, and what was `measured`.
        more: what the study keeps for itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"title": title, "command": command, "rows": rows, "notes": notes, "versions": library_versions()}
    write_json(path, {**content, **more})
