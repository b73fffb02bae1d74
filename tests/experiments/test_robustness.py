"""Robustness tests of finished models: conditions, scores against scikit-learn, and what is refused."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile
import yaml
from conftest import ROOT
from running import lines_of, run_script
from sklearn.metrics import balanced_accuracy_score

from core.errors import InputError
from core.json_files import read_json, write_json
from experiments.conditions import Condition, read_robustness_test
from experiments.robustness import find_corpora, name_models, parse_options
from experiments.robustness_report import build_corpus_table, build_rows, build_table, write_report
from recipe.augmentation import Augmentation, degrade
from recipe.degradations import measure_speech_level

SPEECH, _ = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")
SHIPPED = read_robustness_test("run_configs/robustness.yaml")


def hiss(length, rng):
    return rng.standard_normal(length).astype(np.float32)


def write_test(path, conditions, **keys):
    path.write_text(yaml.safe_dump({"title": "Small", "seed": 3, "conditions": conditions, **keys}, sort_keys=False))
    return path


# --------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize("condition", SHIPPED.conditions, ids=lambda condition: condition.name)
def test_each_condition_is_the_same_again_and_changes_the_recording(condition):
    first, again = (condition.apply(SPEECH, SHIPPED.seed, hiss) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, SPEECH) == (condition.name == "as recorded")


@pytest.mark.parametrize("kind", ["white", "pink", "babble"])
def test_noise_has_the_level_of_its_condition_and_is_the_same_at_every_level(kind):
    softer, louder = (Condition("", {kind: snr}).apply(SPEECH, 7, hiss) - SPEECH for snr in (20, 0))
    for noise, snr in ((softer, 20), (louder, 0)):
        ratio = measure_speech_level(SPEECH) ** 2 / np.mean(noise.astype(np.float64) ** 2)
        assert 10 * np.log10(ratio) == pytest.approx(snr, abs=0.05)
    assert np.corrcoef(softer, louder)[0, 1] > 0.9999
    assert abs(np.corrcoef(louder, Condition("", {kind: 0}).apply(SPEECH, 8, hiss) - SPEECH)[0, 1]) < 0.05


def test_training_draws_other_noise():
    tested = Condition("", {"white": 0}).apply(SPEECH, 0, hiss) - SPEECH
    augmentation = Augmentation(degrade_probability=1, degradations=("noise",))
    for seed in range(10):
        trained = degrade(SPEECH, augmentation, seed, hiss) - SPEECH
        assert abs(np.corrcoef(tested, trained)[0, 1]) < 0.05


def test_degradations_of_a_condition_are_applied_in_turn():
    both = Condition("", {"first": 1, "silence": 2}).apply(SPEECH, 0, hiss)
    assert len(both) == 5 * 16000


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"loud": {"whit": 20}}, r"loud: 'whit' is not one of first, silence, room"),
        ({"loud": {"white": "20"}}, r"loud: white='20' is not a number from -20 to 60"),
        ({"loud": {"band_limit": 9000}}, r"band_limit=9000 is not a number from 500 to 8000"),
        ({"call": {"telephone": "mulaw"}}, r"telephone='mulaw' is not one of ULAW, ALAW"),
        ({"call": 3}, r"call: give degradations with their parameter, such as \{white: 20\}, not 3"),
        ({}, "has no conditions, so it does not test saved models: leave out --model"),
    ],
)
def test_a_condition_that_is_none_says_what_is_valid(conditions, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_robustness_test(str(write_test(tmp_path / "test.yaml", conditions)))


def test_an_unknown_key_and_a_seed_that_is_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown key 'folds'; valid keys: title, seed"):
        read_robustness_test(str(write_test(tmp_path / "test.yaml", {"a": {}}, folds=[1])))
    with pytest.raises(InputError, match=r"seed=-1 must be a whole number of at least 0"):
        read_robustness_test(str(write_test(tmp_path / "test.yaml", {"a": {}}, seed=-1)))


# ------------------------------------------------------------------------------------------------- scores


def make_lines(model, seed, corpora=("",)):
    rng = np.random.default_rng(seed)
    lines = []
    for condition in ("clean", "noisy"):
        for number in range(60):
            scores = rng.dirichlet(np.ones(3))
            corpus = corpora[number % len(corpora)]
            lines.append(
                {"model": model, "condition": condition, "id": str(number), "speaker": f"s{number % 5}"}
                | ({"corpus": corpus} if corpus else {})
                | {"label": "abc"[number % 3], "prediction": "abc"[scores.argmax()]}
                | {"probabilities": dict(zip("abc", scores.tolist()))}
            )
    return lines


def test_scores_are_those_of_scikit_learn():
    lines = make_lines("one", 0)
    clean, noisy = build_rows(lines, ["clean", "noisy"])
    expected = [
        balanced_accuracy_score(*zip(*[(line["label"], line["prediction"]) for line in lines[start : start + 60]]))
        for start in (0, 60)
    ]
    assert [clean["ua"], noisy["ua"]] == pytest.approx(expected)
    assert clean["ratio"] == 1 and noisy["ratio"] == pytest.approx(expected[1] / expected[0])
    assert noisy["ua_low"] < noisy["ua"] < noisy["ua_high"] and noisy["unanswered"] == 0


def test_a_recording_without_an_answer_counts_as_wrong():
    lines = make_lines("one", 0)
    silent = [{**line, "prediction": None, "probabilities": {}} if line["id"] == "0" else line for line in lines]
    wrong = [{**line, "prediction": "b"} if line["id"] == "0" else line for line in lines]  # its label is a
    for found, expected in zip(build_rows(silent, ["clean", "noisy"]), build_rows(wrong, ["clean", "noisy"])):
        assert found["ua"] == pytest.approx(expected["ua"]) and found["unanswered"] == 1
        assert found["ece"] != expected["ece"]
    models = [{"name": "one", "speakers": 5, "utterances": 60, "labels": 3, "corpus": "demo"}]
    table = build_table({"models": models, "rows": build_rows(silent, ["clean", "noisy"])})
    assert "- one, clean: no speech was found in 1 recordings; they count as wrong." in table


def test_several_models_and_corpora_stand_side_by_side(tmp_path):
    lines = [*make_lines("one", 0), *make_lines("two", 1, corpora=("emodb", "nemo"))]
    rows = build_rows(lines, ["clean", "noisy"])
    assert [(row["model"], row["corpus"]) for row in rows[::2]] == [
        *(("one", "all"), ("two", "all"), ("two", "emodb"), ("two", "nemo")),
    ]
    models = [{"name": name, "corpus": "demo", "speakers": 5, "utterances": 60, "labels": 3} for name in ("one", "two")]
    content = {"title": "Both", "command": "python x", "models": models, "rows": rows}
    report = write_report(tmp_path, content).read_text(encoding="utf-8")
    assert "| | one: UA | ratio | ECE | two: UA | ratio | ECE |" in report
    assert build_corpus_table(content)[2] == "| | two: emodb | two: nemo |"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("report.md", "scores.csv", "robustness.png", "robustness.svg"),
    }


# ------------------------------------------------------------------------------------------------- models


def test_corpora_are_found_by_name_or_as_the_directory_itself(tmp_path):
    results = read_json(ROOT / "models" / "ser-align-mini" / "results.json")
    (tmp_path / "all" / "ravdess").mkdir(parents=True)

    def find(*argv):
        data = find_corpora(results, parse_options(list(map(str, argv))))
        assert (data.corpus, data.num_folds, data.protocol) == ("ravdess", 12, "speaker_folds")
        return data.data_dir

    assert find("--data_dir", tmp_path / "all") == str(tmp_path / "all" / "ravdess")
    assert find("--data_dir", tmp_path) == str(tmp_path)
    assert find("--data_dirs", json.dumps({"ravdess": "here"}), "--data_dir", tmp_path) == "here"
    joint = {"arguments": {"corpora": [{"corpus": "ravdess"}, {"corpus": "emodb"}]}}
    data = find_corpora(joint, parse_options(["--data_dir", "all", "--data_dirs", '{"emodb": "there"}']))
    assert data.data_dir == "all" and data.data_dirs == {"emodb": "there"}
    with pytest.raises(InputError, match="--fold is not an option of a robustness test; valid are --data_dir"):
        parse_options(["--fold", "3"])


def test_models_have_short_names_unless_they_are_alike(tmp_path):
    folders = []
    for name in ("a/best", "b/best", "mini", "run/stage2"):
        folders.append(tmp_path / name)
        folders[-1].mkdir(parents=True)
        (folders[-1] / "results.json").write_text("{}")
    paths = list(map(str, folders))
    assert name_models(paths) == dict(zip(paths, [paths[0], paths[1], "mini", paths[3]]))
    with pytest.raises(InputError, match=r"has no results\.json, which names its test speakers"):
        name_models([str(tmp_path)])


@pytest.mark.slow
def test_two_models_are_tested_on_their_own_test_speakers(short_run, demo, tmp_path):
    output, _ = short_run
    config = write_test(tmp_path / "test.yaml", {"clean": {}, "babble": {"babble": 0}, "call": {"telephone": "ULAW"}})
    models = [output / "stage1", output / "stage2"]
    argv = ["--config", config, "--model", *models, "--data_dir", demo, "--output_dir", tmp_path / "out", "--use_cpu"]
    run = run_script("experiment.py", *argv)
    assert run.stdout.splitlines()[-1] == f"Report: {tmp_path / 'out' / 'report.md'}"
    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").open(encoding="utf-8")))
    assert len(rows) == 6
    for number, model in enumerate(models):
        saved = [line for line in lines_of(model / "predictions.jsonl") if line["split"] == "test"]
        expected = balanced_accuracy_score(*zip(*[(line["label"], line["prediction"]) for line in saved]))
        assert float(rows[3 * number]["ua"]) == pytest.approx(expected, abs=1e-6)  # as recorded, as train.py scored it
    run_script("experiment.py", *argv[:-2], tmp_path / "again", "--use_cpu")
    assert (tmp_path / "again" / "predictions.jsonl").read_text() == (
        tmp_path / "out" / "predictions.jsonl"
    ).read_text()


@pytest.mark.slow
def test_a_model_whose_test_speakers_are_not_there_is_refused(short_run, demo, tmp_path):
    model = shutil.copytree(short_run[0] / "stage1", tmp_path / "model")
    results = read_json(model / "results.json")
    results["speakers"]["test"] = ["somebody"]
    write_json(model / "results.json", results)
    config = write_test(tmp_path / "test.yaml", {"clean": {}})
    argv = ["--config", config, "--model", model, "--data_dir", demo, "--output_dir", tmp_path / "out"]
    refused = run_script("experiment.py", *argv, expect=1)
    assert "was tested on 1 speakers, but the same split has 2 here, 0 of them the same" in refused.stderr
    untested = run_script("experiment.py", "--config", config, expect=1)
    assert "tests finished models: add --model FOLDER" in untested.stderr
    assert not (tmp_path / "out").exists()
