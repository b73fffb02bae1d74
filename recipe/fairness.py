"""Fairness: how far recall and predictions differ between groups of speakers or utterances."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from core.errors import InputError
from recipe.statistics import GAPS, compute_metric, speaker_interval

GENDER = "gender"


def read_groups(row: dict[str, Any], columns: Sequence[str]) -> dict[str, str]:
    """The group of an utterance in each column, as text; empty if it is unknown."""
    return {column: "" if row[column] is None else str(row[column]) for column in columns}


def check_groups(columns: Sequence[str], known: Sequence[str]) -> None:
    """Raise InputError if the corpus does not have one of the columns."""
    for column in columns:
        if column not in known:
            raise InputError(f"--gap_columns: the corpus has no column {column!r}; its columns are {', '.join(known)}")


def find_columns(lines: list[dict[str, Any]]) -> list[str]:
    """The columns in which some predictions have at least two groups: the gender, and those of --gap_columns."""
    columns = [GENDER, *lines[0].get("groups", {})]
    return [column for column in dict.fromkeys(columns) if len(list_groups(lines, column)) > 1]


def list_groups(lines: list[dict[str, Any]], column: str) -> list[str]:
    """The known groups of a column, sorted."""
    return sorted({group for line in lines if (group := _find_group(line, column))})


def group_confusions(
    lines: list[dict[str, Any]], labels: list[str], column: str, groups: list[str]
) -> dict[str, np.ndarray]:
    """Confusion matrices of each speaker, (groups, classes, classes); an utterance of no known group does not count."""
    index = {label: position for position, label in enumerate(labels)}
    confusions: dict[str, np.ndarray] = {}
    for line in lines:
        if group := _find_group(line, column):
            shape = (len(groups), len(labels), len(labels))
            matrices = confusions.setdefault(line["speaker"], np.zeros(shape))
            matrices[groups.index(group), index[line["label"]], index[line["prediction"]]] += 1
    return confusions


def _find_group(line: dict[str, Any], column: str) -> str:
    return line.get(GENDER, "") if column == GENDER else line["groups"][column]


def score_gaps(confusions: dict[str, np.ndarray]) -> dict[str, float]:
    """`tpr_gap` and `dp_gap` between the groups of all speakers.

    Args:
        confusions: of each speaker, (groups, classes, classes).
    """
    total = np.sum(list(confusions.values()), axis=0)
    return {gap: float(compute_metric(total, gap)) for gap in GAPS}


def measure_gaps(confusions: dict[str, np.ndarray]) -> dict[str, float | None]:
    """What `score_gaps` returns, with the ends of the 95 % intervals over speakers (`tpr_gap_low`, ...)."""
    measured: dict[str, float | None] = {**score_gaps(confusions)}
    for gap in GAPS:
        ends = speaker_interval(np.array(list(confusions.values())), gap)
        measured[f"{gap}_low"], measured[f"{gap}_high"] = ends or (None, None)
    return measured


def count_groups(lines: list[dict[str, Any]], labels: list[str]) -> dict[str, tuple[list[str], dict[str, np.ndarray]]]:
    """The groups of each column of `find_columns`, and their confusion matrices of each speaker."""
    groups = {column: list_groups(lines, column) for column in find_columns(lines)}
    return {column: (names, group_confusions(lines, labels, column, names)) for column, names in groups.items()}
