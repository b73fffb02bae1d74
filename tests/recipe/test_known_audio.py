import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from datasets import Dataset

from core.audio import Excerpt, scan_audio
from recipe import broken, known_audio
from recipe.broken import Check, check_audio

RATE = 16_000


@pytest.fixture(autouse=True)
def database(tmp_path, monkeypatch):
    path = tmp_path / "cache" / "checked.sqlite"
    monkeypatch.setattr(known_audio, "DATABASE", path)
    return path


@pytest.fixture
def forbid_reading(monkeypatch):
    def forbid():
        def refuse(excerpt, _):
            raise AssertionError(f"{excerpt} is read again")

        monkeypatch.setattr(broken, "check_recording", refuse)

    return forbid


def write(path, seed=0):
    soundfile.write(path, 0.1 * np.random.default_rng(seed).normal(size=RATE), RATE)
    return path


def make_rows(paths):
    return Dataset.from_dict({"audio": [{"path": str(path)} for path in paths]})


def test_audio_that_has_not_changed_is_not_read_again(tmp_path, forbid_reading):
    paths = [write(tmp_path / f"{seed}.wav", seed) for seed in range(3)]
    cut = tmp_path / "cut.wav"
    cut.write_bytes(paths[0].read_bytes()[:-RATE])
    rows = make_rows([*paths, cut])
    first = check_audio(rows)
    assert [check.digest for check in first.values()][:3] == [scan_audio(path).digest for path in paths]
    assert [check.is_cut for check in first.values()] == [False, False, False, True]
    forbid_reading()
    assert check_audio(rows) == first


def test_a_file_that_changed_is_read_again_even_if_its_size_and_time_are_the_same(tmp_path):
    path = write(tmp_path / "a.wav", 0)
    check_audio(make_rows([path]))
    before = path.stat()
    write(path, 1)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert check_audio(make_rows([path])) == {0: Check(None, False, scan_audio(path).digest)}
    other = write(tmp_path / "b.wav", 2)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert check_audio(make_rows([path]))[0].digest == scan_audio(path).digest


def test_a_broken_file_is_read_again(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    assert check_audio(make_rows([path]))[0].broken is not None
    assert "no such" in str(check_audio(make_rows([tmp_path / "none.wav"]))[0].broken).lower()
    write(path)
    assert check_audio(make_rows([path]))[0].broken is None


def test_each_excerpt_of_a_file_is_known_by_itself(tmp_path):
    path = write(tmp_path / "a.wav")
    keys = [known_audio.identify(Excerpt(str(path), *part)) for part in ((), (0.0, 0.5), (0.5, None))]
    assert len(set(keys)) == 3 and known_audio.identify(Excerpt(str(tmp_path / "b.wav"))) is None


@pytest.mark.parametrize("damage", [b"", b"not a database" * 1000, None])
def test_without_a_usable_database_the_audio_is_read(tmp_path, database, damage):
    database.parent.mkdir()
    database.mkdir() if damage is None else database.write_bytes(damage)
    path = write(tmp_path / "a.wav")
    for _ in range(2):
        assert check_audio(make_rows([path])) == {0: Check(None, False, scan_audio(path).digest)}


def test_processes_that_read_at_once_lose_nothing(tmp_path, database, forbid_reading, monkeypatch):
    paths = [write(tmp_path / f"{seed}.wav", seed) for seed in range(60)]
    script = (
        "import sys; from pathlib import Path; from datasets import Dataset; from recipe import broken, known_audio; "
        f"known_audio.DATABASE = Path({str(database)!r}); broken.KEPT_AT_ONCE = 5; "
        f"files = sorted(Path({str(tmp_path)!r}).glob('*.wav')); "
        "rows = Dataset.from_dict({'audio': [{'path': str(file)} for file in files]}); "
        "broken.check_audio(rows, int(sys.argv[1]), 3)"
    )
    runs = [subprocess.Popen([sys.executable, "-c", script, str(first)], cwd=ROOT) for first in range(3)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0, 0]
    forbid_reading()
    found = check_audio(make_rows(paths))
    assert [found[index].digest for index in range(60)] == [scan_audio(path).digest for path in paths]
