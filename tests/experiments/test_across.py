"""Scores within and across corpora, against cases counted by hand."""

import numpy as np
import pytest

from experiments.across import build_corpus_table, build_transfer_table, summarize_transfer
from experiments.cells import Cell
from experiments.systems import Run, System
from recipe.statistics import compute_scores, mean_difference_interval

LABELS = ["calm", "glad", "sad"]


def line(corpus, speaker, label, prediction, labels=LABELS):
    probabilities = {name: 0.6 if name == prediction else 0.4 / (len(labels) - 1) for name in labels}
    place = {"id": f"{corpus}/{speaker}/{label}", "corpus": corpus, "speaker": f"{corpus}/{speaker}"}
    return {**place, "label": label, "prediction": prediction, "probabilities": probabilities}


def make_run(fold, trained, lines):
    corpora = {name: {"train": {}} for name in trained} | {
        each["corpus"]: {} for each in lines if each["corpus"] not in trained
    }
    results = {"corpora": corpora, "labels": LABELS}
    return Run(Cell(fold, 0, None), results, {"best": lines, "last": lines}, "test", LABELS)


RUNS = [
    # On a alone, its first and its second fold: 3 of 4, then 1 of 2; on b always "calm".
    make_run(1, ["a"], [line("a", "1", "calm", "calm"), line("a", "1", "glad", "glad")]),
    make_run(
        2,
        ["a"],
        [line("a", "2", "calm", "calm"), line("a", "2", "glad", "calm")]
        + [line("b", s, label, "calm") for s in "34" for label in ("calm", "glad")],
    ),
    # On b alone, without the label "sad": all right at home; on a, one speaker is all wrong.
    make_run(3, ["b"], [line("b", s, label, label, LABELS[:2]) for s in "34" for label in ("calm", "glad")]),
    make_run(
        4,
        ["b"],
        [line("a", "1", label, label, LABELS[:2]) for label in ("calm", "glad")]
        + [line("a", "2", "calm", "glad", LABELS[:2]), line("a", "2", "glad", "calm", LABELS[:2])],
    ),
]
SYSTEM = System("one", "one", {}, RUNS)


def test_each_pair_is_scored_on_the_same_speakers():
    rows = {(row["trained_on"], row["tested_on"]): row for row in build_transfer_table([SYSTEM], "best")}
    assert rows.keys() == {("a", "b"), ("b", "a")}
    assert (rows["b", "a"]["within"], rows["b", "a"]["across"]) == (0.75, 0.5)
    assert (rows["a", "b"]["within"], rows["a", "b"]["across"]) == (1.0, 0.5)
    # Of a's speakers, one is 0 and the other 0.5 better within: so is every resample, which has one of three mixtures.
    assert (rows["b", "a"]["low"], rows["b", "a"]["high"]) == (0.0, 0.5)
    assert (rows["a", "b"]["low"], rows["a", "b"]["high"]) == (0.5, 0.5)
    assert all(row["speakers"] == 2 and row["labels"] == "calm glad" for row in rows.values())
    (mean,) = summarize_transfer([SYSTEM], "best")
    assert (mean["gap"], mean["low"], mean["high"], mean["pairs"]) == (0.375, 0.25, 0.5, 2)


def test_several_training_corpora_are_no_pair_and_one_corpus_has_no_gap():
    both = make_run(5, ["a", "b"], [line("c", "5", "calm", "calm")])
    assert build_transfer_table([System("two", "two", {}, [both])], "best") == []
    assert summarize_transfer([System("two", "two", {}, [both])], "best") == []
    table = build_corpus_table([SYSTEM], "best")
    assert {(row["trained_on"], row["tested_on"]): row["ua"] for row in table} == {
        ("a", "a"): 0.75,
        ("a", "b"): 0.5,
        ("b", "b"): 1.0,
        ("b", "a"): 0.5,
    }


def test_the_interval_of_the_mean_resamples_each_group_of_speakers_by_itself():
    rng = np.random.default_rng(0)
    groups = [[tuple(rng.integers(0, 9, (2, speakers, 3, 3)).astype(float)) for _ in range(2)] for speakers in (7, 12)]
    found = mean_difference_interval(groups, "ua")
    means = []
    for _ in range(4000):
        differences = []
        for group in groups:
            drawn = rng.integers(0, len(group[0][0]), len(group[0][0]))
            for first, second in group:
                ua = [compute_scores(side[drawn].sum(axis=0))["ua"] for side in (first, second)]
                differences.append(ua[0] - ua[1])
        means.append(np.mean(differences))
    assert found == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.008)
    assert mean_difference_interval([[(np.ones((1, 2, 2)), np.ones((1, 2, 2)))]], "ua") is None
