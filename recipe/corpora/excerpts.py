"""Excerpts: the times in a list of recordings that say which part of a file an utterance is."""

import math
from collections.abc import Container

from core.errors import InputError
from recipe.corpora.rows import ROUNDING

TIME_COLUMNS = ("start", "offset", "end", "duration")


# What others call the start and the end; read as unused columns, they would change the excerpts.
OTHER_NAMES = {
    **dict.fromkeys(("begin", "onset", "start_time", "starttime", "start_s", "start_sec", "xmin"), "start"),
    **dict.fromkeys(("stop", "end_time", "endtime", "end_s", "end_sec", "xmax"), "end"),
}


def has_time_columns(header: Container[str], where: str) -> bool:
    """Whether a list says where its utterances start and end. A `duration` alone only describes the files.

    Raises:
        InputError: it gives the start twice, or the start or the end under another name.
    """
    for name, ours in OTHER_NAMES.items():
        if name in header:
            raise InputError(f"{where} has the column {name}: name it {ours} if it is in seconds, or remove it")
    if "start" in header and "offset" in header:
        raise InputError(f"{where} has both start and offset, which mean the same: remove one of them")
    return any(name in header for name in ("start", "offset", "end"))


def read_times(values: dict[str, str], where: str) -> dict[str, float | None]:
    """Start and end in seconds of one line, None where it gives none: then from the beginning, or to the end.

    Raises:
        InputError: a time is not a number of seconds, or the end is not after the start.
    """
    times = {name: _read_seconds(values[name], name, where) for name in TIME_COLUMNS if values.get(name)}
    start = times.get("start", times.get("offset"))
    end, duration = times.get("end"), times.get("duration")
    if duration is not None and (start is not None or end is not None):
        computed = (start or 0.0) + duration
        if end is not None and abs(end - computed) > ROUNDING:
            raise InputError(f"{where}: end={end:g} is not start + duration = {computed:g}: remove one of the columns")
        end = computed if end is None else end
    if end is not None and end <= (start or 0.0):
        raise InputError(
            f"{where}: the excerpt ends at {end:g} s, not after its start at {start or 0:g} s: swap or correct them"
        )
    return {"start": start, "end": end}


def name_excerpt(file: str, start: float | None, end: float | None) -> str:
    """The id of an excerpt of a file, such as `talk.wav#t=1.5,3`, as W3C Media Fragments writes it."""
    if start is None and end is None:
        return file
    return f"{file}#t={start or 0:.10g}" + ("" if end is None else f",{end:.10g}")


def _read_seconds(text: str, name: str, where: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{where}: {name}={text!r} is not a number of seconds, such as 12.5")
    return seconds
