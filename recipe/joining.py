"""Several corpora as one: their rows together, each split by its own protocol, and the sets joined."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets

from core.errors import InputError
from recipe.corpora.ravdess import LABELS
from recipe.corpora.rows import UNKNOWN_SPEAKER, sort_labels
from recipe.dimensions import COLUMN as DIMENSIONS
from recipe.distributions import COLUMN, find_present
from recipe.entries import Entry
from recipe.relabelling import keep_labels, refuse_similar
from recipe.splits import choose_parts, hold_out_validation

KEPT = ("id", "audio", "label", "speaker", "gender", "session", "duration")
OPTIONAL = {
    **{"start": Value("float64"), "end": Value("float64"), "split": Value("string"), "text": Value("string")},
    "words": [{"word": Value("string"), "start": Value("float64"), "end": Value("float64")}],
}

TRAINED, TESTED = ("all", "train", "train_validation"), ("all", "test")


def join_rows(corpora: dict[str, Dataset]) -> Dataset:
    """Join the rows of corpora, given by name, with the column `corpus` and the labels of all.

    Raises:
        InputError: two labels only differ in case, spaces, quotes or the way a number is written.
    """
    refuse_similar([label for rows in corpora.values() for label in rows.features["label"].names])
    labels = order_labels(label for rows in corpora.values() for label in rows.features["label"].names)
    there = [name for name in OPTIONAL if any(name in rows.column_names for rows in corpora.values())]
    targets = [name for name in (COLUMN, DIMENSIONS) if all(name in rows.column_names for rows in corpora.values())]
    kept_columns = [*KEPT, *targets]
    features = Features({"corpus": Value("string"), **{name: OPTIONAL[name] for name in there}})
    joined = []
    for corpus, rows in corpora.items():
        columns: dict[str, Any] = {"corpus": [corpus] * len(rows)}
        for name in there:
            columns[name] = rows[name][:] if name in rows.column_names else [None] * len(rows)
        kept = keep_labels(rows.select_columns(kept_columns), labels)
        joined.append(concatenate_datasets([kept, Dataset.from_dict(columns, features=features)], axis=1))
    return concatenate_datasets(joined)


def order_labels(labels: Iterable[str]) -> list[str]:
    """Labels in one order, whatever the order of the corpora: the eight of RAVDESS, then others in natural order."""
    ordered = sort_labels(labels)
    return [*(label for label in LABELS if label in ordered), *(label for label in ordered if label not in LABELS)]


def choose_joint_parts(rows: Dataset, entries: list[Entry], common_labels: bool) -> dict[str, Dataset]:
    """Choose the sets of a split of joined rows. Speakers and ids become `emodb/03`.

    Args:
        common_labels: whether to drop labels that no training corpus or no test corpus has.

    Raises:
        InputError: a corpus cannot be split as its entry says, or fewer than two labels are common.
    """
    chosen: dict[str, list[Dataset]] = {"train": [], "validation": [], "test": []}
    for entry in entries:
        for name, part in _choose_entry_parts(_select_corpus(rows, entry.name), entry).items():
            chosen[name].append(_add_corpus(part, entry.name))
    if not chosen["validation"]:
        raise InputError("no corpus has validation speakers: give one of the training corpora use: train_validation")
    parts = {name: concatenate_datasets(each) for name, each in chosen.items()}
    labels = _find_common_labels(parts, entries) if common_labels else _find_all_labels(parts)
    return {name: keep_labels(part, labels) for name, part in parts.items()}


def list_corpora(rows: Dataset) -> list[str]:
    """The corpus of each row; empty if all rows are of one."""
    return rows["corpus"][:] if "corpus" in rows.column_names else []


def select_corpora(rows: Dataset) -> dict[str, Dataset]:
    """The rows of each of several corpora, by name; empty if all rows are of one."""
    corpora = np.array(list_corpora(rows))
    return {name: rows.select(np.flatnonzero(corpora == name)) for name in np.unique(corpora).tolist()}


def _select_corpus(rows: Dataset, name: str) -> Dataset:
    """The rows of one corpus, with the split column only if it has one."""
    rows = select_corpora(rows)[name]
    if "split" in rows.column_names and all(part is None for part in rows["split"][:]):
        rows = rows.remove_columns("split")
    return rows


def _choose_entry_parts(rows: Dataset, entry: Entry) -> dict[str, Dataset]:
    data = entry.data
    try:
        if entry.use in ("train", "test"):
            return {entry.use: rows}
        if entry.use == "train_validation":
            return hold_out_validation(rows, data.corpus, data.num_validation_speakers, data.split_seed)
        held_out = (data.fold, data.num_folds, data.num_validation_speakers, data.split_seed, data.protocol)
        return choose_parts(rows, data.corpus, *held_out, data.group_column)
    except InputError as error:
        raise InputError(f"{entry.name}: {error}") from error


def _add_corpus(rows: Dataset, name: str) -> Dataset:
    """Rows whose ids and speakers name the corpus, since two corpora may use the same; without their split column."""
    named = {
        "id": [f"{name}/{utterance}" for utterance in rows["id"][:]],
        "speaker": [_name_speaker(speaker, name) for speaker in rows["speaker"][:]],
    }
    rest = rows.remove_columns([column for column in ("id", "speaker", "split") if column in rows.column_names])
    return concatenate_datasets(
        [rest, Dataset.from_dict(named, features=rows.select_columns(list(named)).features)], axis=1
    )


def _name_speaker(speaker: str, corpus: str) -> str:
    if speaker.startswith(UNKNOWN_SPEAKER):
        return f"{UNKNOWN_SPEAKER}{corpus}/{speaker.removeprefix(UNKNOWN_SPEAKER)}"
    return f"{corpus}/{speaker}"


def _find_labels(*parts: Dataset) -> list[str]:
    """The labels that these rows have, in order."""
    names = parts[0].features["label"].names
    there = set().union(*map(find_present, parts))
    return [name for index, name in enumerate(names) if index in there]


def _find_all_labels(parts: dict[str, Dataset]) -> list[str]:
    train, everywhere = _find_labels(parts["train"]), _find_labels(*parts.values())
    untrained = [label for label in everywhere if label not in train]
    if untrained:
        raise InputError(
            f"no training utterance is labelled {', '.join(untrained)}: drop such labels with --common_labels or "
            "label_map"
        )
    return everywhere


def _find_common_labels(parts: dict[str, Dataset], entries: list[Entry]) -> list[str]:
    """The labels that both the training and the test sets have."""
    train, test = _find_labels(parts["train"], parts["validation"]), _find_labels(parts["test"])
    common = [label for label in train if label in test]
    if len(common) < 2:
        names = [" + ".join(entry.name for entry in entries if entry.use in uses) for uses in (TRAINED, TESTED)]
        raise InputError(
            f"{names[0]} ({', '.join(train)}) and {names[1]} ({', '.join(test)}) have "
            f"{'one label' if common else 'no label'} in common: merge or rename some with label_map or test_label_map"
        )
    return common
