"""nEMO: 4,481 utterances, 3.1 hours, 9 speakers, 6 emotions, 90 sentences.

Acted Polish by four women and five men, aged 23 to 28. Classes: neutral (809 utterances), happy ("happiness" in nEMO,
749), sad ("sadness", 769), angry ("anger", 749), fearful ("fear", 736), surprised (669). The actors say the same 90
sentences in every emotion, but MP0 lacks many, and MK0 has no surprised utterance. `text` is the sentence as it is
written, `age` that of the actor.

Where: https://github.com/amu-cai/nEMO or https://huggingface.co/datasets/amu-cai/nEMO; give the directory that contains
samples/ and data.tsv. WAV as published, or converted (.flac, .ogg), even if data.tsv has the former suffix. Licence:
CC BY-NC-SA 4.0.

Citation: Christop I (2024). nEMO: Dataset of Emotional Speech in Polish. LREC-COLING 2024.
https://aclanthology.org/2024.lrec-main.1059/
"""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import compare_counts, find_audio_files, make_rows, report_differences

LICENSE = "cc-by-nc-sa-4.0"
DESCRIPTION = (
    "nEMO (Christop 2024, https://aclanthology.org/2024.lrec-main.1059/, CC BY-NC-SA 4.0): acted Polish, ninety "
    "sentences, nine young actors. Expect lower accuracy on spontaneous speech, other ages and languages, and on noisy "
    "recordings."
)
EMOTIONS = {
    "neutral": "neutral",
    "happiness": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "surprised": "surprised",
}
LABELS = list(EMOTIONS.values())
PUBLISHED_COUNTS = dict(zip(LABELS, (809, 749, 769, 749, 736, 669)))
SPEAKERS = ["EB0", "IC0", "KD0", "KS0", "MK0", "MP0", "SM0", "TP0", "WR0"]
COLUMNS = ("file_id", "emotion", "raw_text", "speaker_id", "gender", "age")


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that holds samples/ and data.tsv; `id` is the file's name without its suffix.

    Raises:
        InputError: the list or the samples are missing, a line of the list cannot be read, or utterances are missing
            and `partial` is not set.
    """
    root = Path(data_dir)
    listed = _read_list(root / "data.tsv")
    files = {path.stem: path for path in find_audio_files(root / "samples")}
    rows = [{**row, "audio": files[row["id"]]} for row in listed if row["id"] in files]
    if not rows:
        raise InputError(f"{root / 'samples'} contains none of the utterances in data.tsv: unpack the samples there")
    missing = [f"samples/{row['id']} is missing" for row in listed if row["id"] not in files]
    absent = sorted(set(SPEAKERS) - {row["speaker"] for row in rows})
    differences = [f"no utterance of speaker {speaker}" for speaker in absent] + missing
    differences += compare_counts(Counter(row["label"] for row in rows), PUBLISHED_COUNTS)
    report_differences("nEMO", data_dir, differences, partial)
    return make_rows(rows, LABELS)


def _read_list(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise InputError(
            f"{path.parent} contains no nEMO; looked for data.tsv: give the directory of samples/ and data.tsv"
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", restval="", quoting=csv.QUOTE_NONE)
        for name in COLUMNS:
            if name not in (reader.fieldnames or []):
                raise InputError(f"{path} has no column {name!r}: take the published file")
        return [_read_line(line, f"{path}, line {reader.line_num}") for line in reader]


def _read_line(line: dict[str, str], where: str) -> dict[str, Any]:
    """A row without its audio. The published file has blanks before the speakers."""
    values = {name: line[name].strip() for name in COLUMNS}
    if values["emotion"] not in EMOTIONS:
        raise InputError(f"{where}: emotion={values['emotion']!r} is not one of {', '.join(EMOTIONS)}")
    if values["speaker_id"] not in SPEAKERS or values["gender"] not in ("female", "male"):
        raise InputError(
            f"{where}: speaker_id={values['speaker_id']!r}, gender={values['gender']!r} is not one of "
            f"{', '.join(SPEAKERS)} and female or male: take the published file"
        )
    return {
        "id": Path(values["file_id"]).stem,
        "label": EMOTIONS[values["emotion"]],
        "speaker": values["speaker_id"],
        "gender": values["gender"],
        "text": values["raw_text"],
        "age": values["age"],
        "style": "scripted",
    }
