"""TESS, Toronto emotional speech set: 2,800 utterances, about 1.6 hours, 2 speakers, 7 classes, 200 words.

Acted Canadian English at about 24.4 kHz. Two women, OAF (aged 64) and YAF (aged 26), say "Say the word ..." with each
of the 200 words of the Northwestern University Auditory Test No. 6, in every emotion.
Classes: neutral, happy, sad, angry, fearful, disgust, surprised ("ps", pleasant surprise), 400 utterances each.

Two speakers are too few for a meaningful speaker-independent test. A random split, with both speakers in the training
and the test data and sentences that differ in a single word, gives almost perfect scores.

Where: https://doi.org/10.5683/SP2/E8H2MF (single files, without folders) or
https://tspace.library.utoronto.ca/handle/1807/24487. Copies with one folder per speaker and emotion (OAF_angry,
YAF_pleasant_surprised) are read as well, even if nested twice; the label comes from the file name. One file is
published as OA_bite_neutral.wav; its speaker is OAF. Licence: CC BY-NC-ND 4.0 (some copies state CC BY-NC 4.0; this is
the stricter one).

Citation: Pichora-Fuller MK, Dupuis K (2020). Toronto emotional speech set (TESS). Scholars Portal Dataverse.
https://doi.org/10.5683/SP2/E8H2MF
"""

import re
from collections import Counter
from pathlib import Path

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import compare_counts, find_audio_files, make_rows, report_differences

LICENSE = "cc-by-nc-nd-4.0"
DESCRIPTION = (
    "TESS (Pichora-Fuller and Dupuis 2020, https://doi.org/10.5683/SP2/E8H2MF, CC BY-NC-ND 4.0): two actresses from "
    "Toronto, one carrier sentence with 200 words. Expect much lower accuracy on other speakers, on men's voices, on "
    "other sentences and languages, and on spontaneous or noisy speech."
)
LABELS = ["neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
PUBLISHED_COUNTS = {label: 400 for label in LABELS}
EMOTIONS = {
    "neutral": "neutral",
    "happy": "happy",
    "sad": "sad",
    "angry": "angry",
    "fear": "fearful",
    "disgust": "disgust",
    "ps": "surprised",
}
SPEAKERS = ["OAF", "YAF"]

# speaker - word - emotion; OA is a typo in the published OA_bite_neutral.wav
NAME = re.compile(rf"(OAF?|YAF)_([A-Za-z]+)_({'|'.join(EMOTIONS)})")


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that contains the files, with or without folders.

    Raises:
        InputError: the directory is missing or contains no TESS file, or utterances are missing and `partial` is not
            set.
    """
    rows: dict[str, dict] = {}
    for path in find_audio_files(Path(data_dir)):
        name = NAME.fullmatch(path.stem)
        if name is None:
            continue
        speaker = "OAF" if name[1] == "OA" else name[1]
        utterance = f"{speaker}_{name[2]}_{name[3]}"
        row = {
            "id": utterance,
            "audio": path,
            "label": EMOTIONS[name[3]],
            "speaker": speaker,
            "gender": "female",
            "text": f"Say the word {name[2].lower()}",
            "style": "scripted",
        }
        # Some copies hold every file twice, in a nested folder: keep the first of each name.
        rows.setdefault(utterance, row)
    if not rows:
        raise InputError(
            f"{data_dir} contains no TESS speech; looked for files such as OAF_back_angry.wav below it: "
            "give the directory that contains the files or the folders OAF_angry to YAF_sad"
        )
    report_differences("TESS", data_dir, _differences(list(rows.values())), partial)
    return make_rows(list(rows.values()), LABELS)


def _differences(rows: list[dict]) -> list[str]:
    """Compare counts by speaker: both say the same words, so each has half of the published utterances."""
    expected = {label: count // len(SPEAKERS) for label, count in PUBLISHED_COUNTS.items()}
    differences = []
    for speaker in SPEAKERS:
        found = Counter(row["label"] for row in rows if row["speaker"] == speaker)
        if not found:
            differences.append(f"no utterance of speaker {speaker}")
        else:
            differences += compare_counts(found, expected, f"{speaker} ")
    return differences
