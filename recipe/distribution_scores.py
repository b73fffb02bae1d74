"""Scores of label distributions: six measures, the guesses to beat, and the threshold of mixed answers."""

import functools
from pathlib import Path
from typing import Any

import evaluate
import numpy as np
from datasets import Dataset, DatasetDict

from recipe.distributions import COLUMN

METRIC = Path(__file__).parent.parent / "metrics" / "label_distribution"
MEASURES = ("chebyshev", "clark", "canberra", "kl", "cosine", "intersection")
GUESSES = ("constant", "uniform")  # the mean of the training targets, and the same probability for each class
THRESHOLDS = np.linspace(0, 1, 201)[:-1]


@functools.cache
def _load_metric() -> evaluate.EvaluationModule:
    return evaluate.load(str(METRIC))


def measure(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """The six measures of predicted distributions against the targets, both (utterances, classes), as means.

    Probabilities are raised to the smallest positive float32 first, so that KL is finite.
    """
    floored = np.maximum(np.asarray(predictions, np.float64), np.finfo(np.float32).tiny)
    found = _load_metric().compute(predictions=floored.tolist(), references=np.asarray(targets, np.float64).tolist())
    return {name: found[name] for name in MEASURES}


def read_lines(lines: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true distributions of predictions, both (utterances, classes)."""
    names = list(lines[0]["probabilities"])
    predictions = np.array([[line["probabilities"][name] for name in names] for line in lines])
    return predictions, np.array([[line[COLUMN][name] for name in names] for line in lines])


def has_distributions(lines: list[dict[str, Any]]) -> bool:
    return COLUMN in lines[0]


def score_guesses(split: DatasetDict) -> dict[str, Any]:
    """The measures of the guesses on the validation and the test set, and the mean of the training targets."""
    targets = {name: read_targets(part) for name, part in split.items()}
    mean = targets["train"].mean(axis=0)
    guesses = {"constant": mean, "uniform": np.full(len(mean), 1 / len(mean))}
    scores = {
        name: {part: measure(np.tile(guess, (len(targets[part]), 1)), targets[part]) for part in ("validation", "test")}
        for name, guess in guesses.items()
    }
    return {"training_mean": dict(zip(split["train"].features["label"].names, mean.tolist())), **scores}


def read_targets(rows: Dataset) -> np.ndarray:
    """The target distributions of rows, (utterances, classes)."""
    return np.array(rows[COLUMN][:], dtype=np.float64)


def fit_mixed_threshold(lines: list[dict[str, Any]]) -> float:
    """Find the score above which a label is part of a mixed answer, on a grid of 0.005.

    A label is true if it has more than its share among equals, 1 / classes of the votes, and the threshold gives the
    answers with the highest F1 of labels, averaged over utterances; the label with the highest score is always part of
    an answer. Both are ours. Of several thresholds, the highest.

    Args:
        lines: predictions with calibrated `probabilities` and distributions; never of test data.
    """
    predictions, targets = read_lines(lines)
    true = targets > 1 / targets.shape[1]
    best = predictions == predictions.max(axis=1, keepdims=True)
    scores = []
    for threshold in THRESHOLDS:
        named = best | (predictions > threshold)
        scores.append((2 * (named & true).sum(axis=1) / (named.sum(axis=1) + true.sum(axis=1))).mean())
    return float(THRESHOLDS[np.flatnonzero(np.array(scores) >= max(scores) - 1e-12)[-1]])
