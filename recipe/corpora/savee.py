"""SAVEE, Surrey Audio-Visual Expressed Emotion: 480 utterances, about half an hour, 4 speakers, 7 classes.

Acted British English at 44.1 kHz by four men (DC, JE, JK, KL), researchers and postgraduates of the University of
Surrey, aged 27 to 31. Each speaks 15 TIMIT sentences in each emotion (3 common to all emotions, 2 specific to the
emotion, 10 generic) and 30 neutral ones. The corpus does not map files to sentences, so there is no text.
Classes: neutral (120 utterances), happy, sad, angry, fearful, disgust, surprised (60 each).

Where: http://kahlan.eps.surrey.ac.uk/savee/, after registration. Unpack AudioData and give the directory that contains
it. The flat layout found on Kaggle, with the speaker in the file name (ALL/DC_a01.wav), is read as well.
Licence: free for research, after registration.

Citation: Haq S, Jackson PJB (2010). Multimodal emotion recognition. In: Wang W (ed.), Machine Audition: Principles,
Algorithms and Systems, IGI Global, 398-423. https://doi.org/10.4018/978-1-61520-919-4.ch017
"""

import re
from collections import Counter
from pathlib import Path

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import compare_counts, find_audio_files, make_rows, report_differences

LICENSE = "other"
DESCRIPTION = (
    "SAVEE (Haq and Jackson 2010, http://kahlan.eps.surrey.ac.uk/savee/, for research only): acted British English "
    "of four young men, recorded in a laboratory. Expect lower accuracy on women's voices, spontaneous speech, other "
    "accents and languages, and on noisy recordings."
)
LABELS = ["neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
PUBLISHED_COUNTS = {label: 120 if label == "neutral" else 60 for label in LABELS}
EMOTIONS = {
    "a": "angry",
    "d": "disgust",
    "f": "fearful",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprised",
}
SPEAKERS = ["DC", "JE", "JK", "KL"]
TAKES = {code: 30 if code == "n" else 15 for code in EMOTIONS}

# emotion - take, in a folder of the speaker; or the speaker before it
NAME = re.compile(rf"(?:({'|'.join(SPEAKERS)})_)?({'|'.join(EMOTIONS)})(\d\d)")


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that contains AudioData/, AudioData/ itself, or a flat folder.

    Raises:
        InputError: the directory is missing or contains no SAVEE file, or utterances are missing and `partial` is not
            set.
    """
    rows: dict[str, dict] = {}
    for path in find_audio_files(Path(data_dir)):
        name = NAME.fullmatch(path.stem)
        speaker = (name[1] or path.parent.name) if name else ""
        if name is None or speaker not in SPEAKERS:
            continue
        utterance = f"{speaker}_{name[2]}{name[3]}"
        row = {
            "id": utterance,
            "audio": path,
            "label": EMOTIONS[name[2]],
            "speaker": speaker,
            "gender": "male",
            "style": "scripted",
        }
        rows.setdefault(utterance, row)
    if not rows:
        raise InputError(
            f"{data_dir} contains no SAVEE speech; looked for files such as AudioData/DC/a01.wav or ALL/DC_a01.wav "
            "below it: give the directory that contains AudioData, or the flat folder"
        )
    report_differences("SAVEE", data_dir, _differences(list(rows.values())), partial)
    return make_rows(list(rows.values()), LABELS)


def _differences(rows: list[dict]) -> list[str]:
    found, speakers = {row["id"] for row in rows}, {row["speaker"] for row in rows}
    absent = [f"no utterance of speaker {speaker}" for speaker in SPEAKERS if speaker not in speakers]
    missing = [
        f"{speaker}/{code}{take:02d}.wav is missing"
        for speaker in SPEAKERS
        for code, takes in TAKES.items()
        for take in range(1, takes + 1)
        if speaker in speakers and f"{speaker}_{code}{take:02d}" not in found
    ]
    return absent + missing + compare_counts(Counter(row["label"] for row in rows), PUBLISHED_COUNTS)
