"""Scores of dimensions: CCC, Pearson's correlation and RMSE, a constant to beat, intervals, and the calibration."""

import functools
import math
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from datasets import DatasetDict

from recipe.calibration import weigh_corpora
from recipe.dimensions import COLUMN, read_targets
from recipe.statistics import resample_speakers

METRIC = Path(__file__).parent.parent / "metrics" / "concordance"
MEASURES = ("ccc", "pearson", "rmse")
TRUE = "true_dimensions"  # in a line of predictions.jsonl, beside the predicted `dimensions`
FLATTEST, STEEPEST = 0.2, 5.0  # slopes of a calibration, for models that hardly tell utterances apart

Interval = tuple[float, float] | None


@functools.cache
def _load_metric() -> evaluate.EvaluationModule:
    return evaluate.load(str(METRIC))


def measure(predictions: np.ndarray, targets: np.ndarray, names: list[str]) -> dict[str, dict[str, float | None]]:
    """CCC, Pearson's correlation (None if undefined) and RMSE of each dimension; both (utterances, dimensions)."""
    scores = {}
    for name, found, true in zip(names, np.transpose(predictions), np.transpose(targets)):
        computed = _load_metric().compute(predictions=found.tolist(), references=true.tolist())
        scores[name] = {each: None if math.isnan(computed[each]) else computed[each] for each in MEASURES}
    return scores


def average_ccc(scores: dict[str, dict[str, Any]]) -> float:
    """The mean CCC over dimensions; it is highest where their sum is."""
    return float(np.mean([each["ccc"] for each in scores.values()]))


def read_lines(lines: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true values of predictions, both (utterances, dimensions)."""
    found, true = ([list(line[name].values()) for line in lines] for name in (COLUMN, TRUE))
    return np.array(found, dtype=np.float64), np.array(true, dtype=np.float64)


def has_dimensions(lines: list[dict[str, Any]]) -> bool:
    return TRUE in lines[0]


def score_lines(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """`dimensions`, the measures of each, and `mean_ccc`, of some predictions."""
    scores = measure(*read_lines(lines), list(lines[0][TRUE]))
    return {"dimensions": scores, "mean_ccc": average_ccc(scores)}


def score_constant(split: DatasetDict, names: list[str]) -> dict[str, Any]:
    """The measures of the mean of the training targets on the validation and the test set, and this mean."""
    mean = read_targets(split["train"]).numpy().mean(axis=0)
    scores = {}
    for part in ("validation", "test"):
        targets = read_targets(split[part]).numpy()
        scores[part] = measure(np.tile(mean, (len(targets), 1)), targets, names)
    return {"training_mean": dict(zip(names, mean.tolist())), **scores}


def fit_calibration(lines: list[dict[str, Any]]) -> list[list[float]]:
    """Slope and intercept that give the predictions of each dimension the mean and the spread of the true values, and
    the RMSE after them.

    No other line has a higher CCC. The slope is between 0.2 and 5. Every corpus counts as much as any other. All ours.

    Args:
        lines: predictions of a model without calibration; never of test data.
    """
    found, true = read_lines(lines)
    weights = weigh_corpora(lines)
    fitted = []
    for x, y in zip(found.T, true.T):
        x_mean, y_mean = np.average(x, weights=weights), np.average(y, weights=weights)
        spreads = [
            np.sqrt(np.average((each - mean) ** 2, weights=weights)) for each, mean in ((x, x_mean), (y, y_mean))
        ]
        slope = float(np.clip(spreads[1] / max(spreads[0], 1e-12), FLATTEST, STEEPEST))
        intercept = float(y_mean - slope * x_mean)
        error = float(np.sqrt(np.average((slope * x + intercept - y) ** 2, weights=weights)))
        fitted.append([slope, intercept, error])
    return fitted


def sum_moments(lines: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Of each speaker, what all measures follow from: (dimensions, 6) sums of 1, x, y, x^2, y^2 and xy."""
    speakers = np.array([line["speaker"] for line in lines])
    x, y = read_lines(lines)
    centre = y.mean(axis=0)  # of all speakers: squares of values far from 0 would lose digits
    x, y = x - centre, y - centre
    each = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=-1)
    return {speaker: each[speakers == speaker].sum(axis=0) for speaker in dict.fromkeys(speakers.tolist())}


def compute_measures(moments: np.ndarray) -> dict[str, np.ndarray]:
    """CCC, Pearson's correlation and RMSE of sums (..., 6), each (...)."""
    count, x, y, xx, yy, xy = np.moveaxis(moments, -1, 0)
    x_mean, y_mean = x / count, y / count
    x_variance, y_variance, covariance = xx / count - x_mean**2, yy / count - y_mean**2, xy / count - x_mean * y_mean
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "ccc": np.nan_to_num(2 * covariance / (x_variance + y_variance + (x_mean - y_mean) ** 2)),
            "pearson": np.nan_to_num(covariance / np.sqrt(x_variance * y_variance)),
            "rmse": np.sqrt(np.maximum(xx + yy - 2 * xy, 0) / count),
        }


def find_intervals(lines: list[dict[str, Any]]) -> dict[str, dict[str, Interval]]:
    """95 % bootstrap interval over speakers of each measure of each dimension; None with fewer than two speakers."""
    moments = np.array(list(sum_moments(lines).values()))
    return {
        dimension: {name: resample_speakers(moments[:, index], compute_measures, name) for name in MEASURES}
        for index, dimension in enumerate(lines[0][TRUE])
    }


def compare_ccc(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> tuple[float, Interval]:
    """The mean CCC over dimensions of the first predictions minus that of the second, and its interval over speakers.

    Args:
        first, second: predictions of two systems for the same speakers.
    """
    ours, theirs = sum_moments(first), sum_moments(second)
    sums = np.array([(ours[speaker], theirs[speaker]) for speaker in sorted(ours)])

    def compute(both: np.ndarray) -> dict[str, np.ndarray]:
        ccc = compute_measures(both)["ccc"].mean(axis=-1)
        return {"difference": ccc[..., 0] - ccc[..., 1]}

    return float(compute(sums.sum(axis=0))["difference"]), resample_speakers(sums, compute, "difference")
