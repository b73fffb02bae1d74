"""The weights of an ensemble, worked out by hand."""

import numpy as np
import pytest
from scipy.stats import entropy

from core.ensembles import RULE_NAMES, RULES, combine, weigh_members
from inference import options


def test_weights_are_those_worked_out_by_hand():
    # Of two classes: certain weighs 1, uniform 0, and (1/4, 3/4) weighs 1 - 0.8113 bits.
    found = weigh_members(np.array([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]))
    half = 1 - (0.25 * 2 + 0.75 * np.log2(4 / 3))
    assert half == pytest.approx(0.188722, abs=1e-6)
    np.testing.assert_allclose(found, np.array([1, 0, half]) / (1 + half), atol=1e-8)
    joined = combine(np.array([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]), "certainty")
    np.testing.assert_allclose(joined, [(1 + half / 4) / (1 + half), 0.75 * half / (1 + half)], atol=1e-8)


def test_means_of_many_answers_are_distributions_and_agree_with_scipy():
    given = np.random.default_rng(0).dirichlet(np.ones(5), size=(3, 40))
    certainty = 1 - entropy(given, axis=-1) / np.log(5)
    expected = np.einsum("mn,mnc->nc", certainty / certainty.sum(axis=0), given)
    np.testing.assert_allclose(combine(given, "certainty"), expected, atol=1e-12)
    np.testing.assert_allclose(combine(given, "mean"), given.sum(axis=0) / 3, atol=1e-12)
    np.testing.assert_allclose(combine(given, "certainty").sum(axis=-1), 1, atol=1e-12)


def test_members_that_know_nothing_weigh_the_same_and_equal_ones_change_nothing():
    np.testing.assert_allclose(weigh_members(np.full((4, 3), 1 / 3)), 0.25, atol=1e-9)
    one = np.array([0.7, 0.2, 0.1])
    np.testing.assert_allclose(combine(np.stack([one, one]), "certainty"), one, atol=1e-12)


def test_the_command_line_has_the_same_rules():
    assert options.RULES == RULES and set(RULE_NAMES) == set(RULES)
