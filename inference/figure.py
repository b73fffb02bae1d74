"""Plots the waveform of a recording above its emotion timeline."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from core.errors import writing
from inference.dimension_figure import draw_trace, escape
from recording_ser_align import PEAK_SAMPLES, SAMPLING_RATE, collect_peaks, read_blocks

MOST_POINTS = 4000  # of the drawn waveform
# Common emotions always have the same colour; other labels take the remaining colours in order.
COLOURS = {
    "neutral": "#8c8c8c",
    "calm": "#76b7b2",
    "happy": "#edc949",
    "excited": "#f1a340",
    "sad": "#4e79a7",
    "angry": "#d62f3c",
    "fearful": "#9467bd",
    "disgust": "#59a14f",
    "surprised": "#ff7fbf",
}
OTHER_COLOURS = ("#9c755f", "#17becf", "#bcbd22", "#393b79", "#e7969c", "#637939")


def choose_colours(labels: list[str]) -> dict[str, str]:
    """Choose a colour for each label; the same list always gets the same colours."""
    others = [label for label in labels if label not in COLOURS]
    return {label: COLOURS.get(label) or OTHER_COLOURS[others.index(label) % len(OTHER_COLOURS)] for label in labels}


def draw(
    recording: Any,
    record: dict[str, Any],
    labels: list[str],
    evidence: dict[str, Any] | None = None,
    dark: bool = False,
    size: tuple[float, float] = (10, 3.2),
) -> Figure:
    """Read a recording and plot it with [`draw_outline`].

    Args:
        recording: as the pipeline takes it; the `channel` in the record is read.
    """
    peaks: list[np.ndarray] = []
    for _ in collect_peaks(read_blocks(recording, record["channel"]), peaks):
        pass
    return draw_outline(np.concatenate([np.zeros(0, np.float32), *peaks]), record, labels, evidence, dark, size)


def draw_outline(
    outline: np.ndarray,
    record: dict[str, Any],
    labels: list[str],
    evidence: dict[str, Any] | None = None,
    dark: bool = False,
    size: tuple[float, float] = (10, 3.2),
) -> Figure:
    """Plot the waveform above its timeline; with evidence, shade the stretches that count most.

    Dimensions over time are drawn between the two, if the record has a `trace`.

    Args:
        outline: (points,), from a result of the pipeline with `return_outline=True`.
        record: with `duration` and `timeline`, as predict.py writes it.
        labels: all labels of the model, in its order.
        evidence: the return value of `explain`.
        dark: whether to draw light on dark.
        size: width and height in inches.
    """
    foreground, background = ("#e8e8e8", "#16181d") if dark else ("#222222", "#ffffff")
    figure = Figure(figsize=size, dpi=120, facecolor=background, layout="constrained")
    FigureCanvasAgg(figure)
    has_trace = bool(record.get("trace"))
    wave, *traced, ribbon = figure.subplots(2 + has_trace, 1, sharex=True, height_ratios=(3, *(2,) * has_trace, 1))
    curves = [line for axes in traced for line in draw_trace(axes, record["trace"], record["dimensions"], foreground)]
    times, values = _thin_out(outline)
    wave.fill_between(times, -values, values, color=foreground, alpha=0.75, linewidth=0)
    wave.set_ylim(*np.array([-1.1, 1.1]) * max(float(values.max(initial=0)), 1e-6))
    wave.set_yticks([])
    if evidence is not None:
        for stretch in evidence["stretches"]:
            wave.axvspan(stretch["start"], stretch["end"], color=foreground, alpha=0.18, linewidth=0)
    colours = choose_colours(labels)
    for segment in record["timeline"]:
        width = segment["end"] - segment["start"]
        # A higher score gives a stronger colour.
        alpha = 0.25 + 0.75 * segment["score"]
        ribbon.broken_barh([(segment["start"], width)], (0, 1), color=colours[segment["label"]], alpha=alpha)
        if width * size[0] > 0.075 * len(segment["label"]) * record["duration"]:  # the label fits, in inches
            ribbon.text(
                segment["start"] + width / 2,
                0.5,
                escape(segment["label"]),
                ha="center",
                va="center",
                fontsize=8,
                color=_choose_text_colour(colours[segment["label"]], alpha, background),
            )
    ribbon.set(ylim=(0, 1), yticks=[], xlim=(0, max(record["duration"], 0.1)))
    ribbon.set_xlabel("seconds", fontsize=8)
    wave.tick_params(bottom=False)
    present = [label for label in labels if any(s["label"] == label for s in record["timeline"])]
    entries: list[Any] = [*curves, *(Patch(color=colours[label], label=escape(label)) for label in present)]
    if evidence is not None:
        entries.append(Patch(color=foreground, alpha=0.18, label="counts most"))
    if entries:
        figure.legend(
            handles=entries,
            loc="outside upper center",
            ncols=max(1, min(len(entries), int(0.9 * size[0]))),
            frameon=False,
            fontsize=8,
            labelcolor=foreground,
        )
    for axes in (wave, *traced, ribbon):
        axes.set_facecolor(background)
        axes.tick_params(colors=foreground, labelsize=8)
        axes.xaxis.label.set_color(foreground)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def _thin_out(outline: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduce the outline to times and amplitudes of at most 4000 points, each the largest of its neighbours."""
    every = -(-len(outline) // MOST_POINTS) or 1
    values = np.pad(outline, (0, -len(outline) % every)).reshape(-1, every).max(axis=1)
    return (np.arange(len(values)) + 0.5) * every * PEAK_SAMPLES / SAMPLING_RATE, values


def _choose_text_colour(colour: str, alpha: float, background: str) -> str:
    """Choose black or white, whichever is easier to read on the colour."""
    blend = alpha * np.array(to_rgb(colour)) + (1 - alpha) * np.array(to_rgb(background))
    return "#111111" if blend @ (0.299, 0.587, 0.114) > 0.5 else "#ffffff"


def save(figure: Figure, path: Path) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor=figure.get_facecolor())
