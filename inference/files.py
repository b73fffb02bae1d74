"""Finds recordings in files, folders and patterns."""

import glob
from pathlib import Path

from core.audio import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from core.errors import InputError

SUFFIXES = (*AUDIO_SUFFIXES, *VIDEO_SUFFIXES)  # that folders are searched for


def find_recordings(patterns: list[str]) -> list[str]:
    """List every recording once, in the given order; folders are searched recursively and sorted.

    A file given by name is accepted with any suffix; reading it shows whether it is audio.

    Raises:
        InputError: a pattern matches nothing, or a folder contains no audio.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise InputError(f"{pattern}: no such file or folder, and no file matches it as a pattern")
        for match in matches:
            if Path(match).is_dir():
                inside = sorted(str(path) for path in Path(match).rglob("*") if _is_audio(path))
                if not inside and len(matches) == 1:
                    raise InputError(f"{match} contains no audio files; valid suffixes are {', '.join(SUFFIXES)}")
                found.update(dict.fromkeys(inside))
            else:
                found[match] = None
    return list(found)


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
