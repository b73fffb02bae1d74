"""Which recordings are meant: files, folders and globs."""

import glob
from pathlib import Path

from core.audio import AUDIO_SUFFIXES
from core.errors import InputError

# What a folder is searched for: what soundfile reads, and what ffmpeg reads where it is installed.
SUFFIXES = (*AUDIO_SUFFIXES, ".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr", ".mka", ".mkv", ".mov", ".3gp")


def recordings(patterns: list[str]) -> list[str]:
    """Every recording once, in the order given; folders are searched to the bottom, their files sorted.

    A file is taken whatever its name; whether it can be read shows when it is read.

    Raises:
        InputError: a pattern that matches nothing, or a folder without audio.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        if not matches:
            raise InputError(f"{pattern}: no such file, folder or pattern with a match")
        for match in matches:
            if Path(match).is_dir():
                inside = sorted(str(path) for path in Path(match).rglob("*") if _is_audio(path))
                if not inside and len(matches) == 1:
                    raise InputError(f"{match} holds no audio; looked for {', '.join(SUFFIXES)}")
                found.update(dict.fromkeys(inside))
            else:
                found[match] = None
    return list(found)


def _is_audio(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()
