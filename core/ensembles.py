"""Several answers as one: the mean of probabilities, plain or weighted by the certainty of each."""

from typing import Literal, get_args

import numpy as np

Rule = Literal["certainty", "mean"]
RULES: tuple[Rule, ...] = get_args(Rule)
# What a table calls a mean of each rule.
RULE_NAMES: dict[Rule, str] = {"mean": "plain mean", "certainty": "weighted by certainty"}


def weigh_members(probabilities: np.ndarray) -> np.ndarray:
    """The weight of each member in the mean, (members, ..., classes) to (members, ...); they sum to 1 over members.

    A weight is in proportion to 1 - H(p) / log C, which is 1 for a certain answer and 0 for a uniform one. Ours: MATER
    (Jon et al. 2025) weighs its members by their uncertainty, and does not publish how.
    """
    logarithms = np.log(np.where(probabilities > 0, probabilities, 1.0))
    entropies = -(probabilities * logarithms).sum(axis=-1)
    certainties = np.clip(1 - entropies / np.log(probabilities.shape[-1]), 1e-9, None)  # of all uniform: equal weights
    return certainties / certainties.sum(axis=0)


def combine(probabilities: np.ndarray, rule: Rule) -> np.ndarray:
    """The mean over members, (members, ..., classes) to (..., classes)."""
    if rule == "mean":
        return probabilities.mean(axis=0)
    return (weigh_members(probabilities)[..., None] * probabilities).sum(axis=0)
