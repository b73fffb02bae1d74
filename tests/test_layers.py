"""Imports between layers go one way: each layer is imported in a process where the layers above it cannot be."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

HUB = sorted(path.stem for path in ROOT.glob("*_ser_align.py"))
SCRIPTS = ("train", "baseline", "experiment", "predict", "app", "export_onnx")
# What each layer may not import, beside the scripts, which nothing imports.
ABOVE = {
    "hub": ("core", "inference", "recipe", "experiments", "demo"),
    "core": ("inference", "recipe", "experiments", "demo"),
    "inference": ("recipe", "experiments", "demo"),
    "recipe": ("inference", "experiments", "demo"),
    "experiments": ("demo",),
    "demo": ("recipe", "experiments"),
}
IMPORT_ALL = """
import importlib, importlib.abc, json, os, sys

class Wall(importlib.abc.MetaPathFinder):
    def __init__(self, blocked):
        self.blocked = blocked

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.blocked:
            raise ImportError(f"{name} is above this layer")

def import_layer(modules, blocked):
    sys.meta_path.insert(0, Wall(blocked))
    for name in modules:
        importlib.import_module(name)

import datasets, librosa, matplotlib, sklearn, transformers.pipelines  # once; each layer then has a process of its own
for modules, blocked in json.loads(sys.argv[1]):
    if os.fork() == 0:
        import_layer(modules, blocked)
        os._exit(0)
    _, status = os.wait()
    if status:
        sys.exit(1)
"""


def list_modules(layer):
    if layer == "hub":
        return HUB
    paths = sorted((ROOT / layer).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.slow
def test_a_layer_imports_nothing_above_it_and_a_wall_stops_an_import_that_goes_up():
    layers = {layer: list_modules(layer) for layer in ABOVE}
    assert min(map(len, layers.values())) > 1
    walled = [(modules, [*ABOVE[layer], *SCRIPTS]) for layer, modules in layers.items()]
    command = [sys.executable, "-c", IMPORT_ALL, json.dumps([*walled, (["recipe.errors"], ["recipe"])])]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 1 and run.stderr.count("Traceback") == 1, run.stderr[-2000:]
    assert run.stderr.strip().endswith("ImportError: recipe is above this layer"), run.stderr[-2000:]


def test_no_file_is_longer_than_it_may_be():
    """README 150 lines, scripts 120, any other Python file 400: one job each."""
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    most = {f"{name}.py": 120 for name in SCRIPTS}
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in tracked.split()}
    assert {name: length for name, length in lengths.items() if length > most.get(name, 400)} == {}
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
