"""--push_to_hub against a small Hub on the loopback interface: pushed, loaded at a revision, and when it fails."""

import getpass
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, tiny_model
from datasets import DatasetDict
from loopback import REPO, TOKEN, online
from running import BRIEF, FILES, SHORT, run_anew
from transformers import Wav2Vec2FeatureExtractor

pytestmark = pytest.mark.slow

# Files of a stage folder that never leave the machine.
PRIVATE = ("arguments.json", "tensorboard", "checkpoints")

LOAD = """
import json, sys
import numpy as np, torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

repo, revision, folder, audio, *tasks = sys.argv[1:]
waveform = np.load(audio)

def scores(where, **pinned):
    pinned["trust_remote_code"] = True
    model = AutoModelForAudioClassification.from_pretrained(where, **pinned).eval()
    extractor = AutoFeatureExtractor.from_pretrained(where, **pinned)
    with torch.no_grad():
        logits = model(**extractor(waveform, sampling_rate=16000, return_tensors="pt")).logits
    answers = [pipeline(task, where, **pinned)(waveform, top_k=None) for task in tasks]
    return [logits[0].tolist(), *[{a["label"]: a["score"] for a in answer} for answer in answers]]

print("RESULT" + json.dumps([scores(repo, revision=revision), scores(folder)]))
"""


# train.py, stopped when the training is over and nothing is scored yet.
STOPPED_AT_THE_END = """
import sys
import recipe.run
from recipe.arguments import parse_arguments
recipe.run.save_and_score = lambda *_: sys.exit(9)
recipe.run.run(parse_arguments(sys.argv[2:], description=""))
"""


@pytest.fixture
def trained(short_run, tmp_path):
    """A copy of a finished run, whose card a push writes anew."""
    shutil.copytree(short_run[0], tmp_path / "run")
    return tmp_path / "run"


def test_a_pushed_model_is_complete_private_and_loads_at_its_revision(trained, demo, hub, tmp_path, monkeypatch):
    online(monkeypatch, hub.url, tmp_path / "hf")
    hub.busy = ["/repos/create", "/preupload/", "/info/lfs/", "/commit/"]
    push = [*SHORT, "--data_dir", demo, "--output_dir", trained, "--push_to_hub", REPO]
    run = run_anew("train.py", *push, online=True)
    assert "Pushed to" in run.stdout and not hub.busy  # each kind of call was refused once
    assert hub.created[0]["visibility"] == "private"
    files, (pinned, _) = hub.files, hub.commits
    assert set(hub.commits[pinned]) == set(files) - {"README.md"}
    assert set(files) >= FILES | {"README.md", "results.json", "last/model.safetensors", "last/config.json"}
    assert not any(name.startswith(PRIVATE) for name in files)
    card = files["README.md"].decode()
    assert card.count(f'"{REPO}", revision="{pinned}", trust_remote_code=True') == 3
    assert f"predict.py speech.wav --model {REPO} --revision {pinned}" in card
    assert_names_no_place(files, trained, demo)
    assert_no_token(run, trained, files)

    hub.commits["f" * 40] = {}  # what comes later does not matter to who names a revision
    np.save(tmp_path / "audio.npy", np.random.default_rng(0).normal(size=24000).astype("f4"))
    tasks = ["audio-classification", "speech-emotion-recognition"]
    argv = [REPO, pinned, trained / "stage2", tmp_path / "audio.npy", *tasks]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, argv)],
        cwd=tmp_path,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    pulled, local = json.loads(loaded.stdout.split("RESULT")[1])
    assert len(pulled) == 1 + len(tasks) and pulled == local
    assert (tmp_path / "hf" / "hub" / "models--someone--ser-align-demo" / "snapshots" / pinned).is_dir()


def assert_no_token(run, folder, files):
    """Nothing that a run printed, wrote or pushed contains its token."""
    assert TOKEN not in run.stdout + run.stderr
    written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert written and not [path for path, content in {**written, **files}.items() if TOKEN.encode() in content]


def test_a_run_that_is_given_a_token_keeps_it_to_itself(hostile_csv, hub, tmp_path, monkeypatch):
    """In the checkpoints of an interruption and the TensorBoard log too, and where the Hub refuses it."""
    online(monkeypatch, hub.url, tmp_path / "hf")
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}wrong")
    argv = [*BRIEF, "--stage", 1, "--max_steps", 1, "--corpus", "folder", "--csv", hostile_csv, "--tensorboard"]
    argv += ["--output_dir", tmp_path / "run"]
    stopped = run_anew("train.py", *argv, launcher=["-c", STOPPED_AT_THE_END], online=True, expect=9)
    assert list((tmp_path / "run").glob("stage1/checkpoints/checkpoint-1/training_args.bin"))
    assert list((tmp_path / "run").glob("stage1/tensorboard/**/events*"))
    assert_no_token(stopped, tmp_path / "run", {})
    failed = run_anew("train.py", *argv, "--push_to_hub", REPO, online=True, expect=1)
    assert (
        "could not be pushed" in failed.stderr
        and "401" in failed.stderr
        and "results.json" in os.listdir(tmp_path / "run" / "stage1")
    )
    assert_no_token(failed, tmp_path / "run", {})


def assert_names_no_place(files, *places):
    """No file contains a directory of this machine, and no text written by the run contains the user name."""
    for name, content in files.items():
        for place in (*places, ROOT, Path.home()):
            assert str(place).encode() not in content, (name, place)
        if name.endswith((".json", ".jsonl", ".md")):
            assert not re.search(rf"\b{re.escape(getpass.getuser())}\b", content.decode()), name


def test_a_folder_does_not_say_where_its_encoder_lay(demo, tmp_path):
    """Of a pretrained encoder the library keeps the name that it was loaded by, here a folder."""
    from modeling_ser_align import SERAlignForAudioClassification
    from recipe import run as script
    from recipe.corpora import load_corpus
    from recipe.options import Arguments
    from recipe.preparing import UtterancePreparer

    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    tiny_model().encoder.save_pretrained(tmp_path / "encoder")
    rows = load_corpus("demo", str(demo)).select(range(0, 768, 96))
    labels = dict(enumerate(rows.features["label"].names))
    model = SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path / "encoder"), id2label=labels)
    split = DatasetDict(validation=rows, test=rows)
    preparer = UtterancePreparer(extractor, 400)
    script.save_and_score(model, extractor, preparer, tmp_path / "out", Arguments(), split)
    files = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(files) >= FILES
    assert_names_no_place(files, tmp_path, demo)


def test_a_hub_out_of_reach_is_one_line_with_a_command_that_pushes_the_same_files(
    trained, demo, hub, tmp_path, monkeypatch
):
    online(monkeypatch, "http://127.0.0.1:9", tmp_path / "hf")  # nobody listens there
    push = [*SHORT, "--data_dir", demo, "--output_dir", trained, "--push_to_hub", REPO]
    run = run_anew("train.py", *push, "--tensorboard", online=True, expect=1)
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "could not be pushed" in errors[0] and "Traceback" not in run.stderr
    assert f"the model is complete in {trained / 'stage2'}" in errors[0]
    assert run.stderr.count("retrying in") == 3

    online(monkeypatch, hub.url, tmp_path / "hf")
    (trained / "stage2" / "tensorboard").mkdir()
    (trained / "stage2" / "tensorboard" / "events.out.tfevents").write_text("a name of a machine")
    words = shlex.split(errors[0].rpartition("push it later, run: ")[2])
    assert words[0] == "hf"
    hf = str(Path(sys.executable).with_name("hf"))
    pushed = subprocess.run([hf, *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert pushed.returncode == 0, pushed.stderr
    assert hub.created[0]["visibility"] == "private"
    kept = {path.relative_to(trained / "stage2").as_posix() for path in (trained / "stage2").rglob("*.*")}
    assert set(hub.files) == {name for name in kept if not name.startswith(PRIVATE)}
    assert f'"{REPO}"' in hub.files["README.md"].decode()  # written before the push was tried
    assert_names_no_place(hub.files, trained, demo)


def test_what_the_hub_refuses_for_good_is_not_tried_again(trained, hub, monkeypatch):
    """In this process, with a wrong token; and a public repository is one that was asked for."""
    from core.errors import InputError
    from recipe import publishing as script
    from recipe.arguments import parse_arguments

    args = parse_arguments([*SHORT, "--hub_public"], description="")[2]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waited"))
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(InputError, match=r"could not be pushed .*401 .* hf upload") as error:
        script.push(trained / "stage2", args, REPO)
    assert "\n" not in str(error.value) and "--private" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    script.push(trained / "stage2", args, REPO)
    assert hub.created == [{"name": "ser-align-demo", "organization": "someone", "visibility": "public"}]
