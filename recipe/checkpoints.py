"""Checkpoints of a stage: when one is complete, which one a run resumes from, and which are kept.

Several processes write a checkpoint file by file. Once all of them are done and the files have reached the disk,
`FILES` lists them with their sizes. That list makes the checkpoint complete; older ones are deleted only after it. So a
run that stops, wherever it stops, leaves a complete checkpoint and the best one until then.
"""

import os
import shutil
from pathlib import Path

from accelerate import PartialState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from core.errors import InputError
from core.json_files import read_json, write_json

CHECKPOINTS = "checkpoints"  # folder of a stage until it is finished
FILES = "files.json"
# Newest checkpoints to keep; the best ones stay beside them.
KEPT = 2


def folder_at(folder: Path, step: int) -> Path:
    return folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"


def checkpoints_in(folder: Path) -> list[Path]:
    """From the oldest to the newest, complete or not."""
    return sorted(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.split("-")[-1]))


def mark_complete(checkpoint: Path) -> None:
    """To be called when all processes have written their files."""
    flush(checkpoint)
    write_json(checkpoint / FILES, _sizes(checkpoint))


def is_complete(checkpoint: Path) -> bool:
    """Whether every file that it had when it was marked complete is still there in full length."""
    try:
        written = read_json(checkpoint / FILES)
    except (FileNotFoundError, InputError):
        return False
    return written.items() <= _sizes(checkpoint).items()


def last_complete(folder: Path) -> Path | None:
    """The newest checkpoint that a run can resume from; newer ones that are incomplete are reported and deleted."""
    state = PartialState()
    if state.is_main_process:
        for checkpoint in reversed(checkpoints_in(folder)):
            if is_complete(checkpoint) and is_complete(best_until(checkpoint)):
                break
            print(f"  {checkpoint} is incomplete, or the best one until then is: deleted")
            shutil.rmtree(checkpoint)
    state.wait_for_everyone()
    left = checkpoints_in(folder)
    return left[-1] if left else None


def best_until(checkpoint: Path) -> Path:
    """The checkpoint with the best weights when this complete one was written; it may be this one."""
    return folder_at(checkpoint.parent, read_json(checkpoint / TRAINER_STATE_NAME)["best_global_step"])


def delete_older(folder: Path) -> None:
    """Keep the newest complete checkpoints and the best one until each of them, so that a run can resume from each."""
    newest = [checkpoint for checkpoint in checkpoints_in(folder) if is_complete(checkpoint)][-KEPT:]
    for checkpoint in set(checkpoints_in(folder)) - {*newest, *map(best_until, newest)}:
        shutil.rmtree(checkpoint)


def flush(folder: Path) -> None:
    """Make what was written into a folder outlive a power failure."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _sizes(checkpoint: Path) -> dict[str, int]:
    """Of each file but the list of them, in bytes."""
    files = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != FILES]
    return {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
