"""The command line of predict.py. Imports nothing slow, so that --help answers at once."""

import argparse

from inference.outputs import FORMATS

TIMELINE_OPTIONS = ("pause", "window", "smoothing", "min_duration")


def read_options(argv: list[str], description: str | None) -> argparse.Namespace:
    """Parse the command line; exits with a message if an option is unknown or has no valid value."""
    parser = argparse.ArgumentParser(
        description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "recordings",
        nargs="+",
        metavar="RECORDING",
        help="files, folders or patterns such as 'calls/**/*.wav'; - reads standard input: a WAV stream, "
        "raw 16-bit samples at 16 kHz, or a compressed file",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        default="models/ser-align-mini",
        metavar="DIR_OR_HUB_ID",
        help="model folder or model on the Hub (default: models/ser-align-mini, the one in this repository)",
    )
    model.add_argument("--revision", metavar="COMMIT", help="commit, branch or tag of a model on the Hub")
    model.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the fastest one available)")
    model.add_argument(
        "--batch_size",
        type=int,
        metavar="INT",
        help="phrases scored together; changes the speed, not the scores (default: chosen for the model and device)",
    )
    model.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="number format of the model; bfloat16 is about twice as fast for large models on hardware that "
        "supports it, and changes scores in the third digit (default: float32)",
    )
    audio = parser.add_argument_group("audio")
    audio.add_argument(
        "--channels",
        choices=("mix", "each"),
        default="mix",
        help="average the channels of a file, or answer for each of them (default: mix)",
    )
    timeline = parser.add_argument_group("timeline")
    timeline.add_argument(
        "--pause", type=float, metavar="SECONDS", help="length of a silence that ends a phrase (default: 0.25)"
    )
    timeline.add_argument(
        "--window", type=float, metavar="SECONDS", help="length of the windows that cover a longer phrase (default: 2)"
    )
    timeline.add_argument(
        "--smoothing",
        type=float,
        metavar="SECONDS",
        help="width of the window that averages probabilities over time; 0 disables it (default: 0)",
    )
    timeline.add_argument(
        "--min_duration",
        type=float,
        metavar="SECONDS",
        help="shortest segment; shorter ones join their neighbour (default: 0.3)",
    )
    answer = parser.add_argument_group("answer")
    answer.add_argument(
        "--output",
        metavar="PATH",
        help="write the answers to one .jsonl or .csv file, the timeline of one recording to a .TextGrid (Praat), "
        ".txt (Audacity) or .vtt (WebVTT) file, or with --format one timeline per recording to a folder",
    )
    answer.add_argument("--format", choices=FORMATS, help="format of --output (default: by its file name)")
    answer.add_argument("--overwrite", action="store_true", help="replace an existing --output file")
    answer.add_argument(
        "--plot",
        metavar="PATH",
        help="draw waveform and timeline: a .png, .svg or .pdf file for one recording, a folder for several",
    )
    answer.add_argument(
        "--explain",
        action="store_true",
        help="show which stretches carried the decision, and how the voice differs there",
    )
    answer.add_argument("--quiet", action="store_true", help="do not print the answers")
    return parser.parse_args(argv)
