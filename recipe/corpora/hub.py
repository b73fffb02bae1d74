"""Any dataset on the Hugging Face Hub or on disk, given the names of its audio, label and speaker columns.

Give a Hub name (`owner/name`), a directory written by `save_to_disk`, or a directory of parquet or CSV files. The audio
column contains encoded audio (the Audio feature, or bytes) or file paths, absolute or relative to the directory. The
label column contains class names, as ClassLabel, words or numbers; the library reads 03 in a CSV file as the number 3,
so --corpus folder with --csv is better for such names. Audio embedded in the dataset is written once, without
re-encoding, to `CACHE_DIR/audio/`; each file is named by the SHA-256 of its content. Rows without a label (empty or -1)
are dropped.

A streamed dataset is read once, row by row. A journal in `CACHE_DIR/streams/` lists the rows that have been read: an
interrupted pass resumes where it stopped, a finished one is not repeated, and a dataset that has changed is streamed
again.

With `--targets distribution`, `--distribution_columns` names the columns with the votes for each class, or their
shares, in place of the label column. With `--targets dimensions`, the columns of `--dimensions` are read, too.

Name the speaker column if there is one. Otherwise, the same voice can be in the training and the test data. If the
dataset has train, validation (or dev, valid) and test parts, they become the column `split`. If these parts share
speakers, they become `official_split` instead, and the data are split by speaker for training.

Name the start and end columns if a row is an excerpt of its recording, in seconds. Many datasets keep such columns
although their audio is cut already, so they are not used unless they are named.

The licence and the citation are on the dataset's page.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import (
    Audio,
    ClassLabel,
    Dataset,
    DatasetDict,
    IterableDataset,
    IterableDatasetDict,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.exceptions import DatasetsError
from filelock import FileLock
from tqdm import tqdm

from core.errors import InputError, warn
from core.escaping import printable
from recipe.corpora.excerpts import TIME_COLUMNS, has_time_columns, read_times
from recipe.corpora.hub_audio import Place, find_audio
from recipe.corpora.numbers import read_numbers
from recipe.corpora.rows import UNKNOWN_SPEAKER, find_parts, make_rows, normalize, sort_labels
from recipe.corpora.shares import find_majority, read_shares
from recipe.corpora.words import read_word_times

LICENSE = "other"
DESCRIPTION = (
    "A dataset from the Hugging Face Hub or the user's disk; its licence determines how the model may be used."
)
# Raised when opening or reading fails: a wrong name or configuration, no network, or no decoder.
FAILURES = (OSError, ValueError, RuntimeError, ImportError, DatasetsError)


@dataclass
class _Part:
    """One part of a dataset and how to read its columns."""

    data: Dataset | IterableDataset
    source: str  # name of the dataset
    name: str  # name of the part
    audio_column: str
    label_column: str
    distribution_columns: tuple[str, ...]  # which replace the label column
    number_columns: tuple[str, ...]
    speaker_column: str | None
    start_column: str | None
    end_column: str | None
    text_column: str | None
    words_column: str | None
    cache_dir: Path
    allow_outside: bool

    @property
    def columns(self) -> list[str]:
        labels = self.distribution_columns or (self.label_column,)
        times = (self.start_column, self.end_column, self.words_column)
        others = (self.speaker_column, *times, self.text_column, *self.number_columns)
        names = (self.audio_column, *labels, *others)
        return [name for name in names if name]

    @property
    def is_spoken(self) -> bool:
        return bool(self.text_column or self.words_column)

    def __str__(self) -> str:
        return printable(f"{self.source} ({self.name})")


def load(
    name: str,
    cache_dir: str | Path,
    audio_column: str = "audio",
    label_column: str = "label",
    speaker_column: str | None = None,
    start_column: str | None = None,
    end_column: str | None = None,
    text_column: str | None = None,
    words_column: str | None = None,
    config: str | None = None,
    split: str | None = None,
    streaming: bool = False,
    limit: int | None = None,
    allow_outside: bool = False,
    distribution_columns: list[str] | None = None,
    number_columns: Sequence[str] = (),
) -> Dataset:
    """Read the rows of a dataset.

    Args:
        name: Hub name, directory written by `save_to_disk`, or directory of parquet or CSV files.
        cache_dir: where embedded audio is written.
        audio_column, label_column, speaker_column: names of the columns; None for no speakers.
        start_column, end_column: names of the columns that say, in seconds, which part of its recording a row is; None
            starts at the beginning or ends at the end.
        text_column: name of the column of what is said; None reads no words.
        words_column: name of the column of lists of `word`, `start` and `end` in seconds of the utterance, or the same
            as JSON; where a row has them, they are its text. None reads none.
        config: the configuration, for a dataset with several.
        split: the only part to read; None reads all.
        streaming: read the rows one by one and store only the audio, instead of downloading the whole dataset first.
            A dataset written by `save_to_disk` is on disk already and is not streamed.
        limit: read at most this many rows of each part, from its beginning.
        distribution_columns: columns with the votes for each class; they replace the label column.
        number_columns: columns of numbers to read as well, such as valence.
        allow_outside: accept audio anywhere on this machine or on a server, not only in the dataset and its directory.

    Raises:
        InputError: the dataset cannot be opened or read, a column is missing, a row contains no audio or names audio
            outside while `allow_outside` is not set, or there are fewer than two labels.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} is not a number of rows: give 1 or more, or omit it to read all")
    rows: list[dict[str, Any]] = []
    order: list[str] = []
    for part_name, data in _open(name, config, split, streaming).items():
        classes = tuple(distribution_columns or ())
        columns = (audio_column, label_column, classes, tuple(number_columns), speaker_column, start_column, end_column)
        part = _Part(data, name, part_name, *columns, text_column, words_column, Path(cache_dir), allow_outside)
        part = _select_columns(part)
        if isinstance(part.data, IterableDataset):
            found = _read_stream(part, _journal(part, config), limit)
        else:
            found = _read(part, limit)
        rows += [{**row, "part": part_name} for row in found]
        order += _class_names(part)
    rows, labels = (rows, distribution_columns) if distribution_columns else _drop_unlabelled(rows, order, name)
    return make_rows(_add_split(_fill_speakers(rows, name, speaker_column), name), labels)


def _open(name: str, config: str | None, split: str | None, streaming: bool) -> dict[str, Dataset | IterableDataset]:
    """The parts of a dataset by their names."""
    directory = Path(name)
    saved = (directory / "dataset_dict.json").is_file() or (directory / "state.json").is_file()
    try:
        data = load_from_disk(name) if saved else load_dataset(name, config, split=split, streaming=streaming)
    except FAILURES as error:
        raise InputError(
            f"{name} cannot be opened as a dataset ({_reason(error)}); give a Hub name such as owner/name, a directory "
            "written by save_to_disk, or one of parquet or CSV files; for folders of audio use --corpus folder"
        ) from None
    if isinstance(data, DatasetDict | IterableDatasetDict):
        parts = {str(part_name): part for part_name, part in data.items()}
    else:
        parts = {str(split if split and not saved else data.split or "train"): data}
    if split is not None and split not in parts:
        raise InputError(f"{name} has no part {split!r}; it has {', '.join(parts)}")
    return parts if split is None else {split: parts[split]}


def _reason(error: Exception) -> str:
    """The first cause of an error on one line."""
    return " ".join(str(error.__cause__ or error).split())[:300]


def _select_columns(part: _Part) -> _Part:
    """Keep only the audio, label and speaker columns of a part, with the audio not decoded."""
    present = part.data.column_names
    if present is None:  # a stream of CSV lines knows its columns after the first line
        present = list(next(_iterate(part), {}))
    if len(set(part.columns)) < len(part.columns):
        raise InputError(f"{part}: columns {', '.join(part.columns)} must be different; it has {', '.join(present)}")
    for column in part.columns:
        if column not in present:
            raise InputError(f"{part} has no column {column!r}; it has {', '.join(present) or 'none'}")
    _warn_of_times(part, present)
    data = part.data.select_columns(part.columns)
    if isinstance(_feature(part, part.audio_column), Audio):
        data = data.cast_column(part.audio_column, Audio(decode=False))
    return replace(part, data=data)


def _warn_of_times(part: _Part, present: list[str]) -> None:
    """Name columns that may say which part of a recording a row is, if they are not used."""
    times = [column for column in present if column.lower() in TIME_COLUMNS]
    if has_time_columns(list(map(str.lower, times)), str(part)) and not (part.start_column or part.end_column):
        warn(
            f"{part}: the columns {', '.join(times)} are not used, so each row is a whole recording; if it is an "
            "excerpt, name them in hub_options as start_column and end_column"
        )


def _feature(part: _Part, column: str | None) -> Any:
    return (part.data.features or {}).get(column)


def _class_names(part: _Part) -> list[str]:
    feature = None if part.distribution_columns else _feature(part, part.label_column)
    return list(feature.names) if isinstance(feature, ClassLabel) else []


def _iterate(part: _Part) -> Iterator[dict[str, Any]]:
    try:
        yield from part.data
    except FAILURES as error:
        advice = "run it again to resume"
        if isinstance(error, ImportError):  # folders of audio: listing them needs a decoder
            advice = "for folders of audio use --corpus folder"
        raise InputError(f"{part}: reading failed ({_reason(error)}); {advice}") from None


def _read(part: _Part, limit: int | None) -> list[dict[str, str]]:
    total = len(part.data) if limit is None else min(limit, len(part.data))
    part = replace(part, data=part.data.select(range(total)))
    lines = enumerate(tqdm(_iterate(part), desc=str(part), total=total, unit=" rows", disable=None))
    return [_row(part, index, line) for index, line in lines]


def _journal(part: _Part, config: str | None) -> Path:
    """The journal of a stream. Its name depends on the library's cache directory, which is named after the state of
    the files (commit or modification time), so a changed dataset has a new journal."""
    try:
        state = load_dataset_builder(part.source, config).cache_dir
    except FAILURES as error:
        raise InputError(f"{part.source} cannot be opened as a dataset ({_reason(error)})") from None
    key = hashlib.sha256(json.dumps([state, part.name, part.columns, part.allow_outside]).encode()).hexdigest()
    return part.cache_dir / "streams" / f"{key[:32]}.jsonl"


def _read_stream(part: _Part, journal: Path, limit: int | None) -> list[dict[str, str]]:
    """Read the rows of a stream: those in the journal first, then the rest, each added to the journal when done."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{journal}.lock"):
        entries = _read_journal(journal)
        rows = [entry["row"] for entry in entries if "row" in entry]
        if len(rows) < len(entries) or (limit is not None and len(rows) >= limit):
            return rows[:limit]
        if rows:
            part.data.load_state_dict(entries[-1]["state"])
        lines = tqdm(_iterate(part), desc=str(part), initial=len(rows), unit=" rows", disable=None)
        with journal.open("a", encoding="utf-8") as file:
            for line in lines:
                rows.append(_row(part, len(rows), line))
                print(json.dumps({"row": rows[-1], "state": part.data.state_dict()}), file=file, flush=True)
                if len(rows) == limit:
                    return rows
            print(json.dumps({"end": len(rows)}), file=file)
    return rows


def _read_journal(journal: Path) -> list[dict[str, Any]]:
    """Read the entries of a journal; none if audio that it lists is gone. An incomplete last line is removed."""
    if not journal.is_file():
        return []
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    entries = [json.loads(line) for line in whole.splitlines()]
    if not all(Path(entry["row"]["audio"]).is_file() for entry in entries if "row" in entry):
        whole, entries = b"", []
    os.truncate(journal, len(whole))
    return entries


def _row(part: _Part, index: int, line: dict[str, Any]) -> dict[str, Any]:
    """One row: id, path of the audio, and label and speaker as words, empty if there is none; or the shares."""
    where = f"{part}, row {index + 1}"
    speaker = line[part.speaker_column] if part.speaker_column else None
    columns = {"start": part.start_column, "end": part.end_column}
    times = {name: _write_time(line[column]) for name, column in columns.items() if column}
    place = Place(part.source, part.cache_dir, part.allow_outside)
    row: dict[str, Any] = {
        "id": f"{part.name}-{index:06d}",
        "audio": find_audio(place, part.audio_column, line[part.audio_column], where),
        "speaker": _word(speaker, _feature(part, part.speaker_column), f"{where}, {part.speaker_column}"),
        **(read_times(times, where) if times else {}),
        **read_numbers(line, part.number_columns, where),
        **({"text": str((part.text_column and line[part.text_column]) or "")} if part.is_spoken else {}),
        **({"words": read_word_times(line[part.words_column], where)} if part.words_column else {}),
    }
    if part.distribution_columns:
        row["label_distribution"] = read_shares({name: line[name] for name in part.distribution_columns}, where)
        return {**row, "label": part.distribution_columns[find_majority(row["label_distribution"])]}
    label = _word(line[part.label_column], _feature(part, part.label_column), f"{where}, {part.label_column}")
    return {**row, "label": label}


def _write_time(value: Any) -> str:
    return "" if value is None or value != value else str(value)  # NaN marks an empty cell


def _word(value: Any, feature: Any, where: str) -> str:
    """A class or a speaker as a word."""
    if value is None or value == -1:
        return ""
    if isinstance(feature, ClassLabel) and isinstance(value, int):
        return feature.int2str(value)
    if isinstance(value, float) and value.is_integer():  # integers of a column with empty cells
        value = int(value)
    if not isinstance(value, str | int):
        raise InputError(f"{where}: {str(value)[:50]!r} is neither a word nor an integer; choose another column")
    return str(value).strip()


def _drop_unlabelled(rows: list[dict[str, Any]], order: list[str], name: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that have a label, and the labels, in the order of the dataset if it defines one, else sorted."""
    labelled = [row for row in rows if row["label"]]
    if len(labelled) < len(rows):
        warn(f"{name}: {len(rows) - len(labelled)} of {len(rows)} rows have no label and are dropped")
    labelled = [{**row, "label": normalize(row["label"])} for row in labelled]
    present = {row["label"] for row in labelled}
    if len(present) < 2:
        found = f"only the label {min(present)!r}" if present else "no label"
        raise InputError(
            f"{name}: {found} in {len(rows)} rows; at least two are needed: choose another column or read more rows"
        )
    labels = [word for word in dict.fromkeys(map(normalize, order)) if word in present]
    others = sort_labels(present - set(labels))
    if others and all(word.isdecimal() for word in others):
        warn(f"{name} has numbers without names as classes; they are called {', '.join(others)}")
    return labelled, labels + others


def _fill_speakers(rows: list[dict[str, Any]], name: str, speaker_column: str | None) -> list[dict[str, Any]]:
    unknown = sum(not row["speaker"] for row in rows)
    if unknown:
        what = (
            f"{speaker_column!r} is empty in {unknown} of {len(rows)} rows" if speaker_column else "no speaker column"
        )
        warn(f"{name}: {what}. The same voice can be in the training and the test data, so scores may be too high.")
    return [{**row, "speaker": row["speaker"] or UNKNOWN_SPEAKER + _name_recording(row)} for row in rows]


def _name_recording(row: dict[str, Any]) -> str:
    """What an unknown speaker is called: excerpts of one file may have the same speaker."""
    return Path(row["audio"]).name if "start" in row else row["id"]


def _add_split(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Turn the part of each row into `split` or `official_split`; drop it if there is only one part."""
    speakers: dict[str, set[str]] = {}
    meaning = find_parts({row["part"] for row in rows})
    for row in rows:
        row["part"] = meaning.get(row["part"], row["part"])
        speakers.setdefault(row["part"], set()).add(row["speaker"])
    column = "split"
    shared = sum(map(len, speakers.values())) - len(set().union(*speakers.values()))
    if len(speakers) > 1 and (shared or not {"train", "test"} <= set(speakers) <= {"train", "validation", "test"}):
        why = f"share {shared} speaker{'s' if shared > 1 else ''}" if shared else "are not train, validation and test"
        warn(f"{name}: its parts ({', '.join(speakers)}) {why}; they become official_split, which training ignores")
        column = "official_split"
    own = [{name: value for name, value in row.items() if name != "part"} for row in rows]
    return own if len(speakers) == 1 else [{**new, column: row["part"]} for new, row in zip(own, rows)]
