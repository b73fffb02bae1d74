"""CCC, Pearson's correlation and RMSE: SciPy, cases by hand, intervals by resampling, calibration, and a constant."""

import evaluate
import numpy as np
import pytest
import reference
from conftest import ROOT
from datasets import DatasetDict
from making import rows
from scipy.stats import pearsonr

from recipe.dimension_scores import (
    MEASURES,
    compare_ccc,
    compute_measures,
    find_intervals,
    fit_calibration,
    measure,
    score_constant,
    sum_moments,
)

NAMES = ["valence", "arousal"]


def lines_of(found, true, speakers=None, corpora=None):
    return [
        {
            "speaker": speakers[index] if speakers else "anna",
            **({"corpus": corpora[index]} if corpora else {}),
            "dimensions": dict(zip(NAMES, map(float, x))),
            "true_dimensions": dict(zip(NAMES, map(float, y))),
        }
        for index, (x, y) in enumerate(zip(found, true))
    ]


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    true = rng.normal([3.0, 40.0], [0.7, 2.0], size=(60, 2))
    return 0.6 * true + rng.normal([1.0, 10.0], [0.4, 1.0], size=(60, 2)), true


def test_the_measures_are_those_of_numpy_and_scipy(case):
    found, true = case
    scores = measure(found, true, NAMES)
    assert [scores[name]["ccc"] for name in NAMES] == pytest.approx(reference.concordance(found, true))
    for index, name in enumerate(NAMES):
        assert scores[name]["pearson"] == pytest.approx(pearsonr(found[:, index], true[:, index])[0])
        assert scores[name]["rmse"] == pytest.approx(np.sqrt(((found - true)[:, index] ** 2).mean()))


def test_a_case_by_hand_and_what_a_constant_gets():
    metric = evaluate.load(str(ROOT / "metrics" / "concordance"))
    shifted = metric.compute(predictions=[1.0, 2.0, 3.0], references=[2.0, 3.0, 4.0])
    # covariance 2/3, both variances 2/3, means 1 apart: (4/3) / (4/3 + 1)
    assert shifted == pytest.approx({"ccc": 4 / 7, "pearson": 1.0, "rmse": 1.0})
    constant = metric.compute(predictions=[0.1] * 3, references=[1.0, 2.0, 3.0])
    assert constant["ccc"] == 0 and np.isnan(constant["pearson"])
    assert measure(np.full((3, 1), 0.1), np.array([[1.0], [2.0], [3.0]]), ["valence"])["valence"]["pearson"] is None
    assert metric.compute(predictions=[0.1] * 3, references=[0.1] * 3)["ccc"] == 1


def test_measures_follow_from_the_sums_of_speakers_and_intervals_from_drawing_speakers(case):
    found, true = case
    speakers = [f"s{index % 6}" for index in range(60)]
    lines = lines_of(found, true, speakers)
    moments = np.array(list(sum_moments(lines).values()))
    whole = measure(found, true, NAMES)
    for index, name in enumerate(NAMES):
        computed = compute_measures(moments[:, index].sum(axis=0))
        assert {each: float(computed[each]) for each in MEASURES} == pytest.approx(whole[name])
    intervals = find_intervals(lines)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(np.array(speakers) == f"s{s}") for s in rng.integers(6, size=6)])
        drawn.append(reference.concordance(found[chosen], true[chosen]))
    for index, name in enumerate(NAMES):
        low, high = intervals[name]["ccc"]
        assert low < whole[name]["ccc"] < high
        assert (low, high) == pytest.approx(np.percentile(np.array(drawn)[:, index], [2.5, 97.5]), abs=0.02)
    assert find_intervals(lines_of(found, true))["valence"]["ccc"] is None


def test_the_difference_of_two_systems_is_that_of_their_mean_ccc_with_an_interval_over_the_same_speakers(case):
    found, true = case
    speakers = [f"s{index % 6}" for index in range(60)]
    worse = found + np.random.default_rng(2).normal(0, [1.0, 3.0], size=found.shape)
    first, second = lines_of(found, true, speakers), lines_of(worse, true, speakers)

    def mean(values, chosen):
        return reference.concordance(values[chosen], true[chosen]).mean()

    difference, (low, high) = compare_ccc(first, second)
    assert difference == pytest.approx(mean(found, slice(None)) - mean(worse, slice(None)))
    rng, drawn = np.random.default_rng(3), []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(np.array(speakers) == f"s{s}") for s in rng.integers(6, size=6)])
        drawn.append(mean(found, chosen) - mean(worse, chosen))
    assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)
    assert compare_ccc(first, first) == (0, (0, 0))


def test_calibration_gives_the_highest_ccc_of_any_line_and_the_error_after_it(case):
    found, true = case
    fitted = np.array(fit_calibration(lines_of(found, true)))
    calibrated = found * fitted[:, 0] + fitted[:, 1]
    best = reference.concordance(calibrated, true)
    np.testing.assert_allclose(calibrated.mean(axis=0), true.mean(axis=0))
    np.testing.assert_allclose(calibrated.std(axis=0), true.std(axis=0))
    np.testing.assert_allclose(fitted[:, 2], np.sqrt(((calibrated - true) ** 2).mean(axis=0)))
    for slope in (0.9, 1.1):
        for shift in (-0.1, 0.1):
            other = calibrated.mean(axis=0) + slope * (calibrated - calibrated.mean(axis=0)) + shift
            assert (reference.concordance(other, true) < best).all()


def test_calibration_weighs_corpora_alike_and_does_not_magnify_noise(case):
    found, true = case
    corpora = ["a"] * 50 + ["b"] * 10
    repeated = lines_of([*found, *found[50:].repeat(4, axis=0)], [*true, *true[50:].repeat(4, axis=0)])
    weighed = np.array(fit_calibration(lines_of(found, true, corpora=corpora)))
    np.testing.assert_allclose(weighed, fit_calibration(repeated))
    constant = np.array(fit_calibration(lines_of(np.full_like(true, 2.0), true)))
    assert (constant[:, 0] == 5).all()
    np.testing.assert_allclose(constant[:, 0] * 2.0 + constant[:, 1], true.mean(axis=0))


def test_the_constant_is_the_mean_of_the_training_values_alone():
    values = {
        "train": [[1.0, 5.0], [2.0, 7.0]],
        "validation": [[0.0, 6.0], [3.0, 6.0]],
        "test": [[2.5, 5.0], [0.5, 9.0]],
    }
    parts = {name: rows("1").select(range(2)).add_column("dimensions", each) for name, each in values.items()}
    found = score_constant(DatasetDict(parts), NAMES)
    assert found["training_mean"] == {"valence": 1.5, "arousal": 6.0}
    assert found["validation"]["valence"] == {"ccc": 0.0, "pearson": None, "rmse": 1.5}
    assert found["test"]["arousal"]["rmse"] == pytest.approx(np.sqrt((1 + 9) / 2))
