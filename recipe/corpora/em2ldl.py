"""EM2LDL: 3,998 utterances, 4.0 hours, 231 speakers, distributions over 32 emotions.

Code-switching speech from online platforms: Cantonese and English (`language` ce), Mandarin and English (me), Mandarin
and Cantonese (mc). Twenty raters chose emotions of Plutchik's wheel. `label_distribution` contains their shares, 9.25
emotions an utterance on average; the label is the emotion with the largest share, the first in the order of the wheel
if several tie. `--targets distribution` trains on the shares. Further columns, as the table gives them: `gender`,
`age_class` (Youth, Non-Youth), and of the speaker's four-letter personality type `mbti_single` (i, e) and `mbti_double`
(in, is, en, es); `none` marks an unknown type.

The published split shares speakers (speaker12 has 26 training, 329 validation and 509 test utterances), so it is not
read: speakers are split by --protocol.

Where: https://github.com/xingfengli/EM2LDL has the table, labels/labels_distributions_Info.csv; the audio is sent by
the authors on request. Give a directory that contains both; the name of an audio file begins with its AudioID, such as
0001_intj_ce.WAV or 1.wav. Licence: research agreement with the authors.

Citation: Li X et al. (2025). EM2LDL: A Multilingual Speech Corpus for Mixed Emotion Recognition through Label
Distribution Learning. arXiv 2511.20106. https://arxiv.org/abs/2511.20106
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import find_audio_files, make_rows, report_differences
from recipe.corpora.shares import find_majority, read_shares

LICENSE = "other"
DESCRIPTION = (
    "EM2LDL (Li et al. 2025, https://arxiv.org/abs/2511.20106, by agreement with the authors): code-switching "
    "Cantonese, Mandarin and English from online platforms, rated by twenty listeners over 32 emotions. Expect lower "
    "accuracy on other languages and on noisy recordings."
)
LABELS = [
    *("ecstasy", "joy", "serenity", "love", "admiration", "trust", "acceptance", "submission"),
    *("terror", "fear", "apprehension", "awe", "amazement", "surprise", "distraction", "disapproval"),
    *("grief", "sadness", "pensiveness", "remorse", "loathing", "disgust", "boredom", "contempt"),
    *("rage", "anger", "annoyance", "aggressiveness", "vigilance", "anticipation", "interest", "optimism"),
]
PUBLISHED_COUNT = 3998
TABLE = "labels_distributions_Info.csv"
MISSPELT = {"ecstacy": "ecstasy", "aggresiveness": "aggressiveness"}  # in the header of the published table
COLUMNS = {"ageClass": "age_class", "mbtiSingle": "mbti_single", "mbtiDouble": "mbti_double", "lang": "language"}
REQUIRED = ("AudioID", *LABELS, "speaker ID", "gender", *COLUMNS)


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that contains the table and the audio, at any depth.

    Raises:
        InputError: the table or the audio is missing, a line of the table cannot be read, two files have one number,
            or utterances are missing and `partial` is not set.
    """
    table = next(iter(sorted(Path(data_dir).rglob(TABLE))), None)
    if table is None:
        raise InputError(f"{data_dir} contains no {TABLE}: give the directory that contains this table and the audio")
    files = _number_files(Path(data_dir))
    rows, missing = [], []
    for where, line in _read_lines(table):
        number = _read_number(line["AudioID"], where)
        if number not in files:
            missing.append(f"the audio of AudioID {number} is missing")
            continue
        shares = read_shares({label: line[label] for label in LABELS}, where)
        if line["gender"] not in ("female", "male"):
            raise InputError(f"{where}: gender={line['gender']!r} is not female or male: take the published table")
        rows.append(
            {
                "id": f"{number:04d}",
                "audio": files[number],
                "label": LABELS[find_majority(shares)],
                "speaker": line["speaker ID"],
                "gender": line["gender"],
                "label_distribution": shares,
                **{ours: line[name] for name, ours in COLUMNS.items()},
            }
        )
    if not rows:
        raise InputError(f"{data_dir} contains no audio whose name begins with an AudioID, such as 0001_intj_ce.WAV")
    listed = len(rows) + len(missing)
    if listed != PUBLISHED_COUNT:
        missing.append(f"{table.name} lists {listed} of {PUBLISHED_COUNT} utterances")
    report_differences("EM2LDL", data_dir, missing, partial)
    return make_rows(rows, LABELS)


def _number_files(root: Path) -> dict[int, Path]:
    """The audio files by the number that their name begins with."""
    files: dict[int, Path] = {}
    for path in find_audio_files(root):
        name = re.match(r"\d+(?![^_.])", path.name)
        if name is None:
            continue
        if int(name[0]) in files:
            raise InputError(f"{path} and {files[int(name[0])]} have the same AudioID: keep one of them")
        files[int(name[0])] = path
    return files


def _read_lines(table: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The place in messages and the cells of each line, with the emotions spelt as in `LABELS`."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        header = [MISSPELT.get(name.strip(), name.strip()) for name in reader.fieldnames or []]
        absent = [name for name in REQUIRED if name not in header]
        if absent:
            raise InputError(f"{table} has no column {absent[0]!r}: take the published table again")
        reader.fieldnames = header
        for line in reader:
            yield f"{table}, line {reader.line_num}", {name: line[name].strip() for name in REQUIRED}


def _read_number(text: str, where: str) -> int:
    if not text.isdecimal():
        raise InputError(f"{where}: AudioID={text!r} is not a number: take the published table again")
    return int(text)
