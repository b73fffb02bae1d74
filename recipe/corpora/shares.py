"""Shares: one number for each class, such as its votes -> the label distribution of an utterance."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.errors import InputError

TIE = 1e-6  # shares that differ by less are equal: sums of rounded numbers


def read_shares(numbers: Mapping[str, Any], where: str) -> list[float]:
    """Read the share of each class, in the order of the classes: its number divided by the sum.

    Args:
        numbers: votes, weights or shares by class, as numbers or text.
        where: file and line, for the error message.

    Raises:
        InputError: one is missing, negative or not a number, or all are 0.
    """
    values = [_read_number(value, f"{where}, {name}") for name, value in numbers.items()]
    if not any(values):
        names = ", ".join(list(numbers)[:3])
        raise InputError(
            f"{where}: all {len(values)} classes ({names}, ...) are 0: give one a vote, or remove the utterance"
        )
    return [value / sum(values) for value in values]


def _read_number(value: Any, where: str) -> float:
    if value is None or value != value or str(value).strip() == "":
        raise InputError(f"{where} is missing: fill in the number of votes or the share, 0 if there is none")
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise InputError(f"{where}: {str(value)[:50]!r} is not a number of at least 0: give votes or shares")
    return number


def find_majority(shares: Sequence[float] | np.ndarray) -> int:
    """The class with the largest share; of several with equal shares, the first in the order of the labels."""
    values = np.asarray(shares, dtype=np.float64)
    return int(np.argmax(values >= values.max() - TIE))
