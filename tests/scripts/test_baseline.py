"""baseline.py, its model in predict.py, and classical models beside networks in an experiment, on the demo corpus."""

import csv
import json
import shutil

import numpy as np
import opensmile
import pytest
import soundfile
import yaml
from running import SHORT, lines_of, predict, run_script
from sklearn.metrics import recall_score

from core.audio import read_audio
from core.classical import load_classical

DATA = [*SHORT[:2], *SHORT[-2:], "--use_cpu"]  # the corpus and the speakers of SHORT
pytestmark = pytest.mark.slow


def fit(output, demo, *argv, **options):
    return run_script("baseline.py", *DATA, "--data_dir", demo, "--output_dir", output, *argv, **options)


@pytest.fixture(scope="module")
def fitted(demo, tmp_path_factory):
    """The folder of a model, and what its run printed."""
    folder = tmp_path_factory.mktemp("baseline") / "model"
    return folder, fit(folder, demo, "--features", "egemaps", "--classifier", "svm").stdout


def test_the_folder_has_what_that_of_a_network_has(fitted):
    folder, printed = fitted
    results = json.loads((folder / "results.json").read_text())
    test = [line for line in lines_of(folder / "predictions.jsonl") if line["split"] == "test"]
    ua = recall_score([line["label"] for line in test], [line["prediction"] for line in test], average="macro")
    assert results["scores"]["best"]["test"]["ua"] == pytest.approx(ua)
    assert results["classical"]["C"] in [line["C"] for line in results["history"]] and f"{ua:.3f}" in printed
    assert results["arguments"]["features"] == "egemaps" and "learning_rate" not in results["arguments"]
    speakers = results["speakers"]
    assert not set(speakers["train"]) & set(speakers["test"]) and not set(speakers["validation"]) & set(
        speakers["test"]
    )
    assert str(folder.parent) not in (folder / "results.json").read_text()
    assert "without audEERING's commercial licence" in (folder / "README.md").read_text()


def test_predict_gives_the_scores_of_the_fitted_pipeline(fitted, demo, tmp_path):
    folder, _ = fitted
    recording = sorted((demo / "speaker_01").glob("*.wav"))[0]
    result = predict(recording, "--model", folder, "--output", tmp_path / "out.jsonl")
    (record,) = lines_of(tmp_path / "out.jsonl")
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    features = smile.process_signal(read_audio(recording, 30.0), 16_000).to_numpy()
    expected = dict(zip(load_classical(str(folder)).settings["labels"], load_classical(str(folder)).score(features)[0]))
    assert record["scores"] == pytest.approx(expected, abs=1e-3)
    assert record["label"] in result.stdout and "licence other" in result.stderr
    twice = np.concatenate([soundfile.read(recording)[0], np.zeros(16_000), soundfile.read(recording)[0]])
    soundfile.write(tmp_path / "twice.wav", twice, 16_000)
    predict(tmp_path / "twice.wav", "--model", folder, "--output", tmp_path / "twice.jsonl")
    (record,) = lines_of(tmp_path / "twice.jsonl")
    assert len(record["timeline"]) == 2
    assert "--explain is for networks" in predict(recording, "--model", folder, "--explain", expect=1).stderr


def test_a_finished_model_is_not_fitted_again_and_another_one_is_not_replaced(fitted, demo):
    folder, _ = fitted
    before = (folder / "classifier.skops").stat().st_mtime_ns
    assert "is already finished" in fit(folder, demo, "--features", "egemaps", "--classifier", "svm").stdout
    refused = fit(folder, demo, "--features", "egemaps", "--classifier", "lr", expect=1).stderr
    assert "classifier='svm', not 'lr'" in refused and refused.count("\n") <= 2
    assert (folder / "classifier.skops").stat().st_mtime_ns == before


def test_a_model_of_another_encoder_is_refused(demo, tiny_whisper, tmp_path):
    shutil.copytree(tiny_whisper, tmp_path / "encoder")
    argv = ["--features", "encoder", "--encoder", tmp_path / "encoder", "--c_values", "0.1", "--use_cpu"]
    run_script("baseline.py", *SHORT[-2:], *argv, "--data_dir", demo, "--output_dir", tmp_path / "model")
    recording = sorted((demo / "speaker_01").glob("*.wav"))[0]
    predict(recording, "--model", tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    settings["features"]["encoder_digest"] = "0" * 64
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings))
    refused = predict(recording, "--model", tmp_path / "model", expect=1).stderr
    assert "was fitted to another encoder than" in refused and "Traceback" not in refused


def test_an_experiment_compares_classical_models_with_networks_on_the_same_utterances(demo, tmp_path):
    content = {
        "title": "a network and two classical models",
        "config": SHORT[1],
        "folds": [1, 2],
        "stage": 1,
        "baseline": "network",
        "variants": {
            "network": {"options": {"stage1_pooling": "mean"}},
            "lr": {
                "name": "eGeMAPS, LR",
                "classical": {"features": "egemaps", "classifier": "lr", "c_values": [0.01, 1]},
            },
            "mlp": {"classical": {"classifier": "mlp", "hidden_size": 4, "c_values": [0.1]}},
        },
    }
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(content))
    argv = ["--config", path, *SHORT[2:], "--data_dir", demo, "--output_dir", tmp_path / "out"]
    run_script("experiment.py", *argv)
    cells = {name: tmp_path / "out" / "fold1-seed0" / name for name in ("network/stage1", "lr", "mlp")}
    ids = {name: [line["id"] for line in lines_of(folder / "predictions.jsonl")] for name, folder in cells.items()}
    assert ids["network/stage1"] == ids["lr"] == ids["mlp"]
    rows = {name: json.loads((folder / "arguments.json").read_text())["rows"] for name, folder in cells.items()}
    assert len(set(rows.values())) == 1
    report = (tmp_path / "out" / "table" / "report.md").read_text()
    assert "| eGeMAPS, LR | egemaps | 88 | lr | 0.01 1 |" in report and "## Classical models" in report
    compared = list(csv.DictReader((tmp_path / "out" / "table" / "comparisons.csv").open()))
    assert [row["system"] for row in compared] == ["eGeMAPS, LR", "mlp"]
    assert all(row["runs"] == "2" and row["speakers"] == "4" for row in compared)
    written = {cell: (cell / "results.json").stat().st_mtime_ns for cell in cells.values()}
    run_script("experiment.py", *argv)
    assert written == {cell: (cell / "results.json").stat().st_mtime_ns for cell in cells.values()}


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ({"classical": {"features": "mfcc"}}, "variant x: features: 'mfcc' is not valid; give one of egemaps"),
        ({"classical": {"feature": "egemaps"}}, "variant x: feature is not one of features, classifier"),
        ({"classical": {}, "options": {"pooling": "cls"}}, "variant x: 'pooling' is for networks"),
        ({"classical": "svm"}, "classical='svm' must contain options of baseline.py"),
    ],
)
def test_a_variant_that_is_no_classical_model_is_refused(variant, message, tmp_path):
    content = {"title": "t", "config": SHORT[1], "folds": [1], "variants": {"x": variant}}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(content))
    refused = run_script("experiment.py", "--config", tmp_path / "t.yaml", "--list", expect=1).stderr
    assert message in refused and "Traceback" not in refused
    content |= {"variants": {"x": {"classical": {}}}, "scored_on": "validation"}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(content))
    refused = run_script("experiment.py", "--config", tmp_path / "t.yaml", "--list", expect=1).stderr
    assert "chooses C on the validation speakers, so it cannot be scored on them" in refused
