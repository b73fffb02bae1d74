"""Writes the script that submits the unfinished cells of an experiment to a Slurm cluster."""

import shlex
import sys
from itertools import groupby
from pathlib import Path

from core.errors import InputError
from experiments.cells import Experiment

SCRIPT = """\
#!/bin/bash
# {title}: submits {count}. Arguments are passed to sbatch:
# bash submit.sh --partition gpu --gres gpu:1 --time 4:00:00
set -euo pipefail
cd {folder}
cell={cell}
report={report}
after=
{jobs}
sbatch "$@" --job-name {name}-report $after --wrap "$report"
"""
JOB = """\
job=$(sbatch --parsable "$@" --job-name {name} $after --array {numbers} --wrap "$cell")
after="--dependency afterany:${{job%%;*}}"  # with several clusters, sbatch prints JOB;CLUSTER"""


def write_submission(experiment: Experiment, argv: list[str]) -> str:
    """A shell script that submits one job array for stage 1, one for the other cells, and a job for the report.

    A cell of stage 2 starts after all of stage 1, so that no job waits for another one on a GPU. If a stage 1 has
    failed, the first of its cells trains it again; locks see to it that each cell is trained once, whatever the order.

    Args:
        argv: the options of experiment.py that every job gets.

    Raises:
        InputError: all cells are finished.
    """
    cells = experiment.list_cells()
    unfinished = [number for number, cell in enumerate(cells, start=1) if not experiment.is_finished(cell)]
    if not unfinished:
        raise InputError(f"all {len(cells)} cells are finished: --report writes their tables and figures")
    first = [number for number in unfinished if cells[number - 1].variant is None]
    arrays = [numbers for numbers in (first, sorted(set(unfinished) - set(first))) if numbers]
    command = shlex.join([sys.executable, "experiment.py", *argv])
    name = shlex.quote(experiment.path.stem)
    return SCRIPT.format(
        title=" ".join(experiment.title.split()),
        count=f"{len(unfinished)} of {len(cells)} cells",
        folder=shlex.quote(str(Path.cwd())),
        cell=shlex.quote(f"{command} --cell $SLURM_ARRAY_TASK_ID"),
        report=shlex.quote(f"{command} --report"),
        jobs="\n".join(JOB.format(name=name, numbers=format_array(numbers)) for numbers in arrays),
        name=name,
    )


def format_array(numbers: list[int]) -> str:
    """Ascending numbers as sbatch takes them: [1, 2, 3, 7] is `1-3,7`."""
    runs = []
    for _, members in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in members]
        runs.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
    return ",".join(runs)
