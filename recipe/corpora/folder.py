"""Your own recordings: one folder per label, or a CSV file.

With folders, the label is the folder's name: `DATA_DIR/angry/a.wav`, `DATA_DIR/happy/b.flac`. Folders named train, dev
and test (or training, val, validation, valid, eval; in any case) above or below the labels are the parts of a split:
`DATA_DIR/train/angry/a.wav` or `DATA_DIR/angry/train/a.wav`. `eval` is validation data beside a test folder, and test
data otherwise; without a validation folder, training data are held out. Any other nesting is refused.

A CSV file has the columns `path` (relative to the CSV's directory or to --data_dir) and `label`, and optionally
`speaker`, `split` (train, validation, test, or the names above), `gender` and `id`. With `start` and `end` (or `offset`
and `duration`), in seconds, an utterance is this excerpt of its file. Paths and links that lead out of the directory
are refused unless --allow_outside_paths is given.

With `--targets distribution`, a CSV file has one column for each class, with votes or shares, which are divided by
their sum: the columns that are named like its labels, or those of `--distribution_columns`, which need no `label`.

With `--targets dimensions`, a CSV file has the columns of `--dimensions`, such as `valence` and `arousal`, with
numbers; it needs no `label`. Utterances with an empty cell are dropped.

Name the speakers if you know them. Otherwise, the same voice can be in the training and the test data, and scores
are too high.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from datasets import Dataset

from core.audio import AUDIO_SUFFIXES
from core.errors import InputError, warn
from recipe.corpora.excerpts import TIME_COLUMNS, has_time_columns, name_excerpt, read_times
from recipe.corpora.numbers import read_numbers
from recipe.corpora.rows import (
    UNKNOWN_SPEAKER,
    find_audio_files,
    find_parts,
    make_rows,
    normalize,
    read_excerpts,
    refuse_outside,
    sort_labels,
)
from recipe.corpora.shares import find_majority, read_shares
from recipe.corpora.words import read_word_times

LICENSE = "other"
DESCRIPTION = "The recordings are the user's own; their licence decides how the model may be used."
MISSING = ("nan", "none", "null", "na", "n/a")  # what pandas and spreadsheets write for no value, in lower case
UNLABELLED = "unlabelled"
COLUMNS = ("path", "label", "speaker", "split", "gender", "id", "text", "words")
LAYOUTS = (
    "DIR/angry/a.wav and, with the parts of a split, DIR/train/angry/a.wav; for anything else, list the files in a CSV "
    "with the columns path, label and speaker"
)


def load(data_dir: str | Path, allow_outside: bool = False) -> Dataset:
    """Read a directory with one folder for each label; folders for train, validation and test may lie around them.

    Raises:
        InputError: the directory is missing, its folders do not tell the labels, there are fewer than two, or it links
            to audio elsewhere and `allow_outside` is not set.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise InputError(f"{data_dir} is not a directory; give one that contains one folder of audio per label")
    folders = {}
    for path in find_audio_files(root):
        place = path.relative_to(root).parent.parts
        if not any(name.startswith(".") for name in place):
            folders[path] = place
            if not allow_outside:
                refuse_outside(path, [root], str(data_dir))
    loose = [path for path, place in folders.items() if not place]
    if loose:
        warn(f"{loose[0]} is not in a label folder and is ignored ({len(loose)} such files)")
    meaning = _find_meaning({place for place in folders.values() if place}, root)
    rows = [
        {"file": path.relative_to(root).as_posix(), "audio": path, **meaning[place]}
        for path, place in folders.items()
        if place
    ]
    return _make_rows(_use_parts(rows, root), str(data_dir))


def _find_meaning(places: set[tuple[str, ...]], root: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """The label of the files in each folder, and its part if there are parts.

    Raises:
        InputError: the order of the folders does not tell the labels.
    """
    outer, inner = {place[0] for place in places}, {place[1] for place in places if len(place) > 1}
    is_deep = all(len(place) > 1 for place in places)
    if is_deep and set(find_parts(inner)) == inner:
        return {place: {"label": place[0], "split": place[1]} for place in places}
    if is_deep and set(find_parts(outer)) == outer:
        _refuse_nesting({place[1:] for place in places}, root)
        return {place: {"label": place[1], "split": place[0]} for place in places}
    parts = sorted(find_parts(outer | inner))
    if parts:
        raise InputError(
            f"{root}: {parts[0]} names a part of a split, but not every file is in a part and in a label; use {LAYOUTS}"
        )
    _refuse_nesting(places, root)
    return {place: {"label": place[0]} for place in places}


def _refuse_nesting(places: set[tuple[str, ...]], root: Path) -> None:
    """Raise InputError where a folder that should be a label's holds no audio, but folders that do.

    In `DIR/anna/angry/a.wav`, either could be the label.
    """
    for place in sorted(places):
        if place[:1] not in places:
            raise InputError(
                f"{root}: either {place[0]} or {place[1]} could be the label of the audio in {'/'.join(place)}; use "
                f"{LAYOUTS}"
            )


def _use_parts(rows: list[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """Rows with `split` as train, validation or test, or without it where there is nothing but training data.

    Raises:
        InputError: a part is missing, or has two names.
    """
    if not rows or "split" not in rows[0]:
        return rows
    meaning = find_parts({row["split"] for row in rows})
    for part in set(meaning.values()):
        names = sorted({name.lower() for name in meaning if meaning[name] == part})
        if len(names) > 1:
            raise InputError(f"{root}: {' and '.join(names)} both name the {part} part: put the files into one of them")
    there = ", ".join(sorted(meaning))
    if set(meaning.values()) == {"train"}:
        warn(f"{root} contains only the part {there}, so --protocol and --fold define the split")
        return [{name: value for name, value in row.items() if name != "split"} for row in rows]
    for part, advice in (("train", "name it train"), ("test", "name it test; validation data are then held out")):
        if part not in meaning.values():
            raise InputError(f"{root} has the parts {there} and no {part} part: add it, or if it is there, {advice}")
    return [{**row, "split": meaning[row["split"]]} for row in rows]


def load_csv(
    csv_path: str | Path,
    root: str | Path,
    allow_outside: bool = False,
    classes: list[str] | None = None,
    numbers: Sequence[str] = (),
    needs_labels: bool = True,
) -> Dataset:
    """Read a CSV file; relative paths start at `root`.

    Args:
        classes: read `label_distribution` from the columns with these names or, of an empty list, from those that are
            named like the labels; None reads labels alone.
        numbers: columns of numbers to read as well, such as valence; None where a cell is empty.
        needs_labels: whether the column `label` must be there; without it, all labels are `UNLABELLED`.

    Raises:
        InputError: the file or a column is missing, a line is incomplete, a path leads out of `root` and
            `allow_outside` is not set, or an excerpt is not within its file; the message names the line or the file.
    """
    columns = {name: name.strip().lower() for name in numbers}
    required = ("path", *columns.values(), *(() if classes or not needs_labels else ("label",)))
    lines = _read_lines(csv_path, required)
    header = set().union(*(values for _, values in lines))
    has_times = has_time_columns(header, str(csv_path))
    votes = {} if classes is None else _find_vote_columns(classes, lines, header, str(csv_path))
    read = {*COLUMNS, *(TIME_COLUMNS if has_times else ()), *votes.values(), *columns.values()}
    _warn_of_unread(header - read, str(csv_path))
    splits = find_parts({values.get("split", "") for _, values in lines})
    rows = []
    for where, values in lines:
        cells: dict[str, Any] = {name: values[name] for name in COLUMNS if name in values}
        if votes:
            cells["label_distribution"] = read_shares({name: values[column] for name, column in votes.items()}, where)
            cells.setdefault("label", list(votes)[find_majority(cells["label_distribution"])])
        if not needs_labels:
            cells.setdefault("label", UNLABELLED)
        _check_cells(cells, splits, where)
        cells |= read_numbers({name: values[column] for name, column in columns.items()}, list(columns), where)
        if "words" in cells:
            cells |= {"text": cells.get("text", ""), "words": read_word_times(cells["words"], where)}
        audio = Path(root) / cells["path"]
        if not allow_outside:
            refuse_outside(audio, [Path(root)], where)
        times = read_times(values, where) if has_times else {}
        rows.append({"audio": audio, "file": cells.pop("path"), **cells, **times})
        if "split" in cells:
            rows[-1]["split"] = splits[cells["split"]]
    _shorten_absolute_paths(rows)
    return _make_rows(rows, str(csv_path), list(votes), fewest=2 if needs_labels else 1)


def _find_vote_columns(
    classes: list[str], lines: list[tuple[str, dict[str, str]]], header: set[str], where: str
) -> dict[str, str]:
    """The column with the votes for each class, in the order of the classes.

    Raises:
        InputError: there is none, or two classes have one column.
    """
    names = classes or sort_labels(normalize(values["label"]) for _, values in lines)
    columns = {normalize(name.strip()): name.strip().lower() for name in names}
    for name, column in columns.items():
        if column not in header - set(COLUMNS):
            raise InputError(
                f"{where} has no column {name!r} with the votes for this class: add it, or name the columns with "
                "--distribution_columns"
            )
    if len({*columns.values()}) < len(names) or len(names) < 2:
        raise InputError(f"{where}: the columns {', '.join(names)} are not two different classes or more: name others")
    if classes and "label" in header and (other := sorted({values["label"] for _, values in lines} - set(columns))):
        raise InputError(f"{where} has the label {other[0]!r}, but no such column of votes: add it, or remove label")
    return columns


def _read_lines(csv_path: str | Path, required: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """Each line's place in messages and its cells by the names of the columns, in lower case."""
    if not Path(csv_path).is_file():
        raise InputError(f"{csv_path}: no such CSV file")
    try:
        text = Path(csv_path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{csv_path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"{csv_path} is not text, such as a workbook under another name: export it as CSV")
    reader = csv.DictReader(StringIO(text, newline=""), restval="", strict=True, skipinitialspace=True)
    header = [name.strip().lower() for name in reader.fieldnames or []]
    if len(header) == 1 and re.search(r"[;\t|]", header[0]):
        raise InputError(f"{csv_path} separates its columns with {header[0]!r}: separate them with commas")
    for name in required:
        if name not in header:
            raise InputError(f"{csv_path} has no column {name!r}; it has {', '.join(header) or 'none'}")
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise InputError(f"{csv_path} has {twice[0]!r} more than once: remove one of these columns")
    reader.fieldnames = header
    lines = []
    for line in _read_strictly(reader, csv_path):
        where = f"{csv_path}, line {reader.line_num}"
        if None in line:  # the reader's name for what is beyond the header
            raise InputError(f"{where} has more cells than the header: put quotes around a cell that holds a comma")
        lines.append((where, {name: cell.strip() for name, cell in line.items() if name}))
    return lines


def _read_strictly(reader: csv.DictReader, csv_path: str | Path) -> Iterator[dict[str, Any]]:
    last = reader.line_num
    try:
        for line in reader:
            yield line
            last = reader.line_num
    except csv.Error as error:
        raise InputError(
            f"{csv_path}, line {last + 1}: {error}: close the quotes of each cell, and double those in it"
        ) from None


def _warn_of_unread(names: set[str], where: str) -> None:
    if names:
        warn(f"{where}: unused column{'s' if len(names) > 1 else ''}: {', '.join(sorted(names))}")


def _check_cells(cells: dict[str, str], splits: dict[str, str], where: str) -> None:
    empty = [name for name, value in cells.items() if not value and name not in ("gender", "text", "words")]
    if empty:
        raise InputError(f"{where}: {empty[0]} is empty; fill it in")
    if cells["label"].lower().endswith(AUDIO_SUFFIXES) and not cells["path"].lower().endswith(AUDIO_SUFFIXES):
        raise InputError(
            f"{where}: the label {cells['label']!r} is the name of an audio file, and the path {cells['path']!r} is "
            "not: swap the columns path and label"
        )
    if "split" in cells and cells["split"] not in splits:
        raise InputError(f"{where}: split={cells['split']!r} is not one of train, validation, test")
    if cells.get("gender", "") not in ("", "female", "male"):
        raise InputError(f"{where}: gender={cells['gender']!r} is not female, male or empty")


def _shorten_absolute_paths(rows: list[dict[str, Any]]) -> None:
    """Shorten absolute paths, which would publish the directories of this machine as ids in predictions."""
    absolute = [row for row in rows if Path(row["file"]).is_absolute()]
    if absolute:
        common = os.path.commonpath([Path(row["file"]).parent for row in absolute])
        for row in absolute:
            row["file"] = Path(row["file"]).relative_to(common).as_posix()


def _make_rows(rows: list[dict[str, Any]], source: str, classes: list[str] | None = None, fewest: int = 2) -> Dataset:
    """Rows that know the name of their `file`; each recording of an unknown speaker counts as a speaker."""
    labels = classes or sort_labels(normalize(row["label"]) for row in rows)
    if len(labels) < fewest:
        found = f"only the label {labels[0]!r}" if labels else "no audio"
        raise InputError(
            f"{source} contains {found}; at least two labels are needed, with one folder of audio per label"
        )
    broken = [label for label in labels if len(label.splitlines()) > 1]
    if broken:
        raise InputError(f"{source} has the label {broken[0]!r} with a line break: remove it")
    missing = [label for label in labels if label.lower() in MISSING]
    if missing:
        warn(
            f"{source} has the label {missing[0]!r}, which often stands for a missing value and is trained as a class: "
            "if it is not a label, remove these utterances"
        )
    _check_speakers(rows, source)
    if "speaker" not in rows[0]:
        warn(
            f"{source} names no speakers. The same voice can be in the training and the test data, so scores may be "
            "too high; a CSV with a speaker column prevents that."
        )
    named = []
    for row in rows:
        file = row["file"]
        defaults = {"id": name_excerpt(file, row.get("start"), row.get("end")), "speaker": UNKNOWN_SPEAKER + file}
        named.append({**defaults, **{name: value for name, value in row.items() if name != "file"}})
    made = make_rows(named, labels)
    _refuse_repeats(made, source)
    return made


def _check_speakers(rows: list[dict[str, Any]], source: str) -> None:
    speakers = {row["speaker"] for row in rows if "speaker" in row}
    missing = sorted(speaker for speaker in speakers if speaker.lower() in (*MISSING, "unknown"))
    if missing:
        warn(
            f"{source} has the speaker {missing[0]!r}, whose utterances are taken as one person's: if they are several "
            "people's, whose voices may also be in other sets, name the speakers or remove these utterances"
        )
    genders: dict[str, str] = {}
    for row in rows:
        speaker, gender = row.get("speaker"), row.get("gender")
        if speaker and gender and genders.setdefault(speaker, gender) != gender:
            raise InputError(f"{source}: speaker {speaker!r} is both female and male: correct the column gender")


def _refuse_repeats(rows: Dataset, source: str) -> None:
    """Raise InputError for a recording that is there twice, under one label or two."""
    names = rows.features["label"].names
    first: dict[tuple, int] = {}
    for index, (place, label) in enumerate(zip(read_excerpts(rows[:]), rows["label"][:])):
        key = (os.path.realpath(place.path), place.start, place.end)
        if key in first:
            other = names[rows["label"][first[key]]]
            what = "listed twice" if other == names[label] else f"labelled both {other!r} and {names[label]!r}"
            raise InputError(f"{source}: {place} is {what}: keep one of them")
        first[key] = index
