"""Keeps records in a folder next to --output until all are complete, so that an interrupted run can resume.

A record is used again only with the same model and options, and if its recording has not changed since.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import InputError, writing
from core.json_files import write_json
from inference.answers import Job
from inference.options import list_models
from inference.outputs import Record

# Options that may change when a run is resumed.
NOT_RECORDED = (
    *("recordings", "device", "batch_size", "overwrite", "quiet", "format"),
    *("allow_remote", "engine", "workers"),
)
SETTINGS = "options.json"
FINGERPRINT, MANIFEST_DIGEST = "model_fingerprint", "manifest_digest"
VERSIONS = {FINGERPRINT: "model", MANIFEST_DIGEST: "manifest"}  # what may change although its option stays
MODEL_FILES = ("config.json", "preprocessor_config.json", "model.safetensors.index.json")


def name_parts(output: str) -> Path:
    return Path(f"{output.rstrip('/')}.parts")


def is_interrupted(options: argparse.Namespace) -> bool:
    """Whether an earlier run with this --output stopped before its end."""
    return options.output is not None and name_parts(options.output).is_dir()


def open_parts(options: argparse.Namespace, may_clean: bool) -> Path:
    """Create the folder, or open that of an interrupted run.

    Args:
        may_clean: remove records that cannot be used again; for one process alone.

    Raises:
        InputError: the interrupted run had different options or another model.
    """
    parts = name_parts(options.output)
    path, settings = parts / SETTINGS, describe_settings(options)
    is_new = not path.is_file()
    with writing(parts):
        parts.mkdir(parents=True, exist_ok=True)
    compare_settings(path, options, settings)
    if may_clean and not is_new:
        _clean_parts(parts)
    return parts


def describe_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The options and the model that the results of a run depend on."""
    settings = {name: value for name, value in sorted(vars(options).items()) if name not in NOT_RECORDED}
    fingerprints = [fingerprint_model(model, options.revision) for model in list_models(options)]
    return {**settings, FINGERPRINT: "".join(fingerprints)}


def compare_settings(path: Path, options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Write the settings of a new run, or compare them with those of an interrupted one, which is in the same folder.

    Raises:
        InputError: they differ.
    """
    if not path.is_file():
        write_json(path, settings)
        return
    before, folder = json.loads(path.read_text(encoding="utf-8")), path.parent
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed and set(changed) <= set(VERSIONS):
        name = VERSIONS[changed[0]]
        raise InputError(
            f"{folder} contains the results of another version of --{name} {getattr(options, name)}: remove it to "
            "score all recordings again"
        )
    if changed:
        command = _describe_option(changed[0], before.get(changed[0]))
        raise InputError(f"{folder} contains the results of a run {command}: use the same options again, or remove it")


def fingerprint_model(model: str, revision: str | None) -> str:
    """A hash of the weights and settings of a model: of its folder, or of what was downloaded from the Hub."""
    folder, digest = Path(model), hashlib.sha256()
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache  # imported here to keep --help fast

        folder = Path(str(try_to_load_from_cache(model, "config.json", revision=revision))).parent
    for path in sorted(path for suffix in ("*.json", "*.safetensors") for path in folder.glob(suffix)):
        if path.name in MODEL_FILES or path.suffix == ".safetensors":
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _clean_parts(parts: Path) -> None:
    """Keep the records of recordings that have not changed since, in one file; those that failed are tried again."""
    kept = parts / "part-0.jsonl"
    lines = [
        json.dumps({"record": line["record"], "state": line["state"]}) + "\n"
        for line in _read_lines(parts)
        if "error" not in line["record"] and line["state"] == read_state(line["record"]["file"])
    ]
    unfinished = parts / "kept.unfinished"
    unfinished.write_text("".join(lines), encoding="utf-8")
    unfinished.replace(kept)
    for path in parts.glob("part*.jsonl"):
        if path != kept:
            path.unlink()


def read_state(file: str) -> list[int] | None:
    """The size and the time of the last change of a file; None if there is none."""
    with contextlib.suppress(OSError):
        status = os.stat(file)
        return [status.st_size, status.st_mtime_ns]
    return None


def _describe_option(name: str, value: Any) -> str:
    if value is None or value is False:
        return f"without --{name}"
    return f"with --{name}" if value is True else f"with --{name} {value}"


def keep_record(parts: Path | None, process: int, record: Record, state: list[int] | None) -> None:
    """Append a record to the file of this process, with the state of its recording before it was read."""
    if parts is not None:
        with writing(parts), (parts / f"part-{process}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"record": record, "state": state}) + "\n")


def read_parts(parts: Path | None) -> dict[Job, Record]:
    """Read all records so far, of this run and of interrupted ones."""
    records = [line["record"] for line in _read_lines(parts)] if parts else []
    return {Job(record["file"], record["channel"]): record for record in records}


def _read_lines(parts: Path) -> Iterator[dict[str, Any]]:
    """Yield the records and the states of their recordings; truncated lines, and those of old releases, are ignored."""
    for path in sorted(parts.glob("part*.jsonl")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            with contextlib.suppress(json.JSONDecodeError):
                found = json.loads(line)
                if "record" in found:
                    yield found


def remove_parts(parts: Path | None) -> None:
    if parts is not None:
        shutil.rmtree(parts)
