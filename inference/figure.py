"""The waveform of a recording with a ribbon of its emotions over time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from recording_ser_align import SAMPLING_RATE, read_blocks

POINTS_A_SECOND = 100  # of the waveform's outline
MOST_POINTS = 4000
# The usual emotions have one colour each, everywhere; any other label takes one of the rest by its place.
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


def colours(labels: list[str]) -> dict[str, str]:
    """A colour for each label, the same for the same list."""
    others = [label for label in labels if label not in COLOURS]
    return {label: COLOURS.get(label) or OTHER_COLOURS[others.index(label) % len(OTHER_COLOURS)] for label in labels}


def outline(blocks: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Times and amplitudes to draw a waveform of any length: at most 4000 points, each the largest magnitude there."""
    size = SAMPLING_RATE // POINTS_A_SECOND
    peaks, rest = [], np.zeros(0, np.float32)
    for block in blocks:
        joined = np.concatenate([rest, np.abs(block)])
        whole = len(joined) // size * size
        peaks.append(joined[:whole].reshape(-1, size).max(axis=1))
        rest = joined[whole:]
    values = np.concatenate([*peaks, rest.max(keepdims=True) if len(rest) else rest])
    every = -(-len(values) // MOST_POINTS) or 1
    values = np.pad(values, (0, -len(values) % every)).reshape(-1, every).max(axis=1)
    return (np.arange(len(values)) + 0.5) * every / POINTS_A_SECOND, values


def draw(
    recording: Any,
    record: dict[str, Any],
    labels: list[str],
    evidence: dict[str, Any] | None = None,
    dark: bool = False,
    size: tuple[float, float] = (10, 3.2),
) -> Figure:
    """Waveform above, emotions below; with evidence, the stretches that carried the decision are shaded.

    Args:
        recording: as the pipeline takes it.
        record: with `file`, `channel`, `duration` and `timeline`, as predict.py writes it.
        labels: all labels of the model, in its order.
        evidence: what `explain` returns.
        dark: light on dark.
        size: width and height in inches.
    """
    foreground, background = ("#e8e8e8", "#16181d") if dark else ("#222222", "#ffffff")
    figure = Figure(figsize=size, dpi=120, facecolor=background, layout="constrained")
    FigureCanvasAgg(figure)
    wave, ribbon = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    times, values = outline(read_blocks(recording, record["channel"]))
    wave.fill_between(times, -values, values, color=foreground, alpha=0.75, linewidth=0)
    wave.set_ylim(*np.array([-1.1, 1.1]) * max(float(values.max(initial=0)), 1e-6))
    wave.set_yticks([])
    if evidence is not None:
        for stretch in evidence["stretches"]:
            wave.axvspan(stretch["start"], stretch["end"], color=foreground, alpha=0.18, linewidth=0)
    shown = colours(labels)
    for segment in record["timeline"]:
        width = segment["end"] - segment["start"]
        # The surer, the fuller the colour.
        alpha = 0.25 + 0.75 * segment["score"]
        ribbon.broken_barh([(segment["start"], width)], (0, 1), color=shown[segment["label"]], alpha=alpha)
        if width * size[0] > 0.075 * len(segment["label"]) * record["duration"]:  # the word fits, in inches
            ribbon.text(
                segment["start"] + width / 2,
                0.5,
                _plain(segment["label"]),
                ha="center",
                va="center",
                fontsize=8,
                color=_readable_on(shown[segment["label"]], alpha, background),
            )
    ribbon.set(ylim=(0, 1), yticks=[], xlim=(0, max(record["duration"], 0.1)))
    ribbon.set_xlabel("seconds", fontsize=8)
    wave.tick_params(bottom=False)
    present = [label for label in labels if any(s["label"] == label for s in record["timeline"])]
    entries = [Patch(color=shown[label], label=_plain(label)) for label in present]
    if evidence is not None:
        entries.append(Patch(color=foreground, alpha=0.18, label="most weight"))
    if entries:
        figure.legend(
            handles=entries,
            loc="outside upper center",
            ncols=max(1, min(len(entries), int(0.9 * size[0]))),
            frameon=False,
            fontsize=8,
            labelcolor=foreground,
        )
    for axes in (wave, ribbon):
        axes.set_facecolor(background)
        axes.tick_params(colors=foreground, labelsize=8)
        axes.xaxis.label.set_color(foreground)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure


def _plain(label: str) -> str:
    """A dollar sign would begin a formula."""
    return label.replace("$", r"\$")


def _readable_on(colour: str, alpha: float, background: str) -> str:
    """Black or white, whichever stands out from the colour on the background."""
    mixed = alpha * np.array(to_rgb(colour)) + (1 - alpha) * np.array(to_rgb(background))
    return "#111111" if mixed @ (0.299, 0.587, 0.114) > 0.5 else "#ffffff"


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=figure.get_facecolor())
