"""Answers as files: JSON lines, CSV, Praat TextGrid, Audacity labels and WebVTT.

A record is the answer to one recording: `file`, `channel` (None is the mix), then `duration` in seconds, `label`,
`score`, `scores` (label: probability) and `timeline` (dicts of start, end, label, score), or `error`.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

from core.errors import InputError
from core.escaping import csv_cell, printable

Record = dict[str, Any]
# One file for all recordings, and one file for each.
TABLES = {".jsonl": "jsonl", ".csv": "csv"}
TRACKS = {"textgrid": ".TextGrid", "audacity": ".txt", "webvtt": ".vtt"}
FORMATS = (*TABLES.values(), *TRACKS)


def write_table(records: list[Record], path: Path) -> None:
    """All records into a .jsonl or .csv file, written in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = as_csv(records) if path.suffix.lower() == ".csv" else as_jsonl(records)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")  # names may be no UTF-8
    unfinished.replace(path)


def write_track(record: Record, path: Path, form: str) -> None:
    """The timeline of one recording as `textgrid`, `audacity` or `webvtt`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text({"textgrid": as_textgrid, "audacity": as_audacity, "webvtt": as_webvtt}[form](record), "utf-8")


def track_paths(records: list[Record], folder: Path, suffix: str) -> list[Path]:
    """A file name for each record: that of the recording, with its channel, or with a number where two are alike."""
    paths: list[Path] = []
    taken: set[str] = set()
    for record in records:
        stem = Path(record["file"]).stem + ("" if record["channel"] is None else f"-channel{record['channel']}")
        name, number = stem, 2
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        paths.append(folder / f"{name}{suffix}")
    return paths


def as_jsonl(records: list[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def as_csv(records: list[Record]) -> str:
    """One row a recording: file, channel, duration, label, score, the probability of each label, error.

    Text that a spreadsheet would take for a formula has an apostrophe in front; JSON lines hold everything as it is.
    """
    labels = sorted({label for record in records for label in record.get("scores", {})})
    columns = ["file", "channel", "duration", "label", "score"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, [*columns, *labels, "error"]))
    for record in records:
        scores = record.get("scores", {})
        cells = [*map(record.get, columns), *map(scores.get, labels), record.get("error")]
        writer.writerow(map(csv_cell, cells))
    return text.getvalue()


def as_textgrid(record: Record) -> str:
    """Praat's text format, one interval tier; pauses are empty intervals (Praat manual, TextGrid file formats)."""
    duration = record["duration"]
    intervals: list[tuple[float, float, str]] = []
    position = 0.0
    for segment in record["timeline"]:
        if segment["start"] > position:
            intervals.append((position, segment["start"], ""))
        intervals.append((segment["start"], segment["end"], segment["label"]))
        position = segment["end"]
    if position < duration or not intervals:
        intervals.append((position, duration, ""))
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {duration:.6f}",
        "tiers? <exists>",
        "size = 1",
        "item []:",
        "    item [1]:",
        '        class = "IntervalTier"',
        '        name = "emotion"',
        "        xmin = 0",
        f"        xmax = {duration:.6f}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, (start, end, label) in enumerate(intervals, start=1):
        quoted = printable(label).replace('"', '""')
        lines += [
            f"        intervals [{number}]:",
            f"            xmin = {start:.6f}",
            f"            xmax = {end:.6f}",
            f'            text = "{quoted}"',
        ]
    return "\n".join(lines) + "\n"


def as_audacity(record: Record) -> str:
    """Audacity's label track: start, end and label, separated by tabs."""
    return "".join(f"{s['start']:.6f}\t{s['end']:.6f}\t{printable(s['label'])}\n" for s in record["timeline"])


def as_webvtt(record: Record) -> str:
    """Subtitles for a web player (W3C, WebVTT)."""
    cues = [
        f"{_clock(segment['start'])} --> {_clock(segment['end'])}\n{_escaped(segment['label'])}\n"
        for segment in record["timeline"]
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"


def _escaped(text: str) -> str:
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def output_format(path: str, form: str | None, num_recordings: int) -> str:
    """The format of --output, from its suffix or from --format.

    Raises:
        InputError: no format can be told, the two contradict each other, or one file for several timelines.
    """
    suffix = Path(path).suffix.lower()
    by_suffix = {**TABLES, **{value.lower(): key for key, value in TRACKS.items()}}.get(suffix)
    if form is None and by_suffix is None:
        raise InputError(
            f"--output {path}: its name ends in none of {', '.join((*TABLES, *TRACKS.values()))}; for a folder of "
            f"timelines give --format, one of {', '.join(TRACKS)}"
        )
    if form is not None and by_suffix not in (None, form):
        raise InputError(f"--output {path} is the name of a {by_suffix} file, but --format is {form}")
    if form in TABLES.values() and by_suffix is None:
        raise InputError(f"--output {path}: a {form} file needs a name that ends in .{form}")
    found = form or by_suffix or ""
    if found in TRACKS and by_suffix is not None and num_recordings > 1:
        raise InputError(
            f"--output {path} is one file for {num_recordings} timelines: give a folder and --format {found}"
        )
    return found
