"""The finished runs of an experiment, read from their folders and grouped into the systems that are compared."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.errors import InputError
from core.json_files import read_json, read_lines
from experiments.cells import Cell, Experiment
from experiments.variants import SPLITTING
from recipe.joining import order_labels
from recipe.records import RECORDED, first_difference
from recipe.results import find_pooling, read_results
from recipe.statistics import compute_scores, speaker_confusions

# Runs of one system may differ in these.
CELL_FIELDS = ("fold", "seed", *RECORDED)


@dataclass
class Run:
    """A finished cell: its results.json, and the predictions of its best and its last weights that are scored.

    `labels` are those of all runs: they may differ between folds that train on different corpora.
    """

    cell: Cell
    results: dict[str, Any]
    lines: dict[str, list[dict[str, Any]]]
    scored_on: str
    labels: list[str]

    def count_confusions(self, weights: str) -> dict[str, np.ndarray]:
        return speaker_confusions(self.lines[weights], self.labels)

    def compute_scores(self, weights: str) -> dict[str, float]:
        return {
            name: float(value)
            for name, value in compute_scores(np.sum(list(self.count_confusions(weights).values()), axis=0)).items()
        }


@dataclass
class System:
    """A row of the table: a variant or stage 1, with its finished runs."""

    key: str
    name: str
    paper: dict[str, float]
    runs: list[Run]

    def pool_confusions(
        self,
        weights: str,
        among: set[tuple[int, int]] | None = None,
        count: Callable[[list[dict[str, Any]]], dict[str, np.ndarray]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Confusion matrix of each speaker, summed over all runs or over the given (fold, seed) pairs.

        Args:
            count: counts something else of each speaker in the predictions of a run, such as matrices of groups.
        """
        total: dict[str, np.ndarray] = {}
        for run in self.runs:
            if among is None or (run.cell.fold, run.cell.seed) in among:
                counted = run.count_confusions(weights) if count is None else count(run.lines[weights])
                for speaker, confusion in counted.items():
                    total[speaker] = total.get(speaker, 0) + confusion
        return total

    @property
    def is_classical(self) -> bool:
        return self.runs[0].cell.is_classical

    @property
    def places(self) -> set[tuple[int, int]]:
        return {(run.cell.fold, run.cell.seed) for run in self.runs}

    def collect_lines(self, weights: str) -> list[dict[str, Any]]:
        return [line for run in self.runs for line in run.lines[weights]]


def read_systems(experiment: Experiment) -> list[System]:
    """Stage 1 and every variant with their finished cells; systems without a finished cell are omitted.

    Raises:
        InputError: nothing is finished yet, runs cannot be compared, or a file of a finished cell is damaged.
    """
    runs = [run for cell in experiment.list_cells() if (run := read_run(experiment, cell))]
    if not runs:
        raise InputError(f"no cell of {experiment.path} is finished in {experiment.output_dir}: train one first")
    _check_one_recipe(experiment, [run.cell for run in runs])
    if any(run.labels != runs[0].labels for run in runs):
        labels = order_labels(label for run in runs for label in run.labels)
        runs = [replace(run, labels=labels) for run in runs]
    first = [run for run in runs if run.cell.variant is None]
    pooling = find_pooling(first[0].results) if first else ""
    stage1 = System("stage1", f"stage 1: {pooling.replace('_', '-')} pooling", {}, first)
    variants = [
        System(variant.key, variant.name, variant.paper, [run for run in runs if run.cell.variant == variant])
        for variant in experiment.variants
    ]
    return [system for system in (stage1, *variants) if system.runs]


def _check_one_recipe(experiment: Experiment, cells: list[Cell]) -> None:
    """Raise InputError if runs of a system differ in their options, or runs of a fold in their rows or stage 1.

    Variants of one stage may split otherwise; then they have other rows.

    Their mean or difference would be meaningless.
    """
    first: dict[tuple, tuple[Cell, dict[str, Any]]] = {}
    for cell in cells:
        record = read_json(experiment.find_stage_folder(cell) / "arguments.json")
        place = (cell.fold, cell.seed)
        compared = {
            ("options", cell.variant.key if cell.variant else None): {
                name: value for name, value in record.items() if name not in CELL_FIELDS
            },
            ("rows", *place, *map(record.get, SPLITTING)): {"rows": record["rows"]},
        }
        if experiment.find_stage1(cell) is not None:
            compared["stage1", *place] = {"stage1": record["stage1"]}
        for what, part in compared.items():
            reference, expected = first.setdefault(what, (cell, part))
            difference = first_difference(expected, part)
            if difference is not None:
                folders = [experiment.find_stage_folder(one) for one in (reference, cell)]
                raise InputError(
                    f"{folders[0]} was trained with {difference} in {folders[1]}: "
                    "remove one of them and run the experiment again"
                )


def read_run(experiment: Experiment, cell: Cell) -> Run | None:
    """A finished cell, or None. Raises InputError if its predictions do not match its results.json."""
    stage_dir, part = experiment.find_stage_folder(cell), experiment.scored_on
    results = read_results(stage_dir)
    if results is None:
        return None
    lines = {}
    last = stage_dir if cell.is_classical else stage_dir / "last"
    for weights, folder in (("best", stage_dir), ("last", last)):
        path = folder / "predictions.jsonl"
        lines[weights] = [line for line in read_lines(path) if line["split"] == part]
        expected = results["scores"][weights][part]["num_utterances"]
        unique = len({line["id"] for line in lines[weights]})
        if not unique == len(lines[weights]) == expected:
            raise InputError(
                f"{path} has {len(lines[weights])} {part} lines for {unique} utterances, but {expected} were scored: "
                f"remove {stage_dir} and run the experiment again, which trains only this cell"
            )
    return Run(cell, results, lines, part, results["labels"])
