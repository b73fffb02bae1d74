"""ESD, Emotional Speech Dataset: 35,000 utterances, about 29 hours, 20 speakers, 5 classes.

Acted speech, recorded in a studio at 16 kHz, by ten native speakers of Mandarin (0001 to 0010) and ten of English
(0011 to 0020), five women and five men each. Every speaker says the same 350 sentences in every emotion.
Classes: neutral, happy, sad, angry, surprised, 7,000 utterances each (350 per speaker).

A speaker's utterances are numbered 1 to 1750 in blocks of 350: neutral, angry, happy, sad, surprised. The published
split takes the first 20 of each block for evaluation (here "validation"), the next 30 for testing and the other 300
for training. All speakers are in all three parts, so the split is `official_split`. Older releases have the folders
train, evaluation and test within each emotion; if present, these define the split. `language` is "zh" or "en".
The label is the name of the folder. The text comes from 0001/0001.txt and so on. These files have various encodings
(UTF-8, UTF-16, GBK) and a few damaged lines; a warning names such a line, and the text of its utterance stays empty.

Where: https://github.com/HLTSingapore/Emotional-Speech-Data. Unpack it and give the directory that contains 0001 to
0020. Licence: research only, under a signed agreement.

Citation: Zhou K, Sisman B, Liu R, Li H (2022). Emotional voice conversion: Theory, databases and ESD. Speech
Communication 137, 1-18. https://arxiv.org/abs/2105.14762
"""

import codecs
import re
from collections import Counter
from pathlib import Path

from datasets import Dataset

from core.errors import InputError, warn
from recipe.corpora.rows import compare_counts, find_audio_files, make_rows, report_differences

LICENSE = "other"
DESCRIPTION = (
    "ESD (Zhou et al. 2022, https://github.com/HLTSingapore/Emotional-Speech-Data, for research only): acted Mandarin "
    "and English of twenty speakers, recorded in a studio, the same sentences in every emotion. Expect lower "
    "accuracy on spontaneous speech, other languages and accents, and on noisy recordings."
)
LABELS = ["neutral", "happy", "sad", "angry", "surprised"]
PUBLISHED_COUNTS = {label: 7000 for label in LABELS}
# In the order of the numbers: neutral is 1 to 350, angry 351 to 700 and so on.
FOLDERS = {"Neutral": "neutral", "Angry": "angry", "Happy": "happy", "Sad": "sad", "Surprise": "surprised"}
BLOCK = 350
SPLITS = {"train": "train", "evaluation": "validation", "test": "test"}
SPEAKERS = [f"{speaker:04d}" for speaker in range(1, 21)]
MEN = ["0004", "0005", "0006", "0008", "0010", "0011", "0012", "0013", "0014", "0020"]

# speaker - number
NAME = re.compile(rf"({'|'.join(SPEAKERS)})_00(\d{{4}})")
# The last word of a transcript line, in English or Chinese.
EMOTION_WORDS = [*FOLDERS, "中立", "生气", "快乐", "伤心", "惊喜"]
NOT_ENGLISH = re.compile("[\u3400-\u9fff\ue000-\uf8ff\ufffd]")


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that contains 0001 to 0020, or one above it.

    Raises:
        InputError: the directory is missing or contains no ESD file, or utterances or transcripts are missing and
            `partial` is not set.
    """
    rows: dict[str, dict] = {}
    transcripts: dict[Path, dict[str, str]] = {}
    for path in find_audio_files(Path(data_dir)):
        name, emotion = NAME.fullmatch(path.stem), _emotion_folder(path)
        if name is None or not 1 <= int(name[2]) <= BLOCK * len(FOLDERS) or emotion.name not in FOLDERS:
            continue
        if path.stem in rows:
            continue
        speaker = name[1]
        transcript = emotion.parent / f"{speaker}.txt"
        if transcript not in transcripts:
            transcripts[transcript] = _sentences(transcript, _language(speaker))
        row = {
            "id": path.stem,
            "audio": path,
            "label": FOLDERS[emotion.name],
            "speaker": speaker,
            "gender": "male" if speaker in MEN else "female",
            "language": _language(speaker),
            "text": transcripts[transcript].get(path.stem, ""),
            "style": "scripted",
            "official_split": SPLITS.get(path.parent.name) or _find_split(int(name[2])),
        }
        rows[path.stem] = row
    if not rows:
        raise InputError(
            f"{data_dir} contains no ESD speech; looked for files such as 0001/Angry/0001_000351.wav below it: "
            "give the directory that contains 0001 to 0020"
        )
    lost = [f"{path.stem}/{path.name} is missing" for path in transcripts if not path.is_file()]
    report_differences("ESD", data_dir, lost + _differences(list(rows.values())), partial)
    return make_rows(list(rows.values()), LABELS)


def _emotion_folder(path: Path) -> Path:
    """0001/Angry of 0001/Angry/x.wav and of 0001/Angry/train/x.wav."""
    return path.parent.parent if path.parent.name in SPLITS else path.parent


def _language(speaker: str) -> str:
    return "zh" if int(speaker) <= 10 else "en"


def _find_split(number: int) -> str:
    place = (number - 1) % BLOCK
    if place < 20:
        return "validation"
    return "test" if place < 50 else "train"


def _sentences(path: Path, language: str) -> dict[str, str]:
    """Utterance id -> sentence; lines such as `0011_000351<tab>The nine the eggs, I keep.<tab>Angry`."""
    if not path.is_file():
        return {}
    sentences, damaged = {}, []
    for number, line in enumerate(_decode(path.read_bytes(), language).splitlines(), 1):
        # Some lines have spaces in place of tabs.
        name, _, rest = " ".join(line.split()).partition(" ")
        if not name:
            continue
        if NAME.fullmatch(name) is None or not rest:
            damaged.append(number)
            continue
        sentence, _, last = rest.rpartition(" ")
        sentences[name] = sentence if last in EMOTION_WORDS else rest
    if damaged:
        others = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        warn(
            f"{path} line {damaged[0]}{others} is not 'id, sentence, emotion' separated by tabs; the text of such an "
            "utterance stays empty"
        )
    return sentences


def _decode(content: bytes, language: str) -> str:
    """Decode a transcript, which may be UTF-16, UTF-8 or GBK, or windows-1252 if it is English."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("gb18030", errors="replace")
    # Western punctuation read as GBK shows up as Chinese characters.
    if language == "en" and NOT_ENGLISH.search(text):
        return content.decode("cp1252", errors="replace")
    return text


def _differences(rows: list[dict]) -> list[str]:
    found, speakers = {row["id"] for row in rows}, {row["speaker"] for row in rows}
    absent = [f"no utterance of speaker {speaker}" for speaker in SPEAKERS if speaker not in speakers]
    missing = [
        f"{speaker}/{folder}/{speaker}_{number:06d}.wav is missing"
        for speaker in SPEAKERS
        for block, folder in enumerate(FOLDERS)
        for number in range(block * BLOCK + 1, (block + 1) * BLOCK + 1)
        if speaker in speakers and f"{speaker}_{number:06d}" not in found
    ]
    return absent + missing + compare_counts(Counter(row["label"] for row in rows), PUBLISHED_COUNTS)
