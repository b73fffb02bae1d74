"""Corpora as strangers give them to train.py: folders and CSV files. Part of studies/strangers.py."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from fields_ser_align import SAMPLING_RATE

LABELS = ("angry", "happy", "sad")
NUM_FILES = 27
Row = tuple[str, str, str]  # path, label, speaker


class Corpus(NamedTuple):
    """What a stranger gives, and the number of utterances per label that are right; None if nothing should train."""

    expected: dict[str, int] | None
    write: Callable[[Path, list[Row]], object]


INTACT = dict.fromkeys(LABELS, NUM_FILES // 3)


def write_voice(path: Path, seed: int, seconds: float = 0.3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * SAMPLING_RATE))
    soundfile.write(path, noise, SAMPLING_RATE)


# ------------------------------------------------------------------------------------------- CSV files


def join(rows: list[Row], separator: str = ",", header: str = "path,label,speaker") -> str:
    return "\n".join([header, *(separator.join(row) for row in rows)]) + "\n"


def table(change: Callable[[list[Row]], str | bytes], encoding: str = "utf-8") -> Callable[[Path, list[Row]], object]:
    """Write the voices and list.csv, whose text or bytes `change` makes of the rows."""

    def write(folder: Path, rows: list[Row]) -> None:
        for seed, (path, _, _) in enumerate(rows):
            write_voice(folder / path, seed)
        content = change(rows)
        (folder / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode(encoding))

    return write


def relabel(*labels: str) -> Callable[[Path, list[Row]], object]:
    """The table with other names of the labels."""
    return table(lambda rows: join([(path, labels[i % len(labels)], who) for i, (path, _, who) in enumerate(rows)]))


def split_as(*names: str) -> Callable[[list[Row]], str]:
    def change(rows: list[Row]) -> str:
        lines = [f"{','.join(row)},{names[index // 9]}" for index, row in enumerate(rows)]
        return "\n".join(["path,label,speaker,split", *lines])

    return change


def count(*labels: str) -> dict[str, int]:
    return {label: NUM_FILES // len(labels) for label in labels}


CSV_FILES = {
    "as documented": Corpus(INTACT, table(join)),
    "semicolons, as Excel writes in Europe": Corpus(INTACT, table(lambda rows: join(rows, ";", "path;label;speaker"))),
    "tabs": Corpus(INTACT, table(lambda rows: join(rows, "\t", "path\tlabel\tspeaker"))),
    "a byte order mark": Corpus(INTACT, table(join, "utf-8-sig")),
    "UTF-16": Corpus(INTACT, table(join, "utf-16")),
    "cp1252 with an umlaut": Corpus(None, table(lambda rows: join(rows).replace("angry", "wütend"), "cp1252")),
    "Windows line ends": Corpus(INTACT, table(lambda rows: join(rows).replace("\n", "\r\n"))),
    "capitals in the header": Corpus(INTACT, table(lambda rows: join(rows, header="Path,Label,Speaker"))),
    "blanks after the commas": Corpus(INTACT, table(lambda rows: join(rows, ", ", "path, label, speaker"))),
    "other names of the columns": Corpus(None, table(lambda rows: join(rows, header="file,emotion,speaker"))),
    "no header": Corpus(None, table(lambda rows: join(rows).partition("\n")[2])),
    "a column twice": Corpus(
        None,
        table(lambda rows: join([(p, f"{label},x", who) for p, label, who in rows], header="path,label,label,speaker")),
    ),
    "no line": Corpus(None, table(lambda rows: "")),
    "a header alone": Corpus(None, table(lambda rows: join([]))),
    "a workbook called .csv": Corpus(None, table(lambda rows: b"PK\3\4" + bytes(2000))),
    "a line of empty cells at the end": Corpus(INTACT, table(lambda rows: join(rows) + ",,\n")),
    "an unfinished line": Corpus(None, table(lambda rows: join(rows) + "27.wav\n")),
    "a quote that is not closed": Corpus(None, table(lambda rows: join(rows).replace("5.wav", '"5.wav', 1))),
    "a NUL byte in a path": Corpus(None, table(lambda rows: join(rows) + "a\0.wav,sad,s1\n")),
    "backslashes in the paths": Corpus(
        INTACT,
        lambda folder, rows: table(lambda rows: join([(p.replace("/", "\\"), *rest) for p, *rest in rows]))(  # type: ignore[misc]
            folder, [(f"sub/{path}", label, who) for path, label, who in rows]
        ),
    ),
    "paths of another computer": Corpus(None, table(lambda rows: join([(f"C:\\data\\{p}", *r) for p, *r in rows]))),  # type: ignore[misc]
    "a missing file": Corpus(None, table(lambda rows: join(rows) + "missing.wav,sad,s1\n")),
    "a file outside of the folder": Corpus(None, table(lambda rows: join(rows) + "../outside.wav,sad,s1\n")),
    "a line twice": Corpus(None, table(lambda rows: join(rows) + join(rows[:1], header="").lstrip())),
    "a file under two names and labels": Corpus(None, table(lambda rows: join(rows) + "./0.wav,sad,s0\n")),
    "one label": Corpus(None, relabel("angry")),
    "a label for each file": Corpus(None, relabel(*(f"c{number}" for number in range(NUM_FILES)))),
    "labels that differ in case": Corpus(None, relabel("angry", "Angry", "happy")),
    "a label with a line break": Corpus(None, relabel('"an\ngry"', "happy", "sad")),
    "labels nan, None and NA": Corpus(None, relabel("nan", "None", "NA")),
    "an empty label": Corpus(None, relabel("", "happy", "sad")),
    "a label of 5000 letters": Corpus(count("a" * 5000, "happy", "sad"), relabel("a" * 5000, "happy", "sad")),
    "labels that look like paths and formats": Corpus(
        count("../../etc", "100% {x} %s", "a/b"), relabel("../../etc", "100% {x} %s", "a/b")
    ),
    "one speaker": Corpus(None, table(lambda rows: join([(path, label, "x") for path, label, _ in rows]))),
    "no speakers": Corpus(None, table(lambda rows: join([row[:2] for row in rows], header="path,label"))),  # type: ignore[misc]
    "its own split": Corpus(INTACT, table(split_as("train", "validation", "test"))),
    "its own split, in other words": Corpus(INTACT, table(split_as("Train", "dev", "TEST"))),
    "a split that shares speakers": Corpus(
        None,
        table(lambda rows: split_as("train", "validation", "test")([(path, label, "x") for path, label, _ in rows])),
    ),
    "start and end of segments": Corpus(
        INTACT,
        table(
            lambda rows: join([(*row[:2], f"{row[2]},0,0.1") for row in rows], header="path,label,speaker,start,end")
        ),
    ),
    "genders m and f": Corpus(
        INTACT,
        table(lambda rows: join([(*row[:2], f"{row[2]},m") for row in rows], header="path,label,speaker,gender")),
    ),
}

# --------------------------------------------------------------------------------------------- folders


def folders(
    name: Callable[[Row], str], also: Callable[[Path], object] = lambda folder: None
) -> Callable[[Path, list[Row]], object]:
    """Write each voice where `name` says, and what else there is."""

    def write(folder: Path, rows: list[Row]) -> None:
        for seed, row in enumerate(rows):
            write_voice(folder / name(row), seed)
        also(folder)

    return write


def by_label(row: Row) -> str:
    return f"{row[1]}/{row[0]}"


def link_label(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "sad").rename(folder.parent / "elsewhere" / "sad")
    (folder / "sad").symlink_to(folder.parent / "elsewhere" / "sad")


FOLDERS = {
    "as documented": Corpus(INTACT, folders(by_label)),
    "train, val and test above the labels": Corpus(
        INTACT, folders(lambda row: f"{('train', 'val', 'test')[int(row[0][:-4]) % 27 // 9]}/{by_label(row)}")
    ),
    "speakers above the labels": Corpus(None, folders(lambda row: f"{row[2]}/{by_label(row)}")),
    "speakers below the labels": Corpus(INTACT, folders(lambda row: f"{row[1]}/{row[2]}/{row[0]}")),
    "no folders": Corpus(None, folders(lambda row: row[0])),
    "one folder": Corpus(None, folders(lambda row: f"angry/{row[0]}")),
    "nothing": Corpus(None, lambda folder, rows: folder.mkdir(parents=True)),
    "an empty folder for a label": Corpus(INTACT, folders(by_label, lambda folder: (folder / "calm").mkdir())),
    "labels that differ in case": Corpus(None, folders(lambda row: by_label(row).replace("happy", "Angry"))),
    "a label in two Unicode forms": Corpus(
        {"g\u00eane": 18, "sad": 9},
        folders(lambda row: by_label(row).replace("angry", "g\u00eane").replace("happy", "ge\u0302ne")),
    ),
    "names with blanks, emoji and line breaks": Corpus(
        count("very\u00a0angry \U0001f620", "happy", "sad"),
        folders(lambda row: by_label(row).replace("angry", "very\u00a0angry \U0001f620").replace("/", "/\n [x]*")),
    ),
    "a linked folder": Corpus(INTACT, folders(by_label, link_label)),
    "a file that is not audio": Corpus(
        None, folders(by_label, lambda folder: (folder / "sad" / "bad.wav").write_text("no audio"))
    ),
    "notes and hidden files of a Mac": Corpus(
        INTACT,
        folders(
            by_label,
            lambda folder: [(folder / "sad" / n).write_bytes(b"x") for n in ("._0.wav", ".DS_Store", "n.txt")],
        ),
    ),
    "a silent file": Corpus(
        None, folders(by_label, lambda folder: soundfile.write(folder / "sad" / "s.wav", np.zeros(4800), SAMPLING_RATE))
    ),
    "a file of 5 ms": Corpus(None, folders(by_label, lambda folder: write_voice(folder / "sad" / "s.wav", 1, 0.005))),
    "another label with one file": Corpus(
        None, folders(by_label, lambda folder: write_voice(folder / "calm" / "one.wav", 99))
    ),
    "a CSV file instead of a folder": Corpus(None, lambda folder, rows: table(join)(folder.parent / "x", rows)),
}


def list_rows() -> list[Row]:
    """27 recordings of three labels by nine speakers."""
    return [(f"{index}.wav", LABELS[index % 3], f"s{index // 3}") for index in range(NUM_FILES)]
