"""Recognize the emotions in recordings, and when they occur.

    python predict.py call.wav
    python predict.py interviews/ more/*.mp3 --output emotions.jsonl
    python predict.py call.wav --output call.TextGrid --plot call.png --explain
    python predict.py interviews/ --output timelines/ --format webvtt
    python predict.py call.wav --model outputs/x/stage2 --transcribe openai/whisper-base
    python predict.py call.wav --model outputs/x/stage2 --model outputs/y/stage2    (mean of both, and disagreement)
    ffmpeg -v error -i call.mp4 -f wav - | python predict.py -        (one JSON line per second)
    accelerate launch --num_processes 4 predict.py interviews/ --output emotions.jsonl
    python predict.py --manifest calls.txt --output answers/          (100,000 recordings in constant memory)

Reads WAV, FLAC, OGG and MP3 files of any length, and with ffmpeg also MP4, M4A, WebM, Matroska, AAC, WMA and AMR.
If a file cannot be read, the reason is written to standard error and to --output, the other files are still scored, and
the exit status is 1. To resume an interrupted run with --output, run the same command again.
"""

import sys
import time
import warnings

from core.errors import InputError, run_script
from inference.options import read_options


def main(argv: list[str]) -> int:
    """Score every recording; each process takes its share. Returns the exit status."""
    options = read_options(argv, __doc__)

    # Imported here, so that --help and option errors are fast.
    if options.manifest:
        from inference.shards import score_manifest

        return score_manifest(options)
    from inference.files import find_recordings
    from inference.outputs import check_targets, choose_format, name_plots, name_targets, refuse_existing, write_output

    files = [] if options.recordings == ["-"] else find_recordings(options.recordings)
    output_format = choose_format(options.output, options.format, len(files) or 1)
    check_targets(options.output, options.overwrite, options.plot, len(files) or 1)

    from accelerate import PartialState
    from tqdm import tqdm

    from inference.answers import STANDARD_INPUT, answer_jobs, build_record, list_jobs, load_recognizer
    from inference.live import open_stream
    from inference.parts import is_interrupted, keep_record, open_parts, read_parts, read_state, remove_parts
    from inference.terminal import Table, print_error, print_models, print_stream, print_summary, print_warning
    from quality_ser_align import RecordingQuality

    warnings.showwarning = print_warning
    state = PartialState(cpu=options.device == "cpu")
    is_shared = state.num_processes > 1
    if is_shared and not (files and options.output):
        raise InputError("several processes need audio files and --output: add both, or start a single process")
    recognize = load_recognizer(options, state.device if is_shared else None)
    listen = None
    if options.text is not None or options.texts or options.transcribe:
        from inference.transcription import make_listener

        if options.text is not None and len(files) > 1:
            raise InputError(f"--text is of one recording, and there are {len(files)}: use --texts or --transcribe")
        listen = make_listener(options, recognize.tokenizer is not None, recognize.device)
    recordings: dict[str, str | bytes] = {file: file for file in files}
    if not files:
        quality = RecordingQuality()
        content, seconds = open_stream(sys.stdin.buffer, quality)
        if content is None:
            return print_stream(recognize, seconds, quality, options)
        recordings = {STANDARD_INPUT: content}

    start = time.perf_counter()
    jobs = list_jobs(recordings, options.channels)
    plots = name_plots(jobs, options.plot) if options.plot else {}
    with state.main_process_first():
        if not is_interrupted(options):
            refuse_existing([*plots.values(), *name_targets(jobs, options.output, output_format)], options.overwrite)
        parts = open_parts(options, state.is_main_process) if files and options.output else None
        records = read_parts(parts)
    state.wait_for_everyone()  # otherwise a process might skip what another one has just written
    if state.is_main_process:
        print_models(options)
    states = {file: read_state(file) for file in files} if parts else {}
    own = [job for job in jobs if job not in records][state.process_index :: state.num_processes]
    table = Table(own, is_quiet=options.quiet or is_shared, in_full=len(jobs) == 1)
    is_hidden = not (state.is_main_process and len(own) > 1)
    answers = answer_jobs(recognize, own, recordings.__getitem__, options.explain, bool(options.plot), listen)
    for job, answer in zip(tqdm(own, unit="file", disable=is_hidden or None), answers):
        records[job] = record = build_record(job, answer, recognize if options.explain else None)
        if "error" in record:
            print_error(record["error"])
        else:
            table.print_row(job, record)
        if job in plots and "error" not in record:
            from inference.figure import draw_outline, save  # matplotlib takes a second to import

            labels = list(recognize.model.config.id2label.values())
            save(draw_outline(answer["outline"], record, labels, record.get("evidence")), plots[job])
        keep_record(parts, state.process_index, record, states.get(job.file))

    state.wait_for_everyone()
    if not state.is_main_process:
        return 0
    if is_shared:
        records = read_parts(parts)
    finished = [records[job] for job in jobs]
    if options.output:
        write_output(finished, name_targets(jobs, options.output, output_format), output_format)
    remove_parts(parts)
    print_summary(finished, time.perf_counter() - start)
    return 1 if any("error" in record for record in finished) else 0


if __name__ == "__main__":
    run_script(main)
