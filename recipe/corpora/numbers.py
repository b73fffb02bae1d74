"""Columns of numbers, such as ratings of valence, in a CSV file or a Hub dataset."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import InputError


def read_numbers(cells: Mapping[str, Any], columns: Sequence[str], where: str) -> dict[str, float | None]:
    """The number in each of these columns of a line; None for an empty cell.

    Args:
        where: file and line, for the error message.

    Raises:
        InputError: a cell is neither empty nor a finite number.
    """
    return {name: _read_number(cells[name], f"{where}, {name}") for name in columns}


def _read_number(value: Any, where: str) -> float | None:
    if value is None or value != value or str(value).strip() == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: {str(value)[:50]!r} is not a number: correct it, or leave it empty")
    return number
