"""Figures as PNG and SVG, legible to the colour-blind and in black and white."""

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

matplotlib.use("Agg")
plt.rcParams["text.parse_math"] = False  # show dollar signs in labels as they are
plt.rcParams["svg.hashsalt"] = "ser-align"  # the same figure always gives the same file

# The Okabe-Ito palette; markers distinguish the classes in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def save_figure(figure: Figure, target: Path) -> None:
    """Write target.png and target.svg; `target` has no suffix."""
    figure.tight_layout()
    for suffix in (".png", ".svg"):
        metadata = {"Date": None} if suffix == ".svg" else None
        figure.savefig(target.with_suffix(suffix), dpi=150, bbox_inches="tight", metadata=metadata)
    plt.close(figure)


def draw_scores(rows: list[dict[str, Any]], target: Path) -> None:
    """UA of each system with its interval: filled markers for the selected weights, hollow ones for the last epoch."""
    systems = [row for row in rows if row.get("runs")]
    figure, axes = plt.subplots(figsize=(7.5, 0.9 + 0.45 * len(systems)))
    for place, row in enumerate(reversed(systems)):
        for weights, offset, face in (("best", 0.12, "#0072B2"), ("last", -0.12, "white")):
            ua, low, high = (row[f"{weights}_pooled_ua{end}"] for end in ("", "_low", "_high"))
            name = {"best": "selected on validation", "last": "last epoch"}[weights] if place == 0 else None
            if low is not None:  # there is no interval for a single speaker
                axes.plot([100 * low, 100 * high], [place + offset] * 2, color="#0072B2", linewidth=1.5)
            axes.plot(100 * ua, place + offset, "o", color="#0072B2", markerfacecolor=face, label=name)
    axes.axvline(100 * rows[0]["best_ua"], color="0.5", linestyle=":", linewidth=1)
    axes.annotate(" chance", (100 * rows[0]["best_ua"], len(systems) - 0.45), color="0.35", va="top")
    axes.set_yticks(range(len(systems)), [row["system"] for row in reversed(systems)])
    axes.set(xlabel="test UA in %, 95 % interval over speakers", xlim=(0, 100), ylim=(-0.6, len(systems) - 0.4))
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderpad=0)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, target)


def draw_confusion(matrix: np.ndarray, labels: list[str], title: str, target: Path) -> None:
    """Confusion matrix in percent of each true class (figure 3 of the paper)."""
    percent = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.8 + 0.55 * len(labels)
    figure, axes = plt.subplots(figsize=(side, side))
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(percent.shape):
        shade = "white" if percent[row, column] > 50 else "black"
        axes.text(column, row, f"{percent[row, column]:.0f}", ha="center", va="center", color=shade)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{title}, %", fontsize=10)
    save_figure(figure, target)


def draw_reliability(curves: dict[str, list[tuple[float, float, float]]], title: str, target: Path) -> None:
    """Reliability diagram: accuracy against confidence before and after calibration; the diagonal is perfect.

    Args:
        curves: two named curves as returned by `calibration.reliability`.
    """
    figure, axes = plt.subplots(figsize=(4.6, 4.2))
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    for (name, curve), style, colour in zip(curves.items(), ("--s", "-o"), (COLOURS[1], COLOURS[0])):
        confidence, accuracy, _ = zip(*curve)
        axes.plot(confidence, accuracy, style, color=colour, label=name)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, target)


def draw_speakers(ua: dict[str, float], genders: dict[str, str], chance: float, title: str, target: Path) -> None:
    """UA of each test speaker, with a marker for each gender."""
    order = sorted(ua, key=lambda speaker: ua[speaker])
    figure, axes = plt.subplots(figsize=(min(12.0, 2 + 0.3 * len(order)), 3.2))
    styles = {"female": ("o", COLOURS[1]), "male": ("s", COLOURS[0]), "": ("x", "0.3")}
    for gender, (marker, colour) in styles.items():
        places = [place for place, speaker in enumerate(order) if genders[speaker] == gender]
        if places:
            values = [100 * ua[order[place]] for place in places]
            axes.plot(places, values, marker, color=colour, label=gender or "unknown gender")
    axes.axhline(100 * chance, color="0.5", linestyle=":", linewidth=1)
    axes.set(xlabel="test speaker", ylabel="UA, %", ylim=(0, 100))
    if len(order) <= 40:
        axes.set_xticks(range(len(order)), order, rotation=90 if len(order) > 12 else 0, fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, loc="upper left", ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, target)


def draw_tsne(systems: dict[str, dict[str, np.ndarray]], labels: list[str], target: Path) -> None:
    """t-SNE of utterance embeddings, and of frames with the CLS outputs (figure 2 of the paper).

    Args:
        systems: by name, `utterances` (utterances, hidden), `labels` (utterances,), `cls` (utterances, hidden),
            `frames` (frames, hidden) and `frame_labels` (frames,). t-SNE is seeded.
    """
    figure, axes = plt.subplots(2, len(systems), figsize=(5 * len(systems), 8.6), squeeze=False)
    for column, (name, arrays) in enumerate(systems.items()):
        _scatter(axes[0, column], _project(arrays["utterances"]), arrays["labels"], labels, size=22)
        axes[0, column].set_title(f"{name}\nutterance embeddings", fontsize=10)
        both = _project(np.concatenate([arrays["cls"], arrays["frames"]]))
        count = len(arrays["cls"])
        _scatter(axes[1, column], both[count:], arrays["frame_labels"], labels, size=6, alpha=0.35)
        _scatter(axes[1, column], both[:count], arrays["labels"], labels, size=40, edgecolors="black", linewidths=0.5)
        axes[1, column].set_title("CLS outputs (large) and frames (small)", fontsize=10)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=min(len(names), 8), frameon=False)
    save_figure(figure, target)


def _project(vectors: np.ndarray) -> np.ndarray:
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors.astype(np.float32))


def _scatter(axes: Any, points: np.ndarray, classes: np.ndarray, labels: list[str], size: float, **style: Any) -> None:
    for index, label in enumerate(labels):
        x, y = points[classes == index].T
        # From the ninth class on, each marker gets a different colour.
        marker, colour = MARKERS[(index + index // len(COLOURS)) % len(MARKERS)], COLOURS[index % len(COLOURS)]
        axes.scatter(x, y, s=size, marker=marker, color=colour, label=label, **style)
    axes.set_xticks([])
    axes.set_yticks([])
