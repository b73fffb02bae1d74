"""Warnings, and errors that users can fix, which scripts print as one line instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.escaping import printable

# Words in the messages of torch.save if a file cannot be written.
TORCH_WRITERS = ("PytorchStreamWriter", "inline_container", "basic_ios", "Parent directory", "write(): fd")


class InputError(ValueError):
    """An argument, file or split cannot be used. States what was given, what is valid and what to do next."""


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
