"""Reads manifests: lists of recordings of any length, one per line, as a stream.

A text file has one path or URL per line; a .jsonl file has objects with `path` and, if wanted, `id`. Relative paths are
those from the folder of the manifest.
"""

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from core.errors import InputError
from core.escaping import printable

URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")
PACKAGES = "pip install s3fs (s3), gcsfs (gs) or what fsspec names for it"


class Entry(NamedTuple):
    """One recording of a manifest."""

    line: int  # counted from 1
    id: str  # the path as it is written, unless the manifest gives one
    path: str


class Shard(NamedTuple):
    """Consecutive entries: where the first line stands in the file, in bytes, and its number."""

    offset: int
    line: int


class Manifest(NamedTuple):
    """A manifest that was read once; of its entries, only where each shard begins is held."""

    path: Path
    shards: list[Shard]
    shard_size: int
    num_entries: int
    digest: str


def scan_manifest(path: str, shard_size: int, protocols: list[str]) -> Manifest:
    """Read and check every line of a manifest, and find where its shards begin.

    Args:
        shard_size: entries of a shard.
        protocols: those of the URLs that may be read, such as `s3`; by default, all recordings are local files.

    Raises:
        InputError: the manifest cannot be read or is empty, a line is not valid, or a URL is not allowed.
    """
    for protocol in protocols:
        check_protocol(protocol)
    shards: list[Shard] = []
    number, digest = 0, hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            for number, (shard, entry) in enumerate(_read_entries(file, Path(path), digest), start=1):
                _check_url(entry, f"{path}, line {entry.line}", protocols)
                if number % shard_size == 1 or shard_size == 1:
                    shards.append(shard)
    except OSError as error:
        raise InputError(f"--manifest {path} cannot be read ({error.strerror}): give a file") from None
    if not shards:
        raise InputError(f"--manifest {path} contains no recordings: give one path per line")
    return Manifest(Path(path).absolute(), shards, shard_size, number, digest.hexdigest())


def read_shard(manifest: Manifest, number: int) -> list[Entry]:
    """Read the entries of one shard, counted from 0."""
    shard = manifest.shards[number]
    with manifest.path.open("rb") as file:
        file.seek(shard.offset)
        entries = (entry for _, entry in _read_entries(file, manifest.path, first=shard.line))
        return list(islice(entries, manifest.shard_size))


def _read_entries(file: IO[bytes], path: Path, digest: Any = None, first: int = 1) -> Iterator[tuple[Shard, Entry]]:
    """Yield each entry and its place, from the line with the number `first` on; blank lines are skipped."""
    offset, is_json = file.tell(), path.suffix.lower() == ".jsonl"
    for line, content in enumerate(file, start=first):
        if digest is not None:
            digest.update(content)
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").strip("\r\n")
        if text.strip():
            where = f"{path}, line {line}"
            if "\0" in text:
                raise InputError(f"{where} contains a NUL character: save the manifest as UTF-8")
            name, found = _parse_object(text, where) if is_json else (text, text)
            yield Shard(offset, line), Entry(line, name, found if URL.match(found) else str(path.parent / found))
        offset += len(content)


def _parse_object(text: str, where: str) -> tuple[str, str]:
    """The id and the path of a line of JSON."""
    try:
        entry = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is not JSON ({error}): write one object with a path per line") from None
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(path, str) or not path:
        raise InputError(f'{where} has no path: write {{"id": "...", "path": "..."}}')
    name = entry.get("id", path)
    if not isinstance(name, str | int):
        raise InputError(f"{where}: id={name!r} is neither a text nor a number")
    return str(name), path


# --------------------------------------------------------------------------------------------- remote recordings


def check_protocol(protocol: str) -> None:
    """Raise InputError if fsspec cannot read URLs of this protocol here."""
    from fsspec import available_protocols, get_filesystem_class

    try:
        get_filesystem_class(protocol)
    except ValueError:
        known = ", ".join(sorted(available_protocols()))
        raise InputError(f"--allow_remote {protocol} is not a protocol of fsspec: use one of {known}") from None
    except ImportError as error:
        raise InputError(f"--allow_remote {protocol} needs another package ({error}): {PACKAGES}") from None


def _check_url(entry: Entry, where: str, protocols: list[str]) -> None:
    scheme = URL.match(entry.path)
    if scheme is None:
        return
    if scheme[1] not in protocols:
        raise InputError(f"{where}: {printable(entry.path)} is remote: add --allow_remote {scheme[1]}, or download it")
    if "::" in entry.path:  # fsspec would open a second URL, of any protocol
        raise InputError(f"{where}: {printable(entry.path)} is a chain of URLs, which are not read: give a single one")


def open_recording(path: str) -> Any:
    """What the pipeline reads: the path of a local file, or a remote file that is downloaded when it is first read."""
    return RemoteFile(path) if URL.match(path) else path


class RemoteFile(io.RawIOBase):
    """A file that fsspec copies to a temporary one when it is first read; that is deleted with this object.

    Reading raises ValueError if it cannot be downloaded: each file system has its own errors.
    """

    def __init__(self, url: str):
        self.url = url
        self._copy: IO[bytes] | None = None

    def _download(self) -> IO[bytes]:
        if self._copy is None:
            from fsspec import url_to_fs

            copy = tempfile.NamedTemporaryFile()  # noqa: SIM115 -- deleted with the last reference to it
            try:
                system, path = url_to_fs(self.url)
                system.get_file(path, copy.name)
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise ValueError(f"{printable(self.url)} cannot be downloaded ({printable(reason)})") from None
            self._copy = copy
        return self._copy

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._download().readinto(buffer)  # type: ignore[attr-defined, no-any-return]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._download().seek(offset, whence)

    def tell(self) -> int:
        return self._download().tell()
