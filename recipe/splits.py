"""Splits: rows -> train / validation / test sets that share no speakers, except with --protocol shared_speakers."""

import random
import sys
import warnings
from collections import Counter
from itertools import chain, combinations, zip_longest
from typing import NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from core.errors import InputError, warn
from recipe.corpora import SPEAKERS
from recipe.corpora.cremad import TEST_ACTORS as CREMAD_TEST_ACTORS
from recipe.distributions import find_present
from recipe.options import SHARED
from recipe.repeats import drop_copies, refuse_shared_audio

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


# The woman of each session tests and the man validates (stated by the paper).
IEMOCAP_FOLDS = [Fold({f"{session}F"}, {f"{session}M"}) for session in "12345"]


def finish_split(parts: dict[str, Dataset], protocol: str, may_lack_labels: bool = False) -> DatasetDict:
    """Sort each set by duration, and check them with `check_split`. Raises InputError."""
    split = DatasetDict({name: _by_duration(parts[name]) for name in ("train", "validation", "test")})
    check_split(split, protocol == SHARED, may_lack_labels)
    return split


def choose_parts(
    rows: Dataset,
    corpus: str,
    fold: int,
    num_folds: int,
    num_validation_speakers: int | None,
    seed: int,
    protocol: str,
    group_column: str | None = None,
) -> dict[str, Dataset]:
    """Choose training, validation and test sets, without checking their labels and speakers; `finish_split` does.

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
            test speaker, as in the paper. `leave_one_group_out` has one fold per value of `group_column`, which must be
            the same for all utterances of a speaker. On an incomplete corpus, the fold of a number stays what it is.
            `shared_speakers` draws `num_folds` folds of utterances, balanced by class; the next fold validates.

    Raises:
        InputError: the fold is out of range, or there are too few speakers.
    """
    if "split" in rows.column_names:
        if protocol != "published":
            raise InputError(
                f"--protocol {protocol}: the corpus has a split column, which defines the split: remove the option"
            )
        parts = _published_parts(rows, fold)
    elif protocol == SHARED:
        return _fold_utterances(rows, fold, num_folds, seed)
    else:
        folds = _folds(rows, corpus, num_folds, seed, protocol, group_column)
        held_out = _choose_fold(rows, corpus, fold, folds)
        rest = set(rows["speaker"][:]) - held_out.test - (held_out.validation or set())
        parts = {"train": _select(rows, "speaker", rest), "test": _select(rows, "speaker", held_out.test)}
        if held_out.validation is not None:
            parts["validation"] = _select(rows, "speaker", held_out.validation)
    if len(parts.get("validation", [])) == 0:
        # A speaker of a given split may be in two sets, which `check_split` refuses.
        tested = set(parts["test"]["speaker"][:]) - set(parts["train"]["speaker"][:])
        candidates = [speaker for speaker in _list_speakers(rows, corpus) if speaker not in tested]
        parts |= _hold_out(parts["train"], candidates, num_validation_speakers, seed)
    return parts


def hold_out_validation(rows: Dataset, corpus: str, number: int | None, seed: int) -> dict[str, Dataset]:
    """Split a corpus that is not tested: by its `split` column, without the test part, or by drawing speakers.

    Raises:
        InputError: there are too few speakers.
    """
    if "split" not in rows.column_names:
        return _hold_out(rows, _list_speakers(rows, corpus), number, seed)
    parts = {name: _select(rows, "split", {name}) for name in ("train", "validation")}
    if len(parts["train"]) == 0:
        raise InputError(f"the split column of {corpus} has no 'train' rows")
    if len(parts["validation"]):
        return parts
    return _hold_out(parts["train"], sorted(set(parts["train"]["speaker"][:])), number, seed)


def _hold_out(train: Dataset, candidates: list[str], number: int | None, seed: int) -> dict[str, Dataset]:
    """Draw validation speakers from the training speakers."""
    validation = _validation_speakers(train, candidates, number, seed)
    rest = set(train["speaker"][:]) - validation
    return {"train": _select(train, "speaker", rest), "validation": _select(train, "speaker", validation)}


def _published_parts(rows: Dataset, fold: int) -> dict[str, Dataset]:
    if fold != 1:
        raise InputError(f"--fold {fold}: the corpus has a split column, so it has one fold: remove the option")
    parts = {name: _select(rows, "split", {name}) for name in ("train", "validation", "test")}
    for name in ("train", "test"):
        if len(parts[name]) == 0:
            raise InputError(f"the split column has no {name!r} rows; it must have train and test rows")
    return parts


def _fold_utterances(rows: Dataset, number: int, num_folds: int, seed: int) -> dict[str, Dataset]:
    """Fold utterances, whoever speaks them, as many published systems do: one fold tests, and the next validates."""
    rows = drop_copies(rows)
    fewest = min(Counter(rows["label"][:]).values())
    if not 3 <= num_folds <= fewest:
        raise InputError(f"--num_folds {num_folds} is not between 3 and {fewest}, the utterances of the rarest class")
    if not 1 <= number <= num_folds:
        raise InputError(f"--fold {number} is not one of the {num_folds} folds of --protocol {SHARED}")
    folding = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    folds = [fold for _, fold in folding.split(np.zeros(len(rows)), rows["label"][:])]
    test, validation, *rest = folds[number - 1 :] + folds[: number - 1]
    chosen = {"train": np.sort(np.concatenate(rest)), "validation": validation, "test": test}
    return {name: rows.select(numbers) for name, numbers in chosen.items()}


def check_split(split: DatasetDict, shares_speakers: bool = False, may_lack_labels: bool = False) -> None:
    """Check that no speaker, utterance or recording is in two sets, that labels are valid, and that every class has
    training utterances.

    Args:
        shares_speakers: whether speakers may be in several sets.
        may_lack_labels: whether a set may have no utterance of a label: nothing is trained on regions of dimensions.

    Raises:
        InputError: a check fails; the message names the speaker, utterance, recording or class.
    """
    keys: dict[str, dict[str, set[str]]] = {
        "speaker": {name: set(part["speaker"][:]) for name, part in split.items()},
        "utterance": {name: set(part["id"][:]) for name, part in split.items()},
    }
    if shares_speakers:
        del keys["speaker"]
    for what, parts in keys.items():
        for first, second in combinations(parts, 2):
            shared = sorted(parts[first] & parts[second])
            if shared:
                raise InputError(
                    f"{what} {shared[0]!r} is in both {first} and {second} ({len(shared)} in total): scores on "
                    "training data are meaningless; keep it in only one of them"
                )
    refuse_shared_audio(split)
    label = split["train"].features["label"]
    for part in split.values():
        for utterance, index in zip(part["id"][:], part["label"][:]):
            if index is None or not 0 <= index < len(label.names):
                raise InputError(
                    f"utterance {utterance!r} has label {index}, which is not one of the {len(label.names)} classes "
                    f"({', '.join(label.names)}, counted from 0): correct the label, or remove the utterance"
                )
    if may_lack_labels:
        return
    present = find_present(split["train"])
    for index, word in enumerate(label.names):
        if index not in present:
            raise InputError(
                f"no training utterance is labelled {word!r}: add some, or choose another fold or split seed"
            )
    for name in set(split) - {"train"}:
        labelled = set(split[name]["label"][:])
        absent = [repr(word) for index, word in enumerate(label.names) if index not in labelled]
        if absent:
            ignored = "UA ignores this class" if len(absent) == 1 else "UA ignores these classes"
            print(f"warning: no {name} utterance is labelled {', '.join(absent)}; {ignored}", file=sys.stderr)


def _select(rows: Dataset, column: str, values: set[str]) -> Dataset:
    return rows.select([index for index, value in enumerate(rows[column][:]) if value in values])


def _by_duration(rows: Dataset) -> Dataset:
    return rows.select(np.argsort(rows["duration"][:], kind="stable"))


def _choose_fold(rows: Dataset, corpus: str, number: int, folds: list[Fold]) -> Fold:
    """Choose the fold with this number, and check that it leaves training and test speakers."""
    if not 1 <= number <= len(folds):
        raise InputError(f"--fold {number} is not one of the {len(folds)} folds of {corpus}: give 1 to {len(folds)}")
    fold = folds[number - 1]
    speakers, held_out = set(rows["speaker"][:]), fold.test | (fold.validation or set())
    validation = f" and validates on {', '.join(sorted(fold.validation))}" if fold.validation else ""
    description = f"fold {number} of {corpus} tests speakers {', '.join(sorted(fold.test))}{validation}"
    missing = sorted(held_out - speakers)
    if missing:
        raise InputError(
            f"{description}; no utterance of {', '.join(missing)} is there: complete the corpus, choose another fold, "
            "or add --protocol speaker_folds, which draws folds from the speakers that are there"
        )
    if held_out == speakers:
        raise InputError(f"{description}, which leaves no training speakers: choose another fold or add speakers")
    return fold


def _folds(
    rows: Dataset, corpus: str, num_folds: int, seed: int, protocol: str, group_column: str | None
) -> list[Fold]:
    if protocol == "published" and corpus == "ravdess":
        return [Fold(set(actors)) for actors in RAVDESS_TEST_ACTORS]
    if protocol == "published" and corpus == "cremad":
        return [Fold(set(actors)) for actors in CREMAD_TEST_ACTORS]
    if protocol == "leave_one_session_out" or (protocol == "published" and corpus == "iemocap"):
        return IEMOCAP_FOLDS if corpus == "iemocap" else _session_folds(rows, corpus)
    if protocol == "leave_one_group_out":
        return _group_folds(rows, corpus, group_column or "")
    speakers = _list_speakers(rows, corpus)
    if protocol == "leave_one_speaker_out":
        return [Fold({speaker}) for speaker in speakers]
    missing = sorted(set(speakers) - set(rows["speaker"][:]))
    if missing:
        warn(
            f"the folds are drawn from {len(speakers) - len(missing)} of the {len(speakers)} speakers of {corpus}, so "
            f"they are not those of the whole corpus; missing: {', '.join(missing)}"
        )
    return _speaker_folds(rows, num_folds, seed)


def _list_speakers(rows: Dataset, corpus: str) -> list[str]:
    """The speakers of the whole corpus, where they are known, even if rows of some are missing; sorted."""
    there, published = set(rows["speaker"][:]), set(SPEAKERS.get(corpus, ()))
    return sorted(published if there <= published else there)


def _group_folds(rows: Dataset, corpus: str, column: str) -> list[Fold]:
    """One fold for each value of a column, in the order of the values."""
    if column not in rows.column_names:
        raise InputError(
            f"--group_column {column}: {corpus} has no such column; its columns are {', '.join(rows.column_names)}"
        )
    values = [str(value) for value in rows[column][:]]
    group_of: dict[str, str] = {}
    for speaker, value in zip(rows["speaker"][:], values):
        if group_of.setdefault(speaker, value) != value:
            raise InputError(
                f"--group_column {column}: speaker {speaker!r} has both {group_of[speaker]!r} and {value!r}, so that "
                "training and test would share speakers: correct the column, or choose another"
            )
    return [Fold({s for s, group in group_of.items() if group == value}) for value in sorted(set(values))]


def _session_folds(rows: Dataset, corpus: str) -> list[Fold]:
    """One fold per session. If it has one woman and one man, he is used for validation and she for testing.

    The paper states this.
    """
    sessions: dict[str, dict[str, str]] = {}
    for session, speaker, gender in zip(rows["session"][:], rows["speaker"][:], rows["gender"][:]):
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
    number = len(set(rows["speaker"][:]))
    if not 2 <= num_folds <= number:
        raise InputError(f"--num_folds {num_folds} is not between 2 and the number of speakers, {number}")
    speakers = rows["speaker"][:]
    balanced = [f"{label} {gender}" for label, gender in zip(rows["label"][:], rows["gender"][:])]
    folding = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # check_split reports a class that is too rare to be in every fold
        warnings.simplefilter("ignore", UserWarning)
        try:
            parts = list(folding.split(speakers, balanced, groups=speakers))
        except ValueError:  # no class of one gender has as many utterances as there are folds
            raise InputError(f"--num_folds {num_folds}: no class has that many utterances: use fewer folds") from None
    return [Fold({speakers[index] for index in test}) for _, test in parts]


def _validation_speakers(train: Dataset, candidates: list[str], number: int | None, seed: int) -> set[str]:
    """Draw training speakers for validation.

    Args:
        candidates: the training speakers of the whole corpus, so that a missing speaker does not change the others.
    """
    gender_of = dict(zip(train["speaker"][:], train["gender"][:]))
    speakers = sorted(gender_of)
    if len(speakers) < 2:
        raise InputError(
            f"{speakers[0]} is the only training speaker left, so none can be held out for validation: add speakers, "
            "use this corpus only as --test_corpus, or give it use: train or test in --corpora"
        )
    if number is None:
        number = max(1, round(len(speakers) / 5))
    if not 1 <= number < len(speakers):
        raise InputError(
            f"--num_validation_speakers {number}: there are {len(speakers)} training speakers, so give 1 to "
            f"{len(speakers) - 1}, or add speakers"
        )
    random.Random(seed).shuffle(candidates)
    by_gender = [[s for s in candidates if gender_of.get(s) == gender] for gender in sorted(set(gender_of.values()))]
    in_turn = [speaker for speaker in chain(*zip_longest(*by_gender)) if speaker is not None]
    return set(in_turn[:number])
