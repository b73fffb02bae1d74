"""Dimensions as targets, such as valence and arousal: their columns, values mapped from labels, and their regions.

The rows of a run have the column `dimensions`, the values in the order of `--dimensions`, if it trains on them, and
lack it otherwise.
"""

import math
from typing import Any

import torch
from datasets import ClassLabel, Dataset, Features, List, Value, concatenate_datasets

from core.errors import InputError, warn
from dimensions_ser_align import Scales, check_scales, find_regions, list_regions
from recipe.options import DataArguments

COLUMN = "dimensions"
RATED = "iemocap, msp_podcast, demo, and hub or folder with --csv"
ALONE, BOTH = "dimensions", "labels_and_dimensions"  # the values of --targets


def learns_dimensions(data: DataArguments) -> bool:
    return data.targets in (ALONE, BOTH)


def learns_labels(data: DataArguments) -> bool:
    return data.targets != ALONE


def find_source(data: DataArguments) -> str:
    """Where the values come from: `rated` by people, `mapped` from labels, or `known` from how the demo was made.

    Of several corpora, `mapped` if those of one are.
    """
    if data.dimension_map or any(values.get("dimension_map") for values in data.corpora):
        return "mapped"
    return "known" if data.corpus == "demo" and not data.corpora else "rated"


def describe_source(source: str) -> str:
    """What to call values from this source wherever they are shown."""
    return {"mapped": "mapped from labels, not rated", "known": "as the audio was made, not rated"}.get(source, source)


def list_read_columns(data: DataArguments) -> list[str]:
    """The columns of numbers that the reader of a corpus must find; none if labels give the values."""
    return list(data.dimensions) if learns_dimensions(data) and not data.dimension_map else []


def check_dimensions(data: DataArguments) -> None:
    """Raise InputError if `--dimensions` is missing or not a map of scales, or `--dimension_map` does not fit it."""
    if not learns_dimensions(data):
        return
    try:
        check_scales(data.dimensions)
    except ValueError as error:
        raise InputError(f"--targets {data.targets}: --{error}") from None
    for label, values in data.dimension_map.items():
        if len(values) != len(data.dimensions):
            raise InputError(
                f"dimension_map: {label!r} has {len(values)} values for {len(data.dimensions)} dimensions: give one "
                f"for each of {', '.join(data.dimensions)}"
            )


def use_dimensions(rows: Dataset, corpus: str, data: DataArguments) -> Dataset:
    """Add the column `dimensions`, and drop utterances without a value for each.

    Raises:
        InputError: the corpus has no such column, no utterance has all values, or one is not within its scale.
    """
    values = _map_labels(rows, corpus, data) if data.dimension_map else _read_columns(rows, corpus, data.dimensions)
    kept = [index for index, each in enumerate(values) if None not in each]
    if not kept:
        raise InputError(f"{corpus}: no utterance has a value for each of {', '.join(data.dimensions)}")
    if len(kept) < len(rows):
        what = "labels that dimension_map does not list" if data.dimension_map else "no values"
        warn(f"{corpus}: {len(rows) - len(kept)} of {len(rows)} utterances have {what} and are dropped")
    rows, values = rows.select(kept), [values[index] for index in kept]
    _check_range(rows, values, corpus, data.dimensions)
    rows = rows.remove_columns([name for name in (COLUMN,) if name in rows.column_names])
    return _add_column(rows, COLUMN, values, List(Value("float64")))


def _check_range(rows: Dataset, values: list[list[float]], corpus: str, dimensions: Scales) -> None:
    """Raise InputError for a value that is not within its scale; of a published corpus, only warn: IEMOCAP has some."""
    outside = [
        f"{dimension}={value:g} of {name} is not from {low:g} to {high:g}"
        for name, each in zip(rows["id"][:], values)
        for (dimension, (low, high)), value in zip(dimensions.items(), each)
        if not low <= value <= high
    ]
    if outside and corpus in ("folder", "hub"):
        raise InputError(f"{corpus}: {outside[0]}: correct it, or the scale in --dimensions")
    if outside:
        warn(f"{corpus}: {outside[0]} ({len(outside)} such values); they are used as they are")


def _read_columns(rows: Dataset, corpus: str, dimensions: Scales) -> list[list[Any]]:
    """The values of each utterance; None where there is no rating."""
    for name in dimensions:
        if name not in rows.column_names:
            raise InputError(
                f"--dimensions: {corpus} has no column {name!r}: use a corpus that has ratings ({RATED}), or "
                "give the values of each label with --dimension_map"
            )
    columns = [rows[name][:] for name in dimensions]
    return [[None if value is None or math.isnan(value) else value for value in each] for each in zip(*columns)]


def _map_labels(rows: Dataset, corpus: str, data: DataArguments) -> list[list[Any]]:
    """The values of the label of each utterance; None for a label that is not in the map."""
    names = rows.features["label"].names
    for label in data.dimension_map:
        if label not in names:
            raise InputError(f"dimension_map: {corpus} has no label {label!r}; its labels are {', '.join(names)}")
    unknown: list[Any] = [None] * len(data.dimensions)
    return [data.dimension_map.get(names[index], unknown) for index in rows["label"][:]]


def label_by_region(rows: Dataset, dimensions: Scales) -> Dataset:
    """Replace the labels by the regions of the values."""
    regions = find_regions(read_targets(rows), dimensions).tolist()
    return _add_column(rows.remove_columns("label"), "label", regions, ClassLabel(names=list_regions(dimensions)))


def _add_column(rows: Dataset, name: str, values: list[Any], feature: Any) -> Dataset:
    column = Dataset.from_dict({name: values}, features=Features({name: feature}))
    return concatenate_datasets([rows, column], axis=1)


def read_targets(rows: Dataset) -> torch.Tensor:
    """The values of rows, (utterances, dimensions), float64."""
    return torch.tensor(rows[COLUMN][:], dtype=torch.float64)


def describe_targets(data: DataArguments, train: Dataset | None = None) -> dict[str, Any]:
    """The fields of SERAlignConfig on dimensions; with training utterances, also the weights of the regions."""
    if not learns_dimensions(data):
        return {}
    fields: dict[str, Any] = {
        "dimension_names": list(data.dimensions),
        "dimension_scales": [list(map(float, scale)) for scale in data.dimensions.values()],
        "dimension_source": find_source(data),
        "classes_are_regions": not learns_labels(data),
    }
    if train is not None:
        fields["region_class_weights"] = weigh_regions(train, data.dimensions)
    if not learns_labels(data):
        fields["id2label"] = dict(enumerate(list_regions(data.dimensions)))
    return fields


def weigh_regions(train: Dataset, dimensions: Scales) -> list[float]:
    """n / (regions x count) of each region, so that all weigh the same in total; 1 for one without utterances."""
    number = 2 ** len(dimensions)
    counts = torch.bincount(find_regions(read_targets(train), dimensions), minlength=number).tolist()
    return [len(train) / (number * count) if count else 1.0 for count in counts]
