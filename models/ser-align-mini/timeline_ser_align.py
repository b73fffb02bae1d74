"""The emotion timeline: turns the scores of overlapping windows into segments of one emotion each.

Part of the model code on the Hugging Face Hub; requires only NumPy.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

TIMELINE_STEP = 0.1  # seconds: resolution of the timeline within a phrase

Run = tuple[int, int, int]  # label, first step, last step + 1


def build_timeline(
    starts: np.ndarray,
    ends: np.ndarray,
    phrase: np.ndarray,
    probabilities: Sequence[np.ndarray],
    smoothing: float = 0.0,
    min_duration: float = 0.0,
    mixed_above: float | None = None,
    values: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """Turn the scores of windows into segments of one emotion each.

    Where windows of a phrase overlap, their probabilities are cross-faded. A segment ends where another emotion
    becomes the most probable, and at every pause.

    Args:
        starts, ends: (windows,), seconds, in order.
        phrase: (windows,), the number of the phrase that each window belongs to.
        probabilities: of each window, (classes,), or of each of its frames, (frames, classes).
        smoothing: width in seconds of the Hann window that smooths the probabilities; 0 disables it.
        min_duration: duration in seconds below which a segment takes the emotion of its longer neighbour in the
            phrase, or is dropped if it has none.
        mixed_above: as in [`choose_mixed`]; None leaves `mixed` out.
        values: (windows, dimensions), which decide no segment.

    Returns:
        dicts with `start`, `end` (seconds), `label` (class index) and `score`, the mean probability of that class; and
        `mixed`, from the mean probabilities of all classes; and with values, `dimensions`, their means.
    """
    tracks = [np.atleast_2d(each) for each in probabilities]
    number, segments = tracks[0].shape[1] if tracks else 0, []
    if values is not None:
        tracks = [np.hstack([track, np.tile(value, (len(track), 1))]) for track, value in zip(tracks, values)]
    for (start, end), both in zip(*_fade_phrases(starts, ends, phrase, tracks, smoothing)):
        scores, edges = both[:, :number], np.linspace(start, end, len(both) + 1)
        for label, first, last in _join_short_runs(_find_runs(scores.argmax(axis=1)), edges, min_duration):
            means = scores[first:last].mean(axis=0)
            segment: dict[str, Any] = {"start": float(edges[first]), "end": float(edges[last]), "label": label}
            segment["score"] = float(means[label])
            if mixed_above is not None:
                segment["mixed"] = choose_mixed(means, mixed_above)
            if values is not None:
                segment["dimensions"] = both[first:last, number:].mean(axis=0).tolist()
            segments.append(segment)
    return segments


def trace_values(
    starts: np.ndarray,
    ends: np.ndarray,
    phrase: np.ndarray,
    values: np.ndarray,
    names: list[str],
    smoothing: float = 0.0,
) -> list[dict[str, list[float]]]:
    """The values of dimensions over time, cross-faded and smoothed as the probabilities of [`build_timeline`].

    Args:
        values: (windows, dimensions).
        names: of the dimensions.

    Returns:
        for each phrase, `time`, the centres of its steps in seconds, and a list of values of each dimension.
    """
    traces = []
    for (start, end), steps in zip(*_fade_phrases(starts, ends, phrase, list(values[:, None]), smoothing)):
        centres = np.linspace(start, end, 2 * len(steps) + 1)[1::2]
        traces.append({"time": centres.tolist(), **{name: column.tolist() for name, column in zip(names, steps.T)}})
    return traces


def _fade_phrases(
    starts: np.ndarray, ends: np.ndarray, phrase: np.ndarray, tracks: Sequence[np.ndarray], smoothing: float
) -> tuple[list[tuple[float, float]], list[np.ndarray]]:
    """Where each phrase starts and ends, and what its windows, (frames, tracks), say of each of its steps,
    (steps, tracks)."""
    spans, steps = [], []
    for number in np.unique(phrase):
        chosen = np.flatnonzero(phrase == number).tolist()
        spans.append((starts[chosen].min(), ends[chosen].max()))
        steps.append(_cross_fade(starts[chosen], ends[chosen], [tracks[index] for index in chosen]))
    if smoothing > 0 and steps:
        steps = _smooth(steps, spans, smoothing)
    return spans, steps


def choose_mixed(probabilities: np.ndarray, mixed_above: float) -> list[dict[str, Any]]:
    """The classes of a mixed answer, best first: the most probable one, and all above a threshold.

    Args:
        probabilities: (classes,).
        mixed_above: `config.mixed_above`.

    Returns:
        dicts with `label` (class index) and `score`.
    """
    best, *others = np.argsort(-probabilities, kind="stable").tolist()
    chosen = [best, *(index for index in others if probabilities[index] > mixed_above)]
    return [{"label": index, "score": float(probabilities[index])} for index in chosen]


def name_classes(entries: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """Replace the class index `label` of each dict, and of those in its `mixed`, by the name of the class."""
    named = [{**entry, "label": labels[entry["label"]]} for entry in entries]
    return [{**entry, "mixed": name_classes(entry["mixed"], labels)} if "mixed" in entry else entry for entry in named]


def weigh_windows(starts: np.ndarray, ends: np.ndarray, phrase: np.ndarray) -> np.ndarray:
    """The weight of each window in the mean over a recording: together, those of a phrase weigh its duration.

    Args:
        starts, ends, phrase: as in [`build_timeline`]; the windows of a phrase have equal durations.
    """
    weights = np.zeros(len(phrase))
    for number in np.unique(phrase):
        chosen = phrase == number
        weights[chosen] = (ends[chosen].max() - starts[chosen].min()) / chosen.sum()
    return weights


def average_pieces(starts: np.ndarray, ends: np.ndarray, phrase: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """What the pieces of a recording, (pieces, tracks), say of the whole, (tracks,): that of the piece that is the
    whole, whose phrase is -1, or the mean over the windows, as [`weigh_windows`] weighs them."""
    if (phrase < 0).any():
        return tracks[phrase < 0][0]
    return np.average(tracks, axis=0, weights=weigh_windows(starts, ends, phrase))


def _cross_fade(starts: np.ndarray, ends: np.ndarray, tracks: list[np.ndarray]) -> np.ndarray:
    """The tracks over a phrase, (steps, tracks): each window has its highest weight at the centre.

    Args:
        tracks: of each window, (frames, tracks); its frames divide it evenly.
    """
    steps = max(1, round((ends.max() - starts.min()) / TIMELINE_STEP))
    centres = np.linspace(starts.min(), ends.max(), 2 * steps + 1)[1::2]
    total, weights = np.zeros((steps, tracks[0].shape[1])), np.zeros((steps, 1))
    for start, end, track in zip(starts, ends, tracks):
        inside = np.minimum(centres - start, end - centres)  # seconds to the nearer edge of the window
        covered = inside > 0
        frames = ((centres[covered] - start) / (end - start) * len(track)).astype(int)
        total[covered] += inside[covered, None] * track[frames]
        weights[covered] += inside[covered, None]
    return total / weights


def _smooth(steps: list[np.ndarray], spans: list[tuple[float, float]], smoothing: float) -> list[np.ndarray]:
    """Average over time with a Hann window; pauses are ignored."""
    positions = [round(start / TIMELINE_STEP) for start, _ in spans]
    length = max(position + len(scores) for position, scores in zip(positions, steps))
    kernel = np.hanning(2 * round(smoothing / TIMELINE_STEP / 2) + 3)[1:-1]
    values, weights = np.zeros((length, steps[0].shape[1])), np.zeros(length)
    for position, scores in zip(positions, steps):
        values[position : position + len(scores)] = scores
        weights[position : position + len(scores)] = 1.0
    norm = _convolve(weights, kernel)
    smooth = np.stack([_convolve(column, kernel) for column in values.T], axis=1) / np.maximum(norm, 1e-9)[:, None]
    return [smooth[position : position + len(scores)] for position, scores in zip(positions, steps)]


def _convolve(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Centred convolution, (length,) to (length,), even if the kernel is longer than the values."""
    half = len(kernel) // 2
    return np.convolve(values, kernel)[half : half + len(values)]


def _find_runs(labels: np.ndarray) -> list[Run]:
    """Find runs of equal labels."""
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return [(int(labels[first]), first, last) for first, last in pairwise(edges)]


def _join_short_runs(runs: list[Run], edges: np.ndarray, min_duration: float) -> list[Run]:
    """Join the shortest run to its longer neighbour until every run has the minimum duration."""

    def seconds(index: int) -> float:
        return edges[runs[index][2]] - edges[runs[index][1]] if 0 <= index < len(runs) else -1.0

    while runs:
        short = min(range(len(runs)), key=seconds)
        if seconds(short) >= min_duration - 1e-9:
            return runs
        if len(runs) == 1:
            return []
        neighbour = short - 1 if seconds(short - 1) >= seconds(short + 1) else short + 1
        low, high = min(short, neighbour), max(short, neighbour)
        runs = [*runs[:low], (runs[neighbour][0], runs[low][1], runs[high][2]), *runs[high + 1 :]]
        runs = _merge_equal_runs(runs)
    return runs


def _merge_equal_runs(runs: list[Run]) -> list[Run]:
    merged: list[Run] = []
    for run in runs:
        if merged and merged[-1][0] == run[0]:
            merged[-1] = (run[0], merged[-1][1], run[2])
        else:
            merged.append(run)
    return merged
