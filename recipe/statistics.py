"""Statistics: scores from confusion matrices, intervals that resample speakers, paired tests between systems.

Utterances of one speaker are alike, so speakers, not utterances, are the units that are drawn. The statistics
themselves are scipy's.
"""

from typing import Any

import numpy as np
from scipy import stats

METRICS = ("ua", "wa", "macro_f1")
NUM_RESAMPLES = 9999
# Resamples held in memory at once.
BATCH = 500
# With fewer, drawing speakers again and again cannot show how much speakers differ: the interval is too narrow.
ENOUGH_SPEAKERS = 10


def speaker_confusions(lines: list[dict[str, Any]], labels: list[str]) -> dict[str, np.ndarray]:
    """Confusion matrix (classes, classes), row true, column predicted, of each speaker in prediction lines."""
    index = {label: position for position, label in enumerate(labels)}
    confusions: dict[str, np.ndarray] = {}
    for line in lines:
        matrix = confusions.setdefault(line["speaker"], np.zeros((len(labels), len(labels))))
        matrix[index[line["label"]], index[line["prediction"]]] += 1
    return confusions


def scores_of(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """ua, wa and macro_f1 of confusion matrices (..., classes, classes), each (...).

    As in metrics/ser_scores: classes without a true utterance are left out of UA and macro-F1.
    """
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    present = true > 0
    recall = np.divide(correct, true, out=np.zeros_like(correct), where=present)
    f1 = np.divide(2 * correct, true + predicted, out=np.zeros_like(correct), where=present)
    return {
        "ua": recall.sum(axis=-1) / present.sum(axis=-1),
        "wa": correct.sum(axis=-1) / true.sum(axis=-1),
        "macro_f1": f1.sum(axis=-1) / present.sum(axis=-1),
    }


def gender_scores(confusions: dict[str, np.ndarray], genders: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Scores of the women and of the men: `ua`, `wa`, `macro_f1`, `interval` (of UA), `speakers`, `utterances`.

    Args:
        confusions: (classes, classes) of each speaker.
        genders: "female" or "male" of each speaker; others are left out, and so is a gender that nobody has.
    """
    rows = {}
    for gender in ("female", "male"):
        part = np.array([confusion for speaker, confusion in confusions.items() if genders[speaker] == gender])
        if len(part):
            scores = {name: float(value) for name, value in scores_of(part.sum(axis=0)).items()}
            counts = {"speakers": len(part), "utterances": int(part.sum())}
            rows[gender] = {**scores, "interval": speaker_interval(part, "ua"), **counts}
    return rows


def speaker_interval(confusions: np.ndarray, metric: str, seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of a score; speakers are resampled. None with fewer than two speakers.

    Args:
        confusions: (speakers, classes, classes).
    """

    def score(speakers: np.ndarray, axis: int) -> np.ndarray:
        return scores_of(_summed(confusions, speakers))[metric]

    return _bootstrap(score, len(confusions), seed)


def difference_interval(
    first: np.ndarray, second: np.ndarray, metric: str, seed: int = 0
) -> tuple[float, float] | None:
    """The same of the score of `first` minus that of `second`, on the same speakers in the same order."""

    def difference(speakers: np.ndarray, axis: int) -> np.ndarray:
        scores = [scores_of(_summed(system, speakers))[metric] for system in (first, second)]
        return scores[0] - scores[1]

    return _bootstrap(difference, len(first), seed)


def _bootstrap(statistic: Any, num_speakers: int, seed: int) -> tuple[float, float] | None:
    if num_speakers < 2:
        return None
    result = stats.bootstrap(
        (np.arange(num_speakers),),
        statistic,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        batch=BATCH,
        method="percentile",
        rng=seed,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def paired_p_value(first: np.ndarray, second: np.ndarray, metric: str, seed: int = 0) -> float:
    """Two-sided permutation test that two systems score alike: their outputs are swapped speaker by speaker.

    With n speakers it cannot be below `smallest_p_value(n)`; with one it is 1.

    Args:
        first, second: confusion matrices (speakers, classes, classes), the same speakers in the same order.
    """
    if len(first) < 2:
        return 1.0
    both = np.concatenate([first, second])

    def difference(ours: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
        scores = [scores_of(_summed(both, side))[metric] for side in (ours, theirs)]
        return scores[0] - scores[1]

    speakers = np.arange(len(first))
    result = stats.permutation_test(
        (speakers, speakers + len(first)),
        difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        batch=BATCH,
        axis=-1,
        rng=seed,
    )
    return float(result.pvalue)


def smallest_p_value(num_speakers: int) -> float:
    """What `paired_p_value` gives if one system is better for every speaker."""
    return max(2.0 ** (1 - num_speakers), 2 / (NUM_RESAMPLES + 1))


def _summed(confusions: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Sum of the matrices of the drawn speakers: (units, classes, classes) and (..., drawn) to (..., classes, classes).

    By how often each was drawn: utterances without speakers are many units, whose matrices would fill the memory.
    """
    units, classes, _ = confusions.shape
    draws = speakers.reshape(-1, speakers.shape[-1])
    places = draws + units * np.arange(len(draws))[:, None]
    counts = np.bincount(places.ravel(), minlength=units * len(draws)).reshape(len(draws), units)
    return (counts @ confusions.reshape(units, -1)).reshape(*speakers.shape[:-1], classes, classes)


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for testing several at once (Holm 1979), in the given order."""
    order = np.argsort(p_values)
    scaled = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()


def chance_confusion(counts: np.ndarray) -> np.ndarray:
    """Expected confusion matrix of guessing every class equally often; `counts` are utterances of each class."""
    return np.repeat(counts[:, None] / len(counts), len(counts), axis=1)


def majority_confusion(counts: np.ndarray, majority: int) -> np.ndarray:
    """Confusion matrix of always answering the class with this index, the most frequent one in training."""
    confusion = np.zeros((len(counts), len(counts)))
    confusion[:, majority] = counts
    return confusion
