"""Words with times: the column `words` of a corpus, and the transcripts of predict.py --transcribe in its place."""

import json
import math
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from core.errors import InputError, warn
from words_ser_align import join_words

Words = list[dict[str, Any]]
EXAMPLE = '[{"word": "well", "start": 0.1, "end": 0.4}]'


def read_word_times(value: Any, where: str) -> Words:
    """The words of an utterance, with their times in seconds from its start; empty if they are unknown.

    Args:
        value: a list of dicts of `word`, `start` and `end`, the same as JSON, or None or an empty text.

    Raises:
        InputError: it is something else, or a word ends before it starts.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except ValueError:
            raise InputError(f"{where}: words={value[:40]!r} is not JSON: write {EXAMPLE}") from None
    if value is None:
        return []
    try:
        words = [(str(each["word"]), float(each["start"]), float(each["end"])) for each in value]
    except (TypeError, KeyError, ValueError):
        raise InputError(f"{where}: words are no list of word, start and end: write {EXAMPLE}") from None
    for word, start, end in words:
        if not (math.isfinite(end) and 0 <= start <= end):
            raise InputError(
                f"{where}: {word!r} is from {start:g} to {end:g} s: give seconds from the start of the utterance"
            )
    return [{"word": word, "start": start, "end": end} for word, start, end in words]


def add_transcripts(rows: Dataset, path: str | None, corpus: str) -> Dataset:
    """Rows with the words of the JSON Lines of `predict.py --transcribe`, found by the paths of recordings.

    Utterances that are not in it have no words.

    Raises:
        InputError: the file cannot be read, its recordings are none of the rows, or rows are excerpts of recordings.
    """
    if path is None:
        return rows
    if "start" in rows.column_names:
        raise InputError(f"--transcripts is for whole recordings, and the utterances of {corpus} are excerpts of some")
    found = _read_transcripts(path)
    words = [found.get(Path(audio["path"]).resolve()) for audio in rows["audio"]]
    missing = words.count(None)
    if missing == len(rows):
        raise InputError(
            f"--transcripts {path} has no recording of {corpus}: write it with predict.py RECORDINGS --transcribe "
            "openai/whisper-base --output FILE.jsonl"
        )
    if missing:
        warn(f"{missing} of {len(rows)} utterances of {corpus} are not in {path}, and have no words")
    columns = {"text": [join_words(each or []) for each in words], "words": [each or [] for each in words]}
    kept = rows.remove_columns([name for name in columns if name in rows.column_names])
    return concatenate_datasets([kept, Dataset.from_dict(columns)], axis=1)


def _read_transcripts(path: str) -> dict[Path, Words]:
    """The words of each recording, by its path."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--transcripts {path} cannot be read ({error}): give the JSON Lines of predict.py") from None
    found = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            file = Path(record["file"]).resolve()
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}, line {number} is no record of predict.py: give its JSON Lines") from None
        found[file] = read_word_times(record.get("words"), f"{path}, line {number}")
    return found
