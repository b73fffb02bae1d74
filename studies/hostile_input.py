"""Count the attacks on everything that the project reads, writes and serves; each attack is a test.

    python -m studies.hostile_input

Writes docs/results/reliability/security.json: the number of attacks of each kind, and how many of them failed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from studies.reporting import RELIABILITY, write_study

ROOT = Path(__file__).parent.parent
RESULTS = RELIABILITY / "security.json"
# The target of each attack, and its tests: a file and a pytest -k expression.
ATTACKS = {
    "Code in a downloaded model, encoder or checkpoint: pickles, Python files, attention kernels": (
        "tests/core/test_untrusted_files.py",
        "would_run_code or never_read",
    ),
    "Source code that would execute data (eval, exec, pickle, torch.load, yaml.load, a shell)": (
        "tests/core/test_untrusted_files.py",
        "no_source or would_be_found",
    ),
    "Names and labels with control codes or markup: terminal, CSV, Markdown, TextGrid, Audacity, WebVTT, figures": (
        "tests/core/test_escaping.py",
        "",
    ),
    "Names and labels with markup on the demo page": ("tests/demo/test_page.py", "names_and_labels"),
    "Paths and links that leave a folder or a CSV's directory": (
        "tests/recipe/test_corpora.py",
        "leads_out or link_to",
    ),
    "Paths, links and URLs that leave a dataset": ("tests/corpora/test_hub_corpus.py", "leads_out"),
    "Playlists that make ffmpeg open other files or URLs": ("tests/core/test_bad_audio.py", "names_other_files"),
    "The Hub token in what a run prints, writes or pushes": (
        "tests/recipe/test_publishing.py",
        "token or complete_private",
    ),
    "Requests for files or URLs through the demo page's API": (
        "tests/demo/test_page.py",
        "gives_out or visitor_names or through_the_api",
    ),
}


def main() -> None:
    rows = [{"what": what, "measured": count_passed(path, words)} for what, (path, words) in ATTACKS.items()]
    write_study(
        RESULTS,
        title="Hostile input",
        command="python -m studies.hostile_input",
        rows=rows,
        notes="A test may try several attacks. Each asserts that the payload did not run, or that the input was "
        "rejected with a one-line error.",
    )
    for row in rows:
        print(f"{row['measured']:30} {row['what']}")


def count_passed(path: str, words: str) -> str:
    """Count how many of these tests pass."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", path, "-k", words, f"--junitxml={report}"]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        suite = ElementTree.parse(report).getroot()[0]
    total, skipped = int(suite.attrib["tests"]), int(suite.attrib["skipped"])
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    return f"{total - skipped - failed} of {total} tests pass" + (f", {skipped} not run" if skipped else "")


if __name__ == "__main__":
    main()
