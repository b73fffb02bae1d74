"""Fitting of the emotion tracker: utterances of one speaker that follow each other, whose boundaries are known.

Utterance labels alone say when an emotion ends and another begins, if utterances with different labels are joined
without a pause. The frames do not change, so the tracker is fitted once all else is trained.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from core.audio import SAMPLING_RATE, Excerpt
from modeling_ser_align import SERAlignForAudioClassification
from recipe.augmentation import Variant
from recipe.batching import BucketSampler
from recipe.calibration import find_temperature
from recipe.corpora.rows import read_excerpts
from recipe.joining import list_corpora
from recipe.preparing import UtterancePreparer
from speech_ser_align import LONGEST_UTTERANCE, WINDOW, trim

# All ours, chosen on the validation speakers of the shipped base model.
PASSES, EPOCHS, BATCH = 4, 6, 16  # a pass joins every training utterance to others once
LEARNING_RATE, WEIGHT_DECAY, SMOOTHING, WARMUP = 1e-3, 0.05, 0.1, 50
MOST = 6  # utterances of a chain
TRIM_DB = 30.0  # below the peak of an utterance; what is quieter at its ends would be a pause between two
BUCKET_BATCHES = 16


class Window(NamedTuple):
    """The frames of a window of the timeline, and the class of each."""

    frames: Tensor  # (frames, hidden), float16
    labels: Tensor  # (frames,)
    corpus: str


def fit_tracker(
    model: SERAlignForAudioClassification,
    parts: dict[str, Dataset],
    preparer: UtterancePreparer,
    corpus_temperature: float,
    seed: int,
) -> dict[str, Tensor]:
    """Fit the tracker of a model to training utterances, and its temperature to validation utterances.

    Args:
        parts: rows of `train` and `validation`.
        preparer: reads and augments training utterances.
        corpus_temperature: as in `BucketSampler`.

    Returns:
        the state of `model.tracker`; nothing else changes.
    """
    home, tracker = model.device, model.tracker
    assert tracker is not None
    model.to(PartialState().device).eval()  # type: ignore[arg-type]
    plain = UtterancePreparer(
        preparer.feature_extractor, preparer.shortest, model.config.longest_seconds, cache=preparer.cache
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        windows = [
            window
            for number in range(PASSES)
            for window in read_windows(model, parts["train"], preparer, seed + number)
        ]
        train_tracker(model, windows, corpus_temperature, seed)
    calibrate_tracker(model, list(read_windows(model, parts["validation"], plain, seed)))
    model.to(home)  # type: ignore[arg-type]
    return {name: tensor.cpu() for name, tensor in tracker.state_dict().items()}


def list_chains(speakers: list[str], labels: list[int], seconds: list[float], seed: int) -> list[list[int]]:
    """Divide utterances into chains: each of one speaker, neighbours with different labels, of at most 15 seconds.

    Returns:
        indices of utterances; each utterance is in one chain, and one that fits to no other is a chain by itself.
    """
    rng, chains = np.random.default_rng(seed), []
    by_speaker = defaultdict(list)
    for index in rng.permutation(len(speakers)).tolist():
        by_speaker[speakers[index]].append(index)
    for left in by_speaker.values():
        while left:
            chain, most = [left.pop()], int(rng.integers(1, MOST + 1))
            while len(chain) < most:
                room = LONGEST_UTTERANCE - sum(seconds[index] for index in chain)
                fits = (i for i in reversed(left) if labels[i] != labels[chain[-1]] and seconds[i] <= room)
                if (following := next(fits, None)) is None:
                    break
                left.remove(following)
                chain.append(following)
            chains.append(chain)
    return chains


def read_windows(
    model: SERAlignForAudioClassification, rows: Dataset, preparer: UtterancePreparer, seed: int
) -> Iterator[Window]:
    """Join the utterances of each speaker in a new order and in one variant of the augmentation, and encode the
    windows that the timeline would cut them into."""
    excerpts, labels, speakers, corpora = (
        read_excerpts(rows[:]),
        rows["label"][:],
        rows["speaker"][:],
        list_corpora(rows),
    )
    chains = list_chains(speakers, labels, rows["duration"][:], seed)
    rng = np.random.default_rng(seed)
    for number, chain in enumerate(tqdm(chains, desc="tracker", leave=False)):
        variant = preparer.augmentation.draw(seed * len(chains) + number)  # the same degradation for all of a chain
        waveforms = [read_tightly(preparer, excerpts[index], variant) for index in chain]
        ends = np.cumsum([len(waveform) for waveform in waveforms])
        for start, frames in encode_windows(model, preparer, np.concatenate(waveforms), rng):
            centres = start + (np.arange(len(frames)) + 0.5) * model.config.frame_seconds * SAMPLING_RATE
            places = np.minimum(np.searchsorted(ends, centres, side="right"), len(chain) - 1)
            own = torch.tensor([labels[index] for index in chain])[places]
            yield Window(frames, own, corpora[chain[0]] if corpora else "")


@torch.no_grad()
def encode_windows(
    model: SERAlignForAudioClassification, preparer: UtterancePreparer, waveform: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[int, Tensor]]:
    """Yield the first sample of each window and its frames, (frames, hidden); the first window ends anywhere."""
    size = round(WINDOW * SAMPLING_RATE)
    edges = [0, *range(int(rng.integers(size)), len(waveform), size), len(waveform)]
    for start, end in pairwise(edges):
        if end - start >= preparer.shortest:
            inputs = preparer.extract(waveform[start:end])[None].to(model.device)
            yield start, model.encode(**{model.main_input_name: inputs})[0][0].half().cpu()


def read_tightly(preparer: UtterancePreparer, excerpt: Excerpt, variant: Variant) -> np.ndarray:
    """Read an utterance without the quiet at its ends, (samples,)."""
    waveform = preparer.read_waveform(excerpt, variant)
    _, tight = trim(waveform, TRIM_DB)
    return tight if len(tight) >= preparer.shortest else waveform


def train_tracker(
    model: SERAlignForAudioClassification, windows: list[Window], corpus_temperature: float, seed: int
) -> None:
    """Train the tracker by cross-entropy over frames, with AdamW and a cosine schedule."""
    tracker: Any = model.tracker
    tracker.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(tracker.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    num_steps = EPOCHS * -(-len(windows) // BATCH)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(WARMUP, num_steps // 10), num_steps)
    durations, corpora = [float(len(window.labels)) for window in windows], [window.corpus for window in windows]
    sampler = BucketSampler(durations, BATCH, BUCKET_BATCHES, seed, corpora, corpus_temperature)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        order = list(sampler)
        for first in range(0, len(order), BATCH):
            batch = [windows[index] for index in order[first : first + BATCH]]
            frames, mask, labels = collate_windows(batch, model.device)
            logits = tracker(frames, mask)
            loss = F.cross_entropy(logits[mask], labels[mask], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(tracker.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    tracker.requires_grad_(False).eval()


def collate_windows(windows: list[Window], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Pad windows into a batch: frames (batch, frames, hidden), their mask and their labels (batch, frames)."""
    mask = pad_sequence([torch.ones(len(window.labels), dtype=torch.bool) for window in windows], batch_first=True)
    frames = pad_sequence([window.frames.float() for window in windows], batch_first=True)
    labels = pad_sequence([window.labels for window in windows], batch_first=True)
    return frames.to(device), mask.to(device), labels.to(device)


@torch.no_grad()
def calibrate_tracker(model: SERAlignForAudioClassification, windows: list[Window]) -> None:
    """Fit a temperature to frames of validation speakers, and divide the logits by it."""
    tracker: Any = model.tracker
    logits = []
    for window in windows:
        frames, mask, _ = collate_windows([window], model.device)
        logits.append(tracker(frames, mask)[0].cpu())
    log_probabilities = torch.cat(logits).log_softmax(dim=-1).double().numpy()
    targets = np.eye(model.config.num_labels)[torch.cat([window.labels for window in windows]).numpy()]
    temperature = find_temperature(log_probabilities, targets, np.ones(len(targets)))
    tracker.classify.weight /= temperature
    tracker.classify.bias /= temperature
