"""The folder of a stage: which run it belongs to, whether that run is finished, and what to keep of an earlier one."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import DatasetDict

from core.errors import InputError
from core.hashing import hash_content
from core.json_files import read_json, write_json
from core.shipped import find_model
from recipe.checkpoints import CHECKPOINTS
from recipe.converted import list_copies, select_recordings
from recipe.options import Arguments
from recipe.records import first_difference
from recipe.repeats import DIGEST
from recipe.results import read_results
from recipe.stages import find_stage1_folder


def describe_run(stage: int, args: Arguments, split: DatasetDict) -> dict[str, Any]:
    """Record what determines the results of a stage: its options, its rows and their audio, converted copies, and its
    stage 1."""
    copies = list_copies(split["train"])
    recordings = DatasetDict({**split, "train": select_recordings(split["train"])})
    record = {**args.flat(), **describe_rows(recordings), "copies": hash_values(copies) if copies else None}
    teacher = args.trainer.teacher
    if args.model.text_encoder is not None:
        record["text"] = hash_values([part["text"][:] for part in recordings.values()])
    if "word" in args.model.text_levels and "words" in split["train"].column_names:
        record["words"] = hash_values([part["words"][:] for part in recordings.values()])
    record["teacher_weights"] = None if teacher is None else hash_weights(Path(find_model(teacher)))
    if stage == 2:
        record["stage1"] = hash_weights(find_stage1_folder(args))
    return record


def describe_rows(split: DatasetDict) -> dict[str, Any]:
    """Record the rows of a split and, if it was read, their audio."""
    optional = (name for name in ("start", "end", "dimensions") if name in split["train"].column_names)
    columns = ["id", "label", "speaker", *optional]
    rows = [(name, *row) for name, part in split.items() for row in zip(*(part[column][:] for column in columns))]
    record = {"rows": hash_values(rows)}
    if DIGEST in split["train"].column_names:
        record["audio"] = hash_values([part[DIGEST][:] for part in split.values()])
    return record


def hash_weights(folder: Path) -> str | None:
    """The digest of a model's weights; None if it has none."""
    weights = folder / "model.safetensors"
    return hash_content(str(weights)) if weights.is_file() else None


def hash_values(values: list[Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def read_finished(stage_dir: Path, record: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """Read the results of a stage that an earlier run finished in this folder, if any.

    Raises:
        InputError: the folder belongs to a run with other arguments or data, or was not written by a run.
    """
    path = stage_dir / "arguments.json"
    # The Trainer creates an empty folder before that file is written, and the run may be killed in between.
    begun = {*stage_dir.glob(f"{path.name}*.unfinished")}
    if not path.is_file() and any(entry.is_file() and entry not in begun for entry in stage_dir.rglob("*")):
        raise InputError(
            f"{stage_dir} contains files but no arguments.json, so no run wrote it: choose another --output_dir"
        )
    if overwrite or not path.is_file():
        return None
    difference = first_difference(read_json(path), record)
    if difference is not None:
        raise InputError(f"{stage_dir} was trained with {difference}: choose another --output_dir, or add --overwrite")
    return read_results(stage_dir)


def open_stage_folder(stage_dir: Path, record: dict[str, Any], overwrite: bool) -> None:
    """Create the folder of a stage, or keep that of an interrupted run."""
    if not PartialState().is_main_process:
        return
    stage_dir.mkdir(parents=True, exist_ok=True)
    for entry in stage_dir.iterdir() if overwrite else ():
        if entry.name != "arguments.json":  # marks the folder as a run's own, even if it is killed here
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_json(stage_dir / "arguments.json", record)


def remove_checkpoints(stage_dir: Path) -> None:
    """Remove the checkpoints of a stage whose best and last weights have been saved."""
    shutil.rmtree(stage_dir / CHECKPOINTS, ignore_errors=True)
