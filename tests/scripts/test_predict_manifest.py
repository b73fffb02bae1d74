"""predict.py --manifest: killed, shared by processes, resumed; every line once, and memory that does not grow."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import soundfile
from conftest import ROOT
from running import environment, lines_of, predict, run_anew

from core.errors import InputError
from inference.options import read_options
from inference.shards import open_shards, score_shard, write_summary
from models.ship import generate_buzzes

pytestmark = pytest.mark.slow

RATE, SHARD = 16000, 50
NAMES = ("a.wav", "b.wav", "c.wav", "lost.wav", "text.wav")
BROKEN = {"lost.wav", "text.wav"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three recordings, and a file that is none."""
    folder = tmp_path_factory.mktemp("recordings")
    for name, samples in zip(NAMES, generate_buzzes().values()):
        soundfile.write(folder / name, samples[: RATE // 2], RATE)
    (folder / "text.wav").write_text("not audio")
    return folder


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server(folder):
    """The folder over HTTP on the loopback interface."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def list_entries(folder, server, number):
    """Local and remote files in turn, and the number of those that cannot be read."""
    places = [f"{folder}/{{}}", f"{server}/{{}}?token=1"]
    names = [NAMES[line % len(NAMES)] for line in range(number)]
    entries = [{"id": f"call {line}", "path": places[line % 2].format(name)} for line, name in enumerate(names)]
    return entries, [line for line, name in enumerate(names, start=1) if name in BROKEN]


def read_shards(output):
    return [record for path in sorted(output.glob("0*.jsonl")) for record in lines_of(path)]


def test_a_killed_run_is_finished_by_two_others_without_a_line_lost_or_twice(folder, server, tmp_path):
    entries, broken = list_entries(folder, server, 4 * SHARD - 10)
    manifest, output = tmp_path / "calls.jsonl", tmp_path / "answers"
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    argv = ["--manifest", manifest, "--output", output, "--allow_remote", "http", "--shard_size", SHARD, "--quiet"]
    command = [sys.executable, "predict.py", *map(str, argv), "--model", "mini"]
    run = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE)
    unfinished = output / "00001.jsonl.unfinished"
    deadline = time.monotonic() + 300
    while not (unfinished.is_file() and unfinished.read_text().count("\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    with unfinished.open("a") as file:
        file.write('{"line": 99, "cut sho')  # as a kill leaves it
    before = [*lines_of(output / "00000.jsonl"), *map(json.loads, unfinished.read_text().splitlines()[:-1])]
    assert SHARD + 3 <= len(before) < len(entries)

    with ThreadPoolExecutor(2) as at_once:
        runs = list(at_once.map(lambda _: run_to_its_end(argv), range(2)))
    records = read_shards(output)
    assert [record["line"] for record in records] == list(range(1, len(entries) + 1))
    assert [record["id"] for record in records] == [entry["id"] for entry in entries]
    assert records[: len(before)] == before  # kept, not answered again
    assert [record["line"] for record in records if "error" in record] == broken
    for record in records:  # local or remote, before the kill or after it
        if "error" not in record:
            same = records[(record["line"] - 1) % len(NAMES)]
            assert record["scores"] == pytest.approx(same["scores"], abs=2e-6)
    names = ["00000.jsonl", "00001.jsonl", "00002.jsonl", "00003.jsonl", "failures.jsonl", "options.json"]
    assert sorted(path.name for path in output.iterdir() if not path.name.endswith("options.json.lock")) == names
    failures = lines_of(output / "failures.jsonl")
    assert [failure["id"] for failure in failures] == [f"call {line - 1}" for line in broken]
    assert all("\n" not in failure["error"] for failure in failures)
    assert "cannot be downloaded (FileNotFoundError" in failures[0]["error"]
    assert any(f"{len(entries)} recordings, " in text and f"{len(broken)} could not be read: " in text for text in runs)

    times = {path: path.stat().st_mtime_ns for path in output.glob("0*.jsonl")}
    (folder / "lost.wav").write_bytes((folder / "a.wav").read_bytes())
    run_to_its_end(argv)
    assert times == {path: path.stat().st_mtime_ns for path in output.glob("0*.jsonl")}
    retried = predict("--manifest", output / "failures.jsonl", "--output", tmp_path / "again", *argv[4:], expect=1)
    (folder / "lost.wav").unlink()
    found = {record["id"]: "error" in record for record in read_shards(tmp_path / "again")}
    assert found == {failure["id"]: "text" in failure["path"] for failure in failures}, retried.stderr


def run_to_its_end(argv):
    """What a run writes to standard error once it has counted the recordings, some of which cannot be read."""
    try:
        return predict(*argv, expect=1).stderr
    except AssertionError:  # it ended before the other one, which counts them
        return ""


def test_memory_does_not_grow_with_the_number_of_recordings(folder, recognize, tmp_path):
    """From 500 to 5,000 entries, with one in a hundred that can be read, the peak stays the same.

    A record has 300 bytes as text and more in Python: to hold them would take more than 2 MB.
    """

    def measure_peak(number, repetition):
        manifest = tmp_path / f"{number}.txt"
        lines = [str(folder / ("a.wav" if line % 100 == 0 else f"{line}.wav")) for line in range(number)]
        manifest.write_text("\n".join(lines))
        options = read_options(["--manifest", str(manifest), "--output", str(tmp_path / f"{number}-{repetition}")], "")
        options.shard_size = 100
        tracemalloc.start()
        opened = open_shards(options)
        for shard in range(len(opened.shards)):
            score_shard(recognize, opened, shard, options)
        counts = write_summary(opened, options)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert counts.recordings == number and counts.recordings - counts.failed == number // 100
        return peak

    measure_peak(200, 0)  # fills the caches of libraries
    # The smaller of two: threads of earlier tests may allocate, too.
    few, many = (min(measure_peak(number, repetition) for repetition in range(2)) for number in (500, 5_000))
    assert many < few + 300_000


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a.wav", "--manifest", "m.txt", "--output", "out"], "recordings cannot be combined with --manifest"),
        (["--manifest", "m.txt"], "--manifest needs --output: name a folder"),
        (["--manifest", "m.txt", "--output", "out", "--plot", "x"], "--plot cannot be combined with --manifest"),
        (["--manifest", "m.txt", "--output", "out", "--texts"], "--texts cannot be combined with --manifest"),
        (["--manifest", "m.txt", "--output", "out", "--shard_size", "0"], "--shard_size 0 is not a whole number"),
        (["--manifest", "m.txt", "--output", "full"], "--output full contains other files: name an empty"),
    ],
)
def test_options_that_do_not_fit_a_manifest_are_refused(tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.txt").write_text("a.wav\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=message):
        open_shards(read_options(argv, ""))


def test_a_manifest_that_changed_is_refused(tmp_path):
    manifest = tmp_path / "m.txt"
    argv = ["--manifest", str(manifest), "--output", str(tmp_path / "out")]
    manifest.write_text("a.wav\n")
    open_shards(read_options(argv, ""))
    open_shards(read_options([*argv, "--batch_size", "4"], ""))
    with pytest.raises(InputError, match="contains the results of a run without --shard_size"):
        open_shards(read_options([*argv, "--shard_size", "7"], ""))
    manifest.write_text("a.wav\nb.wav\n")
    with pytest.raises(InputError, match=r"another version of --manifest .*m\.txt: remove it to score all"):
        open_shards(read_options(argv, ""))


def test_without_recordings_the_command_line_says_what_is_missing():
    for argv in ([], ["a.wav", "--shard_size", "3"]):
        assert "--manifest" in run_anew("predict.py", *argv, expect=2, cwd=os.sep).stderr.splitlines()[-1]
