"""What reading the audio of a corpus has shown, kept between runs: files that have not changed are not read again."""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from datasets.config import HF_DATASETS_CACHE

from core.audio import Excerpt

DATABASE = Path(HF_DATASETS_CACHE) / "ser_align" / "checked_audio.sqlite"
PATIENCE = 30  # seconds: other runs may be writing
AT_ONCE = 500  # keys of one query


class Known(NamedTuple):
    """What is known of usable audio."""

    is_cut: bool
    digest: str


def identify(excerpt: Excerpt) -> str | None:
    """What changes whenever the file does, and names the excerpt of it; None if there is no such file.

    The time of the last change of the file's status is that of any change, and programs cannot set it.
    """
    try:
        status = os.stat(excerpt.path)
    except (OSError, ValueError):
        return None
    version = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return repr((os.path.abspath(excerpt.path), *version, excerpt.start, excerpt.end))


def recall(keys: Iterable[str | None]) -> dict[str, Known]:
    """What is known of the audio with these keys of `identify`; nothing if the database cannot be read."""
    wanted, found = [key for key in keys if key is not None], {}
    try:
        with closing(_open()) as database:
            for first in range(0, len(wanted), AT_ONCE):
                some = wanted[first : first + AT_ONCE]
                query = f"SELECT key, is_cut, digest FROM audio WHERE key IN ({', '.join('?' * len(some))})"
                for key, is_cut, digest in database.execute(query, some):
                    found[key] = Known(bool(is_cut), digest)
    except (OSError, sqlite3.Error):
        return {}
    return found


def keep(known: dict[str, Known]) -> None:
    """Remember what reading has shown; a folder that cannot be written to costs only the time of the next run."""
    if not known:
        return
    try:
        with closing(_open()) as database, database:
            lines = [(key, each.is_cut, each.digest) for key, each in known.items()]
            database.executemany("INSERT OR REPLACE INTO audio VALUES (?, ?, ?)", lines)
    except (OSError, sqlite3.Error):
        return


def _open() -> sqlite3.Connection:
    DATABASE.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(DATABASE, timeout=PATIENCE)
    database.execute("CREATE TABLE IF NOT EXISTS audio (key TEXT PRIMARY KEY, is_cut INTEGER, digest TEXT)")
    return database
