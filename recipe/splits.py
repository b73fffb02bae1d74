"""Splits: rows -> train / validation / test sets that share no speakers. This check cannot be disabled."""

import random
import sys
import warnings
from itertools import chain, combinations, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict
from sklearn.model_selection import StratifiedGroupKFold

from core.errors import InputError
from recipe.corpora.cremad import TEST_ACTORS as CREMAD_TEST_ACTORS

# Test actors of each RAVDESS fold, as EmoBox defines them (Ma et al. 2024).
RAVDESS_TEST_ACTORS = (
    ("01", "11", "20", "21"),
    ("04", "10", "12", "14"),
    ("08", "09", "19", "23"),
    ("03", "05", "07", "24"),
    ("02", "15", "16", "18"),
    ("06", "13", "17", "22"),
)


class Fold(NamedTuple):
    """Test speakers, and validation speakers if the protocol defines them."""

    test: set[str]
    validation: set[str] | None = None


def make_split(
    rows: Dataset,
    corpus: str,
    fold: int = 1,
    num_folds: int = 5,
    num_validation_speakers: int | None = None,
    seed: int = 0,
    protocol: str = "published",
) -> DatasetDict:
    """Split the rows of a corpus into training, validation and test sets.

    If the rows have a `split` column, it defines the only fold.

    Args:
        rows: rows of one corpus.
        fold: the fold to test on, counted from 1.
        num_validation_speakers: number of training speakers held out for validation; None means about a fifth. They
            are drawn with `seed`, alternating between women and men where the gender is known.
        protocol: `published` uses six folds for RAVDESS, five for CREMA-D, leave_one_session_out for IEMOCAP, and
            speaker_folds for all other corpora. `speaker_folds` draws `num_folds` folds of speakers with `seed`,
            balanced by class and gender. `leave_one_speaker_out` and `leave_one_session_out` have one fold per speaker
            or session. If a session has one woman and one man, the man is the validation speaker and the woman the
            test speaker, as in the paper.

    Returns:
        `train`, `validation` and `test`, each sorted by duration.

    Raises:
        InputError: the fold is out of range, there are too few speakers, or a speaker is in two sets.
    """
    parts = choose_parts(rows, corpus, fold, num_folds, num_validation_speakers, seed, protocol)
    split = DatasetDict({name: _by_duration(parts[name]) for name in ("train", "validation", "test")})
    check_split(split)
    return split


def choose_parts(
    rows: Dataset,
    corpus: str,
    fold: int,
    num_folds: int,
    num_validation_speakers: int | None,
    seed: int,
    protocol: str,
) -> dict[str, Dataset]:
    """Choose the sets of a split, as `make_split` does, without checking their labels and speakers.

    Raises:
        InputError: the fold is out of range, or there are too few speakers.
    """
    if "split" in rows.column_names:
        if protocol != "published":
            raise InputError(
                f"--protocol {protocol}: the corpus has a split column, which defines the split: remove the option"
            )
        parts = _published_parts(rows, fold)
    else:
        held_out = _fold(rows, corpus, fold, num_folds, seed, protocol)
        rest = set(rows["speaker"]) - held_out.test - (held_out.validation or set())
        parts = {"train": _select(rows, "speaker", rest), "test": _select(rows, "speaker", held_out.test)}
        if held_out.validation is not None:
            parts["validation"] = _select(rows, "speaker", held_out.validation)
    if len(parts.get("validation", [])) == 0:
        validation = _validation_speakers(parts["train"], num_validation_speakers, seed)
        parts["validation"] = _select(parts["train"], "speaker", validation)
        parts["train"] = _select(parts["train"], "speaker", set(parts["train"]["speaker"]) - validation)
    return parts


def _published_parts(rows: Dataset, fold: int) -> dict[str, Dataset]:
    if fold != 1:
        raise InputError(f"--fold {fold}: the corpus has a split column, so it has one fold: remove the option")
    parts = {name: _select(rows, "split", {name}) for name in ("train", "validation", "test")}
    for name in ("train", "test"):
        if len(parts[name]) == 0:
            raise InputError(f"the split column has no {name!r} rows; it must have train and test rows")
    return parts


def check_split(split: DatasetDict) -> None:
    """Check that no speaker, utterance or file is in two sets, that labels are valid, and that every class has
    training utterances.

    Raises:
        InputError: a check fails; the message names the speaker, utterance, file or class.
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
                    f"{what} {shared[0]!r} is in both {first} and {second} ({len(shared)} in total): scores on "
                    "training data are meaningless; keep it in only one of them"
                )
    label = split["train"].features["label"]
    for part in split.values():
        for utterance, index in zip(part["id"], part["label"]):
            if index is None or not 0 <= index < len(label.names):
                raise InputError(
                    f"utterance {utterance!r} has label {index}, which is not one of the {len(label.names)} classes "
                    f"({', '.join(label.names)}, counted from 0): correct the label, or remove the utterance"
                )
    present = set(split["train"]["label"])
    for index, word in enumerate(label.names):
        if index not in present:
            raise InputError(
                f"no training utterance is labelled {word!r}: add some, or choose another fold or split seed"
            )
        for name in set(split) - {"train"}:
            if index not in split[name]["label"]:
                print(f"warning: no {name} utterance is labelled {word!r}; UA ignores this class", file=sys.stderr)


def _select(rows: Dataset, column: str, values: set[str]) -> Dataset:
    return rows.select([index for index, value in enumerate(rows[column]) if value in values])


def _by_duration(rows: Dataset) -> Dataset:
    return rows.select(np.argsort(rows["duration"], kind="stable"))


def _fold(rows: Dataset, corpus: str, number: int, num_folds: int, seed: int, protocol: str) -> Fold:
    """Find the fold with this number, and check that it leaves training and test speakers."""
    folds = _folds(rows, corpus, num_folds, seed, protocol)
    if not 1 <= number <= len(folds):
        raise InputError(f"--fold {number} is not one of the {len(folds)} folds of {corpus}: give 1 to {len(folds)}")
    fold = folds[number - 1]
    speakers = set(rows["speaker"])
    test = fold.test & speakers
    if not test or not speakers - fold.test - (fold.validation or set()):
        raise InputError(
            f"fold {number} of {corpus} has the test speakers {', '.join(sorted(fold.test))}, which leaves "
            f"{'no training' if test else 'no test'} speakers among {', '.join(sorted(speakers))}: choose another fold"
        )
    return Fold(test, fold.validation)


def _folds(rows: Dataset, corpus: str, num_folds: int, seed: int, protocol: str) -> list[Fold]:
    if protocol == "published" and corpus == "ravdess":
        return [Fold(set(actors)) for actors in RAVDESS_TEST_ACTORS]
    if protocol == "published" and corpus == "cremad":
        return [Fold(set(actors)) for actors in CREMAD_TEST_ACTORS]
    if protocol == "leave_one_session_out" or (protocol == "published" and corpus == "iemocap"):
        return _session_folds(rows, corpus)
    if protocol == "leave_one_speaker_out":
        return [Fold({speaker}) for speaker in sorted(set(rows["speaker"]))]
    return _speaker_folds(rows, num_folds, seed)


def _session_folds(rows: Dataset, corpus: str) -> list[Fold]:
    """One fold per session. If it has one woman and one man, he is used for validation and she for testing.

    The paper states this.
    """
    sessions: dict[str, dict[str, str]] = {}
    for session, speaker, gender in zip(rows["session"], rows["speaker"], rows["gender"]):
        sessions.setdefault(session, {})[speaker] = gender
    if "" in sessions:
        raise InputError(
            f"--protocol leave_one_session_out: {corpus} has utterances without a session: choose another protocol"
        )
    folds = []
    for _, gender_of in sorted(sessions.items()):
        if sorted(gender_of.values()) == ["female", "male"]:
            woman, man = sorted(gender_of, key=lambda speaker: gender_of[speaker])
            folds.append(Fold({woman}, {man}))
        else:
            folds.append(Fold(set(gender_of)))
    return folds


def _speaker_folds(rows: Dataset, num_folds: int, seed: int) -> list[Fold]:
    number = len(set(rows["speaker"]))
    if not 2 <= num_folds <= number:
        raise InputError(f"--num_folds {num_folds} is not between 2 and the number of speakers, {number}")
    speakers = rows["speaker"][:]
    balanced = [f"{label} {gender}" for label, gender in zip(rows["label"], rows["gender"])]
    folding = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # check_split reports a class that is too rare to be in every fold
        warnings.simplefilter("ignore", UserWarning)
        try:
            parts = list(folding.split(speakers, balanced, groups=speakers))
        except ValueError:  # no class of one gender has as many utterances as there are folds
            raise InputError(f"--num_folds {num_folds}: no class has that many utterances: use fewer folds") from None
    return [Fold({speakers[index] for index in test}) for _, test in parts]


def _validation_speakers(train: Dataset, number: int | None, seed: int) -> set[str]:
    gender_of = dict(zip(train["speaker"], train["gender"]))
    speakers = sorted(gender_of)
    if len(speakers) < 2:
        raise InputError(
            f"{speakers[0]} is the only training speaker left, so none can be held out for validation: add speakers, "
            "or use this corpus only as --test_corpus"
        )
    if number is None:
        number = max(1, round(len(speakers) / 5))
    if not 1 <= number < len(speakers):
        raise InputError(
            f"--num_validation_speakers {number}: there are {len(speakers)} training speakers, so give 1 to "
            f"{len(speakers) - 1}, or add speakers"
        )
    random.Random(seed).shuffle(speakers)
    by_gender = [[s for s in speakers if gender_of[s] == gender] for gender in sorted(set(gender_of.values()))]
    in_turn = [speaker for speaker in chain(*zip_longest(*by_gender)) if speaker is not None]
    return set(in_turn[:number])
