"""Dimensions such as valence and arousal in records and on the terminal."""

from typing import Any

from core.escaping import printable

# What to say of values that nobody rated, wherever they are shown.
SOURCES = {"rated": "", "mapped": "mapped from labels, not rated", "known": "of synthetic audio, not rated"}


def round_dimensions(answer: dict[str, Any]) -> dict[str, Any]:
    """`dimensions` and `dimension_source` of an answer in rounded numbers; empty for a model without dimensions."""
    if "dimensions" not in answer:
        return {}
    rounded = {
        name: {
            "value": round(each["value"], 4),
            "error": None if each["error"] is None else round(each["error"], 4),
            "scale": each["scale"],
        }
        for name, each in answer["dimensions"].items()
    }
    return {"dimensions": rounded, "dimension_source": answer["dimension_source"]}


def format_dimensions(record: dict[str, Any]) -> list[str]:
    """`valence 2.41 ± 0.60 (1 to 5), arousal ...` on one line; no line for a record without dimensions.

    After ± is the root mean square error on validation data.
    """
    if "dimensions" not in record:
        return []
    parts = []
    for name, each in record["dimensions"].items():
        error = "" if each["error"] is None else f" ± {each['error']:.2f}"
        low, high = each["scale"]
        parts.append(f"{printable(name)} {each['value']:.2f}{error} ({low:g} to {high:g})")
    source = SOURCES[record["dimension_source"]]
    return ["  " + ", ".join(parts) + (f"; {source}" if source else "")]
