"""Statistics: scores from confusion matrices, bootstrap intervals over speakers, paired tests between systems.

Utterances of one speaker are not independent, so speakers are resampled, not utterances. SciPy computes the statistics.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

METRICS = ("ua", "wa", "macro_f1")
GAPS = ("tpr_gap", "dp_gap")
NUM_RESAMPLES = 9999
# Number of resamples in memory at once.
BATCH = 500
# With fewer speakers, the bootstrap underestimates how much speakers differ: the interval is too narrow.
ENOUGH_SPEAKERS = 10


def speaker_confusions(lines: list[dict[str, Any]], labels: list[str]) -> dict[str, np.ndarray]:
    """Confusion matrix of each speaker, (classes, classes) with true rows and predicted columns."""
    index = {label: position for position, label in enumerate(labels)}
    confusions: dict[str, np.ndarray] = {}
    for line in lines:
        matrix = confusions.setdefault(line["speaker"], np.zeros((len(labels), len(labels))))
        matrix[index[line["label"]], index[line["prediction"]]] += 1
    return confusions


def compute_scores(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """ua, wa and macro_f1 of confusion matrices (..., classes, classes), each (...).

    As in metrics/ser_scores, UA and macro-F1 ignore classes without any true utterance.
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


def compute_gaps(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """tpr_gap and dp_gap of confusion matrices of groups, (..., groups, classes, classes), each (...).

    The difference between the group with the largest and the one with the smallest share, as a mean over classes: of
    the recall (equal opportunity, Hardt et al. 2016), and of the predictions that are this class (demographic parity).
    A group without utterances, of a class for the recall, is left out; so is a class that fewer than two groups have,
    and for the predictions one that is neither true nor predicted.
    """
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    total = np.broadcast_to(true.sum(axis=-1, keepdims=True), predicted.shape)
    occurs = ((true + predicted).sum(axis=-2) > 0)[..., None, :]
    return {
        "tpr_gap": _mean_range(correct, true, true > 0),
        "dp_gap": _mean_range(predicted, total, (total > 0) & occurs),
    }


def _mean_range(part: np.ndarray, whole: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean over classes of the range over groups of part / whole, (..., groups, classes), where it counts."""
    share = np.divide(part, whole, out=np.zeros(part.shape), where=counts)
    ranges = np.where(counts, share, -np.inf).max(axis=-2) - np.where(counts, share, np.inf).min(axis=-2)
    several = counts.sum(axis=-2) > 1
    found = several.sum(axis=-1)
    return np.divide(np.where(several, ranges, 0).sum(axis=-1), found, out=np.zeros(found.shape), where=found > 0)


def compute_metric(confusion: np.ndarray, metric: str) -> np.ndarray:
    """One of `METRICS` or, of the confusion matrices of groups, one of `GAPS`."""
    return (compute_gaps if metric in GAPS else compute_scores)(confusion)[metric]


def score_genders(confusions: dict[str, np.ndarray], genders: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Scores of women and men: `ua`, `wa`, `macro_f1`, `interval` (of UA), `speakers`, `utterances`.

    Args:
        confusions: (classes, classes) of each speaker.
        genders: "female" or "male" for each speaker; other values are ignored. A gender without speakers has no row.
    """
    rows = {}
    for gender in ("female", "male"):
        part = np.array([confusion for speaker, confusion in confusions.items() if genders[speaker] == gender])
        if len(part):
            scores = {name: float(value) for name, value in compute_scores(part.sum(axis=0)).items()}
            counts = {"speakers": len(part), "utterances": int(part.sum())}
            rows[gender] = {**scores, "interval": speaker_interval(part, "ua"), **counts}
    return rows


def speaker_interval(confusions: np.ndarray, metric: str, seed: int = 0) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of a score over speakers; None with fewer than two speakers.

    That of a gap draws among the speakers of the same groups, and is None if no two speakers have the same.

    Args:
        confusions: (speakers, classes, classes), for a gap (speakers, groups, classes, classes).
    """

    def score(speakers: np.ndarray, axis: int) -> np.ndarray:
        return compute_metric(_sum_drawn(confusions, speakers), metric)

    return _bootstrap(score, _find_strata(confusions), seed)


def difference_interval(
    first: np.ndarray, second: np.ndarray, metric: str, seed: int = 0
) -> tuple[float, float] | None:
    """The interval of the score of `first` minus that of `second`, on the same speakers in the same order."""

    def difference(speakers: np.ndarray, axis: int) -> np.ndarray:
        scores = [compute_metric(_sum_drawn(system, speakers), metric) for system in (first, second)]
        return scores[0] - scores[1]

    return _bootstrap(difference, _find_strata(first), seed)


def mean_difference_interval(
    groups: list[list[tuple[np.ndarray, np.ndarray]]], metric: str, seed: int = 0
) -> tuple[float, float] | None:
    """The interval of the mean, over all pairs, of the score of the first minus that of the second.

    Args:
        groups: pairs of confusion matrices (speakers, classes, classes). Those of a group have the same speakers in the
            same order, who are resampled together.
    """

    def mean(*drawn: np.ndarray, axis: int) -> np.ndarray:
        differences = [
            compute_scores(_sum_drawn(first, speakers))[metric] - compute_scores(_sum_drawn(second, speakers))[metric]
            for group, speakers in zip(groups, drawn)
            for first, second in group
        ]
        return np.mean(differences, axis=0)

    speakers = [np.arange(len(group[0][0])) for group in groups]
    return _resample(mean, speakers, seed) if min(map(len, speakers)) > 1 else None


def mean_interval(values: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float] | None:
    """The interval of the mean of all values; None with fewer than two speakers.

    Args:
        values: of the utterances of each speaker.
    """
    totals = np.array([(np.sum(of_one), len(of_one)) for of_one in values])

    def mean(speakers: np.ndarray, axis: int) -> np.ndarray:
        drawn = totals[speakers].sum(axis=-2)
        return drawn[..., 0] / drawn[..., 1]

    return _bootstrap(mean, _find_strata(totals), seed)


def resample_speakers(
    sums: np.ndarray, compute: Callable[[np.ndarray], dict[str, np.ndarray]], metric: str, seed: int = 0
) -> tuple[float, float] | None:
    """The interval of a score that follows from sums over speakers, (speakers, ...), as of `compute`."""

    def score(speakers: np.ndarray, axis: int) -> np.ndarray:
        return compute(_sum_drawn(sums, speakers))[metric]

    return _bootstrap(score, [np.arange(len(sums))], seed)


def _find_strata(confusions: np.ndarray) -> list[np.ndarray]:
    """The speakers that are drawn from: all at once, or for (speakers, groups, classes, classes) those of each set of
    groups, so that no group is ever without speakers."""
    if confusions.ndim < 4:
        return [np.arange(len(confusions))]
    has_group = confusions.sum(axis=(-2, -1)) > 0
    _, of_speaker = np.unique(has_group, axis=0, return_inverse=True)
    return [np.flatnonzero(of_speaker == stratum) for stratum in np.unique(of_speaker)]


def _bootstrap(statistic: Any, strata: list[np.ndarray], seed: int) -> tuple[float, float] | None:
    drawn = [stratum for stratum in strata if len(stratum) > 1]
    alone = np.concatenate([stratum for stratum in strata if len(stratum) == 1] or [np.array([], dtype=int)])
    if not drawn:
        return None

    def of_drawn(*parts: np.ndarray, axis: int) -> np.ndarray:
        kept = np.broadcast_to(alone, (*parts[0].shape[:-1], len(alone)))
        return statistic(np.concatenate([*parts, kept], axis=-1), axis=axis)

    return _resample(of_drawn, drawn, seed)


def _resample(statistic: Any, strata: list[np.ndarray], seed: int) -> tuple[float, float]:
    """The interval of a statistic of the speakers that are drawn from each stratum."""
    result = stats.bootstrap(
        strata,
        statistic,
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        batch=BATCH,
        method="percentile",
        rng=seed,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def paired_p_value(first: np.ndarray, second: np.ndarray, metric: str, seed: int = 0) -> float:
    """Two-sided permutation test of whether two systems score alike, swapping their outputs speaker by speaker.

    With n speakers, p cannot fall below `smallest_p_value(n)`; with one speaker it is 1.

    Args:
        first, second: confusion matrices (speakers, classes, classes), for a gap (speakers, groups, classes, classes),
            the same speakers in the same order.
    """
    if len(first) < 2:
        return 1.0
    both = np.concatenate([first, second])

    def difference(ours: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
        scores = [compute_metric(_sum_drawn(both, side), metric) for side in (ours, theirs)]
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
    """The `paired_p_value` if one system is better for every speaker."""
    return max(2.0 ** (1 - num_speakers), 2 / (NUM_RESAMPLES + 1))


def _sum_drawn(confusions: np.ndarray, speakers: np.ndarray) -> np.ndarray:
    """Sum the arrays of the drawn speakers: (units, *shape) and (..., drawn) to (..., *shape).

    Counts how often each unit is drawn instead of gathering matrices: a corpus without speakers has one unit per
    utterance, whose gathered matrices would not fit into memory.
    """
    units = len(confusions)
    draws = speakers.reshape(-1, speakers.shape[-1])
    places = draws + units * np.arange(len(draws))[:, None]
    counts = np.bincount(places.ravel(), minlength=units * len(draws)).reshape(len(draws), units)
    return (counts @ confusions.reshape(units, -1)).reshape(*speakers.shape[:-1], *confusions.shape[1:])


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for multiple testing (Holm 1979), in the given order."""
    order = np.argsort(p_values)
    scaled = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted.tolist()


def chance_confusion(counts: np.ndarray) -> np.ndarray:
    """Expected confusion matrix of uniform guessing; `counts` are the utterances per class."""
    return np.repeat(counts[:, None] / len(counts), len(counts), axis=1)


def majority_confusion(counts: np.ndarray, majority: int) -> np.ndarray:
    """Confusion matrix of always predicting the class with index `majority`."""
    confusion = np.zeros((len(counts), len(counts)))
    confusion[:, majority] = counts
    return confusion
