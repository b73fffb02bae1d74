"""Which emotion is in a recording, and when.

    python predict.py call.wav
    python predict.py interviews/ more/*.mp3 --output emotions.jsonl
    python predict.py call.wav --output call.TextGrid --plot call.png --explain
    python predict.py interviews/ --output timelines/ --format webvtt
    ffmpeg -v error -i call.mp4 -f wav - | python predict.py -        one JSON line a second
    accelerate launch --num_processes 4 predict.py interviews/ --output emotions.jsonl

Reads WAV, FLAC, OGG, MP3 and, where ffmpeg is installed, MP4, M4A, WebM, Matroska, AAC, WMA, AMR and the like; any
rate, any length. What people say between two pauses is scored as an utterance. A file that cannot be read is one line
on standard error and a record with the reason, and the others go on; the exit status is then 1. With --output, the
same command again goes on after an interruption.
"""

import argparse
import os
import sys

from core.errors import InputError, error_line
from core.escaping import printable
from inference.outputs import FORMATS, output_format


def read_command_line(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recordings",
        nargs="+",
        metavar="RECORDING",
        help="files, folders, patterns such as 'calls/**/*.wav', or - "
        "for standard input: a WAV stream, 16-bit samples at 16 kHz, or a compressed file",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", default="models/ser-align-mini", metavar="DIR_OR_HUB_ID", help="default: the one that ships"
    )
    model.add_argument("--revision", metavar="COMMIT", help="of a model on the Hub: pin it")
    model.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")
    model.add_argument(
        "--batch_size", type=int, help="phrases at once; changes the speed, not the scores; default: what is fast"
    )
    model.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 is about twice as fast for large encoders where processor or GPU "
        "have it; scores change in the third digit",
    )
    reading = parser.add_argument_group("reading")
    reading.add_argument(
        "--channels", choices=("mix", "each"), default="mix", help="of stereo: their mean, or each one"
    )
    timeline = parser.add_argument_group("timeline, all in seconds; defaults as in pipeline_ser_align.py")
    timeline.add_argument("--pause", type=float, help="quiet that ends a phrase")
    timeline.add_argument("--window", type=float, help="windows that cover a longer phrase")
    timeline.add_argument("--smoothing", type=float, help="width over which probabilities are averaged; 0 is off")
    timeline.add_argument("--min_duration", type=float, help="shorter segments join their neighbour")
    answer = parser.add_argument_group("answer")
    answer.add_argument(
        "--output",
        metavar="PATH",
        help="a .jsonl or .csv file for all recordings, a .TextGrid (Praat), .txt "
        "(Audacity labels) or .vtt (WebVTT) file for one, or a folder with --format",
    )
    answer.add_argument("--format", choices=FORMATS, help="of --output, where its name does not tell")
    answer.add_argument("--overwrite", action="store_true", help="replace an --output that is there")
    answer.add_argument(
        "--plot", metavar="PATH", help="draw waveform and emotions: a .png file for one recording, else a folder"
    )
    answer.add_argument(
        "--explain",
        action="store_true",
        help="say which stretches carried the decision, and how the voice differs there",
    )
    answer.add_argument("--quiet", action="store_true", help="no table on the terminal")
    return parser.parse_args(argv)


if __name__ == "__main__":  # before the slow imports, so that --help and a mistake answer at once
    OPTIONS = read_command_line(sys.argv[1:])
    try:
        from inference.files import recordings

        FILES = [] if OPTIONS.recordings == ["-"] else recordings(OPTIONS.recordings)
        if OPTIONS.output is not None:
            OPTIONS.format = output_format(OPTIONS.output, OPTIONS.format, len(FILES) or 1)
    except InputError as error:
        sys.exit(error_line(error))

import contextlib
import json
import shutil
import time
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm import tqdm

from core.loading import load_pipeline
from inference.evidence import explain
from inference.live import live_answers, open_stream
from inference.outputs import TRACKS, Record, track_paths, write_table, write_track
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recording_ser_align import open_audio

TIMELINE_OPTIONS = ("pause", "window", "smoothing", "min_duration")
# What may differ between a command and the one that goes on from it.
NOT_RECORDED = ("recordings", "device", "batch_size", "overwrite", "quiet", "plot", "format")
Job = tuple[str, int | None]  # a file and its channel; None is the mix
Answer = dict[str, Any] | Exception  # of the pipeline


def main(options: argparse.Namespace, files: list[str]) -> int:
    """Answer for every recording, each process for its share; returns the exit status."""
    state = PartialState(cpu=options.device == "cpu")
    is_shared = state.num_processes > 1
    if is_shared and (not files or options.output is None):
        raise InputError("several processes need recordings from files, and --output")
    recognize = loaded(options, state.device if is_shared else None)
    if not files:
        return from_standard_input(options, recognize)
    check_output(options, len(files))
    jobs = jobs_of(files, options.channels)
    start = time.perf_counter()
    with state.main_process_first():
        parts = open_parts(options) if options.output is not None else None
        records = answers_so_far(parts)
    state.wait_for_everyone()  # what one writes from now on is no other's to skip
    own = [job for job in jobs if job not in records][state.process_index :: state.num_processes]
    options.quiet = options.quiet or is_shared
    keep = parts / f"part-{state.process_index}.jsonl" if parts is not None else None
    records |= answer_all(recognize, options, own, keep, in_full=len(jobs) == 1, show_progress=state.is_main_process)
    state.wait_for_everyone()
    if not state.is_main_process:
        return 0
    if parts is not None:
        records = answers_so_far(parts)
    finished = [records[job] for job in jobs]
    write_outputs(options, finished, recognize)
    if parts is not None:
        shutil.rmtree(parts)
    print_summary(finished, time.perf_counter() - start)
    return 1 if any("error" in record for record in finished) else 0


def loaded(options: argparse.Namespace, device: Any = None) -> SpeechEmotionRecognitionPipeline:
    """The pipeline with the options of the timeline. Raises InputError."""
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(f"--batch_size {options.batch_size} is not a whole number of at least 1")
    recognize = load_pipeline(
        options.model, options.revision, options.device or device, options.batch_size, options.dtype
    )
    given = {name: getattr(options, name) for name in TIMELINE_OPTIONS if getattr(options, name) is not None}
    try:
        recognize.set_parameters(**given)
    except ValueError as error:
        raise InputError(f"--{error}") from None
    return recognize


def jobs_of(files: list[str], channels: str) -> list[Job]:
    """Each file once, or once for each of its channels."""
    if channels == "mix":
        return [(file, None) for file in files]
    jobs: list[Job] = []
    for file in files:
        try:
            with open_audio(file) as audio:
                count = audio.channels
        except ValueError:
            count = 1  # the reason stands in its record
        jobs += [(file, channel) for channel in range(count)]
    return jobs


# ------------------------------------------------------------------------------------------ answering


def answer_all(
    recognize: SpeechEmotionRecognitionPipeline,
    options: argparse.Namespace,
    jobs: list[Job],
    keep: Path | None,
    in_full: bool,
    show_progress: bool,
) -> dict[Job, Record]:
    """The record of each job; with `keep` each is also a line of a file that outlives this process."""
    records = {}
    width = min(48, max((len(shown(job)) for job in jobs), default=0))
    answers = answers_in_order(recognize, jobs)
    progress = tqdm(jobs, unit="file", disable=None if show_progress and len(jobs) > 1 else True)
    with keep.open("a", encoding="utf-8") if keep else contextlib.nullcontext() as file, progress:
        for job in progress:
            records[job] = record = record_of(recognize, options, job[0], job, next(answers))
            if file is not None:
                file.write(json.dumps(record) + "\n")
                file.flush()
            with tqdm.external_write_mode():
                if "error" in record:
                    print(f"error: {printable(record['error'])}", file=sys.stderr, flush=True)
                elif not options.quiet:
                    print("\n".join(terminal_lines(record, job, width, in_full)), flush=True)
    return records


def answers_in_order(recognize: SpeechEmotionRecognitionPipeline, jobs: list[Job]) -> Iterator[Answer]:
    """Of each job what the pipeline found, or why it could not; files of the same channel go through it together."""
    for channel, group in groupby(jobs, key=lambda job: job[1]):
        files = (file for file, _ in list(group))
        yield from recognize(files, return_timeline=True, channel=channel, on_error="return")


def record_of(
    recognize: SpeechEmotionRecognitionPipeline,
    options: argparse.Namespace,
    recording: Any,
    job: Job,
    found: Answer,
) -> Record:
    """What is written of one recording; `error` in place of an answer if it could not be read."""
    name, channel = job
    record: Record = {"file": name, "channel": channel}
    evidence = {}
    if options.explain and isinstance(found, dict):
        try:
            evidence = {"evidence": explain(recognize, recording, channel)}
        except (ValueError, OSError) as error:  # it is read again
            found = error
    if isinstance(found, Exception):
        return {**record, "error": " ".join(str(found).split())}
    scores = {entry["label"]: round(entry["score"], 6) for entry in found["scores"]}
    label = found["scores"][0]["label"]
    record |= {"duration": round(found["duration"], 3), "label": label, "score": scores[label], "scores": scores}
    return {**record, "timeline": [rounded(segment) for segment in found["timeline"]], **evidence}


def rounded(segment: dict[str, Any]) -> dict[str, Any]:
    times = {name: round(segment[name], 3) for name in ("start", "end")}
    return {**times, "label": segment["label"], "score": round(segment["score"], 6)}


def from_standard_input(options: argparse.Namespace, recognize: SpeechEmotionRecognitionPipeline) -> int:
    """One JSON line a second from a stream; a compressed file is read to its end and answered as any other."""
    content, seconds = open_stream(sys.stdin.buffer)
    if content is None:
        if options.output or options.plot or options.explain or options.channels == "each":
            raise InputError("a stream has no end: --output, --plot, --explain and --channels each are for files")
        for line in live_answers(recognize, seconds):
            print(json.dumps(line), flush=True)
        return 0
    check_output(options, 1)
    start = time.perf_counter()
    (found,) = recognize([content], return_timeline=True, on_error="return")
    record = record_of(recognize, options, content, ("standard input", None), found)
    if "error" in record:
        print(f"error: {printable(record['error'])}", file=sys.stderr)
    elif not options.quiet:
        print("\n".join(terminal_lines(record, ("standard input", None), 14, in_full=True)))
    write_outputs(options, [record], recognize, {"standard input": content})
    print_summary([record], time.perf_counter() - start)
    return 1 if "error" in record else 0


# ------------------------------------------------------------------------------------------ terminal


def print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warn_once(str(message))


@cache  # a recording is read again for its figure
def warn_once(text: str) -> None:
    tqdm.write(f"warning: {printable(text)}", file=sys.stderr)


def shown(job: Job) -> str:
    file, channel = job
    return printable(file) + ("" if channel is None else f" [{channel}]")


def terminal_lines(record: Record, job: Job, width: int, in_full: bool) -> list[str]:
    name = shown(job)
    name = name if len(name) <= width else "…" + name[1 - width :]
    best = "  ".join(f"{printable(label):9} {score:.2f}" for label, score in list(record["scores"].items())[:3])
    lines = [f"{name:{width}}  {record['duration']:8.1f} s  {best}"]
    if in_full:
        lines += [
            f"  {part['start']:9.2f} - {part['end']:.2f} s  {printable(part['label']):9} {part['score']:.2f}"
            for part in record["timeline"]
        ]
    if "evidence" in record:
        lines.append(f"  {printable(record['evidence']['words'])}")
    return lines


def print_summary(records: list[Record], seconds: float) -> None:
    minutes = sum(record.get("duration", 0.0) for record in records) / 60
    failed = sum("error" in record for record in records)
    each = f", {seconds / minutes:.2f} s of compute for a minute of audio" if minutes else ""
    lost = f"; {failed} could not be read" if failed else ""
    print(f"{len(records)} recording{'s' * (len(records) != 1)}, {minutes:.1f} minutes{each}{lost}", file=sys.stderr)


# ------------------------------------------------------------------------------------------- outputs


def check_output(options: argparse.Namespace, num_recordings: int) -> None:
    """Raise InputError for what could not be written after all the work."""
    if options.output is not None and Path(options.output).is_file() and not options.overwrite:
        raise InputError(f"--output {options.output} is there already: give another name, or --overwrite")
    if options.plot is not None and num_recordings > 1 and Path(options.plot).suffix:
        raise InputError(f"--plot {options.plot} is one file for {num_recordings} recordings: give a folder")
    for path in filter(None, (options.output, options.plot)):
        above = next(folder for folder in Path(path).resolve().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise InputError(f"{path} cannot be written: {above} is no folder that you may write to")


def open_parts(options: argparse.Namespace) -> Path:
    """The folder beside --output that keeps the answers until all are there, maybe from an interrupted run.

    Raises:
        InputError: the interrupted run had other options.
    """
    parts = Path(f"{options.output.rstrip('/')}.parts")
    settings = {name: value for name, value in sorted(vars(options).items()) if name not in NOT_RECORDED}
    path = parts / "options.json"
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in settings if before.get(name) != settings[name]]
        if changed:
            raise InputError(
                f"{parts} was begun with --{changed[0]} {before.get(changed[0])}: remove it, or give that again"
            )
        for cut_short in parts.glob("part*.jsonl"):  # so that the next answer does not join half a line
            with cut_short.open("a", encoding="utf-8") as file:
                file.write("\n")
    else:
        parts.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings), encoding="utf-8")
    return parts


def answers_so_far(parts: Path | None) -> dict[Job, Record]:
    """What this and earlier runs have answered; a line that a kill cut short is not counted."""
    records: dict[Job, Record] = {}
    for path in sorted(parts.glob("part*.jsonl")) if parts else ():
        for line in path.read_text(encoding="utf-8").split("\n"):
            with contextlib.suppress(json.JSONDecodeError):
                record = json.loads(line)
                records[record["file"], record["channel"]] = record
    return records


def write_outputs(
    options: argparse.Namespace,
    records: list[Record],
    recognize: SpeechEmotionRecognitionPipeline,
    contents: dict[str, Any] | None = None,
) -> None:
    """--output and --plot; `contents` are recordings that are no files, by name."""
    answered = [record for record in records if "error" not in record]
    if options.output is not None and options.format in TRACKS:
        target = Path(options.output)
        if target.suffix.lower() == TRACKS[options.format].lower():
            paths = [target] * len(answered)
        else:
            paths = track_paths(answered, target, TRACKS[options.format])
        for record, path in zip(answered, paths):
            write_track(record, path, options.format)
    elif options.output is not None:
        write_table(records, Path(options.output))
    if options.plot is not None:
        from inference.figure import draw, save  # matplotlib takes a second

        target = Path(options.plot)
        paths = [target] if target.suffix else track_paths(answered, target, ".png")
        labels = list(recognize.model.config.id2label.values())
        for record, path in zip(answered, paths):
            recording = (contents or {}).get(record["file"], record["file"])
            save(draw(recording, record, labels, record.get("evidence")), path)


if __name__ == "__main__":
    warnings.showwarning = print_warning
    try:
        sys.exit(main(OPTIONS, FILES))
    except InputError as error:
        sys.exit(error_line(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read our lines has heard enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
