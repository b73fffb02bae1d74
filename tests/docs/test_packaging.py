"""The package, its requirements and the Makefile agree with the project."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HUB_FILES = sorted(path.name for path in ROOT.glob("*_ser_align.py"))


def read_requirements(name):
    """The requirements of a file itself, without those of the files that it includes."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-r"))]


def test_everything_is_pinned():
    for path in ROOT.glob("requirements*.txt"):
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in read_requirements(path.name)), path


@pytest.mark.parametrize(
    "extra", ["app", "baseline", "conversion", "explanation", "lora", "onnx", "opensmile", "ray", "rooms", "dev"]
)
def test_extras_are_the_requirements_files(extra):
    found = PROJECT["project"]["optional-dependencies"][extra]
    assert [line for line in found if not line.startswith("ser-align[")] == read_requirements(
        f"requirements-{extra}.txt"
    )


def test_the_package_needs_requirements_txt_and_has_the_version_of_the_citation():
    assert PROJECT["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["project"]["version"] == citation["version"]


def test_every_hub_file_is_packaged():
    assert [f"{name}.py" for name in PROJECT["tool"]["setuptools"]["py-modules"]] == HUB_FILES


@pytest.mark.slow
def test_a_wheel_holds_the_code_and_the_templates(tmp_path):
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns(".git", "outputs", "data", "build", "*.egg-info", "__pycache__", "docs", "tests")
    shutil.copytree(ROOT, source, ignore=ignore)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    folders = ("core", "inference", "recipe", "experiments", "demo", "metrics")
    tracked = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == tracked | set(HUB_FILES)


def test_make_runs_each_target():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    assert phony == ["setup", "test", "fast", "lint", "docs", "sync-model"]
    for target in phony:
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_sync_model_copies_the_hub_files_and_drops_those_that_are_gone(tmp_path):
    model = tmp_path / "models" / "some-model"
    model.mkdir(parents=True)
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    for name in HUB_FILES:
        shutil.copyfile(ROOT / name, tmp_path / name)
    (model / "config.json").write_text("{}", encoding="utf-8")
    (model / HUB_FILES[0]).write_text("older", encoding="utf-8")
    (model / "gone_ser_align.py").write_text("", encoding="utf-8")
    subprocess.run(["make", "sync-model"], cwd=tmp_path, check=True, capture_output=True)
    assert sorted(path.name for path in model.glob("*.py")) == HUB_FILES
    assert all((model / name).read_bytes() == (ROOT / name).read_bytes() for name in HUB_FILES)


def test_hooks_and_workflow_run_what_the_project_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repository["repo"] for repository in hooks] == ["local"]  # no network
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["ci"]["steps"][-1]["run"] == ".ci/run"
