"""Rows: what every corpus gives, as a `datasets.Dataset`.

Columns of every corpus: `id` (unique utterance id), `audio` (path, never decoded here), `label` (ClassLabel),
`speaker`, `gender` ("female", "male" or ""), `session` ("" where there is none), `duration` (seconds, from the
file's header; NaN where that cannot be read: `recipe.broken` leaves such rows out).

Where a corpus has them: `text`; `style` ("improvised" or "scripted"); `intensity`; `label_distribution` (share
of the annotators' votes for each label, in the order of the labels; empty without votes); `valence`,
`activation`, `dominance` (mean over annotators, on the corpus's own scale, None without); `split` (train,
validation, test: the published split, where it shares no speaker); `official_split` (where it does share them).
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datasets import Audio, ClassLabel, Dataset

from core.audio import read_duration
from core.errors import InputError, warn
from core.escaping import printable

# Where a corpus names no speakers, each utterance counts as one of its own, marked so.
UNKNOWN_SPEAKER = "utterance:"


def make_rows(rows: list[dict[str, Any]], labels: list[str]) -> Dataset:
    """Rows with label words to a Dataset with a ClassLabel; adds the duration of each file.

    Args:
        rows: dicts with `id`, `audio` (path), `label` (a word of `labels`), `speaker` and optional columns.
        labels: class names in the order of their indices.

    Raises:
        InputError: no row, one id twice, or a file name that is no UTF-8.
    """
    if not rows:
        raise InputError("the corpus has no utterance")
    twice = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    if twice:
        raise InputError(f"utterance id {twice[0]!r} occurs more than once; ids must be unique")
    defaults: dict[str, Any] = {"gender": "", "session": ""}
    filled = [{**defaults, **row, "duration": _duration(row["audio"])} for row in rows]
    columns = {name: [row[name] for row in filled] for name in filled[0]}
    columns["audio"] = [str(path) for path in columns["audio"]]
    try:
        dataset = Dataset.from_dict(columns)
    except UnicodeEncodeError as error:  # a table holds Unicode alone
        raise InputError(f"{printable(error.object)} has a name that is no UTF-8: rename it") from None
    return dataset.cast_column("audio", Audio(decode=False)).cast_column("label", ClassLabel(names=labels))


def _duration(path: str | Path) -> float:
    try:
        return read_duration(path)
    except InputError:  # said where it is left out
        return math.nan


def refuse_outside(path: Path, directories: Iterable[Path], where: str) -> None:
    """Raise InputError for a file that lies in none of the directories, links followed.

    A list made by others could have any file of this machine read.
    """
    if not any(path.resolve().is_relative_to(directory.resolve()) for directory in directories):
        raise InputError(
            f"{where}: {path} lies outside the corpus: put it there, give the --data_dir that holds all recordings, or "
            "--allow_outside_paths if you trust the list"
        )


def differing_counts(found: Mapping[str, int], published: Mapping[str, int], what: str = "") -> list[str]:
    """One line for each class whose count is not the published one: `angry: 1102 of 1103 utterances`."""
    return [
        f"{what}{name}: {found.get(name, 0)} of {count} utterances"
        for name, count in published.items()
        if found.get(name, 0) != count
    ]


def report_differences(corpus: str, data_dir: str | Path, differences: list[str], partial: bool) -> None:
    """Say what differs from the published corpus: a warning for a copy that is meant to be partial.

    Raises:
        InputError: there are differences, and the copy is not meant to be partial.
    """
    if not differences:
        return
    shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
    if not partial:
        raise InputError(
            f"{data_dir} differs from the published {corpus}: {shown}. Complete it, or take it as it is with "
            "--partial_corpus"
        )
    warn(f"{data_dir} differs from the published {corpus}: {shown}")


def audio_files(directory: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Audio files below a directory, sorted; hidden ones (such as `._x.wav` of macOS archives) are left out."""
    return sorted(
        path for path in directory.rglob("*") if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def speakers_known(speakers: Iterable[str]) -> bool:
    """Whether these are names of speakers, or marks of utterances whose speaker is not known."""
    return not any(speaker.startswith(UNKNOWN_SPEAKER) for speaker in speakers)


def count_speakers(rows: Dataset) -> str:
    """` of 4 speakers`; of some utterances or all of them the corpus may not name the speaker."""
    known = {speaker for speaker in rows["speaker"] if speakers_known([speaker])}
    unknown = len(set(rows["speaker"])) - len(known)
    counted = f" of {len(known):3} speakers" if known else ""
    return counted + (f", {unknown} of unknown ones" if known and unknown else "")


def class_counts(rows: Dataset) -> dict[str, int]:
    """Utterances of each class, in the order of the labels."""
    counts = Counter(rows["label"])
    return {name: counts[index] for index, name in enumerate(rows.features["label"].names)}
