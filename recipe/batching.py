"""Batching: rows -> prepared utterances -> padded batches of similar duration."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from transformers import SequenceFeatureExtractor

from core.audio import SAMPLING_RATE, read_audio
from core.errors import InputError
from core.lengths import shortest_utterance as shortest_utterance
from recipe.augmentation import UNCHANGED, Augmentation, Variant, draw_mix, mixed
from recipe.feature_cache import KeptFeatures

# What was read and prepared, shared by all preparers of a process: stages and runs that follow each other read a
# file once. Waveforms of each variant, and the encoder's inputs made from them.
_WAVEFORMS: dict[tuple, np.ndarray] = {}
_PREPARED: dict[tuple, Tensor] = {}


class UtterancePreparer:
    """Rows to model inputs: read, trim, resample, normalise or extract features, each utterance on its own.

    Meant for `Dataset.with_transform`: takes a dict of columns, returns a dict of lists with the model's
    input (float32 tensor, (samples,) or (frames, features)), `labels` and `id`.

    Args:
        feature_extractor: of the encoder, for waveforms or log-mel frames.
        shortest: samples that one frame of the encoder needs.
        trim_db, max_duration: as in `DataArguments`; longer utterances are cut to their middle.
        augmentation: how each access varies an utterance; it may be mixed with another one of its batch, and
            then all labels are distributions over `num_labels` classes.
        cache: keep what was read and prepared in memory.
        features: where the outputs of the convolutional feature encoder are kept; they are then the input,
            (frames, channels).

    Raises:
        InputError: an utterance shorter than one frame or with values that are not finite, by name.
    """

    def __init__(
        self,
        feature_extractor: SequenceFeatureExtractor,
        shortest: int,
        trim_db: float | None = None,
        max_duration: float | None = None,
        augmentation: Augmentation = UNCHANGED,
        num_labels: int = 0,
        cache: bool = False,
        features: KeptFeatures | None = None,
    ):
        self.feature_extractor = feature_extractor
        self.input_name = feature_extractor.model_input_names[0]
        self.shortest = shortest
        self.trim_db = trim_db
        self.max_samples = None if max_duration is None else int(max_duration * SAMPLING_RATE)
        self.augmentation = augmentation
        self.num_labels = num_labels
        self.cache = cache
        self.features = features
        self._extraction = feature_extractor.to_json_string()

    def __call__(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        paths, labels = [audio["path"] for audio in columns["audio"]], columns["label"]
        if self.augmentation.mix_probability == 0:
            inputs = [self.prepare(path) for path in paths]
        else:
            inputs, labels = self._mixed_batch(paths, labels)
        for path, values in zip(paths, inputs):
            if not values.isfinite().all():
                raise InputError(f"{path} becomes values that are not finite numbers: export it again, or leave it out")
        return {self.input_name: inputs, "labels": labels, "id": columns["id"]}

    def prepare(self, path: str | Path) -> Tensor:
        """One file to the encoder's input."""
        variant = self.augmentation.draw()
        if self.features is not None:
            return self.features.read(self.kept(path, variant))
        return self.extract(path, variant)

    def extract(self, path: str | Path, variant: Variant) -> Tensor:
        """One file, varied in this way, to what the feature extractor makes of it."""
        key = (self._extraction, *self._key(path, variant))
        keep = self.cache and self.features is None  # else what follows from it is kept
        return cached(_PREPARED, key, lambda: self._extract(self._read(path, variant)), keep)

    def kept(self, path: str | Path, variant: Variant) -> Path:
        """The file of the convolutions' output."""
        assert self.features is not None
        return self.features.path(path, self._extraction, variant, self.trim_db, self.max_samples)

    def _mixed_batch(self, paths: list[str], labels: list[int]) -> tuple[list[Tensor], list[Tensor]]:
        """Each utterance by itself or, with the given probability, with another one of the batch."""
        waveforms = [self._cached_waveform(path, self.augmentation.draw()) for path in paths]
        distributions = F.one_hot(torch.tensor(labels), self.num_labels).float()
        inputs, mixed_labels = [], []
        for index, waveform in enumerate(waveforms):
            other, share = int(torch.randint(len(waveforms), ())), 0.0
            if float(torch.rand(())) < self.augmentation.mix_probability:
                waveform, share = mixed(waveform, waveforms[other], *draw_mix())
            inputs.append(self._extract(waveform))
            mixed_labels.append(torch.lerp(distributions[index], distributions[other], share))
        return inputs, mixed_labels

    def _key(self, path: str | Path, variant: Variant) -> tuple:
        return str(path), variant, self.trim_db, self.max_samples

    def _cached_waveform(self, path: str | Path, variant: Variant) -> np.ndarray:
        """What mixing starts from at each access; without it the encoder's input is kept instead."""
        return cached(_WAVEFORMS, self._key(path, variant), lambda: self._read(path, variant), self.cache)

    def _read(self, path: str | Path, variant: Variant) -> np.ndarray:
        """One file as a waveform, trimmed, varied and cut."""
        plain = (str(path), self.trim_db)
        waveform = variant.of(cached(_WAVEFORMS, plain, lambda: read_audio(path, self.trim_db), self.cache))
        if self.max_samples is not None and len(waveform) > self.max_samples:
            start = (len(waveform) - self.max_samples) // 2
            waveform = waveform[start : start + self.max_samples]
        if len(waveform) < self.shortest:
            trimmed = "" if self.trim_db is None else f" after trimming at --trim_db {self.trim_db:g}"
            raise InputError(
                f"{path} lasts {len(waveform) / SAMPLING_RATE:.4f} s{trimmed}; one frame of the encoder needs at "
                f"least {self.shortest / SAMPLING_RATE:.4f} s: remove it or record it again"
            )
        return waveform

    def _extract(self, waveform: np.ndarray) -> Tensor:
        extracted = self.feature_extractor(waveform, sampling_rate=SAMPLING_RATE, return_attention_mask=True)
        values = np.asarray(extracted[self.input_name][0], dtype=np.float32)
        valid = int(np.asarray(extracted["attention_mask"][0]).sum())
        return torch.from_numpy(values[:valid])


def cached(store: dict[tuple, Any], key: tuple, make: Callable[[], Any], keep: bool) -> Any:
    """What the store has under the key, or what `make` gives, which is put there if it is to be kept."""
    if not keep:
        return make()
    if key not in store:
        store[key] = make()
    return store[key]


class Collator:
    """Prepared utterances to one batch, padded with zeros on the right.

    Two utterances of 2 and 3 samples with labels 0 and 3 become
    `{"input_values": [[a, b, 0], [c, d, e]], "attention_mask": [[1, 1, 0], [1, 1, 1]], "labels": [0, 3]}`.
    """

    def __init__(self, input_name: str):
        self.input_name = input_name

    def __call__(self, utterances: list[dict[str, Any]]) -> dict[str, Tensor]:
        inputs = [utterance[self.input_name] for utterance in utterances]
        lengths = torch.tensor([len(values) for values in inputs])
        return {
            self.input_name: pad_sequence(inputs, batch_first=True),
            "attention_mask": (torch.arange(int(lengths.max())) < lengths.unsqueeze(1)).long(),
            "labels": torch.stack([torch.as_tensor(utterance["labels"]) for utterance in utterances]),
        }


class DurationSampler(Sampler[int]):
    """Random batches of utterances of similar duration: less padding, same expected gradient.

    Each epoch shuffles all utterances, sorts pools of some batches by duration and shuffles the batches.
    The order depends on (seed, epoch) alone, so that a resumed run continues exactly.

    Args:
        durations: seconds of each utterance.
        pool: batches in a pool. Duration goes with speaker and emotion: the larger the pool, the more alike
            the utterances of a batch in these too, which may cost accuracy on small corpora; 1 is plain shuffling.
    """

    def __init__(self, durations: list[float], batch_size: int, pool: int, seed: int):
        self.durations = np.asarray(durations)
        self.batch_size = batch_size
        self.pool_size = pool * batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.durations)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self))
        pools = [order[start : start + self.pool_size] for start in range(0, len(order), self.pool_size)]
        order = np.concatenate([pool[np.argsort(self.durations[pool], kind="stable")] for pool in pools])
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        last = batches.pop() if len(batches[-1]) < self.batch_size else np.array([], dtype=int)
        shuffled = [batches[index] for index in rng.permutation(len(batches))]
        yield from np.concatenate([*shuffled, last]).astype(int).tolist()


def prepared(rows: Dataset, preparer: UtterancePreparer) -> Dataset:
    """Rows that are read and prepared when they are accessed."""
    return rows.with_transform(preparer)
