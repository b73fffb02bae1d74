"""Splits: rows -> train / validation / test, with no speaker in two of them. The check cannot be switched off."""

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
    """Test speakers, and validation speakers where the protocol names them; otherwise training speakers validate."""

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
    """One fold of a protocol.

    Rows with a `split` column keep it: that is their only fold.

    Args:
        rows: rows of one corpus.
        fold: which fold is the test set, from 1.
        num_validation_speakers: number of training speakers held out for validation; None takes about a fifth of
            them. The seed draws them, women and men in turn where the gender is known.
        protocol: `published`: of RAVDESS six folds, of CREMA-D five, of IEMOCAP leave_one_session_out, of others
            speaker_folds. `speaker_folds`: `num_folds` folds by speaker, balanced by class and gender, seeded.
            `leave_one_speaker_out`, `leave_one_session_out`: as many folds as there are speakers or sessions; of a
            session of one woman and one man, the man validates and the woman tests, as in the paper.

    Returns:
        `train`, `validation` and `test`, each sorted by duration.

    Raises:
        InputError: a fold out of range, too few speakers, or a speaker in two parts.
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
    """The parts of a split, as for `make_split`, before their labels and speakers are checked.

    Raises:
        InputError: a fold out of range, or too few speakers.
    """
    if "split" in rows.column_names:
        if protocol != "published":
            raise InputError(
                f"--protocol {protocol}: the rows have a split column, which defines the split: leave the option out"
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
        raise InputError(f"--fold {fold}: the rows have a split column, which is the only fold: leave the option out")
    parts = {name: _select(rows, "split", {name}) for name in ("train", "validation", "test")}
    for name in ("train", "test"):
        if len(parts[name]) == 0:
            raise InputError(f"the split column has no row {name!r}; it needs train and test")
    return parts


def check_split(split: DatasetDict) -> None:
    """Check that no speaker, utterance or file is in two parts, every label is a class, and every class is trained on.

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
                    f"{what} {shared[0]!r} is in both {first} and {second} ({len(shared)} such in all): scores on "
                    "training data mean nothing; move it to one of them"
                )
    label = split["train"].features["label"]
    for part in split.values():
        for utterance, index in zip(part["id"], part["label"]):
            if index is None or not 0 <= index < len(label.names):
                raise InputError(
                    f"utterance {utterance!r} has label {index}, which is not one of the {len(label.names)} classes "
                    f"({', '.join(label.names)}, counted from 0): label it, or remove it"
                )
    present = set(split["train"]["label"])
    for index, word in enumerate(label.names):
        if index not in present:
            raise InputError(
                f"no training utterance is labelled {word!r}: add some, or choose another fold or split seed"
            )
        for name in set(split) - {"train"}:
            if index not in split[name]["label"]:
                print(
                    f"warning: no {name} utterance is labelled {word!r}; UA averages the other classes", file=sys.stderr
                )


def _select(rows: Dataset, column: str, values: set[str]) -> Dataset:
    return rows.select([index for index, value in enumerate(rows[column]) if value in values])


def _by_duration(rows: Dataset) -> Dataset:
    return rows.select(np.argsort(rows["duration"], kind="stable"))


def _fold(rows: Dataset, corpus: str, number: int, num_folds: int, seed: int, protocol: str) -> Fold:
    """The fold with this number, after checking that it leaves training and test speakers."""
    folds = _folds(rows, corpus, num_folds, seed, protocol)
    if not 1 <= number <= len(folds):
        raise InputError(f"--fold {number} is not one of the {len(folds)} folds of {corpus}: give 1 to {len(folds)}")
    fold = folds[number - 1]
    speakers = set(rows["speaker"])
    test = fold.test & speakers
    if not test or not speakers - fold.test - (fold.validation or set()):
        raise InputError(
            f"fold {number} of {corpus} tests speakers {', '.join(sorted(fold.test))}, which leaves "
            f"{'no training' if test else 'no test'} speaker among {', '.join(sorted(speakers))}"
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
    """Of a session of one woman and one man, the man validates and the woman tests (stated by the paper)."""
    sessions: dict[str, dict[str, str]] = {}
    for session, speaker, gender in zip(rows["session"], rows["speaker"], rows["gender"]):
        sessions.setdefault(session, {})[speaker] = gender
    if "" in sessions:
        raise InputError(f"--protocol leave_one_session_out: {corpus} has utterances without a session")
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
    with (
        warnings.catch_warnings()
    ):  # a class that is rarer than the folds cannot be in all of them: check_split says so
        warnings.simplefilter("ignore", UserWarning)
        try:
            parts = list(folding.split(speakers, balanced, groups=speakers))
        except ValueError:  # no class of one gender has as many utterances as there are folds
            raise InputError(f"--num_folds {num_folds} is more than any class has utterances: give fewer") from None
    return [Fold({speakers[index] for index in test}) for _, test in parts]


def _validation_speakers(train: Dataset, number: int | None, seed: int) -> set[str]:
    gender_of = dict(zip(train["speaker"], train["gender"]))
    speakers = sorted(gender_of)
    if len(speakers) < 2:
        raise InputError(
            f"one training speaker, {speakers[0]}, is left, and none to validate: a corpus of two speakers can only "
            "be a --test_corpus"
        )
    if number is None:
        number = max(1, round(len(speakers) / 5))
    if not 1 <= number < len(speakers):
        raise InputError(
            f"--num_validation_speakers {number}: there are {len(speakers)} training speakers, so give 1 to "
            f"{len(speakers) - 1}, or record more speakers"
        )
    random.Random(seed).shuffle(speakers)
    by_gender = [[s for s in speakers if gender_of[s] == gender] for gender in sorted(set(gender_of.values()))]
    in_turn = [speaker for speaker in chain(*zip_longest(*by_gender)) if speaker is not None]
    return set(in_turn[:number])
