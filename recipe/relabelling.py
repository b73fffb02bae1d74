"""Relabelling: select utterances of a corpus, and merge or rename their labels."""

import json
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value, concatenate_datasets

from core.errors import InputError
from recipe.corpora.rows import SPELLING, find_similar, normalize
from recipe.distributions import COLUMN, find_present


def select_utterances(rows: Dataset, only: dict[str, Any], label_map: dict[str, str | None]) -> Dataset:
    """Select rows by column and relabel them; an empty mapping changes nothing.

    A label without rows after `only` is dropped: RAVDESS has no neutral speech of strong intensity. Of distributions, a
    class without votes is always dropped, such as no_agreement of IEMOCAP.

    Raises:
        InputError: as `keep_only` and `map_labels`, or two labels differ in case alone.
    """
    rows = keep_only(rows, only)
    if label_map:
        rows = map_labels(rows, label_map)
    elif only or COLUMN in rows.column_names:
        names = rows.features["label"].names
        rows = map_labels(rows, {names[index]: names[index] for index in sorted(find_present(rows))})
    refuse_similar(rows.features["label"].names)
    return rows


def refuse_similar(labels: list[str]) -> None:
    """Raise InputError if two labels only differ in `SPELLING`."""
    similar = find_similar(labels)
    if similar:
        merged = json.dumps(dict.fromkeys(similar, similar[-1]), ensure_ascii=False)
        raise InputError(
            f"the labels {' and '.join(map(repr, similar))} differ only in {SPELLING}: rename them, or merge them with "
            f"label_map, such as {merged[:-1]}, ...}}"
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
        values = [names[index] if names else str(index) for index in rows[column][:]]
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
    return _relabel(rows, index_of, new)


def keep_labels(rows: Dataset, names: list[str]) -> Dataset:
    """Keep rows with one of these labels, which become the classes, in this order."""
    old = rows.features["label"].names
    return _relabel(rows, {index: names.index(name) for index, name in enumerate(old) if name in names}, names)


def _relabel(rows: Dataset, index_of: dict[int, int], new: list[str]) -> Dataset:
    """Give each class its new index; rows of other classes are dropped."""
    kept = rows.select([row for row, label in enumerate(rows["label"][:]) if label in index_of])
    columns: dict[str, list[Any]] = {"label": [index_of[label] for label in kept["label"][:]]}
    features: dict[str, Any] = {"label": ClassLabel(names=new)}
    if COLUMN in kept.column_names:
        columns[COLUMN] = [_merge_votes(votes, index_of, len(new)) for votes in kept[COLUMN][:]]
        features[COLUMN] = List(Value("float64"))
    replaced = Dataset.from_dict(columns, features=Features(features))
    return concatenate_datasets([kept.remove_columns(list(columns)), replaced], axis=1)


def _merge_votes(votes: list[float], index_of: dict[int, int], size: int) -> list[float]:
    """Sum the shares for the new labels; empty if all votes were for dropped labels."""
    merged = np.zeros(size)
    for position, share in enumerate(votes):
        if position in index_of:
            merged[index_of[position]] += share
    return (merged / merged.sum()).tolist() if merged.sum() > 0 else []
