"""Writes a folder that runs as a Space on the Hugging Face Hub: the page, its imports, and the default model."""

import shutil
from importlib.metadata import version
from pathlib import Path

from core.errors import InputError
from core.shipped import DEFAULT_MODEL, ROOT, SHIPPED_MODELS

MODEL = SHIPPED_MODELS[DEFAULT_MODEL]
PACKAGES = ("core", "inference", "demo")
# Packages in requirements.txt that these import. The Space installs Gradio itself, in the version in its card.
REQUIREMENTS = {
    "torch",
    "transformers",
    "huggingface_hub",
    "librosa",
    "soundfile",
    "soxr",
    "numpy",
    "scipy",
    "matplotlib",
    "filelock",
}
CARD = f"""---
title: SER-Align
emoji: 🎙️
colorFrom: indigo
colorTo: pink
sdk: gradio
sdk_version: {{gradio}}
python_version: "3.11"
app_file: app.py
license: apache-2.0
short_description: Speech emotion recognition with a timeline
---

The demo page of SER-Align. The code is licensed under Apache-2.0. For the licence of the weights, see their model card,
`{MODEL.relative_to(ROOT).as_posix()}/README.md`.
"""


def write_space(folder: Path) -> None:
    """Write everything that the Space needs. Raises InputError if the folder exists."""
    if folder.exists():
        raise InputError(f"--write_space {folder} already exists; choose a new folder")
    for path in find_files():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (folder / "requirements.txt").write_text(select_requirements(), encoding="utf-8")
    (folder / "README.md").write_text(CARD.format(gradio=version("gradio")), encoding="utf-8")


def find_files() -> list[Path]:
    """List app.py, the Hub files, and all files of the packages and of the default model."""
    folders = [*(ROOT / name for name in PACKAGES), MODEL]
    files = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return [ROOT / "app.py", *ROOT.glob("*_ser_align.py"), *filter(Path.is_file, files)]


def select_requirements() -> str:
    """Select the lines of requirements.txt that the Space needs."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return "".join(f"{line}\n" for line in lines if line.partition("==")[0] in REQUIREMENTS)
