"""The command line of predict.py. Imports nothing slow, to keep --help fast."""

import argparse

from core.shipped import DEFAULT_MODEL, MODEL_HELP, find_model
from inference.outputs import FORMATS

RULES = ("certainty", "mean")  # of core.ensembles, which is slow to import
WORD_OPTIONS = ("text", "texts", "transcribe")
TIMELINE_OPTIONS = ("pause", "window", "smoothing", "min_duration")


def read_options(argv: list[str], description: str | None) -> argparse.Namespace:
    """Parse the command line; exits with a message if an option is unknown or has no valid value."""
    parser = argparse.ArgumentParser(
        description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recordings",
        nargs="*",
        metavar="RECORDING",
        help="audio files, folders, or patterns such as 'calls/**/*.wav'; - reads from standard input: a WAV stream, "
        "raw 16-bit samples at 16 kHz, or a compressed file",
    )
    parser.add_argument(
        "--manifest",
        metavar="FILE",
        help="instead of RECORDING: a text file with one path or URL per line, or a .jsonl file of objects with path "
        "and id; it is read as a stream, and --output is a folder of shards",
    )
    parser.add_argument(
        "--allow_remote",
        nargs="+",
        metavar="PROTOCOL",
        help="protocols of URLs in the manifest that may be read, such as s3, gs, hf or https (default: none)",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="what scores a manifest (default: local, this process)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="INT", help="Ray actors, each with the model (default: one per GPU, or one)"
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        type=find_model,
        action="append",
        metavar="MODEL",
        help=f"{MODEL_HELP}; given several times, the answer is the mean of these models, and their disagreement is "
        f"shown (default: {DEFAULT_MODEL})",
    )
    model.add_argument(
        "--combine",
        choices=RULES,
        help="mean of several models: weighted by the certainty of each, 1 - entropy / log(classes), or plain "
        "(default: certainty)",
    )
    model.add_argument("--revision", metavar="COMMIT", help="commit, branch or tag of a model on the Hub")
    model.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the fastest one available)")
    model.add_argument(
        "--batch_size",
        type=int,
        metavar="INT",
        help="number of phrases scored together; affects speed, not scores (default: depends on model and device)",
    )
    model.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="data type of the model; bfloat16 is about twice as fast for large models on hardware that "
        "supports it, and changes scores in the third digit (default: float32)",
    )
    audio = parser.add_argument_group("audio")
    audio.add_argument(
        "--channels",
        choices=("mix", "each"),
        default="mix",
        help="mix averages the channels of a file; each scores every channel separately (default: mix)",
    )
    words = parser.add_argument_group("words").add_mutually_exclusive_group()
    words.add_argument("--text", metavar="TEXT", help="what is said in the one recording, for a model that reads words")
    words.add_argument(
        "--texts",
        action="store_true",
        help="read what is said from the text file beside each recording: call.txt for call.wav",
    )
    words.add_argument(
        "--transcribe",
        metavar="WHISPER",
        help="transcribe each recording with a Whisper model (Hub name or folder), and put the words on the timeline; "
        "a model that reads words reads them",
    )
    timeline = parser.add_argument_group("timeline")
    timeline.add_argument(
        "--pause", type=float, metavar="SECONDS", help="shortest silence that ends a phrase (default: 0.25)"
    )
    timeline.add_argument(
        "--window",
        type=float,
        metavar="SECONDS",
        help="duration of the overlapping windows that longer phrases are split into (default: 2)",
    )
    timeline.add_argument(
        "--smoothing",
        type=float,
        metavar="SECONDS",
        help="width of the window that smooths the timeline's probabilities; 0 disables smoothing (default: 0)",
    )
    timeline.add_argument(
        "--min_duration",
        type=float,
        metavar="SECONDS",
        help="shortest segment in the timeline; shorter ones are merged with a neighbour (default: 0.3)",
    )
    answer = parser.add_argument_group("output")
    answer.add_argument(
        "--output",
        metavar="PATH",
        help="write all results to one .jsonl or .csv file, or the timeline of one recording to a .TextGrid (Praat), "
        ".txt (Audacity) or .vtt (WebVTT) file; with --format, write one timeline per recording to a folder",
    )
    answer.add_argument("--format", choices=FORMATS, help="format of --output (default: inferred from its suffix)")
    answer.add_argument("--overwrite", action="store_true", help="overwrite existing files of --output and --plot")
    answer.add_argument(
        "--plot",
        metavar="PATH",
        help="plot the waveform and timeline to a .png, .svg or .pdf file, or for several recordings to a folder",
    )
    answer.add_argument(
        "--explain",
        action="store_true",
        help="name the parts of a recording that the label rests on, and say how the voice differs there; takes longer",
    )
    answer.add_argument(
        "--shard_size", type=int, metavar="INT", help="recordings per shard of a manifest (default: 1000)"
    )
    answer.add_argument("--quiet", action="store_true", help="do not print results")
    options = parser.parse_args(argv)
    options.model, *members = options.model or [find_model(DEFAULT_MODEL)]
    options.members = members or None
    _check_members(parser, options)
    if not options.recordings and not options.manifest:
        parser.error("the following arguments are required: RECORDING, or --manifest")
    for name in ("allow_remote", "shard_size", "workers"):
        if getattr(options, name) is not None and not options.manifest:
            parser.error(f"--{name} is for --manifest")
    if options.engine == "ray" and not options.manifest:
        parser.error("--engine ray is for --manifest")
    if options.engine == "local" and options.workers is not None:
        parser.error("--workers is for --engine ray")
    return options


def list_models(options: argparse.Namespace) -> list[str]:
    """The models whose mean is the answer, or the one that gives it."""
    return [options.model, *(options.members or [])]


def _check_members(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exit with a message for what several models cannot do, or one alone."""
    if options.members is None:
        if options.combine is not None:
            parser.error("--combine is for several models: give --model more than once")
        return
    options.combine = options.combine or "certainty"
    if len(set(list_models(options))) < len(list_models(options)):
        parser.error("--model names a model twice: give different ones")
    for name in ("revision", "explain"):
        if getattr(options, name):
            parser.error(f"--{name} is for one model: give --model once")
