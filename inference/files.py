"""Finds recordings in files, folders and patterns."""

import glob
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from core.audio import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from core.errors import InputError
from core.files import find_files

SUFFIXES = (*AUDIO_SUFFIXES, *VIDEO_SUFFIXES)  # that folders are searched for


def find_recordings(patterns: list[str]) -> list[str]:
    """List every recording once, in the given order; folders are searched recursively and sorted.

    A file given by name is accepted with any suffix; reading it shows whether it is audio.

    Raises:
        InputError: a pattern matches nothing, or a folder contains no audio.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        if not pattern:
            raise InputError("a recording has an empty name: give a file, a folder or a pattern")
        if pattern == "-" and len(patterns) > 1:
            raise InputError("- reads standard input, which is scored alone: give it or files, not both")
        matches = [pattern] if Path(pattern).exists() else _expand(pattern)
        if not matches:
            raise InputError(f"{pattern}: no such file or folder, and no file matches it as a pattern")
        for match in matches:
            if Path(match).is_dir():
                inside = [str(path) for path in find_files(match, SUFFIXES)]
                if not inside and len(matches) == 1:
                    raise InputError(f"{match} contains no audio files; valid suffixes are {', '.join(SUFFIXES)}")
                names = inside
            else:
                names = [match]
            for name in names:  # ./a.wav is a.wav
                found.setdefault(os.path.abspath(name), name)
    return list(found.values())


def _expand(pattern: str) -> list[str]:
    """The sorted matches of a pattern. `**` follows linked folders as in `glob`, but never in a circle."""
    before, stars, after = pattern.partition("**")
    if not stars:
        return sorted(glob.glob(pattern))
    wanted = [name for name in (stars + after).split("/") if name]
    found = {
        str(path): None
        for folder in sorted(glob.glob(before)) or [before or "."]
        for path in find_files(folder)
        if _matches(path.relative_to(folder).parts, wanted)
    }
    return list(found)


def _matches(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a path matches a pattern, both as their parts. Hidden files match by their names alone."""
    if not wanted or not names:
        return not names and all(part == "**" for part in wanted)
    if wanted[0] == "**":
        return _matches(names, wanted[1:]) or (names[0][0] != "." and _matches(names[1:], wanted))
    is_hidden = names[0].startswith(".") and not wanted[0].startswith(".")
    return not is_hidden and fnmatch(names[0], wanted[0]) and _matches(names[1:], wanted[1:])
