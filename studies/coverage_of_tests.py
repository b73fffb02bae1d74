"""Which share of the model's files and of the recipe the tests run, by lines and branches, in all of their processes.

    pip install coverage==7.17.3 pytest-randomly==5.1.0
    python studies/coverage_of_tests.py

Writes docs/results/reliability/coverage.json.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from studies.reporting import RELIABILITY, write_study

RESULTS = RELIABILITY / "coverage.json"
# Processes that the tests start or fork are measured too, also those that end by a signal.
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
    measured = rows({name: found["summary"] for name, found in files.items()})
    for row in measured:
        print(f"{row['measured']:50} {row['what']}")
    for name, found in sorted(files.items()):
        if found["missing_lines"] or found["missing_branches"]:
            print(f"{name}: lines {found['missing_lines']}, branches {found['missing_branches']}")
    write_study(
        RESULTS,
        title="What the tests run",
        command="python studies/coverage_of_tests.py",
        rows=measured,
        notes="Lines and branches that at least one test takes, in the process of the tests or in one that it starts. "
        "The files' tests ran in random order, two files at a time.",
    )


def rows(files: dict[str, dict[str, Any]]) -> list[dict[str, str]]:
    """For the Hub files together and one by one, for the recipe, and for what else can be called."""
    hub = [name for name in files if name.endswith("_ser_align.py")]
    groups = {
        "the model's own files": hub,
        **{name: [name] for name in hub},
        "recipe/": [name for name in files if name.startswith("recipe/")],
        "inference/": [name for name in files if name.startswith("inference/")],
        "train.py, experiment.py, predict.py, app.py, export_onnx.py": [
            f"{name}.py" for name in ("train", "experiment", "predict", "app", "export_onnx")
        ],
    }
    return [{"what": what, "measured": shares([files[name] for name in names])} for what, names in groups.items()]


def shares(files: list[dict[str, Any]]) -> str:
    def total(name: str) -> int:
        return sum(file[name] for file in files)

    lines = 100 * total("covered_lines") / total("num_statements")
    branches = 100 * total("covered_branches") / total("num_branches")
    return f"{lines:.1f} % of lines, {branches:.1f} % of branches"


if __name__ == "__main__":
    main()
