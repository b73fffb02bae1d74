"""The variants of an experiment: what a row of its table trains, as its YAML file says."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from core.errors import InputError
from recipe.classical_arguments import build_fields, refuse_augmentation
from recipe.classical_options import SHARED_OPTIONS, ClassicalFields
from recipe.conversion_options import ConversionFields
from recipe.options import CELL_OPTIONS, WHOLE_RUN

RENAMED_KEYS = {"projected": "tsne", "recordings": "timeline"}
SPLITTING = ("protocol", "num_folds")
VARIANT_KEYS = ("name", "options", "seeds", "paper", "compare_with", "classical")


@dataclass(frozen=True)
class Variant:
    """A training variant: one row of the table."""

    key: str
    name: str
    options: dict[str, Any]
    seeds: tuple[int, ...]
    paper: dict[str, float]
    compare_with: str | None = None  # the variant whose difference from this one is tested, besides the baseline
    classical: ClassicalFields | None = None  # of a classical model; None is a network


def check_keys(where: str, content: dict[str, Any], known: tuple[str, ...], required: tuple[str, ...] = ()) -> None:
    for name in content:
        if RENAMED_KEYS.get(name) in known:
            raise InputError(f"{where}: '{name}' is now called '{RENAMED_KEYS[name]}': rename it")
        if name not in known:
            raise InputError(f"{where}: unknown key '{name}'; valid keys: {', '.join(known)}")
    for name in required:
        if name not in content:
            raise InputError(f"{where}: missing key '{name}'; required keys: {', '.join(required)}")


def check_variant_names(where: str, names: tuple[str, ...], variants: tuple[Variant, ...]) -> None:
    known = [variant.key for variant in variants]
    for name in names:
        if name not in known:
            raise InputError(f"{where}: no variant is called {name!r}; choose from {', '.join(known)}")


def check_classical(path: str, scored_on: str, variants: tuple[Variant, ...]) -> None:
    for variant in variants:
        if variant.classical:
            refuse_augmentation(variant.classical, list(variant.options), f"{path}: variant {variant.key}: ")
        for name in variant.options if variant.classical else ():
            if name not in SHARED_OPTIONS:
                raise InputError(f"{path}: variant {variant.key}: '{name}' is for networks, not for a classical model")
        if variant.classical and scored_on == "validation":
            raise InputError(
                f"{path}: variant {variant.key} chooses C on the validation speakers, so it cannot be scored on them: "
                "remove it, or scored_on"
            )


def read_numbers(path: str, name: str, value: Any) -> tuple[int, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise InputError(f"{path}: {name}={value!r} must be a list of non-negative integers")
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{path}: {name}={value!r} contains duplicates: remove them")
    return tuple(numbers)


def read_variant(path: str, key: str, value: dict[str, Any], seeds: tuple[int, ...], stage: int) -> Variant:
    where = f"{path}: variant {key}"
    if key == "stage1" or Path(key).name != key:
        raise InputError(f"{where}: choose a name that is a valid folder name and not 'stage1'")
    check_keys(where, value, VARIANT_KEYS)
    for name in value.get("options") or {}:
        own_data = (*SPLITTING, *(each.name for each in fields(ConversionFields)))
        may_differ = stage == 1 and name in own_data  # no variant shares a stage 1 that heard something else
        if name in ("config", *WHOLE_RUN, *CELL_OPTIONS) and not may_differ:
            raise InputError(f"{where}: '{name}' must be the same for all variants: set it in the run configuration")
    if "|" in str(value.get("name", key)):
        raise InputError(f"{where}: remove the '|' from its name, which appears in Markdown tables")
    return Variant(
        key=key,
        name=str(value.get("name", key)),
        options=value.get("options") or {},
        seeds=read_numbers(where, "seeds", value["seeds"]) if "seeds" in value else seeds,
        paper=value.get("paper") or {},
        compare_with=value.get("compare_with"),
        classical=None if value.get("classical") is None else _read_classical(where, value["classical"]),
    )


def _read_classical(where: str, value: Any) -> ClassicalFields:
    if not isinstance(value, dict):
        raise InputError(f"{where}: classical={value!r} must contain options of baseline.py, such as features: egemaps")
    return build_fields(value, f"{where}: ")
