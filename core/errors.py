"""Warnings, and errors that users can fix, which scripts print as one line instead of a traceback."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.escaping import escape_streams, printable

# Words in the messages of torch.save if a file cannot be written.
TORCH_WRITERS = ("PytorchStreamWriter", "inline_container", "basic_ios", "Parent directory", "write(): fd")


class InputError(ValueError):
    """An argument, file or split cannot be used. States what was given, what is valid and what to do next."""


def run_script(main: Callable[[list[str]], int | None]) -> None:
    """Run the `main` of a script on the command line and exit with the status that it returns.

    What the user can fix ends it with one line, Ctrl-C with none. A console or pipe may have any encoding.
    """
    escape_streams()
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
        sys.exit(status)
    except InputError as error:
        sys.exit(error_line(error))
    except UnicodeEncodeError as error:
        if (encoding := sys.getfilesystemencoding()) == "utf-8":
            raise
        name = printable(ascii(error.object))
        sys.exit(f"error: {name} is not a file name in the encoding of this system ({encoding}): set PYTHONUTF8=1")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def error_line(error: InputError) -> str:
    """Format the last line of a failed script; an audio worker puts its traceback before the message."""
    return f"error: {printable(str(error).rpartition('core.errors.InputError: ')[2].strip())}"


def warn(text: str) -> None:
    print(f"warning: {printable(text)}", file=sys.stderr)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise InputError if the file that this block writes cannot be written; other errors pass through unchanged."""
    try:
        yield
    except Exception as error:
        if not is_write_failure(error):
            raise
        raise InputError(
            f"{path} could not be written ({' '.join(str(error).split())}): free up disk space or check the "
            "permissions, then run the same command again to resume"
        ) from error


def is_write_failure(error: Exception) -> bool:
    """Whether a file could not be written; each library has its own error for that."""
    from safetensors import SafetensorError  # imported here to keep --help fast

    if isinstance(error, RuntimeError):  # torch.save has no error type; out-of-memory and NCCL errors are subclasses
        return type(error) is RuntimeError and any(word in str(error) for word in TORCH_WRITERS)
    return isinstance(error, OSError | SafetensorError)
