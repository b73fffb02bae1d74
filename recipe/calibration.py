"""Calibration: how reliable probabilities are, temperature scaling (Guo et al. 2017), and which answers are unsure."""

import math
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from recipe.distribution_scores import has_distributions, read_lines

# Limits for small validation sets and for those with only correct or only wrong predictions.
LOWEST, HIGHEST = 0.05, 20.0
FEWEST_SURE = 10  # answers, from which their share of right ones says something


def fit_temperature(predictions: list[dict[str, Any]]) -> float:
    """Find the temperature that maximises the likelihood of the labels, averaged over corpora.

    With distributions as targets, it minimises KL to them.

    Args:
        predictions: lines with `label` or `label_distribution`, `probabilities` from a model with temperature 1 and,
            if there are several corpora, `corpus`; never of test data.

    Returns:
        between 0.05 and 20; above 1 if the model was overconfident.
    """
    log_probabilities, labels = read_log_probabilities(predictions)
    targets = np.eye(log_probabilities.shape[1])[labels]
    if has_distributions(predictions):
        _, targets = read_lines(predictions)
    return find_temperature(log_probabilities, targets, weigh_corpora(predictions))


def find_temperature(log_probabilities: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> float:
    """The temperature that maximises the weighted likelihood of targets, (items, classes), between 0.05 and 20."""

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = log_softmax(log_probabilities / math.exp(log_temperature), axis=1)
        return -float((weights * (targets * scaled).sum(axis=1)).mean())

    # Convex in 1 / temperature, so any minimum is the global one.
    bounds = (math.log(LOWEST), math.log(HIGHEST))
    return math.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x)


def fit_unsure_threshold(predictions: list[dict[str, Any]], accuracy: float) -> float:
    """Find the lowest score of the best label from which on enough answers are right.

    Args:
        predictions: lines with `label`, calibrated `probabilities` and, if there are several corpora, `corpus`; never
            of test data.
        accuracy: share of right answers among the sure ones; every corpus counts as much as any other.

    Returns:
        0 if all answers together are that accurate, and 1 if not even the ten with the highest scores are.
    """
    confidences, correct = read_confidences(predictions)
    weights = weigh_corpora(predictions)
    order = np.argsort(-confidences, kind="stable")
    shares = (weights * correct)[order].cumsum() / weights[order].cumsum()
    falls = np.diff(confidences[order], append=-np.inf) < 0  # equal scores are sure together
    enough = np.flatnonzero(falls & (shares >= accuracy))
    if len(enough) == 0 or enough[-1] + 1 < FEWEST_SURE:
        return 1.0
    if enough[-1] + 1 == len(order):
        return 0.0
    return float(confidences[order[enough[-1] :][:2]].mean())


def weigh_corpora(predictions: list[dict[str, Any]]) -> np.ndarray:
    """A weight for each prediction, (utterances,): the same for each corpus in total, and 1 if there is only one."""
    corpora, which = np.unique([line.get("corpus", "") for line in predictions], return_inverse=True)
    return len(predictions) / (len(corpora) * np.bincount(which))[which]


def read_confidences(predictions: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The score of the best label, and whether it is right: both (utterances,)."""
    log_probabilities, labels = read_log_probabilities(predictions)
    return np.exp(log_probabilities.max(axis=1)), log_probabilities.argmax(axis=1) == labels


def read_log_probabilities(predictions: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (utterances, classes), kept finite, and label indices (utterances,)."""
    names = list(predictions[0]["probabilities"])
    probabilities = np.array([[line["probabilities"][name] for name in names] for line in predictions])
    labels = np.array([names.index(line["label"]) for line in predictions])
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)), labels


def undo_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Recover the probabilities before calibration, (utterances, classes)."""
    return np.exp(log_softmax(temperature * np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)), axis=1))


def expected_calibration_error(confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over bins of equal width, weighted by the number of utterances.

    Source: Naeini et al. 2015; Guo et al. 2017, with 15 bins.
    """
    return sum(share * abs(accuracy - mean) for mean, accuracy, share in reliability(confidences, correct, num_bins))


def reliability(confidences: np.ndarray, correct: np.ndarray, num_bins: int) -> list[tuple[float, float, float]]:
    """Mean confidence, accuracy and share of the utterances for each non-empty bin of (0, 1]."""
    bins = np.clip(np.ceil(confidences * num_bins).astype(int) - 1, 0, num_bins - 1)
    return [
        (float(confidences[bins == b].mean()), float(correct[bins == b].mean()), float((bins == b).mean()))
        for b in np.unique(bins)
    ]
