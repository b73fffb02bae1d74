"""Manifests are read as a stream, and what they name is checked before anything is scored."""

import json
import tracemalloc

import pytest

from core.errors import InputError
from inference.manifest import RemoteFile, open_recording, read_shard, scan_manifest


def write(path, *lines):
    path.write_bytes(b"\n".join(lines))
    return str(path)


def read_all(path, size, protocols=()):
    manifest = scan_manifest(path, size, list(protocols))
    shards = [read_shard(manifest, number) for number in range(len(manifest.shards))]
    assert [len(shard) for shard in shards[:-1]] == [size] * (len(shards) - 1)
    assert sum(map(len, shards)) == manifest.num_entries
    return [entry for shard in shards for entry in shard]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_text_file_has_a_path_on_each_line(tmp_path, size):
    """A byte order mark, Windows line ends, blank lines, and a name that is not UTF-8."""
    lines = (b"\xef\xbb\xbfa.wav\r", b"", b"/x/b c.wav", b"  ", b"\xff.wav", b"https://h/a.wav?b=1")
    entries = read_all(write(tmp_path / "list.txt", *lines), size, ["https"])
    assert [entry.line for entry in entries] == [1, 3, 5, 6]
    assert [entry.id for entry in entries] == ["a.wav", "/x/b c.wav", "\udcff.wav", "https://h/a.wav?b=1"]
    paths = [str(tmp_path / "a.wav"), "/x/b c.wav", str(tmp_path / "\udcff.wav"), "https://h/a.wav?b=1"]
    assert [entry.path for entry in entries] == paths


def test_json_lines_have_an_id_and_a_path(tmp_path):
    objects = [{"id": "first", "path": "a.wav"}, {"id": 2, "path": "/b.wav", "error": "of an earlier run"}]
    lines = [json.dumps(line).encode() for line in (*objects, {"path": "c\nd.wav"})]
    entries = read_all(write(tmp_path / "list.jsonl", *lines, b""), 2)
    assert [entry.id for entry in entries] == ["first", "2", "c\nd.wav"]
    assert [entry.path for entry in entries] == [str(tmp_path / "a.wav"), "/b.wav", str(tmp_path / "c\nd.wav")]


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.txt", [], "contains no recordings: give one path per line"),
        ("a.txt", [b"a.wav", "b.wav".encode("utf-16-le")], "line 2 contains a NUL character: save the manifest as"),
        ("a.jsonl", [b'{"path": "a.wav"}', b"b.wav"], "line 2 is not JSON"),
        ("a.jsonl", [b'{"file": "a.wav"}'], "line 1 has no path"),
        ("a.jsonl", [b'{"id": [1], "path": "a.wav"}'], r"line 1: id=\[1\] is neither a text nor a number"),
        ("a.txt", [b"a.wav", b"s3://b/c.wav"], "line 2: s3://b/c.wav is remote: add --allow_remote s3"),
        ("a.txt", [b"file:///etc/hosts"], "line 1: file:///etc/hosts is remote: add --allow_remote file"),
        ("a.txt", [b"https://a/b.zip::http://169.254.169.254/"], "is a chain of URLs, which are not read"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_said_with_its_line(tmp_path, name, lines, message):
    with pytest.raises(InputError, match=message):
        scan_manifest(write(tmp_path / name, *lines), 10, ["https"])


def test_a_protocol_that_cannot_be_read_here_is_refused_at_once(tmp_path):
    path = write(tmp_path / "a.txt", b"a.wav")
    with pytest.raises(InputError, match="--allow_remote moon is not a protocol of fsspec: use one of "):
        scan_manifest(path, 10, ["moon"])
    with pytest.raises(InputError, match=r"--allow_remote s3 needs another package \(.*s3fs.*\): pip install"):
        scan_manifest(path, 10, ["s3"])
    with pytest.raises(InputError, match=r"--manifest .*none\.txt cannot be read \(No such file or directory\)"):
        scan_manifest(str(tmp_path / "none.txt"), 10, [])


def test_a_remote_file_is_downloaded_when_it_is_read_and_says_why_it_cannot(tmp_path):
    content = bytes(range(256)) * 20
    (tmp_path / "a.bin").write_bytes(content)
    file = open_recording(f"file://{tmp_path}/a.bin")
    assert isinstance(file, RemoteFile) and open_recording("a.bin") == "a.bin"
    (tmp_path / "a.bin").write_bytes(content[::-1])  # not read yet
    assert file.seek(-3, 2) == len(content) - 3 and file.read() == content[::-1][-3:]
    (tmp_path / "a.bin").unlink()
    assert file.seek(0) == 0 and file.read(5) == content[::-1][:5]
    lost = open_recording(f"file://{tmp_path}/b.bin")
    with pytest.raises(ValueError, match=r"file://.*/b\.bin cannot be downloaded \(FileNotFoundError"):
        lost.seek(0)


def test_memory_does_not_grow_with_the_manifest(tmp_path):
    """Ten times the lines, of 100 bytes each, and the same peak: 2 MB of text would not fit."""
    peaks = []
    for number in (2_000, 20_000):
        path = tmp_path / f"{number}.txt"
        path.write_text("".join(f"{'x' * 90}/{line:07}.wav\n" for line in range(number)))
        peaks.append(min(measure_peak(path, number) for _ in range(3)))  # threads of earlier tests may allocate, too
    assert peaks[1] < peaks[0] + 50_000


def measure_peak(path, number):
    """Bytes that reading a manifest of this many lines needs."""
    tracemalloc.start()
    manifest = scan_manifest(str(path), 1000, [])
    assert len(read_shard(manifest, len(manifest.shards) - 1)) == 1000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert manifest.num_entries == number
    return peak
