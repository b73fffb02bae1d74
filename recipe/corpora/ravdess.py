"""RAVDESS (speech): 1,440 utterances, 1.5 hours, 24 actors, 8 emotions, 2 sentences, 2 intensities.

Acted North American English by twelve women (even actor numbers) and twelve men, recorded in a studio.
Classes: neutral (96 utterances), calm, happy, sad, angry, fearful, disgust, surprised (192 each).

Where: https://doi.org/10.5281/zenodo.1188976, file Audio_Speech_Actors_01-24.zip. Unpack it and give the directory that
contains Actor_01 to Actor_24. Files may be WAV or FLAC, mono or stereo, at any sampling rate. Licence: CC BY-NC-SA 4.0.

Citation: Livingstone SR, Russo FA (2018). The Ryerson Audio-Visual Database of Emotional Speech and Song
(RAVDESS). PLoS ONE 13(5): e0196391. https://doi.org/10.1371/journal.pone.0196391
"""

import re
from collections import Counter
from pathlib import Path

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import compare_counts, find_audio_files, make_rows, report_differences

LICENSE = "cc-by-nc-sa-4.0"
DESCRIPTION = (
    "RAVDESS speech (Livingstone and Russo 2018, https://doi.org/10.5281/zenodo.1188976, CC BY-NC-SA 4.0): "
    "acted North American English, two sentences, recorded in a studio. Expect lower accuracy on spontaneous "
    "speech, other sentences, accents and languages, and on noisy recordings."
)
LABELS = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
SENTENCES = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
PUBLISHED_COUNTS = {label: 96 if label == "neutral" else 192 for label in LABELS}
ACTORS = [f"{actor:02d}" for actor in range(1, 25)]

# modality - channel - emotion - intensity - sentence - repetition - actor
NAME = re.compile(r"(\d\d)-(\d\d)-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")
SPEECH = "01"
AUDIO_ONLY = "03"


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that contains Actor_01 to Actor_24; `intensity` is normal or strong.

    Raises:
        InputError: the directory is missing or contains no RAVDESS speech file, or utterances are missing and `partial`
            is not set.
    """
    rows = []
    for path in find_audio_files(Path(data_dir)):
        name = NAME.fullmatch(path.stem)
        if name is None or name[1] != AUDIO_ONLY or name[2] != SPEECH:
            continue
        rows.append(
            {
                "id": path.stem,
                "audio": path,
                "label": LABELS[int(name[3]) - 1],
                "speaker": name[7],
                "gender": "male" if int(name[7]) % 2 else "female",
                "text": SENTENCES[name[5]],
                "intensity": "normal" if name[4] == "01" else "strong",
            }
        )
    if not rows:
        raise InputError(
            f"{data_dir} contains no RAVDESS speech; looked for Actor_*/03-01-*.wav or .flac below it: "
            "give the directory that contains Actor_01 to Actor_24"
        )
    rows = _drop_repeats(rows)
    report_differences("RAVDESS", data_dir, _differences(rows), partial)
    return make_rows(rows, LABELS)


def _differences(rows: list[dict]) -> list[str]:
    counts = Counter(row["label"] for row in rows)
    actors = {row["speaker"] for row in rows}
    absent = [f"no utterance of actor {actor}" for actor in ACTORS if actor not in actors]
    return absent + compare_counts(counts, PUBLISHED_COUNTS)


def _drop_repeats(rows: list[dict]) -> list[dict]:
    """Keep the first file of each name: some copies hold every file twice, in a nested folder."""
    unique: dict[str, dict] = {}
    for row in rows:
        unique.setdefault(row["id"], row)
    return list(unique.values())
