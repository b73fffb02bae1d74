"""Your own recordings: one folder per label, or a CSV file.

With folders, the label is the folder's name: `DATA_DIR/angry/a.wav`, `DATA_DIR/happy/b.flac`. A CSV file has the
columns `path` (relative to the CSV's directory or to --data_dir) and `label`, and optionally `speaker`, `split`
(train, validation, test), `gender` and `id`. Paths and links that lead out of the directory are refused unless
--allow_outside_paths is given.

Name the speakers if you know them. Otherwise, the same voice can be in the training and the test data, and scores
are too high.
"""

import csv
import os
from io import StringIO
from pathlib import Path

from datasets import Dataset

from core.audio import AUDIO_SUFFIXES
from core.errors import InputError, warn
from recipe.corpora.rows import UNKNOWN_SPEAKER, find_audio_files, make_rows, refuse_outside

LICENSE = "other"
DESCRIPTION = "The recordings are the user's own; their licence decides how the model may be used."
COLUMNS = ("path", "label", "speaker", "split", "gender", "id")
SPLITS = ("train", "validation", "test")


def load(data_dir: str | Path, allow_outside: bool = False) -> Dataset:
    """Read a directory with one folder for each label.

    Raises:
        InputError: the directory is missing, contains audio in fewer than two folders, or links to audio elsewhere
            and `allow_outside` is not set.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise InputError(f"{data_dir} is not a directory; give one that contains one folder of audio per label")
    rows = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for path in find_audio_files(folder, AUDIO_SUFFIXES):
            if not allow_outside:
                refuse_outside(path, [root], str(data_dir))
            rows.append({"id": path.relative_to(root).as_posix(), "audio": path, "label": folder.name})
    return _make_rows(rows, str(data_dir))


def load_csv(csv_path: str | Path, root: str | Path, allow_outside: bool = False) -> Dataset:
    """Read a CSV file; relative paths start at `root`.

    Raises:
        InputError: the file or a column is missing, a line is incomplete, or its path leads out of `root` and
            `allow_outside` is not set; the message names the line.
    """
    if not Path(csv_path).is_file():
        raise InputError(f"{csv_path}: no such CSV file")
    try:
        text = Path(csv_path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{csv_path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    with StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        for name in ("path", "label"):
            if name not in header:
                raise InputError(f"{csv_path} has no column {name!r}; it has {', '.join(header) or 'none'}")
        rows = []
        for line in reader:
            values = {name: (line.get(name) or "").strip() for name in COLUMNS if name in header}
            empty = [name for name, value in values.items() if not value and name != "gender"]
            if empty:
                raise InputError(f"{csv_path}, line {reader.line_num}: {empty[0]} is empty; fill it in")
            if values.get("split", "train") not in SPLITS:
                raise InputError(
                    f"{csv_path}, line {reader.line_num}: split={values['split']!r} is not one of {', '.join(SPLITS)}"
                )
            if values.get("gender", "") not in ("", "female", "male"):
                raise InputError(
                    f"{csv_path}, line {reader.line_num}: gender={values['gender']!r} is not female, male or empty"
                )
            audio = Path(root) / values["path"]
            if not allow_outside:
                refuse_outside(audio, [Path(root)], f"{csv_path}, line {reader.line_num}")
            rows.append({"audio": audio, "id": values.pop("path"), **values})
    _shorten_absolute_ids(rows)
    return _make_rows(rows, str(csv_path))


def _shorten_absolute_ids(rows: list[dict]) -> None:
    """Shorten absolute paths, which would publish the directories of this machine as ids in predictions."""
    absolute = [row for row in rows if Path(row["id"]).is_absolute()]
    if absolute:
        common = os.path.commonpath([Path(row["id"]).parent for row in absolute])
        for row in absolute:
            row["id"] = Path(row["id"]).relative_to(common).as_posix()


def _make_rows(rows: list[dict], source: str) -> Dataset:
    labels = sorted({row["label"] for row in rows})
    if len(labels) < 2:
        found = f"only the label {labels[0]!r}" if labels else "no audio"
        raise InputError(
            f"{source} contains {found}; at least two labels are needed, with one folder of audio per label"
        )
    if "speaker" not in rows[0]:
        warn(
            f"{source} names no speakers. The same voice can be in the training and the test data, so scores may be "
            "too high; a CSV with a speaker column prevents that."
        )
        for row in rows:
            row["speaker"] = UNKNOWN_SPEAKER + row["id"]
    return make_rows(rows, labels)
