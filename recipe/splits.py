"""Splits: rows -> train / validation / test, with no speaker in two of them. The check cannot be switched off."""

import random
import sys
from itertools import chain, combinations, zip_longest
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from sklearn.model_selection import StratifiedGroupKFold

from recipe.errors import InputError

# Test actors of each RAVDESS fold, as EmoBox defines them (Ma et al. 2024).
RAVDESS_TEST_ACTORS = (
    ("01", "11", "20", "21"),
    ("04", "10", "12", "14"),
    ("08", "09", "19", "23"),
    ("03", "05", "07", "24"),
    ("02", "15", "16", "18"),
    ("06", "13", "17", "22"),
)


def make_split(
    rows: Dataset,
    corpus: str,
    fold: int = 1,
    num_folds: int = 5,
    num_validation_speakers: int | None = None,
    seed: int = 0,
) -> DatasetDict:
    """One fold: the test speakers by the corpus's protocol, validation speakers out of the training ones.

    RAVDESS has six published folds. Rows with a `split` column keep it. All others are cut into
    `num_folds` folds by speaker with balanced classes, seeded.

    Args:
        rows: rows of one corpus.
        fold: which fold is the test set, from 1.
        num_validation_speakers: as many training speakers validate; None takes about a fifth of them.
            They are drawn by the seed, women and men in turn where the gender is known.

    Returns:
        `train`, `validation` and `test`, each sorted by duration.

    Raises:
        InputError: a fold out of range, too few speakers, or a speaker in two parts.
    """
    if "split" in rows.column_names:
        if fold != 1:
            raise InputError(f"--fold {fold}: the rows have a split column, which is the only fold: leave one out")
        parts = {name: _select(rows, "split", {name}) for name in ("train", "validation", "test")}
        for name in ("train", "test"):
            if len(parts[name]) == 0:
                raise InputError(f"the split column marks no row as {name!r}; train and test are needed")
    else:
        test_speakers = _test_speakers(rows, corpus, fold, num_folds, seed)
        parts = {
            "train": _select(rows, "speaker", set(rows["speaker"]) - test_speakers),
            "test": _select(rows, "speaker", test_speakers),
        }
    if len(parts.get("validation", [])) == 0:
        held_out = _validation_speakers(parts["train"], num_validation_speakers, seed)
        parts["validation"] = _select(parts["train"], "speaker", held_out)
        parts["train"] = _select(parts["train"], "speaker", set(parts["train"]["speaker"]) - held_out)
    split = DatasetDict({name: _by_duration(parts[name]) for name in ("train", "validation", "test")})
    check_split(split)
    return split


def check_split(split: DatasetDict) -> None:
    """No speaker, utterance or audio file stands in two parts, and every class has training utterances.

    Raises:
        InputError: naming the speaker, utterance, file or class.
    """
    keys = {
        "speaker": {name: set(part["speaker"]) for name, part in split.items()},
        "utterance": {name: set(part["id"]) for name, part in split.items()},
        "file": {name: {str(Path(audio["path"]).resolve()) for audio in part["audio"]} for name, part in split.items()},
    }
    for what, parts in keys.items():
        for first, second in combinations(parts, 2):
            shared = sorted(parts[first] & parts[second])
            if shared:
                raise InputError(
                    f"{what} {shared[0]!r} stands in both {first} and {second} ({len(shared)} in all): a score on "
                    "known voices means nothing; move it to one of them"
                )
    label = split["train"].features["label"]
    present = set(split["train"]["label"])
    for index, word in enumerate(label.names):
        if index not in present:
            raise InputError(f"no training utterance is labelled {word!r}: add some, or choose another fold or seed")
        for name in set(split) - {"train"}:
            if index not in split[name]["label"]:
                print(
                    f"warning: no {name} utterance is labelled {word!r}; UA is over the other classes", file=sys.stderr
                )


def _select(rows: Dataset, column: str, values: set[str]) -> Dataset:
    return rows.select([index for index, value in enumerate(rows[column]) if value in values])


def _by_duration(rows: Dataset) -> Dataset:
    return rows.select(np.argsort(rows["duration"], kind="stable"))


def _test_speakers(rows: Dataset, corpus: str, fold: int, num_folds: int, seed: int) -> set[str]:
    speakers = sorted(set(rows["speaker"]))
    folds: list[set[str]] = [set(actors) for actors in RAVDESS_TEST_ACTORS]
    if corpus != "ravdess":
        if num_folds < 2 or len(speakers) < num_folds:
            raise InputError(f"--num_folds {num_folds} is not between 2 and the number of speakers, {len(speakers)}")
        folding = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
        indices = folding.split(rows["id"], rows["label"], groups=rows["speaker"])
        all_speakers = rows["speaker"][:]
        folds = [{all_speakers[index] for index in test} for _, test in indices]
    if not 1 <= fold <= len(folds):
        raise InputError(f"--fold {fold} is not one of the {len(folds)} folds of {corpus}: give 1 to {len(folds)}")
    test = folds[fold - 1] & set(speakers)
    if not test or test == set(speakers):
        raise InputError(
            f"fold {fold} of {corpus} tests speakers {', '.join(sorted(folds[fold - 1]))}, which leaves "
            f"{'no training' if test else 'no test'} speaker among {', '.join(speakers)}"
        )
    return test


def _validation_speakers(train: Dataset, number: int | None, seed: int) -> set[str]:
    gender_of = dict(zip(train["speaker"], train["gender"]))
    speakers = sorted(gender_of)
    if number is None:
        number = max(1, round(len(speakers) / 5))
    if not 1 <= number < len(speakers):
        raise InputError(
            f"--num_validation_speakers {number} of {len(speakers)} training speakers: "
            f"give 1 to {len(speakers) - 1}, or record more speakers"
        )
    random.Random(seed).shuffle(speakers)
    by_gender = [[s for s in speakers if gender_of[s] == gender] for gender in sorted(set(gender_of.values()))]
    in_turn = [speaker for speaker in chain(*zip_longest(*by_gender)) if speaker is not None]
    return set(in_turn[:number])
