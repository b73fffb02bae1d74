"""Ensembles of the variants of an experiment, computed from their saved predictions: nothing is trained for them."""

from typing import Any

import numpy as np

from core.ensembles import RULE_NAMES, Rule, combine
from core.errors import InputError
from experiments.cells import Experiment
from experiments.systems import Run, System
from recipe.dimensions import COLUMN as DIMENSIONS


def build_ensembles(experiment: Experiment, systems: list[System]) -> list[System]:
    """Each ensemble as two systems, the plain mean and the one weighted by certainty, on the folds and seeds that all
    members have finished; those without any are omitted.

    Raises:
        InputError: members have other utterances or labels.
    """
    by_key = {system.key: system for system in systems}
    found = []
    for key, ensemble in experiment.ensembles.items():
        members = [by_key[member] for member in ensemble["members"] if member in by_key]
        if len(members) < len(ensemble["members"]):
            continue
        for rule, name in RULE_NAMES.items():
            runs = [_join_runs(key, runs, rule) for runs in _find_common_runs(members)]
            found.append(System(name_key(key, rule), f"{ensemble['name']}, {name}", {}, runs))
    return [system for system in found if system.runs]


def list_pairs(experiment: Experiment) -> list[tuple[str, str]]:
    """The keys of the systems to compare: of each ensemble, the weighted mean with the plain one."""
    return [(name_key(key, "certainty"), name_key(key, "mean")) for key in experiment.ensembles]


def name_key(key: str, rule: Rule) -> str:
    return f"ensemble-{key}-{rule}"


def _find_common_runs(members: list[System]) -> list[list[Run]]:
    """The runs of all members of each fold and seed that every member has finished."""
    places = [{(run.cell.fold, run.cell.seed): run for run in member.runs} for member in members]
    common = sorted(set.intersection(*map(set, places)))
    return [[runs[place] for runs in places] for place in common]


def _join_runs(key: str, runs: list[Run], rule: Rule) -> Run:
    """One run of an ensemble; it has no epochs of its own."""
    first = runs[0]
    lines = {weights: _join_lines(key, [run.lines[weights] for run in runs], rule) for weights in first.lines}
    return Run(first.cell, {**first.results, "history": []}, lines, first.scored_on, first.labels)


def _join_lines(key: str, members: list[list[dict[str, Any]]], rule: Rule) -> list[dict[str, Any]]:
    """The predictions of an ensemble; dimensions are plain means, since their certainty is unknown."""
    by_id = [{line["id"]: line for line in lines} for lines in members]
    joined = []
    for line in members[0]:
        same = [lines.get(line["id"]) for lines in by_id]
        labels = list(line["probabilities"])
        if any(each is None or set(each["probabilities"]) != set(labels) for each in same) or any(
            len(lines) != len(members[0]) for lines in members
        ):
            raise InputError(f"the members of the ensemble {key} have other utterances or labels: remove it")
        given = np.array([[each["probabilities"][label] for label in labels] for each in same if each])
        probabilities = combine(given, rule)
        answer = {
            "prediction": labels[int(probabilities.argmax())],
            "probabilities": dict(zip(labels, probabilities.tolist())),
        }
        if all(each and DIMENSIONS in each for each in same):
            values = {name: [each[DIMENSIONS][name] for each in same if each] for name in line[DIMENSIONS]}
            answer[DIMENSIONS] = {name: float(np.mean(each)) for name, each in values.items()}
        joined.append({**line, **answer})
    return joined
