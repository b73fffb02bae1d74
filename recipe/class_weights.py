"""Class weights of the cross-entropy: from what --class_weights says to a number for each class."""

from typing import Literal

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import count_classes, normalize


def compute_class_weights(given: dict[str, float] | Literal["balanced"] | None, train: Dataset) -> list[float] | None:
    """Compute the weight of each class, in the order of the labels; None if all weigh the same.

    `balanced` is n / (classes * count), so that every class weighs the same in total and the mean weight of a training
    utterance is 1.

    Args:
        given: as in `ModelArguments`.
        train: training utterances, each of whose classes has one.

    Raises:
        InputError: a weight is given to a label that is none of theirs.
    """
    if given is None:
        return None
    counts = count_classes(train)
    if given == "balanced":
        return [len(train) / (len(counts) * count) for count in counts.values()]
    weights = {normalize(label): weight for label, weight in given.items()}
    for label in weights:
        if label not in counts:
            raise InputError(f"class_weights: {label!r} is not one of the labels, {', '.join(counts)}")
    return [weights.get(label, 1.0) for label in counts]
