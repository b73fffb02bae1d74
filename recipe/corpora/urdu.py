"""URDU: 400 utterances of spontaneous Urdu speech from television talk shows, 4 emotions.

Classes: angry, happy, neutral, sad (100 utterances each). The authors count 38 speakers, 27 men and 11 women; the
file names distinguish 29, 18 men and 11 women, which are the speakers here. All but three of them (SM3, SM5, SM6)
occur in a single emotion, and one man speaks 72 of the 100 neutral utterances. Speaker and emotion are therefore
confounded, and scores vary strongly between speaker-independent folds.

Where: https://github.com/siddiquelatif/URDU-Dataset. Clone it and give the directory that contains Angry, Happy,
Neutral and Sad. Licence: research only, according to its page, which names no standard licence.

Citation: Latif S, Qayyum A, Usman M, Qadir J (2018). Cross Lingual Speech Emotion Recognition: Urdu vs.
Western Languages. arXiv, December 2018.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import compare_counts, find_audio_files, make_rows, report_differences

LICENSE = "other"
DESCRIPTION = (
    "URDU (Latif et al. 2018, https://github.com/siddiquelatif/URDU-Dataset, for research only): spontaneous Urdu "
    "from television talk shows, 400 utterances. Most speakers occur in a single emotion, so a model may "
    "recognise voices rather than emotions; expect lower accuracy on other speakers, languages and recordings."
)
LABELS = ["angry", "happy", "neutral", "sad"]
PUBLISHED_COUNTS = {label: 100 for label in LABELS}

# speaker (M or F and a number) _ utterance of this speaker in this emotion _ emotion and utterance of this emotion:
# SM1_F10_A010 is the tenth utterance of the first man, the tenth angry one. Its zero is always there: A0100.
NAME = re.compile(r"(S([MF])\d+)_F\d+_([AHNS])0(\d+)")
LETTERS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
GENDERS = {"M": "male", "F": "female"}


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that contains Angry, Happy, Neutral and Sad.

    Raises:
        InputError: the directory is missing or contains no utterance of URDU, a file is in the folder of another
            emotion, or utterances are missing and `partial` is not set.
    """
    rows: list[dict[str, Any]] = []
    numbers: set[tuple[str, int]] = set()
    for path in find_audio_files(Path(data_dir)):
        name = NAME.fullmatch(path.stem)
        if name is None:
            continue
        label = LETTERS[name[3]]
        _check_folder(path.relative_to(data_dir), label)
        numbers.add((label, int(name[4])))
        rows.append({"id": path.stem, "audio": path, "label": label, "speaker": name[1], "gender": GENDERS[name[2]]})
    if not rows:
        raise InputError(
            f"{data_dir} contains no utterance of URDU; looked for files such as Angry/SM1_F1_A01.wav below it: give "
            "the directory that contains Angry, Happy, Neutral and Sad"
        )
    differences = compare_counts(Counter(row["label"] for row in rows), PUBLISHED_COUNTS) + _missing(numbers)
    report_differences("URDU", data_dir, differences, partial)
    return make_rows(rows, LABELS)


def _check_folder(path: Path, label: str) -> None:
    """Raise InputError if the folder and the file name give different emotions."""
    folders = [part.lower() for part in path.parts[:-1] if part.lower() in LABELS]
    if folders and folders[-1] != label:
        raise InputError(f"{path}: the name says {label}, its folder {folders[-1]}; unpack it from the archive again")


def _missing(numbers: set[tuple[str, int]]) -> list[str]:
    """Name the missing utterances: those of each emotion are numbered from 1."""
    return [
        f"{label.capitalize()}/*_{letter}0{number}.wav is missing"
        for letter, label in LETTERS.items()
        for number in range(1, PUBLISHED_COUNTS[label] + 1)
        if (label, number) not in numbers
    ]
