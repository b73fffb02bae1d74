"""Converted copies beside the recordings: whose they are, where they lie, and runs that are repeated or killed."""

import shutil
import sys

import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict
from running import SHORT, lines_of, train

from core.errors import InputError
from core.json_files import read_json
from recipe.converted import SOURCE, add_copies, check_conversion, select_recordings
from recipe.options import Arguments
from recipe.repeats import DIGEST
from recipe.stage_folder import describe_run

RATE = 16000
PITCHES = {"a": 100, "b": 140, "c": 200, "d": 260}
GENDERS = {"a": "male", "b": "male", "c": "female", "d": "female"}


def hum(pitch, seconds, seed):
    time = np.arange(int(seconds * RATE)) / RATE
    wave = 2 * (np.cumsum(pitch * (1 + 0.02 * np.sin(10 * time))) / RATE % 1) - 1
    return 0.2 * np.convolve(wave, np.ones(8) / 8, "same") + 0.001 * np.random.default_rng(seed).standard_normal(
        len(time)
    )


@pytest.fixture
def split(tmp_path):
    """Four training speakers with two utterances of each of two labels, and two others."""
    cells = [(speaker, label, n) for speaker in "abcdef" for label in (0, 1) for n in range(2)]
    for number, (speaker, label, n) in enumerate(cells):
        wave = hum(PITCHES.get(speaker, 150), 0.5 + 0.01 * number, number)
        soundfile.write(tmp_path / f"{speaker}{label}{n}.wav", wave, RATE)
    columns = {
        "id": [f"{s}{label}{n}" for s, label, n in cells],
        "audio": [str(tmp_path / f"{s}{label}{n}.wav") for s, label, n in cells],
        "label": [label for _, label, _ in cells],
        "speaker": [s for s, _, _ in cells],
        "gender": [GENDERS.get(s, "male") for s, _, _ in cells],
        "duration": [0.5 + 0.01 * number for number in range(len(cells))],
        DIGEST: [f"digest {number}" for number in range(len(cells))],
    }
    rows = Dataset.from_dict(columns).cast_column("audio", Audio(decode=False))
    rows = rows.cast_column("label", ClassLabel(names=["angry", "sad"]))
    parts = {
        "train": rows.select(range(16)),
        "validation": rows.select(range(16, 20)),
        "test": rows.select(range(20, 24)),
    }
    return DatasetDict(parts)


def arguments(tmp_path, **data):
    args = Arguments()
    args.trainer.output_dir = str(tmp_path / "run")
    for name, value in {"convert": "random", "guiding_share": 0.5, **data}.items():
        setattr(args.data, name, value)
    return args


def recall(key, compute):
    return compute()


def pitch_of(path):
    """By the peak of the autocorrelation, in Hz."""
    wave, _ = soundfile.read(path)
    power = np.correlate(wave[:8000], wave[:8000], "full")[7999:]
    lag = np.argmax(power[40:200]) + 40
    return RATE / lag


def copies_of(part):
    return part.filter(lambda row: bool(row[SOURCE]))


def test_copies_have_the_label_of_their_source_and_the_voice_of_another_training_speaker(split, tmp_path):
    added = add_copies(arguments(tmp_path), split, None, recall)
    assert added["validation"] is split["validation"] and added["test"] is split["test"]
    recordings, copies = select_recordings(added["train"]), copies_of(added["train"])
    assert recordings.remove_columns(SOURCE).to_list() == split["train"].to_list()
    assert len(copies) == 8 and sorted(copies["label"][:]) == [0] * 4 + [1] * 4
    assert added["train"]["duration"][:] == sorted(added["train"]["duration"][:])
    by_id = {row["id"]: row for row in split["train"]}
    for row in copies:
        source = by_id[row[SOURCE]]
        assert row["label"] == source["label"] and row["speaker"] != source["speaker"] and row["speaker"] in PITCHES
        assert row["gender"] == GENDERS[row["speaker"]] and row["id"] == f"{source['id']}>{row['speaker']}"
        assert pitch_of(row["audio"]["path"]) == pytest.approx(PITCHES[row["speaker"]], rel=0.06)


def test_a_repeated_run_finds_its_files_and_a_killed_one_makes_the_rest_alike(split, tmp_path):
    first = add_copies(arguments(tmp_path), split, None, recall)["train"]
    files = sorted((tmp_path / "run" / "converted").glob("*.flac"))
    contents, times = [path.read_bytes() for path in files], [path.stat().st_mtime_ns for path in files]
    assert add_copies(arguments(tmp_path), split, None, recall)["train"].to_list() == first.to_list()
    assert [path.stat().st_mtime_ns for path in files] == times
    for path in files[::2]:
        path.unlink()
    add_copies(arguments(tmp_path), split, None, recall)
    assert [path.read_bytes() for path in files] == contents


def test_another_recording_or_trimming_is_another_file(split, tmp_path):
    def convert(**data):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return set(
            copies_of(add_copies(arguments(tmp_path, **data), split, None, recall)["train"])["audio"][:][i]["path"]
            for i in range(8)
        )

    before = convert()
    assert convert() == before and not convert(trim_db=20) & before
    path = split["train"][0]["audio"]["path"]  # of speaker a, whose voice it is part of
    soundfile.write(path, hum(100, 0.5, 99), RATE)
    assert 0 < len(convert() & before) < 8


def test_the_record_of_a_run_tells_recordings_from_copies(split, tmp_path):
    args = arguments(tmp_path)
    plain, converted = (describe_run(1, args, each) for each in (split, add_copies(args, split, None, recall)))
    assert plain["rows"] == converted["rows"] and plain["audio"] == converted["audio"]
    assert plain["copies"] is None and converted["copies"] is not None
    other = arguments(tmp_path)
    other.trainer.seed = 1
    assert describe_run(1, other, add_copies(other, split, None, recall))["copies"] != converted["copies"]


def test_a_command_converts_to_a_reference_of_the_target(split, tmp_path):
    script = tmp_path / "vc.py"
    script.write_text("import shutil, sys; shutil.copy(sys.argv[2], sys.argv[3])")
    command = f"{sys.executable} {script} {{source}} {{reference}} {{output}}"
    added = add_copies(arguments(tmp_path, convert_command=command, guiding_share=0.25), split, None, recall)
    (selected,) = [
        line
        for line in lines_of(tmp_path / "run/converted/selection.jsonl")
        if line["label"] == "sad" and line["copies"]
    ][:1]
    reference, _ = soundfile.read(tmp_path / f"{selected['copies'][0]['reference']}.wav")
    copy, _ = soundfile.read(tmp_path / "run" / "converted" / selected["copies"][0]["file"])
    assert abs(len(copy) - len(reference)) < 0.2 * RATE  # trimmed
    assert len(copies_of(added["train"])) == 4


@pytest.mark.parametrize(
    ("rename", "message"),
    [(lambda name: "a", "names no other"), (lambda name: f"utterance:{name}", "does not name all speakers")],
)
def test_without_other_speakers_there_is_nothing_to_convert_to(split, tmp_path, rename, message):
    rows = split["train"].map(lambda row: {"speaker": rename(row["id"])})
    with pytest.raises(InputError, match=message):
        add_copies(arguments(tmp_path), DatasetDict({**split, "train": rows}), None, recall)


def test_a_speaker_without_a_voice_is_named(split, tmp_path):
    for audio in split["train"]["audio"][:]:
        soundfile.write(audio["path"], np.zeros(8000), RATE)
    with pytest.raises(InputError, match=r"the utterances of speaker '[abcd]' have no voice to convert"):
        add_copies(arguments(tmp_path, trim_db=None), split, None, recall)


def test_a_converter_is_checked_before_the_corpus_is_read(tmp_path, monkeypatch):
    check_conversion(arguments(tmp_path).data)
    with pytest.raises(InputError, match=r"lacks {source}, {reference}, {output}"):
        check_conversion(arguments(tmp_path, convert_command="vc").data)
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(InputError, match=r"pip install -r requirements-conversion.txt"):
        check_conversion(arguments(tmp_path).data)
    check_conversion(arguments(tmp_path, convert="none").data)


@pytest.mark.slow
def test_a_run_converts_what_its_early_model_finds_easy_and_a_killed_one_trains_alike(demo, tmp_path):
    output = tmp_path / "run"
    argv = [*SHORT, "--data_dir", demo, "--output_dir", output, "--stage", "1", "--convert", "guiding"]
    first = train(*argv)
    assert "bias-guiding training utterances, in the voices of" in first.stdout
    lines = lines_of(output / "converted" / "selection.jsonl")
    early = {
        each["id"]: each
        for each in lines_of(output / "early/stage1/last/predictions.jsonl")
        if each["split"] == "train"
    }
    assert {line["id"] for line in lines} == set(early)
    for label in {line["label"] for line in lines}:
        own = [line for line in lines if line["label"] == label]
        p = np.array([early[line["id"]]["probabilities"][label] for line in own])
        w = -np.log(p) / (-np.log(p) + (1 - p**0.7) / 0.7)
        np.testing.assert_allclose([line["difficulty"] for line in own], w)
        easiest = {own[index]["id"] for index in np.argsort(w, kind="stable")[: round(len(own) / 4)]}
        assert {line["id"] for line in own if line["role"] == "guiding"} == easiest
    results = read_json(output / "stage1" / "results.json")
    number = sum(len(line["copies"]) for line in lines)
    assert results["converted_copies"] == number == sum(results["class_counts"]["train"].values()) - len(lines)
    card = (output / "stage1" / "README.md").read_text(encoding="utf-8")
    assert f"{number} of the training utterances are copies of others" in card and "| gender (2 groups) |" in card
    assert "already finished" in train(*argv).stdout
    weights = (output / "stage1" / "model.safetensors").read_bytes()
    shutil.rmtree(output / "stage1")
    for path in sorted((output / "converted").glob("*.flac"))[::2]:
        path.unlink()
    train(*argv)
    assert (output / "stage1" / "model.safetensors").read_bytes() == weights
