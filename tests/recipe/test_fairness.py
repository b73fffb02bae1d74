"""Gaps between groups: by hand, against loops in the manner of fairlearn, and their intervals against a loop."""

import itertools

import numpy as np
import pytest

from core.errors import InputError
from recipe.fairness import (
    check_groups,
    count_groups,
    group_confusions,
    list_groups,
    measure_gaps,
    read_groups,
    score_gaps,
)
from recipe.statistics import compute_gaps, paired_p_value

LABELS = ["angry", "happy", "sad"]
GENDERS = ["female", "male"]


def random_lines(seed, genders="ffffmmmm", each=30, skill=(0.8, 0.4)):
    """Women (f) are recognised better than men (m) by default."""
    rng = np.random.default_rng(seed)
    lines = []
    for speaker, gender in enumerate(genders):
        for number in range(each):
            label = LABELS[rng.integers(3)]
            right = rng.random() < skill[gender == "m"]
            lines.append(
                {"id": f"{speaker}-{number}", "speaker": f"s{speaker}", "gender": {"f": "female", "m": "male"}[gender]}
                | {"label": label, "prediction": label if right else LABELS[rng.integers(3)]}
                | {"groups": {"style": ("read", "free", "")[number % 3]}}
            )
    return lines


def loop_gaps(lines, groups, find_group):
    """Rates by group, class by class, as MetricFrame of fairlearn would: difference(), then the mean over classes."""
    tpr, dp = [], []
    for label in LABELS:
        recalls, shares = [], []
        for group in groups:
            own = [line for line in lines if find_group(line) == group]
            true = [line for line in own if line["label"] == label]
            if true:
                recalls.append(np.mean([line["prediction"] == label for line in true]))
            if own:
                shares.append(np.mean([line["prediction"] == label for line in own]))
        tpr += [max(recalls) - min(recalls)] if len(recalls) > 1 else []
        dp += [max(shares) - min(shares)] if len(shares) > 1 else []
    return np.mean(tpr), np.mean(dp)


def test_two_groups_by_hand():
    """Recalls 1, 0.5 against 0.5, 0.5; predicted as the first class 6 of 8 against 4 of 8."""
    gaps = compute_gaps(np.array([[[4.0, 0], [2, 2]], [[2, 2], [2, 2]]]))
    assert gaps["tpr_gap"] == pytest.approx((0.5 + 0) / 2)
    assert gaps["dp_gap"] == pytest.approx((0.25 + 0.25) / 2)


def test_what_a_group_lacks_does_not_count():
    """The second group has no utterance of the first class, the third group has none at all; no one is of class 3."""
    first, second, third = np.array([[3.0, 1, 0], [0, 4, 0], [0, 0, 0]]), np.diag([0.0, 2, 0]), np.zeros((3, 3))
    gaps = compute_gaps(np.array([first, second, third]))
    assert gaps["tpr_gap"] == 0.0  # of the second class alone, which both recognise
    assert gaps["dp_gap"] == pytest.approx((3 / 8 + 3 / 8) / 2)
    assert compute_gaps(np.array([first, third])) == {"tpr_gap": 0.0, "dp_gap": 0.0}


@pytest.mark.parametrize("seed", range(4))
def test_gaps_are_those_of_a_loop_for_every_column(seed):
    lines = random_lines(seed)
    found = count_groups(lines, LABELS)
    assert list(found) == ["gender", "style"] and found["style"][0] == ["free", "read"]
    for column, find_group in (
        ("gender", lambda line: line["gender"]),
        ("style", lambda line: line["groups"]["style"]),
    ):
        groups, confusions = found[column]
        measured, expected = score_gaps(confusions), loop_gaps(lines, groups, find_group)
        assert (measured["tpr_gap"], measured["dp_gap"]) == pytest.approx(expected)


def test_the_interval_draws_speakers_within_their_group():
    """As a loop does; a draw from all speakers would often lack women, whose gap would then be 0."""
    lines = random_lines(5, "ffmmmmmm")
    groups = list_groups(lines, "gender")
    confusions = group_confusions(lines, LABELS, "gender", groups)
    stacked, rng = np.array(list(confusions.values())), np.random.default_rng(1)
    draws = [[*rng.integers(0, 2, 2), *rng.integers(2, 8, 6)] for _ in range(4000)]
    measured = measure_gaps(confusions)
    for gap in ("tpr_gap", "dp_gap"):
        values = [compute_gaps(stacked[draw].sum(axis=0))[gap] for draw in draws]
        expected = np.percentile(values, [2.5, 97.5])
        assert (measured[f"{gap}_low"], measured[f"{gap}_high"]) == pytest.approx(expected, abs=0.01)


def test_one_speaker_in_each_group_has_gaps_without_an_interval_and_one_beside_others_is_always_drawn():
    alone = measure_gaps(count_groups(random_lines(0, "fm"), LABELS)["gender"][1])
    assert alone["tpr_gap"] > 0 and alone["tpr_gap_low"] is None and alone["dp_gap_high"] is None
    one_woman = measure_gaps(count_groups(random_lines(0, "fmmm"), LABELS)["gender"][1])
    assert one_woman["tpr_gap_low"] < one_woman["tpr_gap_high"]


def test_the_paired_test_swaps_speakers_of_all_groups():
    """Five speakers: all 32 swaps, written out, with the two-sided p-value as twice the smaller tail."""
    first, second = (
        np.array([*group_confusions(random_lines(0, "ffmmm", skill=skill), LABELS, "gender", GENDERS).values()])
        for skill in ((0.9, 0.9), (0.95, 0.2))
    )

    def difference(swapped):
        sides = [
            np.where(swapped[:, None, None, None], *order).sum(axis=0) for order in ((second, first), (first, second))
        ]
        return float(compute_gaps(sides[0])["tpr_gap"] - compute_gaps(sides[1])["tpr_gap"])

    null = np.array([difference(np.array(swaps)) for swaps in itertools.product([False, True], repeat=5)])
    observed = difference(np.zeros(5, dtype=bool))
    tails = [(null >= observed - 1e-12).mean(), (null <= observed + 1e-12).mean()]
    assert observed < -0.2 and paired_p_value(first, second, "tpr_gap") == pytest.approx(min(1.0, 2 * min(tails)))


def test_groups_are_text_and_a_missing_column_is_named():
    assert read_groups({"age": 25, "style": None}, ["age", "style"]) == {"age": "25", "style": ""}
    check_groups(["style"], ["id", "style"])
    with pytest.raises(InputError, match=r"--gap_columns: the corpus has no column 'age'; its columns are id, style"):
        check_groups(["age"], ["id", "style"])


def test_one_gender_or_none_has_no_gap():
    assert count_groups([{**line, "groups": {}} for line in random_lines(0, "ffff")], LABELS) == {}
