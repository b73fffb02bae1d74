"""IEMOCAP: 10,039 utterances, about 12 hours, 10 speakers in 5 sessions, 10 emotions.

North American English by five women and five men. In each session, one woman and one man talk to each other, partly
improvising (`impro`) and partly acting plays (`script`). `valence`, `arousal` (which IEMOCAP calls activation)
and `dominance` are means over annotators, on a scale from 1 to 5.

Classes: neutral 1,708, happy 595, sad 1,084, angry 1,103, fearful 40, disgust 2, surprised 107, excited 1,041,
frustrated 1,849, other 3, and no_agreement 2,507 (`xxx`: no majority among the annotators). The usual four-class set
merges excited into happy: 5,531 utterances, angry 1,103, happy 1,636, sad 1,084, neutral 1,708.

`label_distribution` is the share of annotator votes, without the speakers' self-assessments (`C-F1`, `C-M1`).
Each annotator has one vote, divided equally if they named several emotions. The share of no_agreement is always 0.

`words` are those of the transcript, with the times of the forced alignment (`sentences/ForcedAlignment`), where both
have the same number of words; noises in brackets are in the transcript alone, so that such utterances have none.

Where: https://sail.usc.edu/iemocap/ (request form). Unpack it and give the directory that contains Session1 to
Session5. Licence: research licence of the University of Southern California.

Citation: Busso C, Bulut M, Lee CC, Kazemzadeh A, Mower E, Kim S, Chang JN, Lee S, Narayanan SS (2008). IEMOCAP:
Interactive emotional dyadic motion capture database. Language Resources and Evaluation 42(4): 335-359.
https://doi.org/10.1007/s10579-008-9076-6
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from datasets import Dataset

from core.audio import AUDIO_SUFFIXES
from core.errors import InputError
from recipe.corpora.rows import compare_counts, make_rows, report_differences

LICENSE = "other"
DESCRIPTION = (
    "IEMOCAP (Busso et al. 2008, https://sail.usc.edu/iemocap/, licensed for research by the University of Southern "
    "California): ten actors in improvised and scripted dialogues, North American English, recorded in a studio. "
    "Expect lower accuracy on everyday conversation, other accents and languages, and on noisy recordings."
)
SPEAKERS = [session + gender for session in "12345" for gender in "FM"]
LABELS = [
    *("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised", "excited", "frustrated", "other"),
    "no_agreement",
]
PUBLISHED_COUNTS = dict(zip(LABELS, (1708, 595, 1084, 1103, 40, 2, 107, 1041, 1849, 3, 2507)))

HAPPY_OR_EXCITED = "happy or excited"
FOUR_CLASSES = ("angry", HAPPY_OR_EXCITED, "sad", "neutral")
FOUR_CLASS_COUNTS = {
    "session 1": (229, 278, 194, 384),
    "session 2": (137, 327, 197, 362),
    "session 3": (240, 286, 305, 320),
    "session 4": (327, 303, 143, 258),
    "session 5": (170, 442, 245, 384),
    "speaker 1F": (147, 132, 78, 171),
    "speaker 1M": (82, 146, 116, 213),
    "speaker 2F": (67, 166, 113, 135),
    "speaker 2M": (70, 161, 84, 227),
    "speaker 3F": (92, 128, 172, 130),
    "speaker 3M": (148, 158, 133, 190),
    "speaker 4F": (205, 185, 62, 76),
    "speaker 4M": (122, 118, 81, 182),
    "speaker 5F": (78, 159, 132, 221),
    "speaker 5M": (92, 283, 113, 163),
}

CODES = dict(zip(("neu", "hap", "sad", "ang", "fea", "dis", "sur", "exc", "fru", "oth", "xxx"), LABELS))
VOTE_WORDS = {
    "Neutral": "neutral",
    "Neutral state": "neutral",
    "Happiness": "happy",
    "Sadness": "sad",
    "Anger": "angry",
    "Fear": "fearful",
    "Disgust": "disgust",
    "Surprise": "surprised",
    "Excited": "excited",
    "Frustration": "frustrated",
    "Other": "other",
}

# [start - end]	utterance	label	[valence, activation, dominance]
LABEL_LINE = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(\S+)\s+(\w+)\s+\[(\d+\.\d+), (\d+\.\d+), (\d+\.\d+)\]\s*")
# The letter after the session names who wears the motion capture markers; the speaker is in the last token.
UTTERANCE = re.compile(r"(Ses0([1-5])[FM]_(impro|script)\w*)_([FM])[^_]*")
# annotator:	emotion; emotion;	(free comment)
VOTE_LINE = re.compile(r"C-E\d+:\s*([^(]*)")
# first and last frame of 10 ms, score, and the word, which may be a silence such as <sil> or a noise such as ++BREATH++
ALIGNMENT_LINE = re.compile(r"\s*(\d+)\s+(\d+)\s+-?\d+\s+(\S+)\s*")
SILENCE = re.compile(r"<|\+\+|\[")
TRANSCRIPT_LINE = re.compile(r"(\S+)\s*\[[^\]]*\]:\s*(.*)")


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that contains Session1 to Session5; `speaker` is session and gender, such as 1M.

    Raises:
        InputError: the directory contains no IEMOCAP labels, a label line cannot be read, or utterances are missing
            and `partial` is not set.
    """
    root = _root(Path(data_dir))
    transcripts = _transcripts(root)
    rows = [row for path in _label_files(root) for row in _read_labels(path)]
    for row in rows:
        row["audio"] = _find_audio(root / row["audio"])
        row["text"] = transcripts.get(row["id"], "")
        row["words"] = _read_alignment(root, row["id"], row["text"])
    present = [row for row in rows if row["audio"].is_file()]
    differences = _absent(rows, present, root) + _compare_counts(rows)
    report_differences("IEMOCAP", data_dir, differences, partial)
    return make_rows(present, LABELS)


def _root(data_dir: Path) -> Path:
    for root in (data_dir, data_dir / "IEMOCAP_full_release"):
        if _label_files(root):
            return root
    raise InputError(
        f"{data_dir} contains no IEMOCAP labels; looked for Session*/dialog/EmoEvaluation/Ses*.txt: "
        "give the directory that contains Session1 to Session5"
    )


def _label_files(root: Path) -> list[Path]:
    """The label files, one per dialogue. The subfolders next to them contain the same labels for each annotator."""
    return sorted(root.glob("Session[1-5]/dialog/EmoEvaluation/Ses*.txt"))


def _lines(path: Path) -> list[str]:
    # All but the annotators' comments and the transcripts is ASCII.
    return path.read_text(encoding="utf-8-sig", errors="replace").split("\n")


def _transcripts(root: Path) -> dict[str, str]:
    paths = sorted(root.glob("Session[1-5]/dialog/transcriptions/Ses*.txt"))
    matches = (TRANSCRIPT_LINE.fullmatch(line) for path in paths for line in _lines(path))
    return {match[1]: match[2].strip() for match in matches if match is not None}


def _read_alignment(root: Path, utterance: str, text: str) -> list[dict[str, Any]]:
    """The words of a transcript with their times; empty if the forced alignment is missing, or has other words."""
    path = root / f"Session{utterance[4]}/sentences/ForcedAlignment/{utterance.rpartition('_')[0]}/{utterance}.wdseg"
    if not path.is_file():
        return []
    matches = [match for line in _lines(path) if (match := ALIGNMENT_LINE.fullmatch(line))]
    times = [(int(match[1]) / 100, (int(match[2]) + 1) / 100) for match in matches if not SILENCE.match(match[3])]
    words = text.split()
    if len(words) != len(times):
        return []
    return [{"word": word, "start": start, "end": end} for word, (start, end) in zip(words, times)]


def _read_labels(path: Path) -> list[dict[str, Any]]:
    """Rows of one dialogue, without their text; `audio` is relative to the root."""
    rows: list[dict[str, Any]] = []
    votes: list[list[set[str]]] = []
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        if line.startswith("["):
            rows.append(_utterance(line, where))
            votes.append([])
        elif line.startswith("C-E"):
            if not rows:
                raise InputError(f"{where}: {line.strip()!r} comes before the first utterance; unpack the file again")
            votes[-1].append(_vote(line, where))
    return [{**row, "label_distribution": _distribution(annotators)} for row, annotators in zip(rows, votes)]


def _find_audio(path: Path) -> Path:
    """The file of an utterance, which may be in another format than the published WAV; the path itself without one."""
    return next((found for suffix in AUDIO_SUFFIXES if (found := path.with_suffix(suffix)).is_file()), path)


def _utterance(line: str, where: str) -> dict[str, Any]:
    fields = LABEL_LINE.fullmatch(line)
    name = UTTERANCE.fullmatch(fields[1]) if fields else None
    if fields is None or name is None or fields[2] not in CODES:
        raise InputError(
            f"{where}: {line.strip()!r} is not '[start - end] utterance label [valence, activation, dominance]' with "
            f"a label of {', '.join(CODES)}; unpack the file again"
        )
    dialogue, session, style, gender = name.groups()
    return {
        "id": fields[1],
        "audio": Path(f"Session{session}", "sentences", "wav", dialogue, f"{fields[1]}.wav"),
        "label": CODES[fields[2]],
        "speaker": session + gender,
        "gender": "female" if gender == "F" else "male",
        "session": session,
        "style": "improvised" if style == "impro" else "scripted",
        "valence": float(fields[3]),
        "arousal": float(fields[4]),
        "dominance": float(fields[5]),
    }


def _vote(line: str, where: str) -> set[str]:
    """The emotions that one annotator named."""
    match = VOTE_LINE.match(line)
    words = [word.strip() for word in match[1].split(";") if word.strip()] if match else []
    if not words or not set(words) <= VOTE_WORDS.keys():
        raise InputError(
            f"{where}: {line.strip()!r} is not an annotator and emotions of {', '.join(VOTE_WORDS)}, each followed "
            "by a semicolon; unpack the file again"
        )
    return {VOTE_WORDS[word] for word in words}


def _distribution(annotators: list[set[str]]) -> list[float]:
    """Share of the votes for each label; an annotator who named several emotions divides one vote among them."""
    shares = [sum(1 / len(named) for named in annotators if label in named) for label in LABELS]
    return [share / len(annotators) for share in shares] if annotators else []


def _absent(rows: list[dict[str, Any]], present: list[dict[str, Any]], root: Path) -> list[str]:
    sessions = {row["session"] for row in rows}
    found = {row["id"] for row in present}
    return [f"no label file of session {session}" for session in "12345" if session not in sessions] + [
        f"{row['audio'].relative_to(root)} is missing" for row in rows if row["id"] not in found
    ]


def _compare_counts(rows: list[dict[str, Any]]) -> list[str]:
    """Compare the counts of the label lines, whether or not their audio is there."""
    differences = compare_counts(Counter(row["label"] for row in rows), PUBLISHED_COUNTS)
    for group, counts in FOUR_CLASS_COUNTS.items():
        members = [row for row in rows if group in (f"session {row['session']}", f"speaker {row['speaker']}")]
        found = Counter(HAPPY_OR_EXCITED if row["label"] in ("happy", "excited") else row["label"] for row in members)
        differences += compare_counts(found, dict(zip(FOUR_CLASSES, counts)), f"{group} ")
    return differences
