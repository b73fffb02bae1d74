"""A running page, a browser to visit it, and a recording."""

import pytest

from demo.examples import write_examples
from docs.build.page_screenshot import CHROMIUM, browsing, serving


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """Two synthetic voices in turn: path of a WAV file."""
    return write_examples(tmp_path_factory.mktemp("made") / "examples")["Two voices, in turn"]


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("the demo page in a browser: install chromium")
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")  # each file finds no uploads of another
def server(tmp_path_factory):
    """Address of the page, and the folder of its temporary files."""
    folder = tmp_path_factory.mktemp("temporary")
    with serving(TMPDIR=str(folder), OMP_NUM_THREADS="1", SER_ALIGN_MODEL="mini") as url:
        yield url, folder
    assert not list(folder.iterdir())  # gone with the process
