"""Scores a manifest of any length in constant memory: predict.py --manifest.

The output folder gets one file of JSON Lines per shard, in the order of the manifest. A shard is written to
`00012.jsonl.unfinished`, line by line, and renamed when it is complete. A lock lets one process score it; the operating
system releases it when the process ends. Any process then takes the shard up again behind its last complete line.
"""

import argparse
import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from filelock import FileLock, Timeout
from tqdm import tqdm

from core.errors import InputError, writing
from inference.answers import answer_jobs, build_record, list_jobs, load_recognizer
from inference.manifest import Manifest, open_recording, read_shard, scan_manifest
from inference.outputs import Record
from inference.parts import MANIFEST_DIGEST, SETTINGS, compare_settings, describe_settings
from inference.terminal import print_counts, print_models
from pipeline_ser_align import SpeechEmotionRecognitionPipeline

SHARD_SIZE = 1000  # ours: 1.5 MB of JSON Lines
FAILURES = "failures.jsonl"
REFUSED = ("plot", "format", "overwrite", "text", "texts", "transcribe")  # options that a manifest does not take


class Counts(NamedTuple):
    """What a finished run has scored."""

    recordings: int
    failed: int
    seconds: float  # of audio


def open_shards(options: argparse.Namespace) -> Manifest:
    """Check the manifest and create the output folder, or open that of an interrupted run.

    Raises:
        InputError: an option or a line of the manifest is not valid, or the folder is of another run.
    """
    for name in ("recordings", *REFUSED):
        if getattr(options, name):
            shown = "recordings" if name == "recordings" else f"--{name}"
            raise InputError(f"{shown} cannot be combined with --manifest: remove one of them")
    if not options.output:
        raise InputError("--manifest needs --output: name a folder for the shards")
    size = SHARD_SIZE if options.shard_size is None else options.shard_size
    if size < 1:
        raise InputError(f"--shard_size {size} is not a whole number of at least 1")
    manifest = scan_manifest(options.manifest, size, options.allow_remote or [])
    folder, settings = Path(options.output), {**describe_settings(options), MANIFEST_DIGEST: manifest.digest}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / SETTINGS).is_file() and not (folder / f"{SETTINGS}.lock").is_file():
            raise InputError(f"--output {folder} contains other files: name an empty or a new folder")
        with FileLock(folder / f"{SETTINGS}.lock"):  # another process may open it at the same time
            compare_settings(folder / SETTINGS, options, settings)
    return manifest


def score_manifest(options: argparse.Namespace) -> int:
    """Score the shards that are missing, and say how many recordings failed; returns the exit status."""
    manifest = open_shards(options)
    state = PartialState(cpu=options.device == "cpu")
    if state.is_main_process:
        print_models(options)
    with tqdm(unit=" recordings", disable=options.quiet or not state.is_main_process or None) as progress:
        if options.engine == "ray":
            from inference.ray_engine import score_with_ray  # Ray is optional

            score_with_ray(manifest, options, progress.update)
        else:
            warnings.simplefilter("ignore", UserWarning)  # the records have them
            recognize = load_recognizer(options, state.device if state.num_processes > 1 else None)
            for number in range(len(manifest.shards)):
                score_shard(recognize, manifest, number, options, progress.update)
    counts = write_summary(manifest, options)
    if counts is None:
        print("the other shards are being scored by other processes, the last of which counts them", file=sys.stderr)
        return 0
    where = f": {Path(options.output) / FAILURES}" if counts.failed else ""
    print_counts(counts.recordings, counts.seconds / 60, counts.failed, where=where)
    return 1 if counts.failed else 0


def name_shard(options: argparse.Namespace, number: int) -> Path:
    """The file of a shard, finished or not."""
    return Path(options.output) / f"{number:05}.jsonl"


def score_shard(
    recognize: SpeechEmotionRecognitionPipeline,
    manifest: Manifest,
    number: int,
    options: argparse.Namespace,
    on_record: Callable[[], Any] = lambda: None,
) -> None:
    """Score the rest of one shard, unless it is finished or another process has taken it.

    Args:
        on_record: called after each recording.
    """
    path = name_shard(options, number)
    if path.exists():
        return
    with claim(path) as is_ours:
        if not is_ours or path.exists():  # the second: another process has just finished it
            return
        unfinished = path.with_name(f"{path.name}.unfinished")
        done = keep_complete_lines(unfinished)
        with writing(path), unfinished.open("a", encoding="utf-8") as file:
            for record in answer_entries(recognize, manifest, number, options, done):
                file.write(json.dumps(record) + "\n")
                file.flush()
                on_record()
            os.fsync(file.fileno())
        unfinished.replace(path)


@contextlib.contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Whether this process may write a shard; the lock of a finished one is deleted."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        if path.exists():  # who holds or makes another lock of this name finds the shard finished
            path.with_suffix(".lock").unlink(missing_ok=True)
        lock.release()


def keep_complete_lines(unfinished: Path) -> set[tuple[int, int | None]]:
    """Cut off the line that a kill has left incomplete; return line and channel of the others."""
    if not unfinished.exists():
        return set()
    size = 0
    done: set[tuple[int, int | None]] = set()
    with unfinished.open("rb") as file, contextlib.suppress(ValueError):  # no JSON, or no text at all
        for line in file:
            record = json.loads(line if line.endswith(b"\n") else b"")
            done.add((record["line"], record["channel"]))
            size += len(line)
    os.truncate(unfinished, size)
    return done


def answer_entries(
    recognize: SpeechEmotionRecognitionPipeline,
    manifest: Manifest,
    number: int,
    options: argparse.Namespace,
    done: set[tuple[int, int | None]],
) -> Iterator[Record]:
    """Yield the records of a shard that are not done: `line` and `id` in the manifest, and what predict.py writes."""
    waiting = [
        (entry, job)
        for entry in read_shard(manifest, number)
        for job in list_jobs({entry.path: open_recording(entry.path)}, options.channels)
        if (entry.line, job.channel) not in done
    ]
    jobs = [job for _, job in waiting]
    answers = answer_jobs(recognize, jobs, open_recording, options.explain, with_outline=False)
    for (entry, job), answer in zip(waiting, answers):
        record = build_record(job, answer, recognize if options.explain else None)
        yield {"line": entry.line, "id": entry.id, **record}


def describe_failure(record: Record) -> Record:
    """A line of failures.jsonl, which is a manifest in another folder."""
    return {"id": record["id"], "path": record["file"], "error": record["error"]}


def write_summary(manifest: Manifest, options: argparse.Namespace) -> Counts | None:
    """Write what failed to failures.jsonl, itself a manifest; None if shards are still being scored elsewhere."""
    folder, paths = Path(options.output), [name_shard(options, number) for number in range(len(manifest.shards))]
    if not all(path.exists() for path in paths):
        return None
    recordings, failed, seconds = 0, 0, 0.0
    unfinished = folder / f"{FAILURES}.{os.getpid()}"
    with writing(unfinished), unfinished.open("w", encoding="utf-8") as file:
        for path in paths:
            with path.open(encoding="utf-8") as shard:
                for record in map(json.loads, shard):
                    recordings += 1
                    seconds += record.get("duration", 0.0)
                    if "error" in record:
                        failed += 1
                        file.write(json.dumps(describe_failure(record)) + "\n")
    unfinished.replace(folder / FAILURES)
    return Counts(recordings, failed, seconds)
