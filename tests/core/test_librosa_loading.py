"""Only one process at a time compiles librosa's functions; several at once would corrupt numba's cache."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT
from filelock import FileLock

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from pathlib import Path
from core import librosa_loading

librosa_loading.LOCK = Path(sys.argv[1])
print("begins", flush=True)
librosa_loading.load_librosa().effects.trim
print("librosa.util.utils" in sys.modules)
"""

PACKAGES = ("core", "recipe", "inference", "experiments", "demo", "benchmarks", "studies", "docs")


def test_a_process_waits_while_another_one_imports_it(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "lock")]
    with FileLock(tmp_path / "lock"):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "begins\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=5)  # alone it takes two seconds
    assert process.communicate(timeout=120)[0] == "True\n"


def test_the_project_imports_it_in_no_other_way():
    files = [
        path
        for folder in ("core", "recipe", "inference", "experiments", "demo", "benchmarks", "studies", "docs")
        for path in (ROOT / folder).rglob("*.py")
    ]
    files += [path for path in ROOT.glob("*.py")]
    importing = {path.relative_to(ROOT).as_posix() for path in files if "librosa" in imported(path)}
    assert importing == {"core/librosa_loading.py"}


def imported(path):
    """Names of the libraries that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}
