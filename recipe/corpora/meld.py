"""MELD: 13,708 utterances, about 14 hours, from the television series Friends, 7 emotions.

Acted English dialogue between several speakers, with music and audience laughter. Classes: neutral 6,436, happy
("joy" in MELD) 2,308, surprised ("surprise") 1,636, angry ("anger") 1,607, sad ("sadness") 1,002, disgust 361,
fearful ("fear") 358. The published training (9,989 utterances), validation ("dev", 1,109) and test (2,610) parts
share the six main speakers, so they are in the column `official_split`. Speaker names such as "All", "Woman" or
"Guy", which stand for several voices, are kept. Gender is known only for the six main speakers.

Where: http://web.eecs.umich.edu/~mihalcea/downloads/MELD.Raw.tar.gz, also at
https://huggingface.co/datasets/declare-lab/MELD. Unpack it and the train, dev and test archives inside, and give
the directory that contains train_splits, dev_splits_complete, output_repeated_splits_test and the label files
train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv (also at https://github.com/declare-lab/MELD, data/MELD).
The clips are videos. Extract their audio once with ffmpeg, as WAV, FLAC or MP3 files of the same name in the same
folder; the error message shows the command. Two utterances have no audio in the published archive and may be
missing: train dia125_utt3 (damaged video) and dev dia110_utt7 (no video). Clips without a label and clips whose name
begins with final_videos_test are ignored. A few clips are cut wrongly (test dia38_utt4 and dia220_utt0 are minutes
long). Licence: GPL-3.0, as declared by the authors; the series itself belongs to its producers.

Citation: Poria S, Hazarika D, Majumder N, Naik G, Cambria E, Mihalcea R (2019). MELD: A Multimodal Multi-Party
Dataset for Emotion Recognition in Conversations. ACL 2019. https://arxiv.org/abs/1810.02508
"""

import csv
import re
import shlex
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import Any

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import compare_counts, find_audio_files, make_rows, report_differences

LICENSE = "gpl-3.0"
DESCRIPTION = (
    "MELD (Poria et al. 2019, https://github.com/declare-lab/MELD, GPL-3.0): acted English dialogue of the television "
    "series Friends, with music and laughter, labelled from video, audio and text together. Expect lower accuracy "
    "on other speakers, languages and recordings, and for emotions that only the words convey."
)
EMOTIONS = {
    "neutral": "neutral",
    "joy": "happy",
    "sadness": "sad",
    "anger": "angry",
    "surprise": "surprised",
    "fear": "fearful",
    "disgust": "disgust",
}
LABELS = list(EMOTIONS.values())
PUBLISHED_SPLIT_COUNTS = {
    "train": dict(zip(LABELS, (4710, 1743, 683, 1109, 1205, 268, 271))),
    "validation": dict(zip(LABELS, (470, 163, 111, 153, 150, 40, 22))),
    "test": dict(zip(LABELS, (1256, 402, 208, 345, 281, 50, 68))),
}
PUBLISHED_COUNTS = {label: sum(counts[label] for counts in PUBLISHED_SPLIT_COUNTS.values()) for label in LABELS}
# Label file and folder of each part.
SPLITS = {
    "train": ("train_sent_emo.csv", "train_splits"),
    "validation": ("dev_sent_emo.csv", "dev_splits_complete"),
    "test": ("test_sent_emo.csv", "output_repeated_splits_test"),
}
# Utterances that are listed in the published archive but have no readable clip.
WITHOUT_SOUND = ("train_dia125_utt3", "validation_dia110_utt7")
GENDERS = {
    **dict.fromkeys(("Monica", "Phoebe", "Rachel"), "female"),
    **dict.fromkeys(("Chandler", "Joey", "Ross"), "male"),
}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID", "Season", "Episode")
AUDIO = (".wav", ".flac", ".mp3")


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that contains the three label files and the three folders of clips.

    `id` looks like train_dia0_utt3 (each part numbers its dialogues from 0), `session` is season and episode, such as
    8-21, and `official_split` is train, validation or test.

    Raises:
        InputError: label files or folders are missing, utterances are missing and `partial` is not set, the clips are
            only videos, or a line of a label file cannot be read.
    """
    root = Path(data_dir)
    rows: list[dict[str, Any]] = []
    differences: list[str] = []
    for split, (table, folder_name) in SPLITS.items():
        listed = _read_table(_find(root, table), split)
        folder = _find(root, folder_name)
        clips = {path.stem: path for path in find_audio_files(folder, AUDIO)}
        if not clips:
            raise InputError(_describe_missing_audio(root, folder))
        counts = Counter(row["label"] for row in listed)
        differences += compare_counts(counts, PUBLISHED_SPLIT_COUNTS[split], what=f"{split} ")
        for row in listed:
            clip = row["id"].removeprefix(f"{split}_")
            if clip in clips:
                rows.append({**row, "audio": clips[clip]})
            elif row["id"] not in WITHOUT_SOUND:
                differences.append(f"{folder_name}/{clip}.wav is missing")
    report_differences("MELD", data_dir, differences, partial)
    return make_rows(rows, LABELS)


def _find(root: Path, name: str) -> Path:
    """Find a label file or folder, wherever the archives were unpacked below the root."""
    # Shallow directories first: the folders of clips hold thousands of files.
    for pattern in (name, f"*/{name}", f"*/*/{name}", f"*/*/*/{name}"):
        found = sorted(root.glob(pattern))
        if found:
            return found[0]
    raise InputError(
        f"{root} contains no {name}; give the directory that contains train_sent_emo.csv, dev_sent_emo.csv, "
        "test_sent_emo.csv, train_splits, dev_splits_complete and output_repeated_splits_test"
    )


def _read_table(path: Path, split: str) -> list[dict[str, Any]]:
    """The lines of a label file as rows without audio."""
    reader = csv.DictReader(StringIO(_read_text(path), newline=""))
    absent = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
    if absent:
        found = ", ".join(reader.fieldnames or []) or "none"
        raise InputError(f"{path} has no column {absent[0]!r}; it has {found}: take the published file")
    return [_row(line, split, f"{path}, line {reader.line_num}") for line in reader]


def _row(line: dict[str, Any], split: str, where: str) -> dict[str, Any]:
    values = {name: (line[name] or "").strip() for name in COLUMNS}
    if values["Emotion"].lower() not in EMOTIONS:
        raise InputError(f"{where}: Emotion={values['Emotion']!r} is not one of {', '.join(EMOTIONS)}")
    for name in ("Dialogue_ID", "Utterance_ID"):
        if not values[name].isdecimal():
            raise InputError(f"{where}: {name}={values[name]!r} is not a number; take the published file")
    return {
        "id": f"{split}_dia{int(values['Dialogue_ID'])}_utt{int(values['Utterance_ID'])}",
        "audio": None,
        "label": EMOTIONS[values["Emotion"].lower()],
        "speaker": values["Speaker"],
        "gender": GENDERS.get(values["Speaker"], ""),
        "session": f"{values['Season']}-{values['Episode']}",
        "text": values["Utterance"],
        "official_split": split,
    }


def _read_text(path: Path) -> str:
    """Read a label file. Some copies are UTF-8, some windows-1252, and some were converted from windows-1252 as if it
    were Latin-1, which turned apostrophes and dashes into control characters: these are repaired."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    return re.sub("[\x80-\x9f]", lambda found: found[0].encode("latin-1").decode("cp1252", errors="replace"), text)


def _describe_missing_audio(root: Path, folder: Path) -> str:
    """The error for a folder without audio; for videos, it shows how to extract their audio."""
    if not find_audio_files(folder, (".mp4",)):
        return f"{folder} is empty; unpack the archive of its clips there"
    return (
        f"{folder} contains videos only, which cannot be read here; extract their audio once: "
        f"find {shlex.quote(str(root))} -name 'dia*_utt*.mp4' -exec sh -c "
        "'ffmpeg -nostdin -loglevel error -i \"$1\" -vn -ac 1 -ar 16000 \"${1%.mp4}.wav\"' sh {} ';'"
    )
