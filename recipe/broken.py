"""Broken audio files: every file of a corpus is read once before training, and unusable ones are dropped."""

from accelerate import PartialState
from datasets import Dataset
from tqdm.auto import tqdm

from core.audio import Excerpt, measure_peak
from core.errors import InputError, warn
from decoding_ser_align import describe_recording, measure_lost_share
from recipe.corpora.rows import read_excerpts
from speech_ser_align import SILENCE_DB

MOST_NAMED = 10


def find_broken_files(rows: Dataset, first: int = 0, step: int = 1) -> dict[int, str]:
    """Find files that cannot be used: unreadable, damaged, not finite, empty or silent.

    Args:
        first, step: rows to read, as in a slice, so that several processes can share the work.

    Returns:
        the reason for each broken file, by the index of its row.
    """
    indices = range(first, len(rows), step)
    excerpts = read_excerpts(rows[first::step])
    hidden = None if first == 0 else True  # one bar for all processes, and none without a terminal
    progress = tqdm(zip(indices, excerpts), "reading audio", len(excerpts), leave=False, disable=hidden)
    return {index: reason for index, excerpt in progress if (reason := explain_broken(excerpt)) is not None}


def explain_broken(recording: str | Excerpt) -> str | None:
    """Explain in one line why a file or excerpt cannot be used; None if it can."""
    try:
        peak = measure_peak(recording)
    except InputError as error:
        return str(error)
    if peak < 10 ** (SILENCE_DB / 20):
        return f"{describe_recording(str(recording))} is silent; remove it or record it again"
    return None


def drop_broken(rows: Dataset, broken: dict[int, str], most: float) -> Dataset:
    """Drop the rows of broken files and list the files on standard error.

    Args:
        broken: as returned by `find_broken_files`.
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


def warn_of_cut_files(rows: Dataset) -> None:
    """Say on standard error if files of the corpus are cut short; they stay in it."""
    if PartialState().is_main_process:
        reason = explain_cut([excerpt.path for excerpt in read_excerpts(rows[:])])
        if reason is not None:
            warn(reason)


def explain_cut(paths: list[str]) -> str | None:
    """Count in one line the files that hold less audio than their headers promise; None if there are none."""
    cut = [path for path in dict.fromkeys(paths) if measure_lost_share(path) > 0]
    if not cut:
        return None
    return (
        f"{len(cut)} of {len(set(paths))} audio files are cut short, for example {describe_recording(cut[0])}: their "
        "headers promise more audio than they hold; copy or download them again"
    )
