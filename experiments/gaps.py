"""The table of gaps between groups: TPR gap and DP gap of each system, and their difference from the baseline."""

from functools import partial
from typing import Any

import numpy as np

from experiments.systems import System
from recipe.fairness import find_columns, group_confusions, list_groups, measure_gaps
from recipe.statistics import GAPS, compute_metric, difference_interval, holm, paired_p_value


def build_gap_table(systems: list[System], baseline: str, weights: str) -> list[dict[str, Any]]:
    """The gaps of each system for each column of groups, pooled over runs; empty if no column has two groups.

    The difference from the baseline is that on the folds and seeds that both have finished. Its p-values are adjusted
    for all tests of a column (Holm).
    """
    lines = [line for system in systems for line in system.collect_lines(weights)]
    labels = systems[0].runs[0].labels
    table = []
    for column in find_columns(lines):
        groups = list_groups(lines, column)
        count = partial(group_confusions, labels=labels, column=column, groups=groups)
        rows = [
            {"column": column, "groups": " ".join(groups), "system": system.name}
            | measure_gaps(system.pool_confusions(weights, count=count))
            for system in systems
        ]
        base = next((system for system in systems if system.key == baseline), None)
        for system, row in zip(systems, rows):
            if base is not None and system is not base:
                row |= _compare(system, base, weights, count)
        _adjust(rows)
        table += rows
    return table


def _compare(system: System, base: System, weights: str, count: Any) -> dict[str, Any]:
    """The difference of each gap from the baseline, with interval and p-value; empty without common speakers."""
    common = system.places & base.places
    ours, theirs = (side.pool_confusions(weights, common, count) for side in (system, base))
    if not ours or ours.keys() != theirs.keys():
        return {}
    first, second = (np.array([side[speaker] for speaker in sorted(ours)]) for side in (ours, theirs))
    row: dict[str, Any] = {}
    for gap in GAPS:
        values = [float(compute_metric(side.sum(axis=0), gap)) for side in (first, second)]
        ends = difference_interval(first, second, gap) or (None, None)
        row |= {f"{gap}_difference": values[0] - values[1], f"{gap}_p": paired_p_value(first, second, gap)}
        row |= dict(zip((f"{gap}_difference_low", f"{gap}_difference_high"), ends))
    return row


def _adjust(rows: list[dict[str, Any]]) -> None:
    """Add p-values adjusted for all tests in these rows."""
    tests = [(row, gap) for row in rows for gap in GAPS if f"{gap}_p" in row]
    for (row, gap), adjusted in zip(tests, holm([row[f"{gap}_p"] for row, gap in tests])):
        row[f"{gap}_p_holm"] = adjusted
