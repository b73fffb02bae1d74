"""The audio of a corpus is read once before training: unusable files are dropped, and what is odd is said."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from accelerate import PartialState
from datasets import Dataset
from tqdm.auto import tqdm

from core.audio import Excerpt, as_excerpt, scan_audio
from core.errors import InputError, warn
from decoding_ser_align import describe_recording, measure_lost_share
from recipe.corpora.rows import read_excerpts
from recipe.known_audio import Known, identify, keep, recall
from recipe.repeats import DIGEST, warn_of_two_labels
from speech_ser_align import SILENCE_DB

MOST_NAMED = 10
KEPT_AT_ONCE = 1000  # files: a run that is interrupted while it reads loses no more


class Check(NamedTuple):
    """What reading the audio of a row has shown."""

    broken: str | None = None  # in one line, why it cannot be used
    is_cut: bool = False  # its file holds less audio than its header promises
    digest: str = ""


def check_audio(rows: Dataset, first: int = 0, step: int = 1) -> dict[int, Check]:
    """Read the audio of rows: which is unreadable, damaged, not finite, empty or silent, and which is cut short.

    Usable audio that an earlier run has read, and that has not changed, is not read again.

    Args:
        first, step: rows to read, as in a slice, so that several processes can share the work.

    Returns:
        what was found, by the index of the row.
    """
    excerpts = dict(zip(range(first, len(rows), step), read_excerpts(rows[first::step])))
    keys = {index: identify(excerpt) for index, excerpt in excerpts.items()}
    known = recall(keys.values())
    checks = {index: Check(None, *known[key]) for index, key in keys.items() if key in known}
    unread = [index for index in excerpts if index not in checks]
    hidden = None if first == 0 else True  # one bar for all processes, and none without a terminal
    measure_lost = cache(measure_lost_share)  # of a file with many excerpts
    with tqdm(total=len(unread), desc="reading audio", leave=False, disable=hidden) as progress:
        for start in range(0, len(unread), KEPT_AT_ONCE):
            some = unread[start : start + KEPT_AT_ONCE]
            for index in some:
                checks[index] = check_recording(excerpts[index], measure_lost)
                progress.update()
            usable = ((keys[index], checks[index]) for index in some if checks[index].broken is None)
            keep({key: Known(check.is_cut, check.digest) for key, check in usable if key is not None})
    return checks


def check_recording(recording: str | Excerpt, measure_lost: Callable[[str], float] = measure_lost_share) -> Check:
    """Read a file or an excerpt once."""
    excerpt = as_excerpt(recording)
    try:
        scan = scan_audio(excerpt)
        lost = scan.lost if excerpt.is_whole else measure_lost(excerpt.path)
    except InputError as error:
        return Check(str(error))
    if scan.peak < 10 ** (SILENCE_DB / 20):
        return Check(f"{describe_recording(str(excerpt))} is silent; remove it or record it again")
    return Check(None, lost > 0, scan.digest)


def keep_usable(rows: Dataset, checks: dict[int, Check], most: float) -> tuple[Dataset, int]:
    """Drop rows with broken audio, and say on standard error what is odd about the others.

    Args:
        checks: of all rows, as returned by `check_audio`.
        most: largest share of the rows that may be broken.

    Returns:
        the other rows, with a digest of their audio as a column, and the number of rows dropped.

    Raises:
        InputError: a larger share of the files is broken, or all of them are.
    """
    broken = {index: check.broken for index, check in checks.items() if check.broken is not None}
    digests = [checks[index].digest for index in range(len(rows))]
    kept = drop_broken(rows.add_column(DIGEST, digests), broken, most)
    if PartialState().is_main_process:
        excerpts = enumerate(read_excerpts(rows[:]))
        reason = explain_cut({excerpt.path: checks[i].is_cut for i, excerpt in excerpts if i not in broken})
        if reason is not None:
            warn(reason)
        warn_of_two_labels(kept)
    return kept, len(broken)


def drop_broken(rows: Dataset, broken: dict[int, str], most: float) -> Dataset:
    """Drop the rows of broken files and list the files on standard error.

    Args:
        broken: the reason for each of them, by the index of its row.
        most: largest share of the rows that may be broken.

    Raises:
        InputError: a larger share of the files is broken, or all of them are.
    """
    if not broken:
        return rows
    reasons = [broken[index] for index in sorted(broken)]
    if len(broken) > most * len(rows) or len(broken) == len(rows):
        raise InputError(
            f"{reasons[0]} ({len(broken)} of {len(rows)} audio files are unusable, more than --max_broken_share "
            f"{most:g} allows: repair or remove them, or raise the limit)"
        )
    lines = reasons[:MOST_NAMED]
    more = f"; {len(reasons) - len(lines)} of them are not listed" if len(reasons) > len(lines) else ""
    lines.append(f"dropped {len(reasons)} of {len(rows)} audio files as unusable{more}")
    if PartialState().is_main_process:
        for line in lines:
            warn(line)
    return rows.select([index for index in range(len(rows)) if index not in broken])


def explain_cut(files: dict[str, bool]) -> str | None:
    """Count in one line the files, by path, that are cut short; None if there are none."""
    cut = [path for path, is_cut in files.items() if is_cut]
    if not cut:
        return None
    return (
        f"{len(cut)} of {len(files)} audio files are cut short, for example {describe_recording(cut[0])}: their "
        "headers promise more audio than they hold; copy or download them again"
    )
