"""predict.py --engine ray on a local Ray with two workers, one of which is killed in the middle of a shard."""

import json
import subprocess
import sys
import time

import psutil
import pytest
import soundfile
from conftest import ROOT
from running import environment, lines_of, predict, run_anew

from models.ship import generate_buzzes

pytestmark = pytest.mark.slow

SHARD, SHARDS = 60, 4
ACTOR = "ShardScorer"


def find_actors(driver):
    """The processes of the actors that belong to this run of Ray."""
    return [process for process in psutil.Process(driver.pid).children(recursive=True) if ACTOR in name(process)]


def name(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return ""


def test_a_killed_worker_loses_no_recording_and_repeats_none(tmp_path):
    soundfile.write(tmp_path / "a.wav", next(iter(generate_buzzes().values()))[:8000], 16000)
    lines = [
        {"id": number, "path": "lost.wav" if number % 10 == 9 else "a.wav"} for number in range(SHARD * SHARDS - 5)
    ]
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = tmp_path / "answers"
    argv = ["--manifest", tmp_path / "calls.jsonl", "--output", output, "--shard_size", SHARD, "--quiet"]
    argv = [*map(str, argv), "--model", "mini", "--device", "cpu", "--engine", "ray", "--workers", "2"]
    run = subprocess.Popen([sys.executable, "predict.py", *argv], cwd=ROOT, env=environment(), stderr=subprocess.PIPE)
    killed = 0
    while run.poll() is None and not killed:
        begun = [path for path in output.glob("*.unfinished") if path.read_text().count("\n") >= 3]
        actors = find_actors(run) if begun else []
        if len(actors) == 2:
            actors[0].kill()
            killed = actors[0].pid
        time.sleep(0.02)
    messages = run.communicate(timeout=300)[1].decode()
    assert killed and run.returncode == 1, messages
    records = [record for path in sorted(output.glob("0*.jsonl")) for record in lines_of(path)]
    assert [record["id"] for record in records] == [str(line["id"]) for line in lines]
    assert [int(record["id"]) for record in records if "error" in record] == list(range(9, len(lines), 10))
    for record in records:  # whichever worker has computed it
        assert "error" in record or record["scores"] == pytest.approx(records[0]["scores"], abs=2e-6)
    assert len(lines_of(output / "failures.jsonl")) == len(lines) // 10
    assert not list(output.glob("*.unfinished")) and f"{len(lines)} recordings, " in messages


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a.wav", "--engine", "ray"], "--engine ray is for --manifest"),
        (["--manifest", "a.txt", "--workers", "2"], "--workers is for --engine ray"),
    ],
)
def test_options_of_ray_without_what_they_need_are_refused(argv, message):
    assert message in run_anew("predict.py", *argv, expect=2).stderr


def test_what_is_wrong_is_said_before_ray_starts(tmp_path):
    (tmp_path / "a.txt").write_text("a.wav\n")
    argv = ["--manifest", tmp_path / "a.txt", "--output", tmp_path / "out", "--engine", "ray"]
    for wrong, message in (
        (["--window", 0], "error: --window=0.0 is not"),
        (["--workers", 0], "error: --workers 0 is"),
    ):
        lines = predict(*argv, *wrong, "--output", tmp_path / wrong[0], expect=1).stderr.splitlines()
        assert len(lines) == 2 and lines[1].startswith(message)  # the first one names the model
