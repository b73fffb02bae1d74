"""Prints the results of predict.py to standard output, and errors, warnings and the summary to standard error."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from core.errors import InputError
from core.escaping import printable
from core.model_files import read_licence
from core.shipped import name_model
from inference.answers import Job
from inference.live import answer_live
from inference.options import TIMELINE_OPTIONS, WORD_OPTIONS, list_models
from inference.outputs import Record, name_segment
from inference.spoken import describe_alone, place_words
from inference.values import format_dimensions
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from quality_ser_align import RecordingQuality

WIDEST_NAME = 48


class Table:
    """Prints results as a table with one row per recording, or one recording in full, with its timeline.

    Args:
        jobs: all rows; file names are shown relative to their common folder.
        is_quiet: print nothing.
        in_full: print the scores and the timeline of a recording instead of a row.
    """

    def __init__(self, jobs: list[Job], is_quiet: bool, in_full: bool):
        self.is_quiet, self.in_full = is_quiet, in_full
        folders = {os.path.dirname(os.path.abspath(job.file)) for job in jobs}
        shared = os.path.commonpath(folders) if folders and not in_full else os.sep
        self.folder = "" if shared == os.path.dirname(shared) else shared  # the root folder does not shorten names
        self.width = min(WIDEST_NAME, max((len(self._name(job)) for job in jobs), default=0))
        self.has_header = False

    def print_row(self, job: Job, record: Record) -> None:
        if self.is_quiet:
            return
        lines = self._format_full(job, record) if self.in_full else self._format_row(job, record)
        with tqdm.external_write_mode():
            print("\n".join(lines), flush=True)

    def _name(self, job: Job) -> str:
        name = os.path.relpath(job.file, self.folder) if self.folder else job.file
        return printable(name) + ("" if job.channel is None else f" [{job.channel}]")

    def _format_row(self, job: Job, record: Record) -> list[str]:
        name = self._name(job)
        name = name if len(name) <= self.width else "…" + name[1 - self.width :]
        wide = _find_label_width(record)
        best, *others = _format_scores(record)
        label = printable(record["label"])
        if record["unsure"] or len(record.get("mixed", ())) > 1:
            label, others = "unsure" if record["unsure"] else "mixed", [best, *others]
        lines = [
            f"{name:{self.width}} {record['duration']:8.1f}   {label:{wide}} {record['score']:6.2f}   "
            f"{', '.join(others)}",
            *_format_disagreement(record),
            *(f"  {line}" for line in format_dimensions(record)),
            *_format_evidence(record),
        ]
        if not self.has_header:
            self.has_header = True
            lines.insert(0, f"{'recording':{self.width}}  seconds   {'emotion':{wide}}  score   runners-up")
        return lines

    def _format_full(self, job: Job, record: Record) -> list[str]:
        names = [printable(name_segment(part)) for part in record["timeline"]]
        wide = max(_find_label_width(record), *map(len, names), 0)
        unsure = "unsure: " if record["unsure"] else ""
        lines = [f"{self._name(job)}  {record['duration']:.1f} s  {unsure}{', '.join(_format_scores(record))}"]
        lines += [f"  {printable(describe_alone(record))}"] if "alone" in record else []
        lines += _format_disagreement(record)
        lines += [*format_dimensions(record), ""]
        has_words = "words" in record
        lines.append(f"{'start':>9} {'end':>9}   {'emotion':{wide}}  score{'   words' if has_words else ''}")
        for name, part, spoken in zip(names, record["timeline"], place_words(record)):
            line = f"{part['start']:9.2f} {part['end']:9.2f}   {name:{wide}} {part['score']:6.2f}"
            lines.append(f"{line}   {printable(spoken)}".rstrip())
        return lines + (["", *_format_evidence(record)] if "evidence" in record else [])


def _find_label_width(record: Record) -> int:
    return max(len("emotion"), *(len(printable(label)) for label in record["scores"]))


def _format_scores(record: Record, count: int = 3) -> list[str]:
    """The best scores, those of a mixed answer in one: `anger 0.60 + sadness 0.30`, `joy 0.05`."""
    together = len(record.get("mixed", [record["label"]]))
    shown = [f"{printable(label)} {score:.2f}" for label, score in record["scores"].items()][: max(count, together)]
    return [" + ".join(shown[:together]), *shown[together:]]


def _format_disagreement(record: Record) -> list[str]:
    return [f"  {printable(record['disagreement'])}"] if "disagreement" in record else []


def _format_evidence(record: Record) -> list[str]:
    return [f"  {printable(record['evidence']['words'])}"] if "evidence" in record else []


def print_stream(
    recognize: SpeechEmotionRecognitionPipeline,
    seconds: Iterator[np.ndarray],
    quality: RecordingQuality,
    options: argparse.Namespace,
) -> int:
    """Print a JSON line for each second of a stream until it ends. Returns the exit status."""
    given = [f"--{name}" for name in ("output", "plot", "explain", "quiet", *WORD_OPTIONS) if getattr(options, name)]
    given += ["several --model"] if options.members else []
    given += ["--channels each"] if options.channels == "each" else []
    given += [f"--{name}" for name in TIMELINE_OPTIONS if getattr(options, name) is not None]
    if given:
        raise InputError(f"{' '.join(given)} cannot be used with a stream, which is scored once per second: remove it")
    print_models(options)
    for line in answer_live(recognize, seconds, quality):
        print(json.dumps(line), flush=True)
    return 0


def print_error(text: str) -> None:
    with tqdm.external_write_mode():
        print(f"error: {printable(text)}", file=sys.stderr, flush=True)


def print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Replacement for `warnings.showwarning`."""
    tqdm.write(f"warning: {printable(str(message))}", file=sys.stderr)


def print_models(options: argparse.Namespace) -> None:
    """Name each model of the options and its licence."""
    for model in list_models(options):
        print_model(model, options.revision)


def print_model(model: str, revision: str | None) -> None:
    """Name the model and its licence on standard error: a shipped model by its name, others as they were given."""
    licence = read_licence(model, revision)
    stated = f"licence {licence}" if licence else "its card states no licence"
    limited = " (not for commercial use)" if licence and "-nc" in licence else ""
    print(f"model: {printable(name_model(model))}, {stated}{limited}", file=sys.stderr, flush=True)


def print_summary(records: list[Record], seconds: float) -> None:
    minutes = sum(record.get("duration", 0.0) for record in records) / 60
    print_counts(len(records), minutes, sum("error" in record for record in records), seconds)


def print_counts(recordings: int, minutes: float, failed: int, seconds: float | None = None, where: str = "") -> None:
    """Print what a run has scored, in minutes of audio and seconds of compute, and where its failures are listed."""
    parts = [f"{recordings} recording{'s' * (recordings != 1)}, {minutes:.1f} minutes of audio"]
    if minutes and seconds is not None:
        parts.append(f"{seconds / minutes:.2f} s of compute per minute of audio")
    if failed:
        parts.append(f"{failed} could not be read{where}")
    print("; ".join(parts), file=sys.stderr)
