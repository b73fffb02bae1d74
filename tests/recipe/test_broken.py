"""Broken files in a corpus: found, listed, dropped and counted, or too many, in every process and run alike."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile
from conftest import write_wav
from datasets import Dataset
from running import SHORT, lines_of, run_together, train

from core.audio import SAMPLING_RATE
from core.errors import InputError
from recipe.broken import check_audio, drop_broken, keep_usable
from recipe.corpora import load_corpus

pytestmark = pytest.mark.slow

TONE = 0.3 * np.sin(np.arange(2 * SAMPLING_RATE) / 10)


def damaged(path):
    """Its header is whole, its samples are not."""
    write_wav(path.with_suffix(".flac"), seconds=2.0)
    path.write_bytes(path.with_suffix(".flac").read_bytes()[:20000])
    path.with_suffix(".flac").unlink()


BROKEN = {
    "no audio": lambda path: path.write_text("gone"),
    "damaged": damaged,
    "not finite": lambda path: soundfile.write(path, TONE * np.nan, SAMPLING_RATE, subtype="FLOAT"),
    "silent": lambda path: soundfile.write(path, 0.9e-4 * np.sign(TONE), SAMPLING_RATE, subtype="FLOAT"),
    "constant": lambda path: soundfile.write(path, 0.05 * np.ones(SAMPLING_RATE), SAMPLING_RATE, subtype="FLOAT"),
    "no samples": lambda path: soundfile.write(path, [], SAMPLING_RATE),
    "lost": lambda path: path.symlink_to("nowhere"),
}
REASONS = {
    "no audio": "cannot be read as audio",
    "damaged": "is damaged",
    "not finite": "contains samples that are not finite",
    "silent": "is silent",
    "constant": "is silent",
    "no samples": "contains no audio (0 samples)",
    "lost": "no such audio file",
}


def test_each_kind_of_broken_file_is_found_and_no_other(tmp_path):
    for name, make in BROKEN.items():
        (tmp_path / "a").mkdir(exist_ok=True)
        make(tmp_path / "a" / f"{name}.wav")
    soundfile.write(write_wav(tmp_path / "b" / "quiet.wav"), 1.1e-4 * TONE / 0.3, SAMPLING_RATE, subtype="FLOAT")
    rows = load_corpus("folder", str(tmp_path))
    checks = check_audio(rows)
    broken = {index: check.broken for index, check in checks.items() if check.broken}
    assert {rows["id"][index].removeprefix("a/").removesuffix(".wav") for index in broken} == set(BROKEN)
    for index, reason in broken.items():
        name = rows["id"][index]
        assert reason.startswith(f"{tmp_path}/{name}") and REASONS[name[2:-4]] in reason and "\n" not in reason
    shares = [check_audio(rows, first, 3) for first in range(3)]
    assert {index: check for share in shares for index, check in share.items()} == checks
    kept, dropped = keep_usable(rows, checks, 1.0)
    assert kept["id"][:] == ["b/quiet.wav"] and dropped == len(BROKEN)


@pytest.mark.parametrize(("count", "most", "stops"), [(1, 0.01, False), (2, 0.01, True), (100, 1.0, True)])
def test_more_than_the_set_share_stops_with_one_line(count, most, stops, capsys):
    rows = Dataset.from_dict({"id": list(range(100))})
    broken = {index: f"{index}.wav is damaged" for index in range(count)}
    if stops:
        with pytest.raises(InputError, match=rf"^0.wav is damaged \({count} of 100 audio files are unusable"):
            drop_broken(rows, broken, most)
        assert capsys.readouterr().err == ""
    else:
        assert drop_broken(rows, broken, most)["id"][:] == list(range(1, 100))


def test_files_that_are_cut_short_are_counted_and_one_is_named(tmp_path, capsys):
    for index in range(4):
        path = write_wav(tmp_path / "a" / f"{index}.wav", seconds=1.0, seed=index)
        if index < 2:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    write_wav(tmp_path / "b" / "whole.wav", seed=4)
    rows = load_corpus("folder", str(tmp_path))
    keep_usable(rows, check_audio(rows), 0.0)
    said = f"warning: 2 of 5 audio files are cut short, for example {tmp_path}/a/0.wav: their headers promise more"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "cut short" in line]
    assert line.startswith(said)
    whole = rows.select([2, 3, 4])
    keep_usable(whole, check_audio(whole), 0.0)
    assert capsys.readouterr().err == ""


def test_ten_are_named_and_the_others_counted(capsys):
    rows = Dataset.from_dict({"id": list(range(100))})
    drop_broken(rows, {index: f"{index}.wav is damaged" for index in range(12)}, 0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:10] == [f"warning: {index}.wav is damaged" for index in range(10)]
    assert lines[10:] == ["warning: dropped 12 of 100 audio files as unusable; 2 of them are not listed"]


def test_a_file_that_a_csv_names_and_that_is_not_there_stops_a_small_corpus(tmp_path):
    write_wav(tmp_path / "a.wav")
    (tmp_path / "my.csv").write_text("path,label\na.wav,sad\nlost.wav,angry")
    rows = load_corpus("folder", csv=str(tmp_path / "my.csv"))
    with pytest.raises(InputError, match=r"lost.wav: no such audio file \(1 of 2 audio files are unusable"):
        keep_usable(rows, check_audio(rows), 0.01)


def test_a_file_name_that_no_table_can_hold_is_one_line(tmp_path):
    write_wav(tmp_path / "sad" / "a.wav")
    (tmp_path / "angry").mkdir()
    os.link(tmp_path / "sad" / "a.wav", os.fsencode(tmp_path) + b"/angry/\xff.wav")
    with pytest.raises(InputError, match=r"angry/\\udcff.wav has a name that is not UTF-8: rename it"):
        load_corpus("folder", str(tmp_path))


def test_training_goes_on_without_them_alike_in_one_process_and_in_two(demo, tmp_path):
    copy = shutil.copytree(demo, tmp_path / "demo", copy_function=os.link)
    gone = {}
    for speaker, (name, make) in enumerate(BROKEN.items(), start=1):
        path = copy / f"speaker_{speaker:02d}" / "sad_3.wav"
        path.unlink()
        make(path)
        gone[f"speaker_{speaker:02d}/sad_3"] = f"{path}{':' if name == 'lost' else ''} {REASONS[name]}"
    argv = [*SHORT, "--stage", 1, "--data_dir", copy, "--output_dir", tmp_path / "out", "--max_broken_share", 0.03]
    run = run_together("train.py", *argv, port=29617)
    warned = [line.removeprefix("warning: ") for line in run.stderr.splitlines() if line.startswith("warning: ")]
    assert all(line.startswith(expected) for line, expected in zip(warned, gone.values(), strict=False))
    assert warned[len(BROKEN)] == f"dropped {len(BROKEN)} of 320 audio files as unusable"
    assert len([line for line in warned if str(copy) in line]) == len(BROKEN)  # said by one process
    results = json.loads((tmp_path / "out" / "stage1" / "results.json").read_text(encoding="utf-8"))
    assert results["broken_files"] == len(BROKEN)
    assert sum(sum(counts.values()) for counts in results["class_counts"].values()) == 320 - len(BROKEN)
    scored = {line["id"] for line in lines_of(tmp_path / "out" / "stage1" / "predictions.jsonl")}
    assert len(scored) > 100 and not scored & set(gone)

    assert "Stage 1 is already finished" in train(*argv).stdout  # the same utterances, else it were refused
    stopped = train(*argv, "--max_broken_share", 0.005, expect=1).stderr
    assert stopped.startswith(f"error: {gone['speaker_01/sad_3']}") and len(stopped.splitlines()) == 1
    assert f"{len(BROKEN)} of 320 audio files are unusable, more than --max_broken_share 0.005 allows" in stopped
