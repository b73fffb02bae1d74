"""The six measures of label distributions: hand-computed cases, SciPy's distances, and what each says of a guess."""

import evaluate
import numpy as np
import pytest
from conftest import ROOT
from scipy.spatial import distance
from scipy.stats import entropy


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(ROOT / "metrics" / "label_distribution"))


def test_a_case_by_hand(metric):
    scores = metric.compute(
        references=[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], predictions=[[0.25, 0.5, 0.25], [0.5, 0.5, 0]]
    )
    # first: differences 1/4, 0, 1/4; ratios 1/3, 0, 1.  second: differences 1/2, 1/2, 0; ratios 1/3, 1, none.
    assert scores == pytest.approx(
        {
            "chebyshev": (1 / 4 + 1 / 2) / 2,
            "clark": np.sqrt(1 / 9 + 1),
            "canberra": 4 / 3,
            "kl": (0.5 * np.log(2) + np.log(2)) / 2,
            "cosine": (0.375 / np.sqrt(0.5 * 0.375) + np.sqrt(0.5)) / 2,
            "intersection": (0.75 + 0.5) / 2,
        }
    )


def test_they_are_those_of_scipy(metric):
    rng = np.random.default_rng(0)
    true, found = rng.dirichlet(np.full(32, 0.3), 50), rng.dirichlet(np.ones(32), 50)
    scores = metric.compute(references=true.tolist(), predictions=found.tolist())
    pairs = list(zip(true, found))
    expected = {
        "chebyshev": np.mean([distance.chebyshev(y, p) for y, p in pairs]),
        "canberra": np.mean([distance.canberra(y, p) for y, p in pairs]),
        "kl": np.mean([entropy(y, p) for y, p in pairs]),
        "cosine": np.mean([1 - distance.cosine(y, p) for y, p in pairs]),
        "intersection": np.mean([1 - distance.cityblock(y, p) / 2 for y, p in pairs]),  # of two distributions
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


def test_a_perfect_prediction(metric):
    true = np.random.default_rng(1).dirichlet(np.ones(8), 5).tolist()
    perfect = {"chebyshev": 0, "clark": 0, "canberra": 0, "kl": 0, "cosine": 1, "intersection": 1}
    assert metric.compute(references=true, predictions=true) == pytest.approx(perfect)


def test_a_class_that_is_ruled_out_but_true_is_infinitely_far(metric):
    assert metric.compute(references=[[0.9, 0.1]], predictions=[[1.0, 0.0]])["kl"] == np.inf


@pytest.mark.parametrize("wrong", [[0.5, 0.4], [1.5, -0.5], [np.nan, 1.0]])
def test_what_is_no_distribution_is_refused(metric, wrong):
    with pytest.raises(ValueError, match=r"predictions, row 1: .* is not a distribution \(1 such rows in total\)"):
        metric.compute(references=[[1.0, 0.0]] * 2, predictions=[[0.5, 0.5], wrong])
    with pytest.raises(ValueError, match="references, row 0: "):
        metric.compute(references=[wrong], predictions=[[0.5, 0.5]])
