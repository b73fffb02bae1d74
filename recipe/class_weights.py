"""Class weights of the cross-entropy: from what --class_weights says to a number for each class."""

from typing import Literal

import numpy as np
from datasets import Dataset

from core.errors import InputError
from recipe.batching import count_draws
from recipe.corpora.rows import count_classes, normalize
from recipe.joining import list_corpora, select_corpora


def compute_class_weights(
    given: dict[str, float] | Literal["balanced"] | None, train: Dataset, corpus_temperature: float = 1.0
) -> list[float] | None:
    """Compute the weight of each class, in the order of the labels; None if all weigh the same.

    `balanced` is n / (classes * count), so that every class weighs the same in total and the mean weight of a training
    utterance is 1. Of several corpora, it counts an utterance as often as an epoch draws it.

    Args:
        given: as in `ModelArguments`.
        train: training utterances, each of whose classes has one.
        corpus_temperature: as in `DataArguments`.

    Raises:
        InputError: a weight is given to a label that is none of theirs.
    """
    if given is None:
        return None
    counts = count_classes(train)
    if given == "balanced":
        drawn = _count_drawn(train, corpus_temperature)
        return [len(train) / (len(drawn) * count) for count in drawn]
    weights = {normalize(label): weight for label, weight in given.items()}
    for label in weights:
        if label not in counts:
            raise InputError(f"class_weights: {label!r} is not one of the labels, {', '.join(counts)}")
    return [weights.get(label, 1.0) for label in counts]


def _count_drawn(train: Dataset, corpus_temperature: float) -> list[float]:
    """How many utterances of each class an epoch draws, on average."""
    draws = count_draws(list_corpora(train), corpus_temperature)
    if not draws:
        return [float(count) for count in count_classes(train).values()]
    counts = {corpus: np.array(list(count_classes(rows).values())) for corpus, rows in select_corpora(train).items()}
    return sum(draws[corpus] / each.sum() * each for corpus, each in counts.items()).tolist()
