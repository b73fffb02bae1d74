"""run_configs/ldl on a miniature of EM2LDL: trained, scored beside two guesses, and answered with mixed emotions."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
from corpora.test_em2ldl import write_table
from running import lines_of, run_script, train
from scipy.stats import entropy

from core.json_files import read_json
from core.loading import load_pipeline
from core.synthesis import EMOTIONS, make_speaker, synthesise
from demo.answers import answer
from recipe.corpora.em2ldl import LABELS

pytestmark = pytest.mark.slow

TINY = {"model_type": "wav2vec2-bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TINY |= {"intermediate_size": 32, "conv_depthwise_kernel_size": 3, "position_embeddings_type": None, "layerdrop": 0.0}
SMALL = ["--encoder", "none", "--encoder_config", json.dumps(TINY), "--partial_corpus", "--use_cpu", "--num_epochs", 2]
SMALL += ["--batch_size", 16, "--learning_rate", 1e-3, "--pooling_learning_rate", 1e-3]
SMALL += ["--classifier_learning_rate", 1e-2]
NAMES = {"angry": ("anger", "annoyance"), "happy": ("joy", "ecstasy"), "sad": ("sadness", "grief")}


def babble(path, speaker, index):
    """An utterance of the demo corpus's voices; most raters hear its emotion or the one next to it on the wheel."""
    emotion = list(NAMES)[index % 3]
    path.parent.mkdir(parents=True, exist_ok=True)
    waveform = synthesise(make_speaker(speaker), EMOTIONS[emotion], np.random.default_rng([7, speaker, index]))
    soundfile.write(path, waveform[:12000], 16000)
    weights = np.full(32, 0.3)
    weights[[LABELS.index(name) for name in NAMES[emotion]]] = 3, 2
    return weights


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus") / "EM2LDL"
    write_table(root, speakers=10, per_speaker=12, speak=babble)
    return root


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("ldl")
    argv = ["--config", "run_configs/ldl/em2ldl.yaml", *SMALL, "--data_dir", corpus, "--output_dir", output]
    return output / "stage1", train(*argv).stdout


def measure(predictions, targets):
    """The six measures in NumPy and SciPy."""
    difference, total = np.abs(predictions - targets), predictions + targets
    ratio = difference / np.where(total > 0, total, 1)
    products = (predictions * targets).sum(1)
    lengths = np.linalg.norm(predictions, axis=1) * np.linalg.norm(targets, axis=1)
    return {
        "chebyshev": difference.max(1).mean(),
        "clark": np.sqrt((ratio**2).sum(1)).mean(),
        "canberra": ratio.sum(1).mean(),
        "kl": entropy(targets, predictions, axis=1).mean(),
        "cosine": (products / lengths).mean(),
        "intersection": np.minimum(predictions, targets).sum(1).mean(),
    }


def test_the_six_measures_stand_beside_those_of_the_two_guesses(trained):
    folder, stdout = trained
    results = read_json(folder / "results.json")
    lines = lines_of(folder / "predictions.jsonl")
    for part in ("validation", "test"):
        of_part = [line for line in lines if line["split"] == part]
        found, true = (
            np.array([[line[name][label] for label in results["labels"]] for line in of_part])
            for name in ("probabilities", "label_distribution")
        )
        assert results["scores"]["best"][part]["distribution"] == pytest.approx(measure(found, true), abs=1e-5)
        mean = np.array([results["guesses"]["training_mean"][label] for label in results["labels"]])
        for name, guess in (("constant", mean), ("uniform", np.full(len(mean), 1 / len(mean)))):
            guessed = np.tile(guess, (len(true), 1))
            assert results["guesses"][name][part] == pytest.approx(measure(guessed, true), abs=1e-6)
        for line, shares in zip(of_part, true):
            assert line["label"] == results["labels"][int(np.flatnonzero(shares >= shares.max() - 1e-6)[0])]
    card = (folder / "README.md").read_text(encoding="utf-8")
    for row in ("constant", "uniform", "best (epoch", "last (epoch"):
        assert f"\n| {row}" in card and f"\n  {row}" in stdout
    assert "1 × KL to the label + 0.3 × cosine distance to the label" in card
    assert "from the epoch with the lowest validation KL" in card and "## Sure and unsure" not in card


def test_the_epoch_with_the_lowest_validation_kl_is_kept(trained):
    results = read_json(trained[0] / "results.json")
    lowest = min(results["history"], key=lambda line: (line["kl"], -line["cosine"]))
    assert results["epochs"]["best"] == lowest["epoch"] and len(results["history"]) == 2
    log = lines_of(trained[0] / "training_log.jsonl")
    losses = {
        name for line in log for name in line if name.endswith("_loss") and not name.startswith(("eval", "train"))
    }
    assert losses == {"kl_loss", "cosine_loss"}


def test_mixed_answers_name_every_label_above_the_threshold_in_every_output(trained, corpus, tmp_path):
    folder = trained[0]
    config = read_json(folder / "config.json")
    assert 0 <= config["mixed_above"] < 1 and config["unsure_below"] == 0
    assert read_json(folder / "results.json")["scores"]["best"]["mixed_above"] == config["mixed_above"]
    files = sorted((corpus / "audio").iterdir())[:2]
    first = run_script("predict.py", *files, "--model", folder, "--output", tmp_path / "all.jsonl").stdout
    lines = lines_of(tmp_path / "all.jsonl")
    for line in lines:
        best = next(iter(line["scores"]))
        above = [label for label, score in line["scores"].items() if label == best or score > config["mixed_above"]]
        assert list(line["mixed"].items()) == [(label, line["scores"][label]) for label in above]
        assert line["label"] == best and all(part["mixed"] for part in line["timeline"])
    scores = list(lines[0]["scores"].values())
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    (model / "config.json").write_text(json.dumps({**config, "mixed_above": (scores[1] + scores[2]) / 2}))
    one, two, three = list(lines[0]["scores"].items())[:3]
    together = f"{one[0]} {one[1]:.2f} + {two[0]} {two[1]:.2f}"
    table, track = tmp_path / "one.csv", tmp_path / "one.TextGrid"
    said = run_script("predict.py", files[0], "--model", model, "--output", table).stdout
    assert f" s  {together}, {three[0]} {three[1]:.2f}" in said
    with table.open(encoding="utf-8") as file:
        assert next(csv.DictReader(file))["mixed"] == together
    run_script("predict.py", files[0], "--model", model, "--output", track)
    assert f'text = "{one[0]} + {two[0]}"' in track.read_text(encoding="utf-8")
    rows = run_script("predict.py", *files, "--model", model).stdout.splitlines()
    assert " mixed " in rows[1] and together in rows[1] and first != "\n".join(rows)
    samples = soundfile.read(files[0], dtype="int16")[0].tobytes()
    answered = run_script("predict.py", "-", "--model", model, stdin=samples).stdout
    stream = [json.loads(line) for line in answered.splitlines()]
    assert all(line["label"] is None or next(iter(line["mixed"])) == line["label"] for line in stream)
    page = answer(load_pipeline(str(model), device="cpu"), str(files[0]), "one")
    assert f"Sounds like <b>{together}</b>" in page and f"{one[0]} + {two[0]}</td>" in page


def test_the_report_of_an_experiment_has_the_guesses_too(corpus, tmp_path):
    argv = ["--config", "run_configs/ldl/gender.yaml", *SMALL, "--max_steps", 2, "--data_dir", corpus]
    run_script("experiment.py", *argv, "--output_dir", tmp_path)
    report = (tmp_path / "gender" / "report.md").read_text(encoding="utf-8")
    for row in ("constant", "uniform", "KL + cosine, best", "KL + cosine, last"):
        assert f"\n| {row} |" in report
    for fold, tested in ((1, "female"), (2, "male")):
        (folder,) = tmp_path.glob(f"fold{fold}-*/kl_cosine/stage1")
        assert {line["gender"] for line in lines_of(folder / "predictions.jsonl") if line["split"] == "test"} == {
            tested
        }
