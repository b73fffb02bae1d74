"""The scores of dimensions as shown in the terminal and in the model card, beside those of a constant."""

from typing import Any

from core.escaping import markdown_text, printable
from recipe.dimension_scores import MEASURES, find_intervals
from recipe.dimensions import describe_source
from recipe.records import checkpoint_name

Scores = dict[str, dict[str, dict[str, float | None]]]


def list_scores(results: dict[str, Any], part: str) -> Scores:
    """The measures of each dimension on one set, of best, last and constant; empty for a model without dimensions."""
    if "dimensions" not in results:
        return {}
    models = {name: results["scores"][name][part]["dimensions"] for name in ("best", "last")}
    return {**models, "constant": results["dimensions"]["constant"][part]}


def format_lines(results: dict[str, Any]) -> list[str]:
    """The measures on the test set for the terminal; none for a model without dimensions."""
    scores = list_scores(results, "test")
    if not scores:
        return []
    names = "".join(f"{printable(name):>22}" for name in scores["constant"])
    lines = [f"  {'test dimensions':22}{names}   ({describe_source(results['dimensions']['source'])})"]
    lines.append(" " * 24 + "     CCC     r    RMSE" * len(scores["constant"]))
    for name, each in scores.items():
        cells = "".join(
            f"{_format(one['ccc']):>8}{_format(one['pearson'], 2):>6}{_format(one['rmse']):>8}" for one in each.values()
        )
        lines.append(f"  {_name(results, name):22}{cells}")
    return lines


def make_rows(results: dict[str, Any], lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the model card: a dimension, a model or the constant, and its measures, with the intervals of best.

    Args:
        lines: test predictions of the best weights.
    """
    intervals = find_intervals(lines) if "dimensions" in results else {}
    rows = []
    for dimension, of_each in intervals.items():
        for name, scores in list_scores(results, "test").items():
            cells = [_format(scores[dimension][measure]) for measure in MEASURES]
            if name == "best":
                cells = [f"{cell}{_bracket(of_each[measure])}" for cell, measure in zip(cells, MEASURES)]
            rows.append({"dimension": markdown_text(dimension), "name": _name(results, name), "cells": cells})
    return rows


def describe_scales(results: dict[str, Any]) -> str:
    """`valence (1 to 5), arousal (1 to 5)`; empty for a model without dimensions."""
    scales = results.get("dimensions", {}).get("scales", {})
    return ", ".join(f"{markdown_text(name)} ({low:g} to {high:g})" for name, (low, high) in scales.items())


def _name(results: dict[str, Any], name: str) -> str:
    return checkpoint_name(results, name) if name in results["epochs"] else name


def _format(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _bracket(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
