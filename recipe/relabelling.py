"""Relabelling: select utterances of a corpus, merge or rename their labels, and join two corpora."""

import json
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value, concatenate_datasets

from core.errors import InputError
from recipe.corpora.rows import UNKNOWN_SPEAKER, count_classes, find_similar, normalize


def select_utterances(rows: Dataset, only: dict[str, Any], label_map: dict[str, str | None]) -> Dataset:
    """Select rows by column and relabel them; an empty mapping changes nothing.

    A label without rows after `only` is dropped: RAVDESS has no neutral speech of strong intensity.

    Raises:
        InputError: as `keep_only` and `map_labels`, or two labels differ in case alone.
    """
    rows = keep_only(rows, only)
    if label_map:
        rows = map_labels(rows, label_map)
    elif only:
        rows = map_labels(rows, {label: label for label, count in count_classes(rows).items() if count})
    _refuse_similar(rows.features["label"].names)
    return rows


def _refuse_similar(labels: list[str]) -> None:
    similar = find_similar(labels)
    if similar:
        merged = json.dumps(dict.fromkeys(similar, similar[-1]), ensure_ascii=False)
        raise InputError(
            f"the labels {' and '.join(map(repr, similar))} differ only in case or spaces: rename them, or merge them "
            f"with label_map, such as {merged[:-1]}, ...}}"
        )


def keep_only(rows: Dataset, only: dict[str, Any]) -> Dataset:
    """Keep rows with these column values: `{"style": "improvised"}`, or one of several: `{"intensity": [..]}`.

    Raises:
        InputError: a column does not exist, or no row has a value.
    """
    for column, value in only.items():
        if column not in rows.column_names:
            raise InputError(
                f"only: the corpus has no column {column!r}; its columns are {', '.join(rows.column_names)}"
            )
        wanted = [normalize(str(word)) for word in (value if isinstance(value, list) else [value])]
        names = getattr(rows.features[column], "names", None)
        values = [names[index] if names else str(index) for index in rows[column]]
        absent = [word for word in wanted if word not in values]
        if absent:
            there = ", ".join(sorted(set(values))[:20])
            raise InputError(f"only: no row has {column}={absent[0]!r}; valid values are {there}")
        rows = rows.select([index for index, word in enumerate(values) if word in wanted])
    return rows


def map_labels(rows: Dataset, label_map: dict[str, str | None]) -> Dataset:
    """Relabel rows: `{"happy": "happy", "excited": "happy", "sad": "sad"}`.

    Labels that are not in the map, or that it maps to null, are dropped. The new classes are in the order in which
    the map first names them. Votes for a dropped class do not count.

    Raises:
        InputError: the corpus does not have one of the labels, or fewer than two labels are left.
    """
    old = rows.features["label"].names
    label_map = {
        normalize(str(label)): target if target is None else normalize(str(target))
        for label, target in label_map.items()
    }
    for label in label_map:
        if label not in old:
            raise InputError(f"label_map: the corpus has no label {label!r}; its labels are {', '.join(old)}")
    new = list(dict.fromkeys(label for label in label_map.values() if label is not None))
    if len(new) < 2:
        raise InputError(f"label_map keeps {', '.join(new) or 'no label'} of {', '.join(old)}; keep at least two")
    index_of = {
        position: new.index(target)
        for position, label in enumerate(old)
        if (target := label_map.get(label)) is not None
    }
    kept = rows.select([row for row, label in enumerate(rows["label"]) if label in index_of])
    columns: dict[str, list[Any]] = {"label": [index_of[label] for label in kept["label"]]}
    features: dict[str, Any] = {"label": ClassLabel(names=new)}
    if "label_distribution" in kept.column_names:
        columns["label_distribution"] = [
            _merge_votes(votes, index_of, len(new)) for votes in kept["label_distribution"]
        ]
        features["label_distribution"] = List(Value("float64"))
    replaced = Dataset.from_dict(columns, features=Features(features))
    return concatenate_datasets([kept.remove_columns(list(columns)), replaced], axis=1)


def _merge_votes(votes: list[float], index_of: dict[int, int], size: int) -> list[float]:
    """Sum the shares for the new labels; empty if all votes were for dropped labels."""
    merged = np.zeros(size)
    for position, share in enumerate(votes):
        if position in index_of:
            merged[index_of[position]] += share
    return (merged / merged.sum()).tolist() if merged.sum() > 0 else []


def train_on_one_test_on_another(training: Dataset, corpus: str, test: Dataset, test_corpus: str) -> Dataset:
    """Join two corpora on their common labels, with a `split` column; the test set of the first one is dropped.

    Speakers and ids are prefixed with the name of the corpus, since two corpora may use the same ones.

    Raises:
        InputError: the corpora have fewer than two labels in common.
    """
    first, second = (rows.features["label"].names for rows in (training, test))
    _refuse_similar([*first, *second])
    common = [label for label in first if label in second]
    if len(common) < 2:
        raise InputError(
            f"{corpus} ({', '.join(first)}) and {test_corpus} ({', '.join(second)}) have "
            f"{'one label' if common else 'no label'} in common: merge or rename some with label_map and test_label_map"
        )
    same = {label: label for label in common}
    if test_corpus == corpus:  # for example, two folders
        test_corpus = f"{test_corpus} 2"
    times = [column for column in ("start", "end") if any(column in rows.column_names for rows in (training, test))]
    parts = []
    for rows, name, part in ((training, corpus, "train"), (test, test_corpus, "test")):
        rows = map_labels(rows, same)
        split = rows["split"][:] if "split" in rows.column_names and part == "train" else [part] * len(rows)
        named = {
            "id": [f"{name}:{utterance}" for utterance in rows["id"]],
            "speaker": [_add_corpus(speaker, name) for speaker in rows["speaker"]],
            **{column: rows[column][:] if column in rows.column_names else [None] * len(rows) for column in times},
        }
        rest = rows.select_columns(["audio", "label", "gender", "session", "duration"])
        marked = concatenate_datasets([rest, Dataset.from_dict({**named, "split": split})], axis=1)
        parts.append(marked.select([i for i, s in enumerate(split) if part == "test" or s != "test"]))
    return concatenate_datasets(parts)


def _add_corpus(speaker: str, corpus: str) -> str:
    if speaker.startswith(UNKNOWN_SPEAKER):
        return f"{UNKNOWN_SPEAKER}{corpus}:{speaker.removeprefix(UNKNOWN_SPEAKER)}"
    return f"{corpus}:{speaker}"
