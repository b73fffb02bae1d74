"""experiment.py --slurm: what its script gives a fake sbatch is run, two cells at a time, in their own processes."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from running import SHORT, environment, lines_of, run_script

from experiments.slurm import format_array

pytestmark = pytest.mark.slow

OPTIONS = [*SHORT[2:], "--max_steps", "2"]
# Takes the options that Slurm's documentation gives sbatch, and writes what the shell of each task would run.
SBATCH = """\
#!{python}
import argparse, json, os, subprocess
from pathlib import Path

parser = argparse.ArgumentParser(allow_abbrev=False)
parser.add_argument("--parsable", action="store_true")
for name in ("partition", "job-name", "dependency", "array", "wrap"):
    parser.add_argument("--" + name)
options = parser.parse_args()
jobs = Path(__file__).with_name("jobs.jsonl")
number = 100 + (jobs.read_text().count("\\n") if jobs.exists() else 0)
tasks = []
for part in (options.array or "").split(","):
    ends = part.split("-")
    tasks += map(str, range(int(ends[0]), int(ends[-1]) + 1) if part else [""])
commands = [
    subprocess.run(["sh", "-c", "printf '%s\\\\0' " + options.wrap], env=os.environ | {{"SLURM_ARRAY_TASK_ID": task}},
                   check=True, capture_output=True, text=True).stdout.split("\\0")[:-1]
    for task in tasks
]
with jobs.open("a") as file:
    file.write(json.dumps({{**vars(options), "tasks": tasks, "commands": commands, "folder": os.getcwd()}}) + "\\n")
print(f"{{number}};here" if options.parsable else f"Submitted batch job {{number}}")
"""


@pytest.fixture(scope="module")
def submitted(demo, tmp_path_factory):
    """The folder of an experiment of one stage 1 and two variants, run by a fake sbatch; also the options of it."""
    folder = tmp_path_factory.mktemp("it's a cluster")
    content = {"title": "Pooling", "config": "run_configs/quickstart.yaml", "folds": [1]}
    content["variants"] = {"plain": {"options": {"pooling": "mean", "eal_weight": 0, "fual_weight": 0}}, "cls": {}}
    (folder / "table.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    (folder / "sbatch").write_text(SBATCH.format(python=sys.executable), encoding="utf-8")
    (folder / "sbatch").chmod(0o755)
    argv = ["--config", folder / "table.yaml", "--output_dir", folder / "out", "--data_dir", demo, *OPTIONS]
    script = run_script("experiment.py", *argv, "--slurm").stdout
    (folder / "submit.sh").write_text(script, encoding="utf-8")
    variables = {**environment(), "PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["bash", folder / "submit.sh", "--partition", "gpu"]
    run = subprocess.run(command, cwd="/", env=variables, capture_output=True, text=True)
    assert run.returncode == 0 and "Submitted batch job 102" in run.stdout, run.stderr
    return folder, argv, [text for job in lines_of(folder / "jobs.jsonl") for text in run_job(job)]


def run_job(job):
    """What the tasks of a job print, each in its own process, two at a time."""
    assert all(command[0] == sys.executable for command in job["commands"]) and Path(job["folder"]) == ROOT
    with ThreadPoolExecutor(2) as at_once:
        return [run.stdout for run in at_once.map(lambda command: run_script(*command[1:]), job["commands"])]


def test_stage_1_comes_first_and_each_cell_is_trained_once(submitted):
    folder, _, printed = submitted
    jobs = lines_of(folder / "jobs.jsonl")
    assert [job["tasks"] for job in jobs] == [["1"], ["2", "3"], [""]]
    assert [job["dependency"] for job in jobs] == [None, "afterany:100", "afterany:101"]
    assert all(job["partition"] == "gpu" for job in jobs)
    assert [text.count("s. Scores on unseen speakers:") for text in printed] == [1, 1, 1, 0]
    assert "3 of 3 runs are finished." in (folder / "out" / "table" / "report.md").read_text(encoding="utf-8")


def test_what_is_finished_is_not_submitted(submitted, tmp_path):
    folder, argv, _ = submitted
    assert "all 3 cells are finished" in run_script("experiment.py", *argv, "--slurm", expect=1).stderr
    copy = shutil.copytree(folder / "out", tmp_path / "out")
    shutil.rmtree(copy / "fold1-seed0" / "cls")
    script = run_script("experiment.py", *argv, "--output_dir", copy, "--slurm").stdout
    assert script.count("--array") == 1 and "--array 3 " in script and "1 of 3 cells" in script


def test_cells_that_start_together_train_their_stage_1_once(submitted, tmp_path):
    """A scheduler that ignores the dependency: one of them trains stage 1, and the other waits for it."""
    _, argv, _ = submitted
    argv = [*argv, "--output_dir", tmp_path / "out"]
    with ThreadPoolExecutor(2) as at_once:
        runs = list(at_once.map(lambda number: run_script("experiment.py", *argv, "--cell", number), (2, 3)))
    assert "".join(run.stdout for run in runs).count("s. Scores on unseen speakers:") == 3
    assert len(list(tmp_path.glob("out/fold1-seed0/**/results.json"))) == 3


@pytest.mark.parametrize(("numbers", "text"), [([4], "4"), ([1, 2, 3, 7, 9, 10], "1-3,7,9-10")])
def test_an_array_is_written_as_sbatch_takes_it(numbers, text):
    assert format_array(numbers) == text
