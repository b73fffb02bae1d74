"""Checkpoints of a stage: when one is complete, which one a run resumes from, and which ones are kept.

Several processes write the files of a checkpoint. Once all files are on disk, `FILES` lists them with their sizes,
which marks the checkpoint as complete; only then are older ones deleted. So a run that is stopped at any point leaves
a complete checkpoint and the best one up to that point.
"""

import os
import shutil
from pathlib import Path

from accelerate import PartialState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from core.errors import InputError
from core.json_files import read_json, write_json

CHECKPOINTS = "checkpoints"  # subfolder of a stage until it is finished
FILES = "files.json"
# Number of newest checkpoints to keep, in addition to the best ones.
KEPT = 2


def folder_at(folder: Path, step: int) -> Path:
    return folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def checkpoints_in(folder: Path) -> list[Path]:
    """List the checkpoints from oldest to newest, complete or not."""
    return sorted(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.split("-")[-1]))


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as complete. Call this once all processes have written their files."""
    flush(checkpoint)
    write_json(checkpoint / FILES, _sizes(checkpoint))


def is_complete(checkpoint: Path) -> bool:
    """Whether the checkpoint was marked as complete and all its files still have their original size."""
    try:
        written = read_json(checkpoint / FILES)
    except (FileNotFoundError, InputError):
        return False
    return written.items() <= _sizes(checkpoint).items()


def last_complete(folder: Path) -> Path | None:
    """Find the newest checkpoint that a run can resume from. Newer, incomplete ones are reported and deleted."""
    state = PartialState()
    if state.is_main_process:
        for checkpoint in reversed(checkpoints_in(folder)):
            if is_complete(checkpoint) and is_complete(best_until(checkpoint)):
                break
            print(f"  deleted {checkpoint}: it, or the best checkpoint before it, is incomplete")
            shutil.rmtree(checkpoint)
    state.wait_for_everyone()
    left = checkpoints_in(folder)
    return left[-1] if left else None


def best_until(checkpoint: Path) -> Path:
    """The best checkpoint at the time this complete one was written; it may be this one."""
    return folder_at(checkpoint.parent, read_json(checkpoint / TRAINER_STATE_NAME)["best_global_step"])


def delete_older(folder: Path) -> None:
    """Keep the newest complete checkpoints, and the best one up to each of them, so a run can resume from any."""
    newest = [checkpoint for checkpoint in checkpoints_in(folder) if is_complete(checkpoint)][-KEPT:]
    for checkpoint in set(checkpoints_in(folder)) - {*newest, *map(best_until, newest)}:
        shutil.rmtree(checkpoint)


def flush(folder: Path) -> None:
    """Flush the files in a folder to disk, so that they survive a power failure."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _sizes(checkpoint: Path) -> dict[str, int]:
    """The size of each file in bytes, except for the list of files."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != FILES]
    return {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
