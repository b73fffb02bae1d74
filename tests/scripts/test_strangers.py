"""What a stranger gives at each door; studies/strangers.py tries all of it, this a slice that must stay right."""

import shutil

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from running import predict

from studies.stranger_corpora import CSV_FILES, FOLDERS
from studies.stranger_runs import REFUSED, RIGHT, WARNED
from studies.strangers import Strangers

pytestmark = pytest.mark.slow

SPEECH = ROOT / "examples" / "speech.flac"


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    return Strangers(tmp_path_factory.mktemp("strangers"))


def test_a_recording_with_an_odd_name_or_container_is_answered_right_at_every_door(strangers):
    for what in ("MP3 with a cover picture", "FLAC called .wav", "a name with a line break and an emoji", "24 bits"):
        path = strangers.paths[what]
        for ask in (strangers.read_for_training, strangers.call, strangers.ask_page):
            assert ask(what, path).kind == RIGHT, (what, ask)


def test_what_is_no_recording_is_refused_in_one_line_at_every_door(strangers):
    for what in ("no sample", "a file of 0 bytes", "NaN in a float file", "a video", "a text called .wav"):
        path = strangers.paths[what]
        for ask in (strangers.read_for_training, strangers.call, strangers.ask_page, strangers.predict):
            assert ask(what, path).kind == REFUSED, (what, ask)


def test_a_corpus_that_cannot_be_right_is_refused_or_warned_of(strangers):
    names = ["one label", "a line twice", "a missing file", "a header alone", "an unfinished line", "an empty label"]
    strangers.only = (*names, "nothing", "one folder", "a silent file")
    found = strangers.train(CSV_FILES, "--csv") | strangers.train(FOLDERS, "--data_dir")
    assert len(found) == len(strangers.only)
    assert {what: outcome for what, outcome in found.items() if outcome.kind not in (REFUSED, WARNED)} == {}


# ------------------------------------------------------------------------------------- predict.py's files


@pytest.fixture
def speech(tmp_path):
    return shutil.copy(SPEECH, tmp_path / "a.flac")


def test_a_transcript_or_figure_that_is_there_already_is_not_overwritten(speech, tmp_path):
    transcript, figure = tmp_path / "a.txt", tmp_path / "a.png"
    for path in (transcript, figure):
        path.write_text("an hour of work", encoding="utf-8")
    for argv in (["--output", tmp_path, "--format", "audacity"], ["--plot", tmp_path], ["--plot", figure]):
        run = predict(speech, *argv, expect=1)
        name = "a.png" if "--plot" in argv else "a.txt"
        assert run.stderr == f"error: {tmp_path / name} already exists: choose another name, or add --overwrite\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.flac", "a.png", "a.txt"]
    assert transcript.read_text(encoding="utf-8") == figure.read_text(encoding="utf-8") == "an hour of work"
    predict(speech, "--output", tmp_path, "--format", "audacity", "--plot", figure, "--overwrite")
    assert "calm" in transcript.read_text(encoding="utf-8") and figure.read_bytes()[:4] == b"\x89PNG"


REFUSED_OPTIONS = {
    "an output folder that nobody can write": (["--output", "/proc/a.jsonl"], "could not be written"),
    "a figure that nobody can write": (["--plot", "/proc/a.png"], "could not be written"),
    "an empty shell variable as output": (["--output", ""], "--output"),
    "an empty shell variable as figure": (["--plot", ""], "--plot is empty"),
    "an empty shell variable as recording": ([""], "a recording has an empty name"),
    "a format without an output": (["--format", "webvtt"], "--format webvtt is the format of --output"),
    "a revision of a folder": (["--revision", "v1"], "--revision v1 is for models on the Hub"),
    "the recording as output": (["--output", "RECORDING", "--overwrite"], "has an unknown suffix"),
}


@pytest.mark.parametrize("what", REFUSED_OPTIONS)
def test_an_option_that_would_do_nothing_or_harm_is_refused_in_one_line(what, speech):
    argv, message = REFUSED_OPTIONS[what]
    run = predict(speech, *(speech if word == "RECORDING" else word for word in argv), expect=1)
    assert message in run.stderr.splitlines()[-1] and run.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in run.stderr and soundfile.info(speech).duration > 5


def test_a_dead_channel_is_named(tmp_path):
    voice = soundfile.read(SPEECH, dtype="float32")[0]
    soundfile.write(tmp_path / "dead.wav", np.stack([voice, 0 * voice], axis=1), 16000)
    run = predict(tmp_path / "dead.wav", "--channels", "each", expect=1)
    assert "calm" in run.stdout and "dead.wav contains no speech: it is empty or silent (channel 1)" in run.stderr
