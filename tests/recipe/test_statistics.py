"""Statistics against scikit-learn, closed-form results and hand-written loops."""

import itertools
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from recipe.statistics import (
    METRICS,
    chance_confusion,
    compute_scores,
    difference_interval,
    holm,
    majority_confusion,
    paired_p_value,
    smallest_p_value,
    speaker_confusions,
    speaker_interval,
)

LABELS = ["angry", "happy", "sad"]


def random_lines(seed, speakers=6, each=20, skill=0.5):
    rng = np.random.default_rng(seed)
    lines = []
    for speaker in range(speakers):
        for number in range(each):
            label = LABELS[rng.integers(3)]
            answer = label if rng.random() < skill * (0.5 + speaker / speakers) else LABELS[rng.integers(3)]
            lines.append({"id": f"{speaker}-{number}", "speaker": f"s{speaker}", "label": label, "prediction": answer})
    return lines


def stacked(lines):
    return np.array(list(speaker_confusions(lines, LABELS).values()))


def test_scores_are_those_of_scikit_learn():
    for seed in range(5):
        lines = random_lines(seed)
        true, predicted = [line["label"] for line in lines], [line["prediction"] for line in lines]
        scores = compute_scores(stacked(lines).sum(axis=0))
        assert scores["ua"] == pytest.approx(balanced_accuracy_score(true, predicted))
        assert scores["wa"] == pytest.approx(accuracy_score(true, predicted))
        assert scores["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))


def test_a_class_without_utterances_is_left_out():
    """Angry 1 of 2, happy 2 of 2, one angry taken for sad, which no one is: UA (1/2 + 1) / 2."""
    scores = compute_scores(np.array([[1.0, 0, 1], [0, 2, 0], [0, 0, 0]]))
    assert scores["ua"] == pytest.approx(0.75) and scores["wa"] == pytest.approx(0.75)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)


def test_chance_and_majority_by_hand():
    counts = np.array([10.0, 30.0, 60.0])
    chance, majority = compute_scores(chance_confusion(counts)), compute_scores(majority_confusion(counts, 2))
    assert chance["ua"] == pytest.approx(1 / 3) and chance["wa"] == pytest.approx(1 / 3)
    assert majority["ua"] == pytest.approx(1 / 3) and majority["wa"] == pytest.approx(0.6)
    assert majority["macro_f1"] == pytest.approx(2 * 0.6 / 1.6 / 3)


def test_the_interval_resamples_speakers_not_utterances():
    """Two speakers all right, two all wrong: the share of right speakers among four draws is binomial(4, 1/2) / 4.

    Its 2.5 and 97.5 percentiles are 0 and 1; utterances drawn one by one would give about 0.5 +- 0.1.
    """
    right, wrong = 50 * np.eye(3), 50 * np.roll(np.eye(3), 1, axis=1)
    assert speaker_interval(np.array([right, right, wrong, wrong]), "ua") == (0.0, 1.0)


def test_the_interval_is_that_of_a_loop_over_resamples():
    confusions = stacked(random_lines(3, speakers=12))
    rng = np.random.default_rng(1)
    for metric in METRICS:
        drawn = [compute_scores(confusions[rng.integers(12, size=12)].sum(axis=0))[metric] for _ in range(4000)]
        assert speaker_interval(confusions, metric) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.01)


def test_one_speaker_has_no_interval_and_proves_nothing():
    one, other = np.array([np.eye(3)]), np.array([np.roll(np.eye(3), 1, axis=1)])
    assert speaker_interval(one, "ua") is None and difference_interval(one, other, "ua") is None
    assert paired_p_value(one, other, "ua") == 1.0


@pytest.mark.parametrize("number", [2, 5, 8])
def test_few_speakers_cannot_give_a_small_p(number):
    better, worse = np.stack([np.eye(3)] * number), np.stack([np.roll(np.eye(3), 1, axis=1)] * number)
    assert paired_p_value(better, worse, "ua") == pytest.approx(smallest_p_value(number))


def test_many_units_fit_into_memory():
    """20,000 utterances without speakers: a copy of each drawn matrix would take gigabytes."""
    rng = np.random.default_rng(0)
    confusions = np.zeros((20000, 8, 8), dtype=np.float32)
    confusions[np.arange(20000), rng.integers(8, size=20000), rng.integers(8, size=20000)] = 1
    tracemalloc.start()
    low, high = speaker_interval(confusions, "ua")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**30 and 0.11 < low < 0.125 < high < 0.14


def test_the_paired_test_is_exact_for_few_speakers():
    """Six speakers: all 64 swaps, written out, with the two-sided p-value as twice the smaller tail."""
    first, second = stacked(random_lines(0, skill=0.9)), stacked(random_lines(0, skill=0.4))

    def difference(swapped):
        sides = [np.where(swapped[:, None, None], a, b).sum(axis=0) for a, b in ((second, first), (first, second))]
        return float(compute_scores(sides[0])["ua"] - compute_scores(sides[1])["ua"])

    null = np.array([difference(np.array(swaps)) for swaps in itertools.product([False, True], repeat=6)])
    observed = difference(np.zeros(6, dtype=bool))
    tails = [(null >= observed - 1e-12).mean(), (null <= observed + 1e-12).mean()]
    assert paired_p_value(first, second, "ua") == pytest.approx(min(1.0, 2 * min(tails)))


def test_equal_systems_do_not_differ_and_better_ones_do():
    lines = random_lines(2, speakers=16)
    same = stacked(lines)
    assert paired_p_value(same, same, "ua") == 1.0 and difference_interval(same, same, "ua") == (0.0, 0.0)
    better = stacked([{**line, "prediction": line["label"]} for line in lines])
    low, high = difference_interval(better, same, "ua")
    assert paired_p_value(better, same, "ua") < 0.001 and 0 < low < high


def test_holm_by_hand():
    """0.01 x 3, 0.02 x 2, 0.30 x 1; never less than the one before, never above 1."""
    assert holm([0.02, 0.30, 0.01]) == pytest.approx([0.04, 0.30, 0.03])
    assert holm([0.04, 0.03, 0.9]) == pytest.approx([0.09, 0.09, 0.9])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
