"""Writes results to files: JSON Lines, CSV, Praat TextGrid, Audacity labels and WebVTT.

A record is the result for one recording: `file`, `channel` (None is the mean of all), then `duration` in seconds,
`label`, `score`, `unsure` (whether the score is too low to tell), `scores` (label: probability), `warnings` (reasons
why the scores may be unreliable) and `timeline` (dicts of start, end, label, score), or `error`. Of a model trained on
label distributions, record and segments also have `mixed` (label: score, best first): the labels of a mixed answer. Of
a model with dimensions, a record has `dimensions` (name: value, error and scale), `dimension_source` and `trace` (their
values every 0.1 s of each phrase), and a segment has `dimensions` (name: value). With words, a record has `text`, and
if their times are known `words` (dicts of word, start and end in seconds); an utterance whose words the model read has
`alone`, the scores of the `voice` and of the `words` (label: probability). Of several models, a record has `members`,
the scores of each, and where their labels differ `disagreement`, a phrase that says so.
"""

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from core.errors import InputError, writing
from core.escaping import csv_cell, printable
from inference.spoken import place_words

Record = dict[str, Any]
Interval = tuple[float, float, str]  # start and end in seconds, and text
# Formats with one file for all recordings, formats with one file per recording, and formats of figures.
TABLES = {".jsonl": "jsonl", ".csv": "csv"}
TRACKS = {"textgrid": ".TextGrid", "audacity": ".txt", "webvtt": ".vtt"}
FIGURES = (".png", ".svg", ".pdf", ".jpg")
FORMATS = (*TABLES.values(), *TRACKS)


def write_table(records: list[Record], path: Path) -> None:
    """Write all records to a .jsonl or .csv file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = format_csv(records) if path.suffix.lower() == ".csv" else format_jsonl(records)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")  # names need not be UTF-8
    unfinished.replace(path)


def write_track(record: Record, path: Path, track_format: str) -> None:
    """Write the timeline of one recording as `textgrid`, `audacity` or `webvtt`."""
    formats = {"textgrid": format_textgrid, "audacity": format_audacity, "webvtt": format_webvtt}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(formats[track_format](record), "utf-8")


def name_tracks(answers: Iterable[tuple[str, int | None]], folder: Path, suffix: str) -> list[Path]:
    """Choose a file in the folder for each result, named after its recording.

    Where two recordings have the same name, all names say where their recording is: in subfolders as those of the
    recordings, and with its suffix if that alone tells two apart.

    Args:
        answers: file and channel of each result; the channel is added to the name.
    """
    answers = list(answers)
    files = [Path(file) for file, _ in answers]
    top = os.path.commonpath([os.path.abspath(file.parent) for file in files])
    inside = [Path(os.path.relpath(os.path.abspath(file), top)) for file in files]
    tracks: list[str] = []
    for names in ([file.stem for file in files], [file.with_suffix("") for file in inside], inside):
        channels = ("" if channel is None else f"-channel{channel}" for _, channel in answers)
        tracks = [f"{name}{channel}" for name, channel in zip(names, channels)]
        if len({track.lower() for track in tracks}) == len(tracks):
            break
    return [folder / f"{track}{suffix}" for track in tracks]


def name_plots(answers: list[Any], plot: str) -> dict[Any, Path]:
    """Choose the figure for each result, a pair of file and channel: --plot itself, or a file in that folder."""
    target = Path(plot)
    paths = [target] if target.suffix else name_tracks(answers, target, ".png")
    return dict(zip(answers, paths))


def name_targets(answers: list[Any], output: str | None, output_format: str) -> list[Path]:
    """The files of --output: one table, or the timeline of each answer, a pair of file and channel."""
    if output is None:
        return []
    suffix = TRACKS.get(output_format)
    is_file = suffix is None or Path(output).suffix.lower() == suffix.lower()
    return [Path(output)] if is_file else name_tracks(answers, Path(output), suffix or "")


def refuse_existing(paths: list[Path], may_overwrite: bool) -> None:
    """Raise InputError if there is such a file already: it may be the user's only transcript of a recording."""
    found = [path for path in paths if path.exists()]
    if found and not may_overwrite:
        raise InputError(f"{found[0]} already exists: choose another name, or add --overwrite")


def write_output(records: list[Record], targets: list[Path], output_format: str) -> None:
    """Write --output: a table of all records, or the timelines of those that have one."""
    with writing(targets[0]):
        if output_format not in TRACKS:
            write_table(records, targets[0])
            return
        for record, path in zip(records, targets):
            if "error" not in record:
                write_track(record, path, output_format)


def format_jsonl(records: list[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def format_csv(records: list[Record]) -> str:
    """One row per recording: the result, the dimensions, the probability of each label, warnings and error.

    Text that a spreadsheet would read as a formula gets a leading apostrophe; JSON Lines keep it unchanged.
    """
    labels = sorted({label for record in records for label in record.get("scores", {})})
    columns = ["file", "channel", "duration", "label", "score", "unsure"]
    columns += [name for name in ("mixed", "disagreement") if any(name in record for record in records)]
    dimensions = list(dict.fromkeys(name for record in records for name in record.get("dimensions", {})))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, [*columns, *dimensions, *labels, "warnings", "error"]))
    for record in records:
        scores = record.get("scores", {})
        warnings = "; ".join(record.get("warnings", []))
        shown = {**record, "mixed": format_mixed(record["mixed"])} if "mixed" in record else record
        values = [record.get("dimensions", {}).get(name, {}).get("value") for name in dimensions]
        cells = [*map(shown.get, columns), *values, *map(scores.get, labels), warnings, record.get("error")]
        writer.writerow(map(csv_cell, cells))
    return text.getvalue()


def format_mixed(mixed: dict[str, float]) -> str:
    """The labels of a mixed answer with their scores: `anger 0.60 + sadness 0.30`."""
    return " + ".join(f"{label} {score:.2f}" for label, score in mixed.items())


def name_segment(segment: dict[str, Any]) -> str:
    """The label of a segment, or the labels of a mixed one: `anger + sadness`; and its dimensions, if it has any."""
    values = [f"{name} {value:.2f}" for name, value in segment.get("dimensions", {}).items()]
    return ", ".join([" + ".join(segment.get("mixed", [segment["label"]])), *values])


def format_textgrid(record: Record) -> str:
    """Praat's text format, an interval tier of emotions and, with word times, one of words; pauses are empty intervals
    (Praat manual, TextGrid file formats)."""
    tiers = {"emotion": [(part["start"], part["end"], name_segment(part)) for part in record["timeline"]]}
    if "words" in record:
        tiers["words"] = [(word["start"], word["end"], word["word"]) for word in record["words"]]
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {record['duration']:.6f}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, intervals) in enumerate(tiers.items(), start=1):
        lines += [f"    item [{number}]:", *_format_tier(name, _fill_pauses(intervals, record["duration"]))]
    return "\n".join(lines) + "\n"


def _fill_pauses(intervals: list[Interval], duration: float) -> list[Interval]:
    """Intervals without gaps or overlaps: Praat reads no others. A word without duration is left out."""
    filled: list[Interval] = []
    position = 0.0
    for start, end, text in intervals:
        start = max(start, position)
        if end <= start:
            continue
        if start > position:
            filled.append((position, start, ""))
        filled.append((start, end, text))
        position = end
    if position < duration or not filled:
        filled.append((position, duration, ""))
    return filled


def _format_tier(name: str, intervals: list[Interval]) -> list[str]:
    lines = [
        '        class = "IntervalTier"',
        f'        name = "{name}"',
        "        xmin = 0",
        f"        xmax = {intervals[-1][1]:.6f}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, (start, end, text) in enumerate(intervals, start=1):
        quoted = printable(text).replace('"', '""')
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {start:.6f}",
            f"            xmax = {end:.6f}",
            f'            text = "{quoted}"',
        ]
    return lines


def format_audacity(record: Record) -> str:
    """Audacity's label track: start, end and label, separated by tabs."""
    return "".join(f"{s['start']:.6f}\t{s['end']:.6f}\t{printable(name_segment(s))}\n" for s in record["timeline"])


def format_webvtt(record: Record) -> str:
    """Subtitles for a web player (W3C, WebVTT): the emotion and, with word times, what is said."""
    cues = []
    for segment, spoken in zip(record["timeline"], place_words(record)):
        lines = [_escape(name_segment(segment)), *([_escape(spoken)] if spoken else [])]
        times = f"{_format_clock(segment['start'])} --> {_format_clock(segment['end'])}"
        cues.append("\n".join([times, *lines, ""]))
    return "\n".join(["WEBVTT\n", *cues])


def _format_clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"


def _escape(text: str) -> str:
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def choose_format(path: str | None, given: str | None, num_recordings: int) -> str:
    """Choose the format of --output from its suffix or from --format; empty without --output.

    Raises:
        InputError: neither determines it, they contradict each other, or several timelines would go to one file.
    """
    if path is None and given is not None:
        raise InputError(f"--format {given} is the format of --output, which is missing: name a file or folder there")
    if path is None:
        return ""
    suffix = Path(path).suffix.lower()
    by_suffix = {**TABLES, **{value.lower(): key for key, value in TRACKS.items()}}.get(suffix)
    if given is None and by_suffix is None:
        raise InputError(
            f"--output {path} has an unknown suffix; use one of {', '.join((*TABLES, *TRACKS.values()))}. For a folder "
            f"of timelines, add --format with one of {', '.join(TRACKS)}"
        )
    if given is not None and by_suffix not in (None, given):
        raise InputError(f"--output {path} is a {by_suffix} file, but --format is {given}: change one of them")
    if given in TABLES.values() and by_suffix is None:
        raise InputError(f"--output {path} does not fit --format {given}: use a name ending in .{given}")
    chosen = given or by_suffix or ""
    if chosen in TRACKS and by_suffix is not None and num_recordings > 1:
        raise InputError(
            f"--output {path} is one file, but there are {num_recordings} recordings, each with its own timeline: "
            f"give a folder and --format {chosen}"
        )
    return chosen


def check_targets(output: str | None, may_overwrite: bool, plot: str | None, num_recordings: int) -> None:
    """Raise InputError if --output or --plot could not be written, before any work is done."""
    for name, given in (("--output", output), ("--plot", plot)):
        if given == "":
            raise InputError(f"{name} is empty: give a file or folder")
    if output is not None and Path(output).is_file() and not may_overwrite:
        raise InputError(f"--output {output} already exists: choose another name, or add --overwrite")
    suffix = "" if plot is None else Path(plot).suffix.lower()
    if suffix and suffix not in FIGURES:
        raise InputError(f"--plot {plot} has an unknown suffix; use one of {', '.join(FIGURES)}, or a folder")
    if suffix and num_recordings > 1:
        raise InputError(f"--plot {plot} is one file, but there are {num_recordings} recordings: give a folder")
    for path in filter(None, (output, plot)):
        above = next(folder for folder in Path(path).resolve().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise InputError(f"{path} cannot be written: {above} is not a writable folder")
