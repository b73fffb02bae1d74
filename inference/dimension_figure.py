"""Draws dimensions: their values over time, and the plane of two of them, such as the valence-arousal circumplex."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from inference.values import SOURCES

COLOURS = ("#4e79a7", "#d62f3c", "#59a14f", "#9467bd", "#f1a340", "#17becf")
PLANE = ("valence", "arousal")  # across and up, if the model has both


def draw_trace(
    axes: Axes, trace: list[dict[str, list[float]]], dimensions: dict[str, Any], foreground: str
) -> list[Line2D]:
    """Draw the values of each dimension over time, from the lowest to the highest of its scale; returns a line of each.

    Args:
        trace: of a record, for each phrase the times and the values of each dimension.
        dimensions: of a record, with the scale of each.
    """
    lines = []
    style: dict[str, Any] = {"linewidth": 1.5, "marker": ".", "markersize": 2}
    for (name, each), colour in zip(dimensions.items(), COLOURS):
        low, high = each["scale"]
        label = f"{escape(name)} ({low:g} to {high:g})"
        for part in trace:
            heights = (np.array(part[name]) - low) / (high - low)
            (line,) = axes.plot(part["time"], heights, color=colour, label=label, **style)
        if trace:
            lines.append(line)
    axes.axhline(0.5, color=foreground, alpha=0.3, linewidth=0.8)
    axes.set(ylim=(-0.05, 1.05), yticks=[])
    return lines


def choose_plane(dimensions: dict[str, Any]) -> tuple[str, str] | None:
    """The dimensions across and up: valence and arousal, or the first two; None if there are fewer."""
    names = PLANE if set(PLANE) <= set(dimensions) else tuple(dimensions)[:2]
    return None if len(names) < 2 else (names[0], names[1])


def draw_plane(record: dict[str, Any], dark: bool = False, size: tuple[float, float] = (3.2, 3.2)) -> Figure:
    """Draw where a recording lies in the plane of two dimensions, and how it moves there.

    The dot is the value of the recording, the cross around it its typical error, and the line its values over time,
    from pale to strong.

    Args:
        record: with at least two `dimensions`, and `trace`.
        dark: whether to draw light on dark.
        size: width and height in inches, of which the smaller is that of both.
    """
    foreground, background = ("#e8e8e8", "#16181d") if dark else ("#222222", "#ffffff")
    figure = Figure(figsize=(min(size), min(size)), dpi=120, facecolor=background, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    plane = choose_plane(record["dimensions"])
    assert plane is not None
    across, up = (record["dimensions"][name] for name in plane)
    points = np.concatenate(
        [np.array([part[name] for name in plane]).T for part in record["trace"]] or [np.zeros((0, 2))]
    )
    strengths = np.linspace(0.15, 0.7, len(points)).tolist()
    shades = [(*to_rgb(COLOURS[0]), strength) for strength in strengths]
    axes.scatter(points[:, 0], points[:, 1], s=8, c=shades, linewidths=0)
    errors = {"xerr": across["error"], "yerr": up["error"]}
    axes.errorbar(across["value"], up["value"], **errors, fmt="o", color=COLOURS[1], markersize=7, linewidth=1)
    for each, line in ((across, axes.axvline), (up, axes.axhline)):
        line(sum(each["scale"]) / 2, color=foreground, alpha=0.3, linewidth=0.8)
    edges = [_widen(each["scale"], points[:, index]) for index, each in enumerate((across, up))]
    axes.set(xlim=edges[0], ylim=edges[1], xticks=_mark(across["scale"]), yticks=_mark(up["scale"]))
    axes.set_xlabel(escape(plane[0]), fontsize=8, color=foreground)
    axes.set_ylabel(escape(plane[1]), fontsize=8, color=foreground)
    if source := SOURCES[record["dimension_source"]]:
        axes.set_title(source, fontsize=7, color=foreground)
    axes.set_facecolor(background)
    axes.tick_params(colors=foreground, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(foreground)
        spine.set_alpha(0.3)
    return figure


def _mark(scale: list[float]) -> list[float]:
    return [scale[0], sum(scale) / 2, scale[1]]


def _widen(scale: list[float], values: np.ndarray) -> tuple[float, float]:
    """The scale with a margin, and any value beyond its ends."""
    margin = 0.05 * (scale[1] - scale[0])
    return min([scale[0], *values]) - margin, max([scale[1], *values]) + margin


def escape(label: str) -> str:
    """Escape dollar signs, which would start a formula."""
    return label.replace("$", r"\$")
