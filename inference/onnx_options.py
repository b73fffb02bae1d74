"""The command line of export_onnx.py. Imports nothing slow, to keep --help fast."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from core.errors import InputError
from core.shipped import DEFAULT_MODEL, MODEL_HELP, find_model

REQUIREMENTS = "requirements-onnx.txt"


def read_options(argv: list[str], description: str | None) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        InputError: --output is not a valid file name, --calibration is missing, superfluous or no folder, or the
            packages for ONNX are not installed.
    """
    parser = argparse.ArgumentParser(
        description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        type=find_model,
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"{MODEL_HELP} (default: {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("model.onnx"),
        metavar="FILE",
        help="ONNX file to write; the name must end in .onnx (default: model.onnx)",
    )
    parser.add_argument(
        "--int8",
        nargs="?",
        const="dynamic",
        choices=("dynamic", "static"),
        help="also write a smaller ONNX file, with 8-bit weights (dynamic, the default), or with 8-bit weights and "
        "activations (static), which needs --calibration",
    )
    parser.add_argument(
        "--calibration",
        metavar="FOLDER",
        help="folder of recordings like those of the training data, whose activations set the ranges of --int8 static",
    )
    options = parser.parse_args(argv)
    if options.output.suffix != ".onnx" or options.output.is_dir():
        raise InputError(f"--output {options.output} is not a file name ending in .onnx")
    if options.int8 == "static" and options.calibration is None:
        raise InputError("--int8 static needs --calibration FOLDER: recordings like those of the training data")
    if options.calibration is not None and (options.int8 != "static" or not Path(options.calibration).is_dir()):
        needed = "needs --int8 static" if options.int8 != "static" else "is not a folder of recordings"
        raise InputError(f"--calibration {options.calibration} {needed}")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX export needs {', '.join(missing)}, not installed here: pip install -r {REQUIREMENTS}")
    return options
