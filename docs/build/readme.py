"""Generated parts of README.md: between markers, with what its snippets really print."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def replace_in_readme(name: str, lines: list[str]) -> None:
    """Put lines between the README's markers of that name, `<!-- name:begin -->` and `<!-- name:end -->`."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(begin)
    text = "\n".join([begin, *lines, end])
    readme.write_text(before + text + rest.partition(end)[2], encoding="utf-8")


def printed_by(snippet: str) -> list[str]:
    """The lines that a snippet prints when it is run in the project's directory."""
    run = subprocess.run([sys.executable, "-c", snippet], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()
