"""The error that a user can fix, which scripts print as one line instead of a traceback; and warnings."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.escaping import printable

# What the messages of torch.save name when a file cannot be written.
TORCH_WRITERS = ("PytorchStreamWriter", "inline_container", "basic_ios", "Parent directory", "write(): fd")


class InputError(ValueError):
    """An argument, file or split that cannot be used: what was given, what is valid, what to do next."""


def error_line(error: InputError) -> str:
    """The last line of a script that fails; a worker that reads audio puts its traceback before the message."""
    return f"error: {printable(str(error).rpartition('core.errors.InputError: ')[2].strip())}"


def warn(text: str) -> None:
    print(f"warning: {printable(text)}", file=sys.stderr)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise InputError where a file that this block writes cannot be written; any other error passes unchanged."""
    try:
        yield
    except Exception as error:
        if not is_write_failure(error):
            raise
        raise InputError(
            f"{path} could not be written ({' '.join(str(error).split())}): make room on the disk or check its "
            "permissions, then repeat the command to resume"
        ) from error


def is_write_failure(error: Exception) -> bool:
    """Whether a file could not be written: each library has an error of its own for that."""
    from safetensors import SafetensorError  # imported late, so that --help answers at once

    if isinstance(error, RuntimeError):  # torch.save has no type of its own; out of memory and NCCL are other ones
        return type(error) is RuntimeError and any(word in str(error) for word in TORCH_WRITERS)
    return isinstance(error, OSError | SafetensorError)
