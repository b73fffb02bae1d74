"""Batching: model inputs -> padded batches of similar duration."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler

from words_ser_align import collate_words

TARGETS = ("labels", "dimensions")  # what a batch holds besides the model's inputs, one row for each utterance
TEACHER_FRAMES = "teacher_frames"  # and one row for each frame
WORDS = "words"


class Collator:
    """Collate prepared utterances into one batch, padded with zeros on the right.

    Two utterances of 2 and 3 samples with labels 0 and 3 become
    `{"input_values": [[a, b, 0], [c, d, e]], "attention_mask": [[1, 1, 0], [1, 1, 1]], "labels": [0, 3]}`. Their
    words, if there are any, and their prosody become what `collate_words` returns.
    """

    def __init__(self, input_name: str):
        self.input_name = input_name

    def __call__(self, utterances: list[dict[str, Any]]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(utterance[self.input_name]) for utterance in utterances])
        return {
            self.input_name: self._pad(utterances, self.input_name),
            "attention_mask": (torch.arange(int(lengths.max())) < lengths.unsqueeze(1)).long(),
            **(collate_words([each[WORDS] for each in utterances], utterances) if WORDS in utterances[0] else {}),
            **{
                name: torch.stack([torch.as_tensor(utterance[name]) for utterance in utterances])
                for name in TARGETS
                if name in utterances[0]
            },
            **({TEACHER_FRAMES: self._pad(utterances, TEACHER_FRAMES)} if TEACHER_FRAMES in utterances[0] else {}),
        }

    def _pad(self, utterances: list[dict[str, Any]], name: str) -> Tensor:
        return pad_sequence([utterance[name] for utterance in utterances], batch_first=True)


class BucketSampler(Sampler[int]):
    """Random batches of utterances of similar duration: less padding, same expected gradient.

    Each epoch shuffles all utterances, or those that it draws of each corpus, divides them into buckets of a few
    batches, sorts each bucket by duration and shuffles the batches. The order depends only on (seed, epoch), so a
    resumed run continues exactly.

    Args:
        durations: seconds of each utterance.
        bucket_batches: batches per bucket. Duration correlates with speaker and emotion: the larger the bucket, the
            more similar the utterances of a batch, which may cost accuracy on small corpora; 1 is plain shuffling.
        corpora: corpus of each utterance; empty if all are of one.
        temperature: as in `count_draws`; an epoch has as many utterances as there are.
    """

    def __init__(
        self,
        durations: list[float],
        batch_size: int,
        bucket_batches: int,
        seed: int,
        corpora: Sequence[str] = (),
        temperature: float = 1.0,
    ):
        self.durations = np.asarray(durations)
        self.batch_size = batch_size
        self.bucket_size = bucket_batches * batch_size
        self.seed = seed
        self.epoch = 0
        self.corpora = np.asarray(corpora)
        self.draws = count_draws(corpora, temperature)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.durations)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = self._draw(rng)
        buckets = [order[start : start + self.bucket_size] for start in range(0, len(order), self.bucket_size)]
        order = np.concatenate([bucket[np.argsort(self.durations[bucket], kind="stable")] for bucket in buckets])
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        last = batches.pop() if len(batches[-1]) < self.batch_size else np.array([], dtype=int)
        shuffled = [batches[index] for index in rng.permutation(len(batches))]
        yield from np.concatenate([*shuffled, last]).astype(int).tolist()

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        """The utterances of an epoch in random order; within a corpus, none is drawn again before all others are."""
        if not self.draws:
            return rng.permutation(len(self))
        drawn = []
        for corpus, number in self.draws.items():
            members = np.flatnonzero(self.corpora == corpus)
            passes = [rng.permutation(members) for _ in range(-(-number // len(members)))]
            drawn.append(np.concatenate(passes)[:number])
        return rng.permutation(np.concatenate(drawn))


class Draw(NamedTuple):
    """An utterance of an epoch: its row, and the seed of its augmentation."""

    row: int
    seed: int


class SeededSampler(Sampler[Draw]):
    """The order of a `BucketSampler`, with a seed for each utterance that depends only on (seed, epoch), as the order.

    Since a seed travels with its utterance, neither the process that prepares it nor a resumed run changes it.
    """

    def __init__(self, sampler: BucketSampler):
        self.sampler = sampler

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.sampler.seed, self.sampler.epoch, 1])  # apart from that of the order
        yield from map(Draw, self.sampler, rng.integers(2**63, size=len(self)).tolist())


def count_draws(corpora: Sequence[str], temperature: float) -> dict[str, int]:
    """Count the utterances of each corpus that one epoch draws, as many in total as there are.

    The share of a corpus with n utterances is n^temperature / sum of n^temperature (Conneau et al. 2020, where the
    exponent is alpha).

    Args:
        corpora: corpus of each utterance.
        temperature: 1 draws each utterance once, for which the result is empty; 0 equally many of each corpus.
    """
    sizes = Counter(corpora)
    if temperature == 1 or len(sizes) < 2:
        return {}
    weights = np.array([size**temperature for size in sizes.values()])
    ends = np.rint(np.cumsum(weights) / weights.sum() * len(corpora)).astype(int)
    return dict(zip(sizes, np.diff(ends, prepend=0).tolist()))
