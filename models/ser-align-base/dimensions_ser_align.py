"""Emotion dimensions, such as valence, arousal and dominance: their scales and the regions of their space.

A dimension has a scale, from its lowest to its highest value. A region is one combination of low and high values: with
three dimensions, one of the eight octants of the sphere around the middle of all scales (Cho et al., arXiv 2505.19693).

Part of the model code on the Hugging Face Hub; requires only torch.
"""

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor

MOST_DIMENSIONS = 6
SOURCES = ("rated", "mapped", "known")  # by people, from the labels, or from how the audio was made

Scales = dict[str, list[float]]  # lowest and highest value of each dimension


def list_regions(dimensions: Scales) -> list[str]:
    """The names of the regions: `valence- arousal-`, `valence- arousal+`, ..., `valence+ arousal+`."""
    signs = product("-+", repeat=len(dimensions))
    return [" ".join(f"{name}{sign}" for name, sign in zip(dimensions, each)) for each in signs]


def list_signs(number: int) -> list[list[float]]:
    """The sign of each dimension in each region, -1 or 1: (regions, dimensions)."""
    return [list(each) for each in product((-1.0, 1.0), repeat=number)]


def read_scales(dimensions: Scales) -> tuple[list[float], list[float]]:
    """The middle of each scale, and half of its width."""
    pairs = dimensions.values()
    return [(low + high) / 2 for low, high in pairs], [(high - low) / 2 for low, high in pairs]


def normalize_values(values: Tensor, dimensions: Scales) -> Tensor:
    """Values (..., dimensions) on their own scales, to -1 at the lowest and 1 at the highest."""
    middles, halves = (torch.tensor(part, device=values.device) for part in read_scales(dimensions))
    return (values - middles) / halves


def find_regions(values: Tensor, dimensions: Scales) -> Tensor:
    """The region of each utterance, (batch, dimensions) to (batch,); the middle of a scale counts as high."""
    high = (normalize_values(values, dimensions) >= 0).long()
    places = [2 ** (len(dimensions) - 1 - index) for index in range(len(dimensions))]
    return (high * torch.tensor(places, device=values.device)).sum(dim=-1)


def describe_values(config: Any, values: Any) -> dict[str, Any]:
    """What an answer says of the dimensions of a recording, (dimensions,).

    Returns:
        `dimensions`, for each a dict with `value`, `error` (the root mean square error on validation data; None if
        unknown) and `scale`; and `dimension_source`, as in the configuration.
    """
    fitted = config.dimension_calibration or [[1.0, 0.0, None]] * len(values)
    described = {
        name: {"value": float(value), "error": error, "scale": list(scale)}
        for (name, scale), value, (_, _, error) in zip(config.dimensions.items(), values, fitted)
    }
    return {"dimensions": described, "dimension_source": config.dimension_source}


def name_values(segments: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """Replace the list `dimensions` of each segment by a dict with their names; without names, remove it."""
    if not names:
        return [{key: value for key, value in segment.items() if key != "dimensions"} for segment in segments]
    return [{**segment, "dimensions": dict(zip(names, segment["dimensions"]))} for segment in segments]


def check_scales(dimensions: Any) -> None:
    """Raise ValueError unless this is a map from each dimension to its lowest and highest value."""
    example = "such as {'valence': [1, 5], 'arousal': [1, 5]}"
    if not isinstance(dimensions, dict) or not 1 <= len(dimensions) <= MOST_DIMENSIONS:
        raise ValueError(f"dimensions={dimensions!r} is not a map of 1 to {MOST_DIMENSIONS} dimensions, {example}")
    for name, scale in dimensions.items():
        if not _are_finite(scale, 2) or scale[0] >= scale[1]:
            raise ValueError(
                f"dimensions: the scale of {name} is {scale!r}, not its lowest and highest value, {example}"
            )


def _are_finite(values: Any, count: int) -> bool:
    """Whether this is a list of so many finite numbers."""
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in values)
    )


def check_dimensions(config: Any) -> None:
    """Raise ValueError if the fields of a configuration on dimensions do not fit together."""
    if config.dimension_names is None:
        if config.region_weight > 0 or config.classes_are_regions:
            raise ValueError("regions are those of dimensions: set dimension_names, or region_weight=0")
        return
    scales, number = config.dimension_scales, len(config.dimension_names)
    if scales is None or len(scales) != number or len(set(config.dimension_names)) != number:
        raise ValueError(f"dimension_scales={scales!r} are not those of dimension_names={config.dimension_names!r}")
    check_scales(config.dimensions)
    if config.dimension_source not in SOURCES:
        raise ValueError(f"dimension_source={config.dimension_source!r} is not one of {', '.join(SOURCES)}")
    fitted = config.dimension_calibration
    if fitted is not None and not (len(fitted) == number and all(_are_finite(each, 3) for each in fitted)):
        raise ValueError(f"dimension_calibration={fitted!r} is not slope, intercept and error of {number} dimensions")
    weights, regions = config.region_class_weights, 2**number
    if weights is not None and len(weights) != regions:
        raise ValueError(f"region_class_weights has {len(weights)} weights for {regions} regions: give one for each")
    if config.classes_are_regions:
        _check_regions(config, regions)


def _check_regions(config: Any, number: int) -> None:
    """Raise ValueError for what needs classes, if the only ones are the regions of the dimensions."""
    if config.num_labels != number:
        raise ValueError(f"the classes are the {number} regions of the dimensions, not {config.num_labels} labels")
    for name in ("ce_weight", "kl_weight", "cosine_weight", "focal_weight", "center_weight", "contrastive_weight"):
        if getattr(config, name) > 0:
            raise ValueError(
                f"{name}={getattr(config, name):g} trains labels, and dimensions alone have none: set it to 0"
            )
    if config.ccc_weight == 0:
        raise ValueError("no loss trains the dimensions: set ccc_weight above 0")
    if config.cls_in_embedding == "concat" or config.statistics_layers > 0 or config.frame_classifier == "separate":
        raise ValueError(
            "dimensions alone have no classifier: set cls_in_embedding to none or add, frame_classifier to shared and "
            "statistics_layers to 0"
        )
