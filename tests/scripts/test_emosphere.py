"""run_configs/emosphere on the demo corpus: trained, scored beside a constant, answered, drawn and reported."""

import csv
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import reference
import soundfile
from running import SPEAKERS, lines_of, run_script, train

from core.json_files import read_json
from core.loading import load_pipeline
from demo.answers import answer

pytestmark = pytest.mark.slow

PART = ["--use_cpu", "--only", json.dumps({"speaker": SPEAKERS})]
SMALL = ["--config", "run_configs/emosphere/quickstart.yaml", *PART]


@pytest.fixture(scope="module")
def trained(demo, tmp_path_factory):
    output = tmp_path_factory.mktemp("emosphere")
    argv = ["--data_dir", demo, "--output_dir", output, "--num_epochs", 6, "--region_epochs", 2]
    return output / "stage1", train(*SMALL, *argv).stdout


def read_arrays(lines):
    return (np.array([list(line[name].values()) for line in lines]) for name in ("dimensions", "true_dimensions"))


def test_every_score_is_that_of_numpy_and_stands_beside_that_of_a_constant(trained):
    folder, stdout = trained
    results, lines = read_json(folder / "results.json"), lines_of(folder / "predictions.jsonl")
    for part in ("validation", "test"):
        of_part = [line for line in lines if line["split"] == part]
        found, true = read_arrays(of_part)
        scores = results["scores"]["best"][part]
        assert [scores["dimensions"][name]["ccc"] for name in ("valence", "arousal")] == pytest.approx(
            reference.concordance(found, true)
        )
        assert scores["mean_ccc"] == pytest.approx(reference.concordance(found, true).mean())
        constant = results["dimensions"]["constant"]
        mean = np.array([*constant["training_mean"].values()])
        errors = np.sqrt(((true - mean) ** 2).mean(axis=0))
        assert [each["rmse"] for each in constant[part].values()] == pytest.approx(errors)
        assert [each["ccc"] for each in constant[part].values()] == [0, 0]
        if part == "validation":  # which the calibration is fitted on
            np.testing.assert_allclose(found.mean(axis=0), true.mean(axis=0), atol=1e-5)
            np.testing.assert_allclose(found.std(axis=0), true.std(axis=0), rtol=1e-5)
    assert results["scores"]["best"]["test"]["dimensions"]["arousal"]["ccc"] > 0.6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "The values of the training data are as the audio was made, not rated." in card
    for row in ("constant", "best (epoch", "last (epoch"):
        assert f"\n| arousal | {row}" in card and f"\n  {row}" in stdout
    assert "(as the audio was made, not rated)" in stdout
    assert "from the epoch with the highest validation CCC, the mean over dimensions" in card
    assert "name: CCC of arousal" in card and "type: ua" not in card
    assert "gated convolutions and self-attention" in card
    assert "1 × (1 - CCC) of each dimension + 1 × cross-entropy of regions" in card


def test_labels_are_the_regions_of_the_values_and_their_scores_follow_from_the_predicted_ones(trained):
    for line in lines_of(trained[0] / "predictions.jsonl"):
        for name, values in (("label", line["true_dimensions"]), ("prediction", line["dimensions"])):
            assert line[name] == " ".join(f"{each}{'+' if value >= 0 else '-'}" for each, value in values.items())
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_the_epoch_with_the_highest_ccc_is_kept_and_the_regions_are_left_out_after_two_epochs(trained):
    results = read_json(trained[0] / "results.json")
    history = results["history"]
    assert results["epochs"]["best"] == max(history, key=lambda line: line["ccc"])["epoch"]
    assert ["region_loss" in line for line in history] == [True, True, False, False, False, False]
    assert all("ce_loss" not in line and line["ccc_loss"] > 0 for line in history)
    log = [line for line in lines_of(trained[0] / "training_log.jsonl") if "region_loss" in line]
    for line in log:
        share = 1 - 0.99 * (np.ceil(line["epoch"] - 1e-6) - 1) / 2
        assert line["loss"] == pytest.approx(line["ccc_loss"] + share * line["region_loss"], abs=2e-3)


def test_every_output_has_the_values_on_the_scale_of_the_corpus(trained, demo, tmp_path):
    folder, files = trained[0], [demo / "speaker_01" / f"{name}_1.wav" for name in ("angry", "sad")]
    config = read_json(folder / "config.json")
    said = run_script("predict.py", *files, "--model", folder, "--output", tmp_path / "all.jsonl").stdout
    angry, sad = lines_of(tmp_path / "all.jsonl")
    assert angry["dimensions"]["arousal"]["value"] > sad["dimensions"]["arousal"]["value"]
    errors = [each[2] for each in config["dimension_calibration"]]
    assert [each["error"] for each in angry["dimensions"].values()] == pytest.approx(errors, abs=1e-4)
    assert angry["dimension_source"] == "known" and angry["dimensions"]["valence"]["scale"] == [-1, 1]
    assert (
        f"arousal {angry['dimensions']['arousal']['value']:.2f} ±" in said and "of synthetic audio, not rated" in said
    )
    saved = {line["id"]: line for line in lines_of(folder / "predictions.jsonl")}
    if "speaker_01/angry_1" in saved:
        stored = saved["speaker_01/angry_1"]["dimensions"]
        assert {name: each["value"] for name, each in angry["dimensions"].items()} == pytest.approx(stored, abs=1e-3)
    run_script("predict.py", *files, "--model", folder, "--output", tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[1]["arousal"]) == pytest.approx(sad["dimensions"]["arousal"]["value"], abs=1e-3)
    run_script(
        "predict.py", files[0], "--model", folder, "--output", tmp_path / "one.vtt", "--plot", tmp_path / "a.png"
    )
    assert (
        "arousal" in (tmp_path / "one.vtt").read_text(encoding="utf-8") and (tmp_path / "a.png").stat().st_size > 5000
    )
    samples = soundfile.read(files[0], dtype="int16")[0].tobytes()
    stream = run_script("predict.py", "-", "--model", folder, stdin=samples).stdout.splitlines()
    assert all(set(line["dimensions"]) == {"valence", "arousal"} for line in map(json.loads, stream) if line["label"])


def test_the_values_change_over_time_and_the_page_shows_their_plane(trained, demo, tmp_path):
    parts = [soundfile.read(demo / "speaker_02" / f"{name}_1.wav")[0] for name in ("sad", "angry")]
    path = tmp_path / "both.wav"
    soundfile.write(path, np.concatenate([parts[0], np.zeros(16000), parts[1]]), 16000)
    recognize = load_pipeline(str(trained[0]), device="cpu")
    found = recognize(str(path), return_timeline=True)
    assert [set(each) for each in found["trace"]] == [{"time", "valence", "arousal"}] * len(found["trace"])
    times = [time for each in found["trace"] for time in each["time"]]
    assert all(later > earlier for earlier, later in pairwise(times)) and times[-1] < found["duration"]
    assert np.mean(found["trace"][-1]["arousal"]) > np.mean(found["trace"][0]["arousal"]) + 0.3
    first, last = found["timeline"][0], found["timeline"][-1]
    assert first["dimensions"]["arousal"] == pytest.approx(np.mean(found["trace"][0]["arousal"]), abs=0.05)
    assert last["dimensions"]["arousal"] > first["dimensions"]["arousal"]
    alone = recognize(str(path), return_dimensions=True)
    for name, each in alone["dimensions"].items():
        assert each["value"] == pytest.approx(found["dimensions"][name]["value"], abs=1e-5)
    assert "timeline" not in alone and "trace" not in alone
    assert isinstance(recognize(str(path)), list)
    page = answer(recognize, str(path), "both")
    assert "<h3>Dimensions</h3>" in page and "The plane of valence and arousal" in page
    assert "The values are of synthetic audio, not rated." in page
    assert f"<td>arousal</td><td>{found['dimensions']['arousal']['value']:.2f}</td>" in page


def test_labels_and_dimensions_train_together_through_both_stages(demo, tmp_path):
    mapped = {"angry": [-0.5, 0.6], "happy": [0.8, 0.5], "neutral": [0, 0], "sad": [-0.6, -0.3]}
    argv = ["--config", "run_configs/quickstart.yaml", *PART, "--data_dir", demo, "--output_dir", tmp_path]
    argv += ["--targets", "labels_and_dimensions", "--dimensions", '{"valence": [-1, 1], "arousal": [-1, 1]}']
    argv += ["--dimension_map", json.dumps(mapped), "--region_weight", 0.5, "--num_epochs", 2, "--max_steps", 6]
    argv += ["--logging_steps", 1, "--mix_probability", 0.5, "--init_classifier", "stage1"]
    stdout = train(*argv).stdout
    assert "(mapped from labels, not rated)" in stdout
    log = [line for line in lines_of(tmp_path / "stage2" / "training_log.jsonl") if "ccc_loss" in line]
    names = {"ce_loss", "eal_loss", "fual_loss", "ccc_loss", "region_loss"}
    assert log and all(names <= set(line) for line in log)
    results = read_json(tmp_path / "stage2" / "results.json")
    assert results["labels"] == ["angry", "happy", "neutral", "sad"] and results["dimensions"]["source"] == "mapped"
    assert results["epochs"]["best"] == max(results["history"], key=lambda line: line["ccc"])["epoch"]
    for line in lines_of(tmp_path / "stage2" / "predictions.jsonl"):
        assert list(line["true_dimensions"].values()) == mapped[line["label"]]
    card = (tmp_path / "stage2" / "README.md").read_text(encoding="utf-8")
    assert "type: ua" in card and "name: CCC of valence" in card and "mapped from labels, not rated" in card
    said = run_script("predict.py", demo / "speaker_01" / "sad_1.wav", "--model", tmp_path / "stage2").stdout
    assert "mapped from labels, not rated" in said
    again = train(*argv).stdout
    assert "Stage 2 is already finished" in again


def test_the_report_of_an_experiment_has_the_constant_and_pooled_intervals(demo, tmp_path):
    table = {
        "title": "Poolings",
        "config": "run_configs/emosphere/quickstart.yaml",
        "stage": 1,
        "folds": [1, 2],
        "seeds": [0],
        "variants": {
            "mean": {"name": "mean", "options": {"stage1_pooling": "mean", "region_weight": 0.0}},
            "style": {"name": "style", "options": {}},
        },
    }
    (tmp_path / "table.yaml").write_text(json.dumps(table), encoding="utf-8")
    argv = ["--config", tmp_path / "table.yaml", *PART, "--data_dir", demo, "--output_dir", tmp_path, "--max_steps", 3]
    run_script("experiment.py", *argv, "--num_epochs", 1)
    report = (tmp_path / "table" / "report.md").read_text(encoding="utf-8")
    assert "are those of **regions**" in report and "The values are as the audio was made, not rated." in report
    for row in ("constant", "mean, best", "mean, last", "style, best", "style, last"):
        assert f"\n| arousal | {row} |" in report
    assert re.search(r"\| style \| mean \| [+-]0\.\d{3} \| \[-?\d\.\d{3}, -?\d\.\d{3}\] \| 2 \|", report)
    with (tmp_path / "table" / "dimensions.csv").open(encoding="utf-8") as file:
        rows = {(row["dimension"], row["system"]): row for row in csv.DictReader(file)}
    folders = [tmp_path / f"fold{fold}-seed0" / "style" / "stage1" for fold in (1, 2)]
    lines = [line for folder in folders for line in lines_of(folder / "predictions.jsonl") if line["split"] == "test"]
    found, true = read_arrays(lines)
    row = rows["arousal", "style, best"]
    assert float(row["pooled_ccc"]) == pytest.approx(reference.concordance(found, true)[1])
    assert float(row["low"]) <= float(row["pooled_ccc"]) <= float(row["high"])
    of_runs = [read_json(folder / "results.json")["scores"]["best"]["test"]["dimensions"] for folder in folders]
    assert float(row["ccc"]) == pytest.approx(np.mean([each["arousal"]["ccc"] for each in of_runs]))
