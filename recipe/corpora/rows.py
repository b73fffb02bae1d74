"""Rows: what every corpus reader returns, as a `datasets.Dataset`.

Text is in Unicode normalisation form C, so that a name is the same name on every system.

Every corpus has the columns `id` (unique utterance id), `audio` (path, not decoded here), `label` (ClassLabel),
`speaker`, `gender` ("female", "male" or ""), `session` ("" if there is none) and `duration` (seconds, from the
file's header; NaN if it cannot be read: `recipe.broken` drops such rows).

Some corpora also have `start` and `end` (seconds: the utterance is an excerpt of the file; None for a whole file);
`text`; `words` (dicts of `word`, and `start` and `end` in seconds of the utterance; empty if they are unknown), whose
words then are the text; `style` ("improvised" or "scripted"); `intensity`; `label_distribution` (the share of annotator
votes for each label, in the order of the labels; empty without votes); `valence`, `arousal` and `dominance` (mean over
annotators, on the corpus's own scale; None without ratings); `split` (train, validation, test: the published split, if
it is speaker-independent); `official_split` (if it is not).
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Audio, ClassLabel, Dataset

from core.audio import AUDIO_SUFFIXES, Excerpt, read_duration
from core.errors import InputError, warn
from core.escaping import printable
from core.files import find_files
from words_ser_align import join_words

# A recording of an unknown speaker counts as a separate speaker, whose name has this prefix.
UNKNOWN_SPEAKER = "utterance:"
# Part of a split that a name means, in lower case; for the names in EVALUATION, `find_parts` decides.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
EVALUATION = ("eval", "evaluation")
MOST_NAMED = 6  # speakers that `count_speakers` lists
# Annotations may end this many seconds after their file, from rounding.
ROUNDING = 0.05
SHORTEST_EXCERPT = 0.05  # seconds: no syllable is shorter
SPELLING = "case, spaces, quotes or the way a number is written"
QUOTES = " \t\"'`\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb"


def make_rows(rows: list[dict[str, Any]], labels: list[str]) -> Dataset:
    """Convert rows with label names to a Dataset with a ClassLabel and the duration of each file.

    Args:
        rows: dicts with `id`, `audio` (path), `label` (one of `labels`), `speaker` and optional columns. If one has
            `start` and `end`, all have.
        labels: class names in the order of their indices.

    Raises:
        InputError: there are no rows, an id occurs twice, an excerpt is not within its file, or a file name is not
            UTF-8.
    """
    if not rows:
        raise InputError("the corpus has no utterances")
    rows = _normalize_rows(rows)
    twice = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    if twice:
        raise InputError(f"utterance id {twice[0]!r} occurs more than once; ids must be unique")
    _warn_of_similar_speakers({row["speaker"] for row in rows})
    defaults: dict[str, Any] = {"gender": "", "session": ""}
    read = cache(_read_duration_or_nan)
    filled = [{**defaults, **row, **_measure(row, read(str(row["audio"])))} for row in rows]
    if not any(row.get("words") for row in filled):  # no times are known, and of empty lists no type
        filled = [{name: value for name, value in row.items() if name != "words"} for row in filled]
    columns = {name: [row[name] for row in filled] for name in filled[0]}
    columns["audio"] = [str(path) for path in columns["audio"]]
    try:
        dataset = Dataset.from_dict(columns)
    except UnicodeEncodeError as error:  # a table contains only valid Unicode
        raise InputError(f"{printable(error.object)} has a name that is not UTF-8: rename it") from None
    return dataset.cast_column("audio", Audio(decode=False)).cast_column("label", ClassLabel(names=labels))


def normalize(text: str) -> str:
    """Text in Unicode normalisation form C: macOS may write "é" as two characters, other systems as one."""
    return unicodedata.normalize("NFC", text)


def _normalize_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with normalised text. Two ids that would become one stay as they are."""
    counts = Counter(normalize(row["id"]) for row in rows)
    return [
        {name: normalize(value) if isinstance(value, str) and name != "audio" else value for name, value in row.items()}
        | _normalize_words(row)
        | {"id": row["id"] if counts[normalize(row["id"])] > 1 else normalize(row["id"])}
        for row in rows
    ]


def _normalize_words(row: dict[str, Any]) -> dict[str, Any]:
    """The words of a row and its text, which is theirs; nothing of a row whose word times are unknown."""
    if not row.get("words"):
        return {}
    words = [{**word, "word": normalize(word["word"])} for word in row["words"]]
    return {"words": words, "text": join_words(words)}


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Sort labels in natural order: numbers by value, then text, in which numbers count: -1, 2, 10, a2, a10."""
    return sorted(set(labels), key=_natural_key)


def _natural_key(label: str) -> tuple:
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", label):
        return 0, float(label), label
    return 1, [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", label)], label


def find_similar(names: Iterable[str]) -> list[str]:
    """Find the first names that only differ in `SPELLING`, such as `Angry` and `angry`; empty without such."""
    groups: dict[str | float, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(_spell(name), []).append(name)
    return next((group for group in groups.values() if len(group) > 1), [])


def _spell(name: str) -> str | float:
    """A name without what `SPELLING` lists."""
    plain = " ".join(name.casefold().strip(QUOTES).split())
    return float(plain) if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", plain) else plain


def _warn_of_similar_speakers(speakers: set[str]) -> None:
    similar = find_similar(speaker for speaker in speakers if speakers_known([speaker]))
    if similar:
        warn(
            f"the speakers {' and '.join(map(repr, similar))} differ only in {SPELLING} and count as different people: "
            "if they are one, give them one name"
        )


def find_parts(names: Iterable[str]) -> dict[str, str]:
    """Find the parts of a split (train, validation, test) that names such as `Train` and `dev` mean.

    `eval` is validation data beside a test part, and test data otherwise. Other names are absent from the result.
    """
    words = {name: name.strip().lower() for name in names}
    evaluation = "validation" if "test" in map(PARTS.get, words.values()) else "test"
    meaning = {**PARTS, **dict.fromkeys(EVALUATION, evaluation)}
    return {name: meaning[word] for name, word in words.items() if word in meaning}


def _measure(row: dict[str, Any], duration: float) -> dict[str, Any]:
    """The duration of an utterance, and of an excerpt where it ends; `duration` is its file's, NaN if unreadable.

    Raises:
        InputError: the excerpt is not within its file, or shorter than any utterance.
    """
    start, end = row.get("start"), row.get("end")
    if start is None and end is None:
        return {"duration": duration}
    start = start or 0.0
    if start >= duration or (end is not None and end > duration + ROUNDING):
        raise InputError(
            f"{Excerpt(str(row['audio']), start, end)} ({row['id']}) is not within the file, which lasts "
            f"{duration:g} s: give start and end in seconds"
        )
    end = duration if end is None else min(end, duration)  # NaN where the file is unreadable
    if end - start < SHORTEST_EXCERPT:
        raise InputError(
            f"{Excerpt(str(row['audio']), start, end)} ({row['id']}) lasts {end - start:.4g} s, and an utterance at "
            f"least {SHORTEST_EXCERPT:g} s: give start and end in seconds"
        )
    return {"start": start, "end": end, "duration": end - start if end <= duration else math.nan}


def read_excerpts(columns: Mapping[str, Any]) -> list[Excerpt]:
    """The audio of rows, given as columns: the file of each, and which part of it."""
    paths = [audio["path"] for audio in columns["audio"]]
    if "start" not in columns:
        return [Excerpt(path) for path in paths]
    return [Excerpt(path, start or 0.0, end) for path, start, end in zip(paths, columns["start"], columns["end"])]


def _read_duration_or_nan(path: str | Path) -> float:
    try:
        return read_duration(path)
    except InputError:  # `recipe.broken` reports it
        return math.nan


def refuse_outside(path: Path, directories: Iterable[Path], where: str) -> None:
    """Raise InputError for a file outside all of the directories, after following links.

    Otherwise, a list from someone else could name any file on this machine.
    """
    if not any(path.resolve().is_relative_to(directory.resolve()) for directory in directories):
        raise InputError(
            f"{where}: {path} is outside the corpus: move it there, give a --data_dir that contains all recordings, or "
            "add --allow_outside_paths if you trust the list"
        )


def compare_counts(found: Mapping[str, int], published: Mapping[str, int], what: str = "") -> list[str]:
    """Describe each class whose count differs from the published one: `angry: 1102 of 1103 utterances`."""
    return [
        f"{what}{name}: {found.get(name, 0)} of {count} utterances"
        for name, count in published.items()
        if found.get(name, 0) != count
    ]


def report_differences(corpus: str, data_dir: str | Path, differences: list[str], partial: bool) -> None:
    """Warn of differences from the published corpus.

    Raises:
        InputError: there are differences and `partial` is not set.
    """
    if not differences:
        return
    summary = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
    if not partial:
        raise InputError(
            f"{data_dir} differs from the published {corpus}: {summary}. Complete it, or use it as it is with "
            "--partial_corpus"
        )
    warn(f"{data_dir} differs from the published {corpus}: {summary}")


def find_audio_files(directory: Path, suffixes: tuple[str, ...] = AUDIO_SUFFIXES) -> list[Path]:
    """Find the audio files below a directory, sorted, without hidden ones such as `._x.wav` of macOS archives."""
    return [path for path in find_files(directory, suffixes) if not path.name.startswith(".")]


def speakers_known(speakers: Iterable[str]) -> bool:
    """Whether all utterances have a known speaker."""
    return not any(speaker.startswith(UNKNOWN_SPEAKER) for speaker in speakers)


def count_speakers(rows: Dataset) -> str:
    """Describe the speakers, as in ` of 2 speakers (anna, ben)`; some or all of them may be unknown."""
    known = {speaker for speaker in rows["speaker"][:] if speakers_known([speaker])}
    unknown = len(set(rows["speaker"][:])) - len(known)
    names = f" ({printable(', '.join(sorted(known)))})" if len(known) <= MOST_NAMED else ""
    counted = f" of {len(known):3} speaker{'' if len(known) == 1 else 's'}{names}" if known else ""
    return counted + (f", {unknown} of unknown speakers" if known and unknown else "")


def count_classes(rows: Dataset) -> dict[str, int]:
    """Count the utterances of each class, in the order of the labels."""
    counts = Counter(rows["label"][:])
    return {name: counts[index] for index, name in enumerate(rows.features["label"].names)}
