"""app.py: its command line."""

import json
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from core.errors import InputError

pytestmark = pytest.mark.slow

IMPORTS = """
import json, runpy, sys
sys.argv = ["app.py", "--help"]
try:
    runpy.run_path("app.py", run_name="__main__")
except SystemExit:
    print("RESULT", json.dumps(sorted(sys.modules)))
"""


def test_help_and_a_mistake_answer_in_one_line_before_the_slow_imports():
    def run(*argv):
        start = time.perf_counter()
        command = [sys.executable, *argv]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        return found, time.perf_counter() - start

    found, seconds = run("app.py", "--help")
    assert found.returncode == 0 and "hf upload --repo-type space" in found.stdout and seconds < 5
    found, _ = run("-c", IMPORTS)  # what its 0.08 s depend on
    assert not {"gradio", "torch", "transformers", "numpy"} & set(json.loads(found.stdout.split("RESULT")[1]))
    for argv, message in (
        (["--port", "99999"], "--port 99999 is not a port number; use one from 1 to 65535"),
        (
            ["--host", "203.0.113.1"],
            "--host 203.0.113.1 --port 7860: Cannot assign requested address; choose another address or port",
        ),
    ):
        found, _ = run("app.py", *argv)
        assert found.returncode == 1 and found.stderr == f"error: {message}\n"


def test_without_gradio_it_says_what_to_install(monkeypatch):
    import app

    monkeypatch.setitem(sys.modules, "gradio", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"gradio is not installed: pip install -r requirements-app\.txt"):
        app.check_gradio()
