"""The record of a run, which says what its results depend on, and how two of them differ."""

from dataclasses import asdict
from typing import Any

from recipe.classical_options import ClassicalFields
from recipe.options import FORMER_NAMES, FREE_TO_CHANGE, Arguments


def use_current_names(record: dict[str, Any]) -> dict[str, Any]:
    """Rename the options in a record of an earlier release to their current names."""
    return {FORMER_NAMES.get(name, name): value for name, value in record.items()}


# What a record of a run contains besides its options, and what a difference there means.
RECORDED = {
    "rows": "different utterances or a different split",
    "audio": "other recordings under the same names",
    "copies": "other converted copies",
    "text": "other words",
    "words": "other word times",
    "stage1": "a different stage 1",
    "teacher_weights": "another teacher",
}


def first_difference(earlier: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Describe the first difference between two records of a run that affects the results, and count the others.

    A record contains the options of a run and possibly more. An option that was added after the earlier record is
    compared with its default, which has no effect; a renamed option is compared under its new name.
    """
    unrecorded = {"audio": now["audio"]} if "audio" in now else {}  # in earlier releases
    defaults = {**Arguments().flat(), **asdict(ClassicalFields())}
    earlier = {**defaults, **unrecorded, **use_current_names(earlier)}
    changed = [name for name in now if name not in FREE_TO_CHANGE and earlier.get(name) != now[name]]
    if not changed:
        return None
    name = changed[0]
    what = RECORDED.get(name, f"{name}={earlier.get(name)!r}, not {now[name]!r}")
    return what + (f" ({len(changed) - 1} more differ)" if changed[1:] else "")


def checkpoint_name(results: dict[str, Any], name: str) -> str:
    return f"{name} (epoch {results['epochs'][name]:.3g})"
