"""JSON files that several processes write at once."""

import subprocess
import sys

from conftest import ROOT

from core.json_files import read_json

WRITE = """
import sys
from pathlib import Path
from core.json_files import write_json
for number in range(200):
    write_json(Path(sys.argv[1]), {sys.argv[2]: list(range(2000 + number))})
"""


def test_processes_that_write_the_same_file_at_once_leave_it_whole(tmp_path):
    path = tmp_path / "a.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, str(path), name], cwd=ROOT) for name in ("one", "other")]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.is_file():
            ((name, numbers),) = read_json(path).items()
            assert numbers == list(range(len(numbers))) and len(numbers) >= 2000
            seen.add(name)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen and [each.name for each in tmp_path.iterdir()] == ["a.json"]
