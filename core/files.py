"""Finding the files below a directory, through links, each directory once."""

import os
from pathlib import Path

from core.errors import InputError, warn


def find_files(directory: str | Path, suffixes: tuple[str, ...] | None = None) -> list[Path]:
    """Find the files below a directory, sorted; with suffixes, those whose names end in one of them in any case.

    Follows links to files and folders. Reads each folder once, so that a link back up ends there, and warns of a
    folder with two names and of links to nothing, which may have been folders; a lost file is left to its reader.

    Raises:
        InputError: a folder cannot be read.
    """
    seen: dict[tuple[int, int], str] = {}
    found: list[Path] = []
    for folder, inner, names in os.walk(directory, onerror=_refuse, followlinks=True):
        if not seen:
            _is_new(folder, seen)
        inner[:] = [name for name in sorted(inner) if _is_new(os.path.join(folder, name), seen)]
        for path in (Path(folder, name) for name in names):
            is_lost = path.is_symlink() and not path.exists()
            if suffixes is None or path.suffix.lower() in suffixes:
                found += [path] if is_lost or path.is_file() else []
            elif is_lost:
                warn(f"{path} is a broken link and is ignored: repair or remove it")
    return sorted(found)


def _is_new(folder: str, seen: dict[tuple[int, int], str]) -> bool:
    """Whether the walk has not come to this folder by another name; remembers it."""
    status = os.stat(folder)
    first = seen.setdefault((status.st_dev, status.st_ino), folder)
    if first != folder and not Path(folder).is_relative_to(first):
        warn(f"{folder} is the folder {first} under another name, which is read once")
    return first == folder


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise InputError(f"{error.filename} cannot be read ({error.strerror}): change its permissions")
