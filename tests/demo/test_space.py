"""demo/space.py: a Space contains everything that the page needs and nothing that only training needs."""

import re

import httpx
import pytest
import yaml
from conftest import ROOT
from visiting import request_answer, upload

from core.errors import InputError
from core.loading import load_pipeline
from core.shipped import DEFAULT_MODEL, SHIPPED_MODELS
from demo.space import write_space
from docs.build.page_screenshot import serving

# Runs app.py where nothing of these can be imported: the project above the page, and what its requirements leave out.
ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(["recipe", "experiments", "datasets", "accelerate", "evaluate", "tensorboard"]))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "space"
    write_space(folder)
    return folder


def test_its_card_names_the_tested_gradio(space):
    settings = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (settings["sdk"], settings["app_file"]) == ("gradio", "app.py")
    assert len(settings["short_description"]) <= 60  # more is refused by the Hub
    pinned = (ROOT / "requirements-app.txt").read_text()
    assert f"gradio=={settings['sdk_version']}\n" in pinned


def test_it_holds_the_page_and_the_model_alone(space):
    hub_files = {path.name for path in ROOT.glob("*_ser_align.py")}
    folders = {"core", "demo", "inference", "models"}
    assert {path.name for path in space.iterdir()} == {*hub_files, *folders, "app.py", "requirements.txt", "README.md"}
    assert [path.name for path in (space / "models").iterdir()] == [SHIPPED_MODELS[DEFAULT_MODEL].name]
    assert not list(space.rglob("__pycache__"))
    lines = (space / "requirements.txt").read_text().splitlines()
    assert set(lines) < set((ROOT / "requirements.txt").read_text().splitlines())
    assert not any(line.startswith(("datasets", "accelerate", "evaluate")) for line in lines)


def test_a_folder_that_exists_is_refused(tmp_path):
    with pytest.raises(InputError, match="already exists; choose a new folder"):
        write_space(tmp_path)


@pytest.mark.slow
def test_it_answers_without_the_rest_of_the_project(space, example, tmp_path):
    recognize = load_pipeline(DEFAULT_MODEL, device="cpu")
    served = serving(folder=space, launcher=("-c", ALONE), PYTHONPATH="", TMPDIR=str(tmp_path))
    with served as url, httpx.Client(base_url=url, timeout=60) as http:
        message = request_answer(http, upload(http, "voice.wav", example.read_bytes()))
    assert message["success"]
    _, page = message["output"]["data"]
    found = re.findall(r'class="label">(\w+)<.*?class="score">(\d+) %', page)
    assert found == [(entry["label"], f"{100 * entry['score']:.0f}") for entry in recognize(str(example))]
