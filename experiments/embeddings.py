"""Embeddings of utterances and frames, and CLS outputs, of a trained model for the t-SNE figure."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from recipe.batching import Collator
from recipe.preparing import UtterancePreparer
from recipe.scoring import in_batches

FRAMES_PER_UTTERANCE = 8  # evenly spaced


@torch.inference_mode()
def run_model(
    model: PreTrainedModel, rows: Dataset, preparer: UtterancePreparer, batch_size: int
) -> Iterator[tuple[np.ndarray, Any, Any]]:
    """Run the model on the rows: for each batch the labels, the output, and what the pooling returned."""
    model.eval()
    seen: list[Any] = []
    hook = model.pooling.register_forward_hook(lambda module, inputs, pooled: seen.append(pooled))
    collate = Collator(preparer.input_name)
    for utterances in in_batches(rows, preparer, batch_size):
        batch = collate(utterances)
        labels = batch.pop("labels").numpy()
        output = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
        yield labels, output, seen.pop()
    hook.remove()


def embed_utterances(
    model: PreTrainedModel, rows: Dataset, preparer: UtterancePreparer, batch_size: int
) -> dict[str, np.ndarray]:
    """Run the model with CLS pooling on the rows.

    Returns:
        `utterances` and `cls` (utterances, hidden), `labels` (utterances,), `frames` (frames, hidden) and
        `frame_labels` (frames,), float32 and int.
    """
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("utterances", "cls", "labels", "frames", "frame_labels")
    }
    for labels, output, pooled in run_model(model, rows, preparer, batch_size):
        parts["utterances"].append(pooled.embedding.float().cpu().numpy())
        parts["cls"].append(pooled.cls_output.float().cpu().numpy())
        parts["labels"].append(labels)
        for frames, valid, label in zip(pooled.frames, output.frame_mask, labels):
            own = frames[valid].float().cpu().numpy()
            kept = own[np.linspace(0, len(own) - 1, min(FRAMES_PER_UTTERANCE, len(own))).round().astype(int)]
            parts["frames"].append(kept)
            parts["frame_labels"].append(np.full(len(kept), label))
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
