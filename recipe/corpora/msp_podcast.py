"""MSP-Podcast: 264,705 speaking turns, about 409 hours (release 2.0), 10 classes, natural English from podcasts.

Classes: angry, sad, happy, surprised, fearful, disgust, contempt, neutral, other, and no_agreement if no class has
the most votes. At least five crowd annotators rated each turn. `label_distribution` contains their votes; `valence`,
`arousal` (which MSP-Podcast calls activation) and `dominance` are their mean ratings from 1 to 7. Each release adds,
removes and relabels turns (1.11: 151,654 turns, 1.12: 207,136), so the reader does not check counts; instead, every
turn in the label list must have a file.

The published parts Train, Development and Test1 become the column `split` (train, validation, test). Test2 and Test3
are ignored: test sets may share speakers, Test2 was drawn at random while the others were retrieved for emotional
content, and the labels of Test3 are withheld. Turns of unknown speakers, which occur in Train, each count as a
separate speaker.

Where: https://lab-msp.com/MSP/MSP-Podcast.html, for research, after signing an agreement. Give the directory that
contains Labels and Audios, both unpacked (16 kHz WAV). If Transcripts is unpacked too, it provides the text.

Citation: Lotfian R, Busso C (2019). Building Naturalistic Emotionally Balanced Speech Corpus by Retrieving
Emotional Speech From Existing Podcast Recordings. IEEE Transactions on Affective Computing 10(4).
https://doi.org/10.1109/TAFFC.2017.2736999; Busso C and others (2025). The MSP-Podcast Corpus.
https://arxiv.org/abs/2509.09791
"""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import UNKNOWN_SPEAKER, find_audio_files, make_rows, report_differences

LICENSE = "other"
DESCRIPTION = (
    "MSP-Podcast (Lotfian and Busso 2019, Busso et al. 2025, https://lab-msp.com/MSP/MSP-Podcast.html, under a "
    "signed agreement, for research): natural English speech from podcasts, labelled by crowd "
    "annotators. Expect lower accuracy on other languages, on children and on acted or noisy speech."
)
CLASSES = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprised",
    "F": "fearful",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": "no_agreement",
}
LABELS = list(CLASSES.values())
PUBLISHED_COUNTS: dict[str, int] = {}  # they differ between releases

# The annotators' words; all others, such as "Other-Curious", mean other.
VOTES = {
    "angry": "angry",
    "sad": "sad",
    "happy": "happy",
    "surprise": "surprised",
    "fear": "fearful",
    "disgust": "disgust",
    "contempt": "contempt",
    "neutral": "neutral",
}
SPLITS = {"Train": "train", "Development": "validation", "Validation": "validation", "Test1": "test"}
IGNORED_SPLITS = ("Test2", "Test3")
DIMENSIONS = {"valence": "EmoVal", "arousal": "EmoAct", "dominance": "EmoDom"}
COLUMNS = ("FileName", "EmoClass", *DIMENSIONS.values(), "SpkrID", "Gender", "Split_Set")
# The first releases misspell the name.
CONSENSUS = ("labels_consensus.csv", "labels_concensus.csv")
VOTES_FILE = "labels_detailed.csv"


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the parts Train, Development and Test1 from the directory that contains Labels and Audios.

    Raises:
        InputError: the label list or the audio is missing, a line of a list cannot be read, or files of turns are
            missing and `partial` is not set.
    """
    root, table = _find(Path(data_dir))
    listed = [row for line, where in _lines(table, COLUMNS) if (row := _row(line, where)) is not None]
    folder = root / "Audios" if (root / "Audios").is_dir() else root / "Audio"
    files = {path.stem: path for path in find_audio_files(folder)}
    if not files:
        raise InputError(f"{folder} contains no audio; unpack Audios there")
    missing = [f"{folder.name}/{row['id']}.wav is missing" for row in listed if row["id"] not in files]
    report_differences("MSP-Podcast", data_dir, missing, partial)
    votes = _read_votes(table.parent / VOTES_FILE)
    rows = [
        {
            **row,
            "audio": files[row["id"]],
            "text": _read_text(root / "Transcripts" / f"{row['id']}.txt"),
            "label_distribution": _distribution(votes.get(row["id"], Counter())),
        }
        for row in listed
        if row["id"] in files
    ]
    return make_rows(rows, LABELS)


def _find(data_dir: Path) -> tuple[Path, Path]:
    """Find the root of the corpus and its label list, given the root, the directory above it or Labels itself."""
    above = sorted(path for path in data_dir.iterdir() if path.is_dir()) if data_dir.is_dir() else []
    for root in (data_dir, data_dir.parent, *above):
        for name in CONSENSUS:
            if (root / "Labels" / name).is_file():
                return root, root / "Labels" / name
    raise InputError(
        f"{data_dir} contains no MSP-Podcast; looked for Labels/{CONSENSUS[0]} in it: give the directory that contains "
        "Labels and Audios, both unpacked"
    )


def _lines(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], str]]:
    """The lines of a table and their places in messages, after checking that the table has these columns."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        for name in columns:
            if name not in (reader.fieldnames or []):
                found = ", ".join(reader.fieldnames or []) or "none"
                raise InputError(f"{path} has no column {name!r}; it has {found}: take the published file")
        for line in reader:
            yield line, f"{path}, line {reader.line_num}"


def _row(line: dict[str, Any], where: str) -> dict[str, Any] | None:
    """A line of the label list as a row without audio, text and votes; None for the ignored test sets."""
    values = {name: (line[name] or "").strip() for name in COLUMNS}
    if values["Split_Set"] in IGNORED_SPLITS:
        return None
    if values["Split_Set"] not in SPLITS:
        valid = ", ".join([*SPLITS, *IGNORED_SPLITS])
        raise InputError(f"{where}: Split_Set={values['Split_Set']!r} is not one of {valid}")
    if values["EmoClass"] not in CLASSES:
        raise InputError(f"{where}: EmoClass={values['EmoClass']!r} is not one of {', '.join(CLASSES)}")
    utterance = Path(values["FileName"]).stem
    unknown = values["SpkrID"].lower() in ("", "unknown")
    return {
        "id": utterance,
        "audio": None,
        "label": CLASSES[values["EmoClass"]],
        "speaker": UNKNOWN_SPEAKER + utterance if unknown else values["SpkrID"],
        "gender": values["Gender"].lower() if values["Gender"].lower() in ("female", "male") else "",
        "split": SPLITS[values["Split_Set"]],
        **{name: _rating(values[column], column, where) for name, column in DIMENSIONS.items()},
    }


def _rating(value: str, column: str, where: str) -> float | None:
    if not value:
        return None
    try:
        rating = float(value)
    except ValueError:
        rating = math.nan
    if not 1 <= rating <= 7:
        raise InputError(f"{where}: {column}={value!r} is not a number from 1 to 7")
    return rating


def _read_votes(path: Path) -> dict[str, Counter[str]]:
    """Count the votes for each label of each turn; nothing if the table is missing.

    Two layouts were published: a column EmoClass_Major, or a single column such as
    `WORKER00000001; Neutral; Neutral,Confused; A:1.000000; V:4.000000; D:1.000000;`.
    """
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    if not path.is_file():
        return votes
    for line, where in _lines(path, ("FileName",)):
        if "EmoClass_Major" in line:
            word = line["EmoClass_Major"] or ""
        else:
            fields = next((value for name, value in line.items() if name != "FileName" and value), "")
            _, _, word = str(fields).partition(";")
            word = word.partition(";")[0]
        if not word.strip():
            raise InputError(f"{where}: no emotion found; expected 'WORKER...; Neutral; ...' or EmoClass_Major")
        votes[Path(line["FileName"]).stem][VOTES.get(word.strip().lower(), "other")] += 1
    return votes


def _distribution(votes: Counter[str]) -> list[float]:
    total = votes.total()
    return [votes[label] / total for label in LABELS] if total else []


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig", errors="replace").strip() if path.is_file() else ""
