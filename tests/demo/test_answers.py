"""demo/answers.py and demo/uploads.py: the result for a visitor's recording, and its deletion."""

import html
import os
import re
import time
from pathlib import Path

import pytest
from conftest import write_wav
from visiting import write_silence, write_text, write_too_large, write_too_long

from demo.answers import answer, answer_upload
from demo.uploads import delete_idle_uploads
from inference.evidence import explain

pytestmark = pytest.mark.slow


def make_upload_path(folder: Path, name: str = "voice.wav") -> Path:
    """Where an upload called `name` lies: in a folder of its own."""
    (folder / "0123").mkdir()
    return folder / "0123" / name


def test_a_recording_is_answered_and_deleted(recognize, example, tmp_path):
    path = make_upload_path(tmp_path)
    path.write_bytes(example.read_bytes())
    _, page = answer_upload(recognize, str(path))
    expected = recognize(str(example), return_timeline=True)
    labels = re.findall(r'class="label">(\w+)<', page)
    assert labels == [entry["label"] for entry in expected["scores"]]
    assert page.count("data:image/png;base64,") == 4  # for a computer and a phone, light and dark
    rows = re.findall(r"<tr><td>([\d.]+)</td><td>([\d.]+)</td><td>.*?</span>(\w+)</td><td>([\d.]+)</td>", page)
    assert rows == [
        (f"{s['start']:.2f}", f"{s['end']:.2f}", s["label"], f"{s['score']:.2f}") for s in expected["timeline"]
    ]
    words = explain(recognize, str(example))["words"]
    assert words.startswith(expected["scores"][0]["label"])
    assert html.escape(f"{words[0].upper()}{words[1:]}.") in page
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (write_silence, "voice.wav contains no speech: it is empty or silent"),
        (write_too_long, "voice.wav is 11.0 minutes long; upload a recording of up to 30 MB and 10 minutes"),
        (write_too_large, "voice.wav is 31.0 MB; upload a recording of up to 30 MB and 10 minutes"),
        (write_text, "voice.wav cannot be read as audio"),
    ],
)
def test_what_is_no_recording_gets_one_line_and_is_deleted(recognize, tmp_path, make, message):
    path = make_upload_path(tmp_path)
    make(path)
    player, page = answer_upload(recognize, str(path))
    assert player is None and page.startswith('<p class="wrong"') and message in page
    assert str(tmp_path) not in page and "Traceback" not in page and "\n" not in page
    assert not list(tmp_path.iterdir())


def test_names_and_labels_are_text(recognize, example, tmp_path, monkeypatch):
    name = "<img src=x onerror=alert(1)>.wav"
    for make in (write_text, lambda path: path.write_bytes(example.read_bytes())):
        path = make_upload_path(tmp_path, name)
        make(path)
        _, page = answer_upload(recognize, str(path))
        assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;.wav" in page
    labels = [f"<b>$label_{index}" for index in recognize.model.config.id2label]
    monkeypatch.setattr(recognize.model.config, "id2label", dict(enumerate(labels)))
    page = answer(recognize, str(example), "")
    assert "<b>$" not in page and page.count("&lt;b&gt;$label_") >= len(labels)


@pytest.mark.parametrize(("unsure_below", "words"), [(0.0, "Sounds most like"), (1.0, "Hard to tell; perhaps")])
def test_the_page_says_when_it_is_unsure(recognize, example, monkeypatch, unsure_below, words):
    monkeypatch.setattr(recognize.model.config, "unsure_below", unsure_below)
    heading = re.search("<h2>.*?</h2>", answer(recognize, str(example), "a voice"))[0]
    best = recognize(str(example))[0]["label"]
    assert heading.endswith(f"</span>{words} <b>{best}</b></h2>")


def test_old_uploads_go_and_others_stay(tmp_path):
    for name in ("old", "new"):
        write_wav(tmp_path / name / "voice.wav")
    os.utime(tmp_path / "old", (time.time() - 1000,) * 2)
    delete_idle_uploads(tmp_path, 900)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
