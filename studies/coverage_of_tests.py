"""Line and branch coverage of the tests, including all processes that they start.

    pip install coverage==7.17.3 pytest-randomly==5.1.0
    python -m studies.coverage_of_tests

Writes docs/results/reliability/coverage.json.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from studies.reporting import RELIABILITY, write_study

ROOT = Path(__file__).parent.parent
RESULTS = RELIABILITY / "coverage.json"
# Also measures processes that the tests start or fork, and those that a signal ends.
SETTINGS = """
[run]
branch = true
source = {root}
omit = {root}/tests/*,{root}/models/*
data_file = {folder}/data
parallel = true
concurrency = thread,multiprocessing
patch = subprocess,fork,_exit
sigterm = true
disable_warnings = no-data-collected,module-not-imported,module-not-measured,couldnt-parse
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "coverage.ini"
        settings.write_text(SETTINGS.format(root=ROOT, folder=folder))
        coverage = [sys.executable, "-m", "coverage"]
        environment = {**os.environ, "COVERAGE_RCFILE": str(settings), "COVERAGE_PROCESS_START": str(settings)}

        def run(*arguments: str) -> None:
            subprocess.run([*coverage, *arguments], cwd=ROOT, env=environment, check=True)

        run("run", "-m", "pytest", "-p", "randomly")
        run("combine", "--quiet")
        run("json", "--quiet", "-o", f"{folder}/report.json")
        files = json.loads(Path(folder, "report.json").read_text())["files"]
    measured = summarize({name: found["summary"] for name, found in files.items()})
    for row in measured:
        print(f"{row['measured']:50} {row['what']}")
    for name, found in sorted(files.items()):
        if found["missing_lines"] or found["missing_branches"]:
            print(f"{name}: lines {found['missing_lines']}, branches {found['missing_branches']}")
    write_study(
        RESULTS,
        title="Test coverage",
        command="python -m studies.coverage_of_tests",
        rows=measured,
        notes="Lines and branches that at least one test executes, in the test process or in a process that it starts. "
        "Tests ran in random order, two files at a time.",
    )


def summarize(files: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """Coverage of the Hub files together and one by one, of the packages, and of the scripts."""
    hub = [name for name in files if name.endswith("_ser_align.py")]
    groups = {
        "Hub files": hub,
        **{name: [name] for name in hub},
        "recipe/": [name for name in files if name.startswith("recipe/")],
        **{
            f"{package}/": [name for name in files if name.startswith(f"{package}/")]
            for package in ("core", "inference", "experiments", "demo")
            if any(name.startswith(f"{package}/") for name in files)
        },
        "train.py, experiment.py, predict.py, app.py, export_onnx.py": [
            f"{name}.py" for name in ("train", "experiment", "predict", "app", "export_onnx")
        ],
    }
    return [
        {"what": what, "measured": format_shares([files[name] for name in names])} for what, names in groups.items()
    ]


def format_shares(files: list[dict[str, Any]]) -> str:
    def total(name: str) -> int:
        return sum(file[name] for file in files)

    lines = 100 * total("covered_lines") / total("num_statements")
    branches = 100 * total("covered_branches") / total("num_branches")
    return f"{lines:.1f} % of lines, {branches:.1f} % of branches"


if __name__ == "__main__":
    main()
