"""Attacks on what the project reads, writes and serves, counted: each is a test of the suite.

    python studies/hostile_input.py

Writes docs/results/reliability/security.json: how many attacks of each kind there are, and how many were held off.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from studies.reporting import RELIABILITY, write_study

RESULTS = RELIABILITY / "security.json"
# What is attacked, and the tests that do it: a file, and words that pick some of its tests.
ATTACKS = {
    "Code in a model, an encoder or a checkpoint of others: pickles, Python files, attention kernels": (
        "tests/test_untrusted_files.py",
        "would_run_code or never_read",
    ),
    "Sources that would run data (eval, exec, pickle, torch.load, yaml.load, a shell)": (
        "tests/test_untrusted_files.py",
        "no_source or would_be_found",
    ),
    "Names and labels that are more than text: terminal, CSV, Markdown, TextGrid, Audacity, WebVTT, figures, a run": (
        "tests/test_escaping.py",
        "",
    ),
    "Names and labels in the page": ("tests/test_app.py", "names_and_labels"),
    "Paths and links that lead out of a folder or a CSV": ("tests/test_corpora.py", "leads_out or link_to"),
    "Paths, links and addresses that lead out of a dataset": ("tests/corpora/test_hub_corpus.py", "leads_out"),
    "Playlists that would have ffmpeg open other files or addresses": ("tests/test_bad_audio.py", "names_other_files"),
    "The token in what a run prints, writes or pushes": ("tests/test_push.py", "token or complete_private"),
    "The page's server asked for its files, or to fetch addresses, through its API": (
        "tests/test_app.py",
        "gives_out or visitor_names or through_the_api",
    ),
}


def main() -> None:
    rows = [{"what": what, "measured": counted(path, words)} for what, (path, words) in ATTACKS.items()]
    write_study(
        RESULTS,
        title="Hostile input",
        command="python studies/hostile_input.py",
        rows=rows,
        notes="A test may try several attacks; each asserts that its payload did not run, or that what was refused got "
        "one line.",
    )
    for row in rows:
        print(f"{row['measured']:30} {row['what']}")


def counted(path: str, words: str) -> str:
    """How many of these tests held."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", path, "-k", words, f"--junitxml={report}"]
        subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        suite = ElementTree.parse(report).getroot()[0]
    total, skipped = int(suite.attrib["tests"]), int(suite.attrib["skipped"])
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    return f"{total - skipped - failed} of {total} tests hold" + (f", {skipped} not run" if skipped else "")


if __name__ == "__main__":
    main()
