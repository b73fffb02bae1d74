"""The audio of a row of a dataset on the Hub: a file of the dataset, or one that is written to the cache."""

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
from datasets.config import HF_DATASETS_CACHE
from huggingface_hub.constants import HF_HUB_CACHE

from core.audio import AUDIO_SUFFIXES
from core.errors import InputError
from recipe.corpora.rows import refuse_outside


class Place(NamedTuple):
    """Where the audio of a dataset may lie, and where a copy is written."""

    source: str  # name of the dataset
    cache_dir: Path
    allow_outside: bool


def find_audio(place: Place, column: str, value: Any, where: str) -> str:
    """The path of a row's audio, which is written to the cache first if the dataset embeds it."""
    if isinstance(value, str | bytes):
        value = {"path" if isinstance(value, str) else "bytes": value}
    if not isinstance(value, dict) or not (value.get("bytes") or value.get("path")):
        raise InputError(f"{where}: column {column!r} contains neither encoded audio nor a path; choose another column")
    path, content = value.get("path") or "", value.get("bytes")
    if content is None and "://" in path:  # in an archive or on a server
        if not place.allow_outside:
            _check_source(place, path, where)
        with fsspec.open(path, "rb") as file:
            content = file.read()
    if content is not None:
        return str(_write_once(content, Path(path).suffix.lower(), place.cache_dir / "audio"))
    for candidate in (Path(place.source) / path, Path(path)):
        if candidate.is_file():
            if not place.allow_outside:
                refuse_outside(candidate, _directories(place), where)
            return str(candidate.absolute())
    raise InputError(f"{where}: {path}: no such audio file, relative to {place.source} or to the current directory")


def _directories(place: Place) -> list[Path]:
    """The directories in which a row may name a file: that of the dataset, or the caches of the library."""
    fetched = [Path(HF_DATASETS_CACHE), Path(HF_HUB_CACHE)]
    return [Path(place.source), *fetched] if Path(place.source).is_dir() else fetched


def _check_source(place: Place, url: str, where: str) -> None:
    """Raise InputError for audio on a server or in an archive (`zip://a.wav::place`) outside the dataset."""
    file = url.rpartition("::")[2]
    if file.startswith("hf://"):
        if not file.startswith((f"hf://datasets/{place.source}/", f"hf://datasets/{place.source}@")):
            raise InputError(
                f"{where}: {url} belongs to another dataset: add --allow_outside_paths if you trust this one"
            )
    elif "://" in file:
        raise InputError(f"{where}: {url} is not a file of the dataset: add --allow_outside_paths if you trust it")
    else:
        refuse_outside(Path(file), _directories(place), where)


def _write_once(content: bytes, suffix: str, directory: Path) -> Path:
    """Write the content to a file named by its hash, unless it exists; the file appears complete or not at all."""
    digest = hashlib.sha256(content).hexdigest()
    path = directory / digest[:2] / f"{digest}{suffix if suffix in AUDIO_SUFFIXES else ''}"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_bytes(content)
        unfinished.replace(path)
    return path.absolute()
