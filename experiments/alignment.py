"""How well frames agree with their utterance: what EAL and FUAL are meant to improve, as numbers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from experiments.embeddings import run_model
from experiments.systems import System
from recipe.preparing import UtterancePreparer
from recipe.statistics import mean_interval

SHARES = ("cls_cosine", "other_cosine", "agreement", "accuracy")  # one value for each utterance
RATIOS = ("utterance_ratio", "frame_ratio")  # one value for each model


class Utterance(NamedTuple):
    """What the model computes for one utterance."""

    label: int
    embedding: np.ndarray  # (embedding size,)
    cls_output: np.ndarray | None  # (hidden,)
    frames: np.ndarray  # (frames, hidden)
    prediction: int
    frame_predictions: np.ndarray  # (frames,)


def measure_model(
    model: PreTrainedModel, rows: Dataset, preparer: UtterancePreparer, batch_size: int
) -> dict[str, Any]:
    """Measure the alignment on the rows, as `measure_alignment` does, and add the `speaker` of each utterance."""
    utterances = compute_utterances(model, rows, preparer, batch_size)
    return {**measure_alignment(utterances), "speaker": rows["speaker"][:]}


def compute_utterances(
    model: PreTrainedModel, rows: Dataset, preparer: UtterancePreparer, batch_size: int
) -> Iterator[Utterance]:
    for labels, output, pooled in run_model(model, rows, preparer, batch_size):
        cls_outputs = [None] * len(labels) if pooled.cls_output is None else to_numpy(pooled.cls_output)
        for index, label in enumerate(labels):
            valid = output.frame_mask[index]
            yield Utterance(
                label=int(label),
                embedding=to_numpy(pooled.embedding[index]),
                cls_output=cls_outputs[index],
                frames=to_numpy(pooled.frames[index][valid]),
                prediction=int(output.logits[index].argmax()),
                frame_predictions=output.frame_logits[index][valid].argmax(dim=-1).cpu().numpy(),
            )


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()


def measure_alignment(utterances: Iterator[Utterance]) -> dict[str, Any]:
    """Measure how frames agree with the CLS output, the prediction and the class of their utterance.

    Returns:
        Lists with one value for each utterance: `cls_cosine`, the mean cosine of its frames to its CLS output;
        `other_cosine`, to the CLS outputs of the other utterances; `agreement`, the share of its frames with the
        predicted class of the utterance; `accuracy`, with the true one. The cosines are None without a CLS output.
        Also `utterance_ratio` and `frame_ratio`, as `ScatterSums` defines them, of utterance embeddings and frames.
    """
    embeddings, frames = ScatterSums(), ScatterSums()
    directions, cls_outputs, agreement, accuracy = [], [], [], []
    for utterance in utterances:
        embeddings.add(utterance.label, utterance.embedding[None])
        frames.add(utterance.label, utterance.frames)
        directions.append(normalize(utterance.frames).mean(axis=0))
        if utterance.cls_output is not None:
            cls_outputs.append(normalize(utterance.cls_output))
        agreement.append(float((utterance.frame_predictions == utterance.prediction).mean()))
        accuracy.append(float((utterance.frame_predictions == utterance.label).mean()))
    own, other = compare_directions(np.array(directions), np.array(cls_outputs))
    return {
        **{"cls_cosine": own, "other_cosine": other, "agreement": agreement, "accuracy": accuracy},
        **{"utterance_ratio": embeddings.compute_ratio(), "frame_ratio": frames.compute_ratio()},
    }


def normalize(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (..., hidden) to length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def compare_directions(
    directions: np.ndarray, cls_outputs: np.ndarray
) -> tuple[list[float] | None, list[float] | None]:
    """Mean cosines of the frames of each utterance to its CLS output, and to those of all other utterances.

    Args:
        directions: means of normalised frames (utterances, hidden), whose product with a normalised CLS output is the
            mean cosine.
        cls_outputs: normalised, (utterances, hidden); empty if there are none.
    """
    if len(cls_outputs) == 0:
        return None, None
    own = (directions * cls_outputs).sum(axis=1)
    total = directions @ cls_outputs.sum(axis=0)
    other = (total - own) / (len(cls_outputs) - 1) if len(cls_outputs) > 1 else None
    return own.tolist(), None if other is None else other.tolist()


class ScatterSums:
    """Sums of the vectors of each class, which give the ratio of between-class to within-class scatter.

    With n_k vectors x of class k, their mean m_k and the mean m of all vectors, the ratio is tr(S_b) / tr(S_w), where
    tr(S_b) = sum over k of n_k |m_k - m|^2 and tr(S_w) = sum over all vectors of |x - m_k|^2. It does not depend on the
    scale of the vectors.
    """

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.sums: dict[int, np.ndarray] = {}
        self.squares = 0.0

    def add(self, label: int, vectors: np.ndarray) -> None:
        self.counts[label] = self.counts.get(label, 0) + len(vectors)
        self.sums[label] = self.sums.get(label, 0) + vectors.sum(axis=0)
        self.squares += float((vectors**2).sum())

    def compute_ratio(self) -> float | None:
        """The ratio; None if the vectors of each class are equal."""
        explained = sum(float(total @ total) / self.counts[label] for label, total in self.sums.items())
        mean = np.sum(list(self.sums.values()), axis=0) / sum(self.counts.values())
        between = explained - sum(self.counts.values()) * float(mean @ mean)
        within = self.squares - explained
        return between / within if within > 1e-12 * self.squares else None


def build_alignment_table(systems: list[System], measured: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row for each measured system: means over utterances with intervals over speakers, and mean ratios.

    Args:
        measured: by the key of a system, what `measure_model` returns for each of its folds.
    """
    rows = []
    for system in (system for system in systems if system.key in measured):
        folds = measured[system.key]
        row: dict[str, Any] = {"system": system.name, "folds": len(folds)}
        for name in SHARES:
            by_speaker = group_values(folds, name)
            row[name] = float(np.mean(np.concatenate(list(by_speaker.values())))) if by_speaker else None
            interval = mean_interval(list(by_speaker.values()))
            row[f"{name}_low"], row[f"{name}_high"] = interval or (None, None)
        for name in RATIOS:
            ratios = [fold[name] for fold in folds if fold[name] is not None]
            row[name] = float(np.mean(ratios)) if ratios else None
        rows.append(row)
    return rows


def group_values(folds: list[dict[str, Any]], name: str) -> dict[str, list[float]]:
    """The values of the utterances of each speaker; empty if the systems have none."""
    grouped: dict[str, list[float]] = {}
    for fold in folds:
        for speaker, value in zip(fold["speaker"], fold[name] or []):
            grouped.setdefault(speaker, []).append(value)
    return grouped
