"""The logistic regression on statistics of the frozen layers, which `statistics_layers` adds to the logits.

It needs the frozen layers alone, so it is fitted once per stage, whatever the rest of the model learns.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm.auto import tqdm

from modeling_ser_align import SERAlignForAudioClassification
from recipe.batching import Collator
from recipe.checkpoints import flush
from recipe.corpora.rows import read_excerpts
from recipe.preparing import UtterancePreparer

FILE = "statistics.safetensors"  # in the folder of the checkpoints
C = 0.01  # inverse strength of the L2 penalty on standardised statistics; ours, chosen on validation actors of RAVDESS


def fit_statistics_classifier(
    model: SERAlignForAudioClassification, rows: Dataset, preparer: UtterancePreparer, batch_size: int
) -> dict[str, Tensor]:
    """Fit the statistics classifier to training utterances, in the variants of the preparer's augmentation.

    Returns:
        its `weight`, (classes, features), and `bias`, (classes,), which include the standardisation.
    """
    statistics = collect_statistics(model, rows, preparer, batch_size)
    repeats = len(statistics) // len(rows)
    weights = model.config.class_weights
    scaler = StandardScaler().fit(statistics)
    regression = LogisticRegression(
        C=C / repeats, class_weight=None if weights is None else dict(enumerate(weights)), max_iter=1000
    ).fit(scaler.transform(statistics), np.tile(rows["label"][:], repeats))
    coefficients, intercepts = regression.coef_, regression.intercept_
    if model.config.num_labels == 2:  # scikit-learn gives the difference of the logits alone
        coefficients, intercepts = (np.concatenate([-half, half]) for half in (coefficients / 2, intercepts / 2))
    weight = coefficients / scaler.scale_
    bias = intercepts - weight @ scaler.mean_
    return {"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias).float()}


def recall_fitted(path: Path, fit: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What `fit` returns, kept in this file, so that a run that resumes need not fit it again."""
    state = PartialState()
    is_there = path.is_file()
    state.wait_for_everyone()
    if is_there:
        return load_file(path)
    fitted = fit()
    if state.is_main_process:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        save_file({name: tensor.contiguous() for name, tensor in fitted.items()}, unfinished)
        flush(path.parent)
        unfinished.replace(path)
    return fitted


@torch.no_grad()
def collect_statistics(
    model: SERAlignForAudioClassification, rows: Dataset, preparer: UtterancePreparer, batch_size: int
) -> np.ndarray:
    """Statistics of all rows in the first variant, then in the second, and so on: (variants x rows, features)."""
    state, collate, excerpts = PartialState(), Collator(preparer.input_name), read_excerpts(rows[:])
    work = [(excerpt, variant) for variant in preparer.augmentation.fitting_variants() for excerpt in excerpts]
    share = range(state.process_index, len(work), state.num_processes)
    home, found = model.device, dict[int, np.ndarray]()
    model.to(state.device).eval()  # type: ignore[arg-type]
    for start in tqdm(
        range(0, len(share), batch_size), desc="statistics", leave=False, disable=not state.is_main_process
    ):
        chosen = share[start : start + batch_size]
        prepared = (preparer.prepare_variant(*work[index]) for index in chosen)
        batch = collate([{preparer.input_name: values, "labels": 0} for values in prepared])
        inputs = {name: tensor.to(state.device) for name, tensor in batch.items() if name != "labels"}
        found |= dict(zip(chosen, model.compute_statistics(**inputs).cpu().numpy()))
    model.to(home)  # type: ignore[arg-type]
    everything = {index: row for part in gather_object([found]) for index, row in part.items()}
    return np.stack([everything[index] for index in range(len(work))])
