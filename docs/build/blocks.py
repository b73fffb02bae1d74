"""Writes generated blocks of Markdown files, between `<!-- name:begin -->` and `<!-- name:end -->`."""

import subprocess
import sys
from pathlib import Path

from core.errors import InputError

ROOT = Path(__file__).parents[2]


def replace_block(path: Path, name: str, lines: list[str]) -> None:
    """Replace the text between the markers of this name in a Markdown file.

    Raises:
        InputError: the file does not exist, or does not have both markers in this order exactly once.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
        raise InputError(f"{path} has no block '{name}': add the lines {begin} and {end}")
    path.write_text(before + "\n".join([begin, *lines, end]) + after, encoding="utf-8")


def run_snippet(snippet: str) -> list[str]:
    """Run a Python snippet in the project root; return the lines that it prints."""
    run = subprocess.run([sys.executable, "-c", snippet], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()
