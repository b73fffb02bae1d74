"""How an option is declared, and how its values are checked.

Part of the model code on the Hugging Face Hub; imports only the standard library, so that `--help` is fast.
"""

import math
import types
import typing
from dataclasses import Field, field
from typing import Any, Literal

Source = Literal["paper", "ours"]


def option(
    default: Any,
    help: str,
    source: Source | None = None,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    formerly: str | None = None,
    is_path: bool = False,
    may_change: bool = False,
    both_stages: bool = False,
    per_cell: bool = False,
) -> Any:
    """A dataclass field with all the metadata of an option.

    Args:
        default: value if none is given; lists and dicts are copied.
        help: a phrase that makes sense on its own.
        source: where the default comes from: `"paper"` if the paper states it, `"ours"` if we chose it; None if this
            does not apply, as for a folder.
        minimum, maximum: smallest and largest valid number.
        above, below: exclusive bounds.
        choices: choices on the command line, if they are fewer than the type of the field allows.
        formerly: name in earlier releases.
        is_path: whether it is a path on the user's machine; such values are never published.
        may_change: whether an interrupted run may resume with another value, because it does not affect the result.
        both_stages: whether it applies to the whole run and cannot be set for a single stage.
        per_cell: whether an experiment sets it for each of its runs.
    """
    metadata = {name: value for name, value in locals().items() if name != "default"}
    if isinstance(default, dict | list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def split_hint(hint: Any) -> tuple[Any, bool]:
    """Return a type hint without None, and whether it included None."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        return members[0], True
    return hint, False


def find_choices(option: Field) -> tuple[str, ...]:
    """The allowed words of an option; empty if its type is not Literal."""
    hint, _ = split_hint(option.type)
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def is_in_range(option: Field, number: float) -> bool:
    facts = option.metadata
    return (
        math.isfinite(number)
        and (facts["minimum"] is None or number >= facts["minimum"])
        and (facts["maximum"] is None or number <= facts["maximum"])
        and (facts["above"] is None or number > facts["above"])
        and (facts["below"] is None or number < facts["below"])
    )


def describe_range(option: Field) -> str:
    """` from 0 to 1`, ` of at least 0 and below 1`, ` above 0`; empty if any number is valid."""
    facts = option.metadata
    if facts["minimum"] is not None and facts["maximum"] is not None:
        return f" from {facts['minimum']:g} to {facts['maximum']:g}"
    words = {"minimum": "of at least", "above": "above", "maximum": "of at most", "below": "below"}
    bounds = [f"{word} {facts[name]:g}" for name, word in words.items() if facts[name] is not None]
    return f" {' and '.join(bounds)}" if bounds else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_field(option: Field, value: Any) -> None:
    """Raise ValueError if the value is not valid for this field; the message says what is."""
    hint, is_optional = split_hint(option.type)
    if value is None and is_optional:
        return
    choices = find_choices(option)
    if choices:
        is_valid, valid = value in choices, f"one of {', '.join(choices)}"
    elif hint is bool:
        is_valid, valid = isinstance(value, bool), "true or false"
    elif hint == list[float]:
        is_valid = isinstance(value, list) and all(
            _is_number(number) and is_in_range(option, number) for number in value
        )
        valid = "a list of numbers" + describe_range(option)
    elif hint == list[str]:
        known = option.metadata["choices"]
        is_valid = isinstance(value, list) and bool(value) and all(word in known for word in value)
        valid = f"a list of one or more of {', '.join(known)}"
    else:
        is_valid = _is_number(value) and is_in_range(option, value) and (hint is float or isinstance(value, int))
        valid = ("a number" if hint is float else "a whole number") + describe_range(option)
    if not is_valid:
        raise ValueError(f"{option.name}={value!r} is not {valid}{', or None' if is_optional else ''}")
