"""An interrupted run goes on with the answers that still hold, and with no others."""

import json
import os
from argparse import Namespace

import pytest
import soundfile

from core.errors import InputError
from core.shipped import DEFAULT_MODEL, ROOT, SHIPPED_MODELS
from inference.answers import Job
from inference.files import find_recordings
from inference.options import read_options
from inference.parts import fingerprint_model, keep_record, open_parts, read_parts, read_state

SPEECH, RATE = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")


@pytest.fixture
def run(tmp_path):
    """The options of a run over three files with a model of its own, which was interrupted after its records."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "README.md").write_text("a card")
    for name in "abc":
        (tmp_path / f"{name}.wav").write_bytes(b"audio")
    options = Namespace(output=str(tmp_path / "out.jsonl"), model=str(model), revision=None, window=None, members=None)
    parts = open_parts(options, True)
    for process, name in enumerate("abc"):
        file = str(tmp_path / f"{name}.wav")
        keep_record(parts, process, {"file": file, "channel": None, "label": "sad"}, read_state(file))
    return options, tmp_path


def reopen(options):
    return {os.path.basename(job.file) for job in read_parts(open_parts(options, True))}


def test_answers_of_unchanged_files_and_the_same_model_are_kept(run):
    options, folder = run
    (folder / "model" / "README.md").write_text("a better card")
    assert reopen(options) == reopen(options) == {"a.wav", "b.wav", "c.wav"}
    assert read_parts(open_parts(options, False))[Job(str(folder / "a.wav"), None)]["label"] == "sad"


def test_a_recording_that_changed_or_went_is_scored_again(run):
    options, folder = run
    (folder / "a.wav").write_bytes(b"longer audio")
    status = os.stat(folder / "b.wav")
    os.utime(folder / "b.wav", ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    assert reopen(options) == {"c.wav"}
    os.unlink(folder / "c.wav")
    assert reopen(options) == set()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_answers_of_another_version_of_the_model_are_refused(run, name):
    options, folder = run
    (folder / "model" / name).write_bytes(b"{ }")
    with pytest.raises(InputError, match=r"out\.jsonl\.parts contains the results of another version of --model "):
        open_parts(options, True)


def test_a_model_on_the_hub_is_known_by_what_was_downloaded(tmp_path, monkeypatch):
    """In the layout of the Hub's cache: a branch names a commit, whose folder holds the files."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--name"
    for commit, weights in (("a" * 40, b"first"), ("b" * 40, b"second")):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
        (repository / "snapshots" / commit / "model.safetensors").write_bytes(weights)
    (repository / "refs").mkdir()
    found = []
    for commit in ("a" * 40, "b" * 40, "a" * 40):
        (repository / "refs" / "main").write_text(commit)
        found.append(fingerprint_model("owner/name", None))
    assert found[0] == found[2] == fingerprint_model("owner/name", "a" * 40) != found[1]


def test_what_failed_is_tried_again_and_a_newer_answer_counts(run):
    options, folder = run
    parts, file = folder / "out.jsonl.parts", str(folder / "a.wav")
    keep_record(parts, 2, {"file": file, "channel": 1, "error": "install ffmpeg"}, read_state(file))
    keep_record(parts, 0, {"file": file, "channel": None, "label": "happy"}, read_state(file))
    assert reopen(options) == {"a.wav", "b.wav", "c.wav"}
    records = read_parts(parts)
    assert Job(file, 1) not in records and records[Job(file, None)]["label"] == "happy"


def test_lines_cut_short_and_those_of_earlier_releases_are_scored_again(run):
    options, folder = run
    part = folder / "out.jsonl.parts" / "part-1.jsonl"
    record = json.dumps({"file": str(folder / "b.wav"), "channel": None, "label": "sad"})
    part.write_text(record + "\n" + part.read_text()[:20])
    assert reopen(options) == {"a.wav", "c.wav"}


def test_a_file_is_scored_once_however_it_is_spelt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inner").mkdir()
    for name in ("a.wav", "inner/b.wav"):
        (tmp_path / name).write_bytes(b"")
    patterns = ["./a.wav", "a.wav", str(tmp_path / "a.wav"), "inner/../a.wav", "inner", "*/b.wav"]
    assert find_recordings(patterns) == ["./a.wav", "inner/b.wav"]


def test_standard_input_beside_files_is_refused(tmp_path):
    (tmp_path / "b.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"^- reads standard input, which is scored alone: give it or files"):
        find_recordings(["-", str(tmp_path / "b.wav")])


@pytest.mark.parametrize(("argv", "name"), [([], DEFAULT_MODEL), (["--model", "mini"], "mini")])
def test_a_shipped_model_is_known_by_its_files_however_it_is_named(argv, name):
    options = read_options(["a.wav", *argv], None)
    assert fingerprint_model(options.model, None) == fingerprint_model(str(SHIPPED_MODELS[name]), None)
