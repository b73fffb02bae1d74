"""The one error that a user can mend, which a script prints in one line instead of a traceback; and warnings."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from core.escaping import printable


class InputError(ValueError):
    """An argument, file or split that cannot be used: what was given, what is valid, what to do next."""


def error_line(error: InputError) -> str:
    """What a script ends with; from a process that reads audio, the message comes below that one's traceback."""
    return f"error: {printable(str(error).rpartition('core.errors.InputError: ')[2].strip())}"


def warn(text: str) -> None:
    print(f"warning: {printable(text)}", file=sys.stderr)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise InputError where what this block writes finds no room; each library has an error of its own for that."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path} could not be written ({' '.join(str(error).split())}): is the disk full? Make room, and the same "
            "command goes on from where it was"
        ) from error
