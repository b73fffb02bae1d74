"""Rows: what every corpus reader returns, as a `datasets.Dataset`.

Every corpus has the columns `id` (unique utterance id), `audio` (path, not decoded here), `label` (ClassLabel),
`speaker`, `gender` ("female", "male" or ""), `session` ("" if there is none) and `duration` (seconds, from the
file's header; NaN if it cannot be read: `recipe.broken` drops such rows).

Some corpora also have `text`; `style` ("improvised" or "scripted"); `intensity`; `label_distribution` (the share of
annotator votes for each label, in the order of the labels; empty without votes); `valence`, `activation` and
`dominance` (mean over annotators, on the corpus's own scale; None without ratings); `split` (train, validation, test:
the published split, if it is speaker-independent); `official_split` (if it is not).
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

# An utterance of an unknown speaker counts as a separate speaker, whose name has this prefix.
UNKNOWN_SPEAKER = "utterance:"


def make_rows(rows: list[dict[str, Any]], labels: list[str]) -> Dataset:
    """Convert rows with label names to a Dataset with a ClassLabel and the duration of each file.

    Args:
        rows: dicts with `id`, `audio` (path), `label` (one of `labels`), `speaker` and optional columns.
        labels: class names in the order of their indices.

    Raises:
        InputError: there are no rows, an id occurs twice, or a file name is not UTF-8.
    """
    if not rows:
        raise InputError("the corpus has no utterances")
    twice = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    if twice:
        raise InputError(f"utterance id {twice[0]!r} occurs more than once; ids must be unique")
    defaults: dict[str, Any] = {"gender": "", "session": ""}
    filled = [{**defaults, **row, "duration": _read_duration_or_nan(row["audio"])} for row in rows]
    columns = {name: [row[name] for row in filled] for name in filled[0]}
    columns["audio"] = [str(path) for path in columns["audio"]]
    try:
        dataset = Dataset.from_dict(columns)
    except UnicodeEncodeError as error:  # a table contains only valid Unicode
        raise InputError(f"{printable(error.object)} has a name that is not UTF-8: rename it") from None
    return dataset.cast_column("audio", Audio(decode=False)).cast_column("label", ClassLabel(names=labels))


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


def find_audio_files(directory: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Find the audio files below a directory, sorted, without hidden ones such as `._x.wav` of macOS archives."""
    return sorted(
        path for path in directory.rglob("*") if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def speakers_known(speakers: Iterable[str]) -> bool:
    """Whether all utterances have a known speaker."""
    return not any(speaker.startswith(UNKNOWN_SPEAKER) for speaker in speakers)


def count_speakers(rows: Dataset) -> str:
    """Describe the number of speakers, as in ` of 4 speakers`; some or all of them may be unknown."""
    known = {speaker for speaker in rows["speaker"] if speakers_known([speaker])}
    unknown = len(set(rows["speaker"])) - len(known)
    counted = f" of {len(known):3} speakers" if known else ""
    return counted + (f", {unknown} of unknown speakers" if known and unknown else "")


def count_classes(rows: Dataset) -> dict[str, int]:
    """Count the utterances of each class, in the order of the labels."""
    counts = Counter(rows["label"])
    return {name: counts[index] for index, name in enumerate(rows.features["label"].names)}
