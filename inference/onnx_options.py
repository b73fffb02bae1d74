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
        InputError: --output is not a valid file name, or the packages for ONNX are not installed.
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
    parser.add_argument("--int8", action="store_true", help="also write a smaller ONNX file with 8-bit weights")
    options = parser.parse_args(argv)
    if options.output.suffix != ".onnx" or options.output.is_dir():
        raise InputError(f"--output {options.output} is not a file name ending in .onnx")
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX export needs {', '.join(missing)}, not installed here: pip install -r {REQUIREMENTS}")
    return options
