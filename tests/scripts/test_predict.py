"""predict.py as users run it: files, folders, streams, several processes, kills and bad input."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webvtt
from conftest import ROOT
from praatio import textgrid
from running import environment, lines_of, predict, run_anew, run_together

from core.errors import InputError
from core.shipped import MINI_MODEL
from inference.files import find_recordings
from inference.options import read_options
from inference.outputs import choose_format, format_audacity, format_csv, format_textgrid, format_webvtt, name_tracks
from models.ship import generate_buzzes
from pipeline_ser_align import MIN_DURATION, PAUSE
from speech_ser_align import WINDOW

pytestmark = pytest.mark.slow

RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three recordings of known content, one of them stereo at 44.1 kHz, and four that cannot be scored."""
    folder = tmp_path_factory.mktemp("recordings")
    low, middle, high = generate_buzzes().values()
    silence = np.zeros(RATE, np.float32)
    soundfile.write(folder / "a.wav", np.concatenate([low, silence, high]), RATE)
    soundfile.write(folder / "b.flac", middle, RATE)
    (folder / "deeper").mkdir()
    soundfile.write(folder / "deeper" / "ünï code.ogg", np.stack([low, high], axis=1), RATE)
    soundfile.write(folder / "silent.wav", silence, RATE)
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("not audio")
    (folder / "notes.txt").write_text("not meant to be read")
    return folder


@pytest.fixture(scope="module")
def answers(folder, tmp_path_factory):
    """The folder in one run."""
    output = tmp_path_factory.mktemp("answers") / "new" / "answers.jsonl"
    run = predict(folder, "--output", output, expect=1)
    return run, {os.path.relpath(record["file"], folder): record for record in lines_of(output)}


def test_a_folder_is_answered_and_what_cannot_be_read_says_why(answers):
    run, records = answers
    assert list(records) == ["a.wav", "b.flac", "deeper/ünï code.ogg", "empty.wav", "silent.wav", "text.mp3"]
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3 and "Traceback" not in run.stderr
    for name, reason in {
        "empty.wav": "cannot be read",
        "silent.wav": "no speech",
        "text.mp3": "cannot be read",
    }.items():
        assert set(records[name]) == {"file", "channel", "error"} and reason in records[name]["error"]
    assert run.stderr.splitlines()[-1].startswith("6 recordings, 0.1 minutes of audio; ")
    assert run.stderr.splitlines()[-1].endswith("s of compute per minute of audio; 3 could not be read")
    header, *rows = run.stdout.splitlines()
    assert header.split() == ["recording", "seconds", "emotion", "score", "runners-up"]
    assert [row.split("  ")[0] for row in rows] == ["a.wav", "b.flac", "deeper/ünï code.ogg"]
    record = records["a.wav"]
    assert sum(record["scores"].values()) == pytest.approx(1, abs=1e-4)
    assert record["score"] == max(record["scores"].values()) == record["scores"][record["label"]]
    assert record["duration"] == 5.0
    first, second = record["timeline"][0], record["timeline"][-1]
    assert first["start"] < 0.3 and first["end"] < 2.2 and 2.8 < second["start"] < second["end"] <= 5.0


def test_a_files_answer_does_not_depend_on_the_others(folder, answers, tmp_path):
    predict(folder / "b.flac", "--output", tmp_path / "b.jsonl", "--batch_size", 1)
    (alone,) = lines_of(tmp_path / "b.jsonl")
    together = answers[1]["b.flac"]
    assert alone["scores"] == pytest.approx(together["scores"], abs=2e-6)
    assert alone["timeline"] == [{**s, "score": pytest.approx(s["score"], abs=2e-6)} for s in together["timeline"]]


@pytest.mark.slow
def test_processes_share_the_work_and_a_killed_run_goes_on(folder, answers, tmp_path):
    """Several pools of recordings; killed once the first is answered, then finished by two processes."""
    copies = tmp_path / "copies"
    copies.mkdir()
    for number in range(100):
        os.link(folder / "b.flac", copies / f"{number}.flac")
    output = tmp_path / "out.jsonl"
    argv = [sys.executable, "predict.py", str(copies), "--output", str(output), "--quiet", "--model", "mini"]
    run = subprocess.Popen(argv, cwd=ROOT, env=environment(), stderr=subprocess.PIPE)
    part = tmp_path / "out.jsonl.parts" / "part-0.jsonl"
    deadline = time.monotonic() + 120
    while not (part.is_file() and part.read_text().count("\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    before = part.read_text()
    assert before.count("\n") >= 3 and not output.exists()
    with part.open("a") as file:
        file.write('{"file": "cut sho')  # as a kill leaves it
    message = predict(copies, "--output", output, "--window", "3", expect=1).stderr
    assert "out.jsonl.parts contains the results of a run without --window: use the same options again" in message
    run_together("predict.py", copies, "--output", output, "--device", "cpu", "--model", "mini", port=29611)
    records = lines_of(output)
    assert [os.path.basename(record["file"]) for record in records] == sorted(f"{n}.flac" for n in range(100))
    for record in records:
        assert record["scores"] == pytest.approx(answers[1]["b.flac"]["scores"], abs=2e-6)
    assert [json.dumps(record) for record in records if json.dumps(record) in before]  # kept, not answered again
    assert not part.parent.exists()
    assert "exists: choose another name, or add --overwrite" in predict(copies, "--output", output, expect=1).stderr


def test_a_stream_gives_one_line_a_second(folder):
    low, _, high = generate_buzzes().values()
    waveform = np.concatenate([np.zeros(RATE, np.float32), low, np.zeros(RATE, np.float32), high])
    samples = (32767 * waveform).astype("<i2")
    raw = [json.loads(line) for line in predict("-", stdin=samples.tobytes()).stdout.splitlines()]
    assert [(line["start"], line["end"]) for line in raw] == [(n, n + 1) for n in range(6)]
    assert [line["label"] is None for line in raw] == [True, False, False, True, False, False]
    file = io.BytesIO()
    soundfile.write(file, np.stack([samples, samples], axis=1), RATE, format="WAV")
    wav = [json.loads(line) for line in predict("-", stdin=file.getvalue()).stdout.splitlines()]
    assert wav == raw
    compressed = predict("-", stdin=(folder / "b.flac").read_bytes()).stdout
    assert compressed.startswith("standard input") and " s  " in compressed
    assert "standard input is empty" in predict("-", stdin=b"", expect=1).stderr


def test_an_unsure_answer_says_so_in_every_output(folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(MINI_MODEL, model)
    config = json.loads((model / "config.json").read_text())
    assert 0 < config["unsure_below"] < 1
    files = [folder / "a.wav", folder / "b.flac"]
    sure = {path.name: predict(path, "--output", tmp_path / f"{path.name}.jsonl").stdout for path in files}
    scores = [line["score"] for path in files for line in lines_of(tmp_path / f"{path.name}.jsonl")]
    (model / "config.json").write_text(json.dumps({**config, "unsure_below": sum(scores) / 2}))
    rows = predict(*files, "--model", model, "--output", tmp_path / "all.csv").stdout.splitlines()[1:]
    low = scores.index(min(scores))
    with (tmp_path / "all.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["unsure"] for row in table] == ["False" if index != low else "True" for index in (0, 1)]
    assert [" unsure " in row for row in rows] == [index == low for index in (0, 1)]
    assert f"{table[low]['label']} {scores[low]:.2f}" in rows[low]
    alone = predict(files[low], "--model", model).stdout
    expected = sure[files[low].name].splitlines()[0].replace("unsure: ", "").replace(" s  ", " s  unsure: ", 1)
    assert alone.splitlines()[0] == expected
    samples = soundfile.read(files[1], dtype="int16")[0].tobytes()
    stream = [json.loads(line) for line in predict("-", "--model", model, stdin=samples).stdout.splitlines()]
    assert [line["unsure"] for line in stream] == [line["score"] < sum(scores) / 2 for line in stream]


@pytest.mark.slow
def test_a_line_comes_before_the_stream_ends():
    command = [sys.executable, "predict.py", "-", "--model", "mini"]
    run = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        run.stdin.write((20000 * generate_buzzes()["180 Hz"]).astype("<i2").tobytes())
        run.stdin.flush()
        assert json.loads(run.stdout.readline())["end"] == 1.0  # the pipe is still open
    finally:
        run.kill()
        run.wait()


@pytest.mark.slow
def test_channels_plot_and_explanation(folder, tmp_path):
    stereo = folder / "deeper" / "ünï code.ogg"
    run = predict(
        stereo, "--channels", "each", "--explain", "--plot", tmp_path / "plots", "--output", tmp_path / "tracks",
        "--format", "audacity",
    )  # fmt: skip
    names = ["ünï code-channel0", "ünï code-channel1"]
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [f"{name}.png" for name in names]
    for name in names:
        assert (tmp_path / "plots" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        start, end, label = (tmp_path / "tracks" / f"{name}.txt").read_text().split("\n")[0].split("\t")
        assert 0 <= float(start) < float(end) <= 2.0 and label
    assert run.stdout.count(" silenced, its score ") == 2
    mix = predict(stereo).stdout
    assert mix.splitlines()[0] not in run.stdout


@pytest.mark.parametrize(
    "argv, message",
    [
        (["nothing.wav"], "nothing.wav: no such file or folder"),
        (["docs"], "docs contains no audio files"),
        (["README.md", "--model", "docs"], "--model docs is neither a shipped model (base, mini), nor a folder"),
        (["README.md", "--window", "0"], "--window=0.0 is not a number of seconds from 0.2 to 60"),
        (["README.md", "--output", "x"], "--output x has an unknown suffix"),
        (["README.md", "LICENSE", "--output", "x.vtt"], "is one file, but there are 2 recordings"),
        (["README.md", "--output", "README.md/x.csv"], "is not a writable folder"),
        (["README.md", "LICENSE", "--plot", "x.png"], "--plot x.png is one file, but there are 2 recordings"),
        (["README.md", "--plot", "x.gif"], "--plot x.gif has an unknown suffix"),
        (["README.md", "--batch_size", "0"], "--batch_size 0 is not"),
        (["README.md", "--device", "moon"], "--device moon is not a device that computes: valid are cpu, cuda, cuda:1"),
        (["README.md", "--device", "meta"], "--device meta is not a device that computes: valid are cpu, cuda, cuda:1"),
    ],
)
def test_mistakes_are_one_line(argv, message):
    run = predict(*argv, expect=1)
    assert message in run.stderr and run.stdout == ""
    assert len(run.stderr.strip().splitlines()) == 1 and run.stderr.startswith("error: ")


def test_help_answers_at_once():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert "--explain" in run_anew("predict.py", "--help").stdout
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1


def test_a_network_answers_without_the_library_of_classical_models():
    """scikit-learn takes a second to import."""
    script = "import sys, predict; predict.main(sys.argv[1:]); print('sklearn' in sys.modules)"
    words = [sys.executable, "-c", script, "examples/speech.flac", "--model", "mini"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[-1] == "False", done.stderr


def test_help_names_the_defaults_of_the_pipeline(capsys):
    with pytest.raises(SystemExit):
        read_options(["--help"], "")
    shown = " ".join(capsys.readouterr().out.split()).partition(" timeline: ")[2].partition(" answer: ")[0]
    defaults = {"pause": PAUSE, "window": WINDOW, "smoothing": 0, "min_duration": MIN_DURATION}
    assert re.findall(r"--(\w+) SECONDS .*?\(default: ([\d.]+)\)", shown) == [
        (name, f"{value:g}") for name, value in defaults.items()
    ]


# Counts in a real run what it opens for reading and what goes through the model.
COUNTED = """
import json, runpy, sys
import soundfile, torch
from modeling_ser_align import SERAlignForAudioClassification

opened, utterances = [], []
open_file = soundfile.SoundFile.__init__

def count_file(self, file, *args, **options):
    opened.append(str(file))
    open_file(self, file, *args, **options)

def count_utterances(module, inputs, output):
    if isinstance(module, SERAlignForAudioClassification):
        utterances.append(len(output.logits))

soundfile.SoundFile.__init__ = count_file
torch.nn.modules.module.register_module_forward_hook(count_utterances)
sys.argv = ["predict.py", *sys.argv[1:]]
try:
    runpy.run_path("predict.py", run_name="__main__")
finally:
    print("COUNTED" + json.dumps([opened, sum(utterances)]))
"""


@pytest.mark.slow
def test_a_recording_is_decoded_once_and_each_piece_scored_once(folder, tmp_path):
    """With an explanation and a figure as without, but for the variants that explain it."""
    recording = str(folder / "a.wav")
    counts = {}
    for options in ((), ("--explain", "--plot", str(tmp_path / "a.png"))):
        command = [sys.executable, "-c", COUNTED, recording, *options]
        run = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        opened, counts[options] = json.loads(run.stdout.partition("COUNTED")[2])
        assert opened == [recording]
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    plain, explained = counts.values()
    assert 3 <= plain <= 8  # the utterance, and the windows of two phrases
    assert 0 < explained - plain <= 22  # as it is, with each of 20 moments silenced, and with the stretches silenced


# -------------------------------------------------------------------------------------------- files

SEGMENTS = [
    {"start": 0.5, "end": 1.25, "label": 'say "hi" <b>', "score": 0.75},
    {"start": 1.25, "end": 3661.5, "label": "sad", "score": 0.5},
]
RECORD = {
    "file": "=cmd.wav", "channel": None, "duration": 3700.0, "label": "sad", "score": 0.5,
    "scores": {"sad": 0.5, 'say "hi" <b>': 0.5}, "timeline": SEGMENTS,
}  # fmt: skip


def test_a_textgrid_is_read_by_praats_reader(tmp_path):
    (tmp_path / "a.TextGrid").write_text(format_textgrid(RECORD), encoding="utf-8")
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=True)
    assert (grid.minTimestamp, grid.maxTimestamp, grid.tierNames) == (0, 3700, ("emotion",))
    entries = [tuple(entry) for entry in grid.getTier("emotion").entries]
    assert entries == [(0, 0.5, ""), (0.5, 1.25, 'say "hi" <b>'), (1.25, 3661.5, "sad"), (3661.5, 3700, "")]
    (tmp_path / "b.TextGrid").write_text(format_textgrid({**RECORD, "timeline": []}), encoding="utf-8")
    assert len(textgrid.openTextgrid(str(tmp_path / "b.TextGrid"), True).getTier("emotion").entries) == 1


def test_webvtt_is_read_by_a_subtitle_reader():
    captions = webvtt.from_buffer(io.StringIO(format_webvtt(RECORD))).captions
    assert [(c.start, c.end, c.raw_text) for c in captions] == [
        ("00:00:00.500", "00:00:01.250", 'say "hi" &lt;b&gt;'),
        ("00:00:01.250", "01:01:01.500", "sad"),
    ]
    assert format_audacity(RECORD).splitlines()[1] == "1.250000\t3661.500000\tsad"


def test_csv_has_a_column_for_each_label_and_no_formula():
    rows = list(
        csv.DictReader(io.StringIO(format_csv([RECORD, {"file": "b.wav", "channel": 1, "error": 'gone, "alas"'}])))
    )
    assert rows[0]["file"] == "'=cmd.wav" and rows[0]["sad"] == "0.5" and rows[0]["error"] == rows[0]["warnings"] == ""
    assert rows[1]["channel"] == "1" and rows[1]["error"] == 'gone, "alas"' and rows[1]["sad"] == ""


def test_the_format_comes_from_the_name_or_the_option():
    assert [choose_format(*case) for case in (("a.csv", None, 9), ("a.TextGrid", None, 1), ("d", "webvtt", 9))] == [
        "csv", "textgrid", "webvtt",
    ]  # fmt: skip
    for case, message in {
        ("a.csv", "webvtt", 1): "is a csv file, but --format is webvtt",
        ("a", "csv", 1): "does not fit --format csv: use a name ending in .csv",
    }.items():
        with pytest.raises(InputError, match=message):
            choose_format(*case)


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["x/a.wav", "y/b.wav"], ["a.vtt", "b.vtt"]),
        (["x/a.wav", "y/a.wav", "y/a-2.wav"], ["x/a.vtt", "y/a.vtt", "y/a-2.vtt"]),
        (["x/a.wav", "x/A.mp3", "x/b.wav"], ["a.wav.vtt", "A.mp3.vtt", "b.wav.vtt"]),
        (["a.wav", "../a.wav"], ["DIR/a.vtt", "a.vtt"]),
    ],
)
def test_timelines_of_recordings_of_the_same_name_say_which_is_whose(files, names, tmp_path, monkeypatch):
    (tmp_path / "DIR").mkdir()
    monkeypatch.chdir(tmp_path / "DIR")
    for order in (1, -1):  # whichever comes first
        found = name_tracks([(name, None) for name in files[::order]], Path("out"), ".vtt")
        assert [path.relative_to("out").as_posix() for path in found] == names[::order]
    both = name_tracks([(name, channel) for name in files for channel in (0, 1)], Path("out"), ".vtt")
    assert len(set(both)) == 2 * len(files) and both[1].name == Path(names[0]).name.replace(".vtt", "-channel1.vtt")


def test_odd_file_names_are_answered_and_obey_nothing(tmp_path):
    odd = [b"\xff not utf-8.wav", "two\nlines \u2028 \x1b[31m.wav".encode(), b"=1+1.wav"]
    for name in odd:
        soundfile.write(os.path.join(os.fsencode(tmp_path), name), generate_buzzes()["180 Hz"], RATE)
    for output, channels in (("a.jsonl", "mix"), ("a.csv", "each")):
        run = predict(tmp_path, "--output", tmp_path / output, "--channels", channels)
        assert "\x1b" not in run.stdout and len(run.stdout.splitlines()) == 1 + 3
    assert {os.fsencode(os.path.basename(record["file"])) for record in lines_of(tmp_path / "a.jsonl")} == set(odd)
    assert len(list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8", newline="")))) == 3


def test_patterns_find_each_recording_once(folder):
    found = find_recordings([str(folder / "b.flac"), str(folder), str(folder / "**" / "*.ogg")])
    assert [os.path.basename(path) for path in found] == [
        "b.flac", "a.wav", "ünï code.ogg", "empty.wav", "silent.wav", "text.mp3",
    ]  # fmt: skip
    assert find_recordings([str(folder / "notes.txt")]) == [str(folder / "notes.txt")]  # asked for by name
