"""Which training utterances an early model finds easy and which hard, and whose voice each converted one gets."""

from typing import Any, NamedTuple

import numpy as np

from core.errors import InputError
from recipe.conversion_options import ConversionFields

GCE_Q = 0.7  # as in Zhang and Sabuncu 2018
STREAM = 2  # of the random numbers, apart from those that order the batches


class Pair(NamedTuple):
    """Rows of an utterance to convert, and of the one whose speaker gives the voice."""

    source: int
    reference: int


def measure_difficulty(probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Cross-entropy `ce`, generalised cross-entropy `gce` and relative difficulty `difficulty` = ce / (ce + gce).

    GCE is (1 - p^q) / q (Zhang and Sabuncu 2018), which grows less for hard utterances. Both are of the same model, so
    the difficulty falls with the probability whatever q is: from 1 for p = 0 to 1/2, its limit, for p = 1.

    Args:
        probabilities: of the label of each utterance, (utterances,).
    """
    ce = -np.log(np.clip(probabilities, np.finfo(float).tiny, 1.0))
    gce = -np.expm1(-GCE_Q * ce) / GCE_Q
    difficulty = np.divide(ce, ce + gce, out=np.full(ce.shape, 0.5), where=ce > 0)
    return {"ce": ce, "gce": gce, "difficulty": difficulty}


def check_shares(options: ConversionFields) -> None:
    """Raise InputError if an utterance would have to be both easy and hard."""
    if options.convert == "guiding" and options.guiding_share + options.contrary_share > 1:
        raise InputError(
            f"--guiding_share {options.guiding_share:g} and --contrary_share {options.contrary_share:g} add up to more "
            "than 1, but no utterance can be both easy and hard: lower one of them"
        )


def find_roles(labels: np.ndarray, difficulty: np.ndarray, options: ConversionFields) -> np.ndarray:
    """`guiding`, `contrary` or empty for each utterance: the easiest and the hardest of each class.

    Within each class, so that copies change no class's share, and a rare class is not all contrary.
    """
    roles = np.full(len(labels), "", dtype="<U8")
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order = members[np.argsort(difficulty[members], kind="stable")]
        roles[order[: _count(options.guiding_share, members)]] = "guiding"
        roles[order[len(order) - _count(options.contrary_share, members) :]] = "contrary"
    return roles


def draw_roles(labels: np.ndarray, options: ConversionFields, rng: np.random.Generator) -> np.ndarray:
    """As many `guiding` utterances of each class as `find_roles` finds, at random; all others are `contrary`."""
    roles = np.full(len(labels), "contrary", dtype="<U8")
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        roles[rng.choice(members, _count(options.guiding_share, members), replace=False)] = "guiding"
    return roles


def _count(share: float, members: np.ndarray) -> int:
    return int(np.floor(share * len(members) + 0.5))


def pair(
    labels: np.ndarray, speakers: np.ndarray, roles: np.ndarray, options: ConversionFields, rng: np.random.Generator
) -> list[Pair]:
    """Draw a contrary utterance of another speaker for each copy of a guiding one; without any, there is no copy.

    The voices of a source differ as long as there are enough speakers.
    """
    contrary, pairs = roles == "contrary", []
    for source in np.flatnonzero(roles == "guiding").tolist():
        fits = contrary & (speakers != speakers[source])
        if options.convert_pairing == "same_class":
            fits &= labels == labels[source]
        drawn = rng.permutation(np.flatnonzero(fits)).tolist()
        others = list({speakers[index]: index for index in reversed(drawn)}.values())  # the first of each speaker
        pairs += [Pair(source, index) for index in others[: options.convert_copies]]
    return pairs


def choose_pairs(
    labels: np.ndarray,
    speakers: np.ndarray,
    options: ConversionFields,
    seed: int,
    probabilities: np.ndarray | None,
) -> tuple[list[Pair], list[dict[str, Any]]]:
    """Choose what to convert; also return what is known of each training utterance.

    Args:
        labels, speakers: of each training utterance.
        probabilities: that the early model gives the label of each; None draws at random.
    """
    rng = np.random.default_rng([seed, STREAM])
    if probabilities is None:
        roles = draw_roles(labels, options, rng)
        return pair(labels, speakers, roles, options, rng), [{"role": role} for role in roles.tolist()]
    measured = {"probability": probabilities, **measure_difficulty(probabilities)}
    roles = find_roles(labels, measured["difficulty"], options)
    known = [dict(zip(measured, values)) for values in zip(*(column.tolist() for column in measured.values()))]
    described = [{**values, "role": role} for values, role in zip(known, roles.tolist())]
    return pair(labels, speakers, roles, options, rng), described
