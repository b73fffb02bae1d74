"""Broken files of a corpus: each file is read once before training; those that cannot train are named and left out."""

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from tqdm.auto import tqdm

from core.audio import read_mono
from core.errors import InputError, warn
from recording_ser_align import SILENCE_DB, describe_recording

MOST_NAMED = 10


def broken_files(rows: Dataset, first: int = 0, step: int = 1) -> dict[int, str]:
    """Why files cannot train, by the index of their row: unreadable, damaged, not finite, empty or silent.

    Args:
        first, step: which rows to read, as in a slice, so that several processes can share the work.
    """
    indices = range(first, len(rows), step)
    paths = [row["path"] for row in rows["audio"][first::step]]
    hidden = None if first == 0 else True  # one bar for all processes, and none without a terminal
    progress = tqdm(zip(indices, paths), "reading audio", len(paths), leave=False, disable=hidden)
    return {index: reason for index, path in progress if (reason := why_broken(path)) is not None}


def why_broken(path: str) -> str | None:
    """One line, or None for a file that is as it should be."""
    try:
        waveform, _ = read_mono(path)
    except InputError as error:
        return str(error)
    if np.abs(waveform).max() < 10 ** (SILENCE_DB / 20):
        return f"{describe_recording(path)} holds no speech: it is silent; remove it or record it again"
    return None


def left_out(rows: Dataset, broken: dict[int, str], most: float) -> Dataset:
    """The rows without the broken ones, which are named on standard error.

    Args:
        broken: as from `broken_files`.
        most: which share of the rows may be broken.

    Raises:
        InputError: more are, or all.
    """
    if not broken:
        return rows
    reasons = [broken[index] for index in sorted(broken)]
    if len(broken) > most * len(rows) or len(broken) == len(rows):
        raise InputError(
            f"{reasons[0]} ({len(broken)} of {len(rows)} audio files cannot be used, and --max_broken_share {most:g} "
            "allows fewer: mend them, remove them, or raise it)"
        )
    lines = reasons[:MOST_NAMED]
    more = f", {len(reasons) - len(lines)} of them not named" if len(reasons) > len(lines) else ""
    lines.append(f"{len(reasons)} of {len(rows)} audio files cannot be used and are left out{more}")
    if PartialState().is_main_process:
        for line in lines:
            warn(line)
    return rows.select([index for index in range(len(rows)) if index not in broken])
