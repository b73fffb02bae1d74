"""Calibration: how reliable probabilities are, and temperature scaling (Guo et al. 2017)."""

import math
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

# A temperature outside means that the validation data are too few, or all right or all wrong: stop there.
LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(predictions: list[dict[str, Any]]) -> float:
    """The temperature that maximises the likelihood of the labels of these predictions.

    Args:
        predictions: lines with `label` and `probabilities`, of a model whose temperature is 1. Never of test data.

    Returns:
        between 0.05 and 20; above 1 the model was overconfident.
    """
    log_probabilities, labels = read_log_probabilities(predictions)

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = log_softmax(log_probabilities / math.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    # Convex in 1 / temperature, so the one minimum is the global one.
    bounds = (math.log(LOWEST), math.log(HIGHEST))
    return math.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x)


def read_log_probabilities(predictions: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities (utterances, classes), kept finite, and label indices (utterances,)."""
    names = list(predictions[0]["probabilities"])
    probabilities = np.array([[line["probabilities"][name] for name in names] for line in predictions])
    labels = np.array([names.index(line["label"]) for line in predictions])
    return np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)), labels


def undo_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """What the probabilities were before they were calibrated, (utterances, classes)."""
    return np.exp(log_softmax(temperature * np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)), axis=1))


def expected_calibration_error(confidences: np.ndarray, correct: np.ndarray, num_bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over bins of equal width, weighted by their utterances.

    Source: Naeini et al. 2015; Guo et al. 2017, with 15 bins.
    """
    return sum(share * abs(accuracy - mean) for mean, accuracy, share in reliability(confidences, correct, num_bins))


def reliability(confidences: np.ndarray, correct: np.ndarray, num_bins: int) -> list[tuple[float, float, float]]:
    """Mean confidence, accuracy and share of the utterances of each bin of (0, 1] that holds some."""
    bins = np.clip(np.ceil(confidences * num_bins).astype(int) - 1, 0, num_bins - 1)
    return [
        (float(confidences[bins == b].mean()), float(correct[bins == b].mean()), float((bins == b).mean()))
        for b in np.unique(bins)
    ]
