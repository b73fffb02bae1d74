"""Demo page: record or upload speech to see which emotions it expresses, and when.

    python app.py
    python app.py --model outputs/quickstart/stage2 --port 8000

The page works offline and keeps no recordings. To publish it as a Space on the Hugging Face Hub:

    python app.py --write_space my_space
    hf upload --repo-type space user/name my_space

The Space serves the base model. Set its variable SER_ALIGN_MODEL to serve another model from the Hub.
"""

import argparse
import os
import signal
import socket
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from core.errors import InputError, run_script
from core.shipped import DEFAULT_MODEL, MODEL_HELP, find_model


def main(argv: list[str]) -> None:
    options = read_command_line(argv)
    check_gradio()
    if options.write_space is not None:
        from demo.space import write_space

        write_space(options.write_space)
        print(f"Publish it: hf upload --repo-type space user/name {options.write_space}")
    else:
        check_address(options.host, options.port)
        serve_until_stopped(options.model, options.host, options.port)


def read_command_line(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        type=find_model,
        default=os.environ.get("SER_ALIGN_MODEL", DEFAULT_MODEL),
        metavar="MODEL",
        help=f"{MODEL_HELP} (default: the environment variable SER_ALIGN_MODEL, or {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--host",
        default="0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1",
        help="address to listen on; 0.0.0.0 makes the page available on the network (default: 127.0.0.1, this "
        "machine only)",
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: 7860)")
    parser.add_argument(
        "--write_space", type=Path, metavar="DIR", help="write the files of a Space to a new folder and exit"
    )
    return parser.parse_args(argv)


def check_gradio() -> None:
    if find_spec("gradio") is None:
        raise InputError("gradio is not installed: pip install -r requirements-app.txt")


def check_address(host: str, port: int) -> None:
    """Raise InputError if the page cannot listen on this address."""
    if not 1 <= port <= 65535:
        raise InputError(f"--port {port} is not a port number; use one from 1 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror}; choose another address or port") from None


def serve_until_stopped(model: str, host: str, port: int) -> None:
    """Serve the page, with temporary files in a folder that is deleted when the process stops."""
    for name in ("SIGTERM", "SIGHUP"):  # delete the folder, as after Ctrl-C
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="ser-align-", ignore_cleanup_errors=True) as folder:
        # Gradio reads these variables when it is imported.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=os.path.join(folder, "uploads"))
        from demo.page import serve

        serve(model, host, port, Path(folder))


if __name__ == "__main__":
    run_script(main)
