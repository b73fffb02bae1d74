"""Label distributions as targets: which utterances have one, the label that stands for it, and how it is encoded.

The rows of a run have the column `label_distribution` if it trains on them (`--targets distribution`), and lack it
otherwise.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from datasets import Dataset, Features, concatenate_datasets
from torch import Tensor

from core.errors import InputError, warn
from recipe.corpora.shares import find_majority

COLUMN = "label_distribution"
Target = int | Sequence[float]  # of an utterance: class index, or share of each class
VOTED = "iemocap, cremad, msp_podcast, em2ldl, and hub or folder with --csv"


def use_distributions(rows: Dataset, corpus: str) -> Dataset:
    """Drop utterances without votes, and label the others by the majority of theirs.

    Raises:
        InputError: no utterance has votes.
    """
    votes = rows[COLUMN][:] if COLUMN in rows.column_names else []
    voted = [index for index, shares in enumerate(votes) if shares]
    if not voted:
        raise InputError(
            f"--targets distribution: {corpus} has no votes here: add their table to its directory, or use one of the "
            f"corpora that have them ({VOTED})"
        )
    if len(voted) < len(rows):
        warn(f"{corpus}: {len(rows) - len(voted)} of {len(rows)} utterances have no votes and are dropped")
    voted_rows = rows.select(voted)
    labelled = label_by_majority(voted_rows)
    differ = sum(one != other for one, other in zip(voted_rows["label"][:], labelled["label"][:]))
    if differ:
        warn(
            f"{corpus}: most votes of {differ} of {len(voted)} utterances are for another class than their label; UA, "
            "WA and the confusion matrix use the class with the most votes"
        )
    return labelled


def label_by_majority(rows: Dataset) -> Dataset:
    """Label each utterance with the class of its largest share, the first of those that tie."""
    labels = [find_majority(shares) for shares in rows[COLUMN][:]]
    column = Dataset.from_dict({"label": labels}, features=Features({"label": rows.features["label"]}))
    return concatenate_datasets([rows.remove_columns("label"), column], axis=1)


def find_present(rows: Dataset) -> set[int]:
    """The classes that occur in these rows: as a label or, with distributions, as a share above 0."""
    votes = rows[COLUMN][:] if COLUMN in rows.column_names else []
    voted = {index for shares in votes for index, share in enumerate(shares or ()) if share > 0}
    return voted | set(rows["label"][:])


def encode_target(label: Target, num_labels: int) -> Tensor:
    """A class index or a distribution as float32 (classes,)."""
    if isinstance(label, int):
        return F.one_hot(torch.tensor(label), num_labels).float()
    return torch.tensor(label, dtype=torch.float32)
