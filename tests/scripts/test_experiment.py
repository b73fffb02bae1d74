"""experiment.py in separate processes: resuming, sharing cells, damaged files, and a correct report."""

import csv
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import yaml
from conftest import ROOT
from running import SHORT, lines_of, run_anew, run_script, run_together
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score

from core.errors import InputError
from experiments.cells import read_experiment
from experiments.report import write_report

pytestmark = pytest.mark.slow

OPTIONS = [*SHORT[2:], "--max_steps", "3"]
CELLS = 6  # two folds: stage 1 and two variants each


def run(config, output, *argv, expect=0):
    return run_script("experiment.py", "--config", config, "--output_dir", output, *argv, expect=expect)


@pytest.fixture(scope="module")
def experiment(demo, tmp_path_factory):
    """A finished experiment: its YAML file, its output folder, and what two processes at once printed."""
    folder = tmp_path_factory.mktemp("experiment")
    config = folder / "table.yaml"
    content = {
        "title": "Two ways to pool",
        "config": "run_configs/quickstart.yaml",
        "folds": [1, 2],
        "baseline": "plain",
        "tsne": ["proposed"],
        "sizes": True,
        "variants": {
            "plain": {"name": "self-attention", "options": {"pooling": "self_attention", "eal_weight": 0}},
            "proposed": {"name": "proposed", "options": {"pooling": "cls"}, "paper": {"ua": 0.753}},
        },
        "ensembles": {"both": {"name": "both of them", "members": ["plain", "proposed"]}},
        "cited": [{"name": "another", "ua": 0.5, "protocol": "ten folds", "source": "someone 2020"}],
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    with ThreadPoolExecutor(2) as at_once:
        runs = [at_once.submit(run, config, folder / "out", *OPTIONS, "--data_dir", demo) for _ in range(2)]
    return config, folder / "out", [one.result().stdout for one in runs]


def finished(output):
    return sorted(output.glob("fold*/**/results.json"))


def test_two_processes_share_the_cells_and_train_each_once(experiment):
    _, output, printed = experiment
    trained = [line for text in printed for line in text.splitlines() if line.endswith("s. Scores on unseen speakers:")]
    assert len(finished(output)) == CELLS and len(trained) == CELLS
    assert all("took" in text and "Report:" in text for text in printed)


def test_what_is_done_is_not_trained_again_and_what_is_lost_is(experiment, demo, tmp_path):
    config, output, _ = experiment
    copy = shutil.copytree(output, tmp_path / "out")
    run(config, copy, *OPTIONS, "--data_dir", demo)
    times = {path: path.stat().st_mtime for path in finished(copy)}
    lost = copy / "fold2-seed0" / "proposed" / "stage2" / "results.json"
    lost.unlink()
    assert "fold 2, seed 0, proposed" in run(config, copy, "--list").stdout.splitlines()[-1]
    result = run(config, copy, *OPTIONS, "--data_dir", demo, "--cell", 6)
    assert "[5 of 6 done" in result.stdout and "fold 2, seed 0, proposed" in result.stdout
    assert [path for path in finished(copy) if times[path] != path.stat().st_mtime] == [lost]


def test_several_processes_train_one_cell_together(demo, tmp_path):
    content = {"title": "One cell", "config": "run_configs/quickstart.yaml", "folds": [1], "variants": {"plain": {}}}
    one = tmp_path / "one.yaml"
    one.write_text(yaml.safe_dump({**content, "stage": 1}), encoding="utf-8")
    argv = ["--config", one, "--output_dir", tmp_path / "out", *OPTIONS, "--data_dir", demo]
    result = run_together("experiment.py", *argv, port=29614)
    assert len(finished(tmp_path / "out")) == 1 and result.stdout.count("Report: ") == 1


def test_help_and_list_import_nothing_heavy(experiment, tmp_path):
    """They are fast because they do not import torch, transformers or datasets."""
    config, output, _ = experiment
    for argv in (["--help"], ["--config", config, "--output_dir", output, "--list"]):
        script = f"import runpy, sys; sys.path.insert(0, ''); sys.argv = {['experiment.py', *map(str, argv)]!r}\n"
        script += "try:\n    runpy.run_path('experiment.py', run_name='__main__')\nexcept SystemExit:\n    pass\n"
        script += "print('HEAVY', {'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules))"
        (tmp_path / "probe.py").write_text(script)
        assert run_anew(tmp_path / "probe.py").stdout.splitlines()[-1] == "HEAVY set()"


def test_list_says_what_is_done_at_once(experiment):
    config, output, _ = experiment
    start = time.perf_counter()
    lines = run_anew("experiment.py", "--config", config, "--output_dir", output, "--list").stdout.splitlines()
    assert time.perf_counter() - start < 3
    assert len(lines) == CELLS and lines[0].split() == ["1", "done", "fold", "1,", "seed", "0,", "stage", "1"]
    assert "--cell 7 is out of range: choose from 1 to 6" in run(config, output, "--cell", 7, expect=1).stderr


def test_the_report_has_the_size_of_each_system(experiment):
    """Counted from the weights on disk; latency is only known to be some."""
    _, output, _ = experiment
    rows = {row["system"]: row for row in csv.DictReader((output / "table" / "sizes.csv").open(encoding="utf-8"))}
    folders = {"stage 1: attentive pooling": "stage1", "self-attention": "plain/stage2", "proposed": "proposed/stage2"}
    assert set(rows) == set(folders)
    for name, folder in folders.items():
        weights = output / "fold1-seed0" / folder / "model.safetensors"
        counts = {part: 0 for part in ("encoder", "head")}
        for key, tensor in load_file(weights).items():
            counts["encoder" if key.startswith("encoder.") else "head"] += tensor.numel()
        assert {part: int(float(rows[name][part])) for part in counts} == counts
        assert float(rows[name]["megabytes"]) == weights.stat().st_size / 1e6
        assert 0 < float(rows[name]["milliseconds"]) < 1000
        lines = [lines_of(path) for path in output.glob(f"fold*-seed0/{folder}/predictions.jsonl")]
        expected = [weighted_f1([line for line in run if line["split"] == "test"]) for run in lines]
        assert float(rows[name]["weighted_f1"]) == pytest.approx(np.mean(expected))
    assert "## Size and speed" in (output / "table" / "report.md").read_text(encoding="utf-8")


def weighted_f1(lines):
    """By hand: 2 TP / (2 TP + FP + FN) of each class, weighted by how often it is true."""
    total = 0.0
    for label in {line["label"] for line in lines}:
        true, said = [line["label"] == label for line in lines], [line["prediction"] == label for line in lines]
        total += sum(true) * 2 * sum(map(lambda a, b: a and b, true, said)) / (sum(true) + sum(said))
    return total / len(lines)


def test_the_report_adds_up_to_the_predictions(experiment):
    """Every number again with scikit-learn from predictions.jsonl."""
    _, output, _ = experiment
    report = output / "table"
    rows = {row["system"]: row for row in csv.DictReader((report / "scores.csv").open(encoding="utf-8"))}
    scores, pooled = [], []
    for fold in (1, 2):
        lines = lines_of(output / f"fold{fold}-seed0" / "proposed" / "stage2" / "predictions.jsonl")
        test = [(line["label"], line["prediction"]) for line in lines if line["split"] == "test"]
        scores.append(balanced_accuracy_score(*zip(*test)))
        pooled += test
    row = rows["proposed"]
    assert float(row["best_ua"]) == pytest.approx(np.mean(scores))
    assert float(row["best_ua_sd"]) == pytest.approx(np.std(scores, ddof=1))
    assert float(row["best_pooled_ua"]) == pytest.approx(balanced_accuracy_score(*zip(*pooled)))
    assert float(row["best_pooled_ua_low"]) <= float(row["best_pooled_ua"]) <= float(row["best_pooled_ua_high"])
    assert float(rows["chance"]["best_ua"]) == 0.25 and float(row["paper_ua"]) == 0.753
    compared = next(csv.DictReader((report / "comparisons.csv").open(encoding="utf-8")))
    base = float(rows[compared["baseline"]]["best_pooled_ua"])
    assert float(compared["difference_ua"]) == pytest.approx(float(rows[compared["system"]]["best_pooled_ua"]) - base)
    fairness = {row["system"]: row for row in csv.DictReader((report / "fairness.csv").open(encoding="utf-8"))}
    genders = {
        line["id"]: line["gender"]
        for fold in (1, 2)
        for line in lines_of(output / f"fold{fold}-seed0" / "proposed" / "stage2" / "predictions.jsonl")
    }
    assert set(genders.values()) == {"female", "male"}
    gap = float(fairness["proposed"]["female"]) - float(fairness["proposed"]["male"])
    assert float(fairness["proposed"]["gap"]) == pytest.approx(gap)
    aligned = {row["system"]: row for row in csv.DictReader((report / "alignment.csv").open(encoding="utf-8"))}
    assert list(aligned) == ["stage 1: attentive pooling", "self-attention", "proposed"]
    assert [row["cls_cosine"] != "" for row in aligned.values()] == [False, False, True]
    assert all(row["folds"] == "2" and 0 <= float(row["agreement_low"]) <= 1 for row in aligned.values())
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "## Alignment" in text
    assert f"| proposed | 75.3 | - | {100 * np.mean(scores):.1f} ± " in text
    assert "6 of 6 runs are finished." in text and "| another | 50.0 | - | ten folds | someone 2020 |" in text
    for name in ("scores", "confusion-plain", "confusion-proposed", "reliability", "speakers", "tsne"):
        assert (report / f"{name}.png").stat().st_size > 5000 and (report / f"{name}.svg").stat().st_size > 5000
        assert f"({name}.png)" in text


def test_ensembles_are_scored_from_the_predictions_of_their_members(experiment):
    _, output, _ = experiment
    report, pooled = output / "table", {"plain mean": [], "weighted by certainty": []}
    for fold in (1, 2):
        members = [
            {line["id"]: line for line in lines_of(path) if line["split"] == "test"}
            for key in ("plain", "proposed")
            for path in [output / f"fold{fold}-seed0" / key / "stage2" / "predictions.jsonl"]
        ]
        for name, line in members[0].items():
            labels = list(line["probabilities"])
            given = np.array([[member[name]["probabilities"][label] for label in labels] for member in members])
            certainty = 1 + np.sum(given * np.log(given), axis=1) / np.log(len(labels))
            pooled["plain mean"].append((line["label"], labels[int(given.mean(axis=0).argmax())]))
            weighted = np.average(given, axis=0, weights=certainty)
            pooled["weighted by certainty"].append((line["label"], labels[int(weighted.argmax())]))
    rows = {row["system"]: row for row in csv.DictReader((report / "scores.csv").open(encoding="utf-8"))}
    for rule, answers in pooled.items():
        expected = balanced_accuracy_score(*zip(*answers))
        assert float(rows[f"both of them, {rule}"]["best_pooled_ua"]) == pytest.approx(expected)
    (step,) = csv.DictReader((report / "steps.csv").open(encoding="utf-8"))
    assert (step["system"], step["baseline"]) == ("both of them, weighted by certainty", "both of them, plain mean")
    assert 0 < float(step["p"]) <= 1
    text = (report / "report.md").read_text(encoding="utf-8")
    assert "| both of them, plain mean |" in text and "nothing is trained for it" in text


def test_the_report_alone_is_the_same_again(experiment):
    config, output, _ = experiment
    names = ("report.md", "scores.csv", "comparisons.csv")
    before = [(output / "table" / name).read_bytes() for name in names]
    run(config, output, "--report")
    assert [(output / "table" / name).read_bytes() for name in names] == before


def test_every_row_of_a_table_has_the_cells_of_its_header(experiment):
    _, output, _ = experiment
    width = None
    for line in (output / "table" / "report.md").read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            width = None
            continue
        cells = line.replace("\\|", "").count("|")
        width = width or cells
        assert cells == width and line.endswith("|"), line


def reported(config, output, monkeypatch):
    """The text of a report, made in this process."""
    monkeypatch.chdir(ROOT)
    return write_report(read_experiment(str(config), ["--output_dir", str(output)])).read_text(encoding="utf-8")


def test_a_report_of_a_part_says_what_is_missing(experiment, tmp_path, monkeypatch):
    config, output, _ = experiment
    copy = shutil.copytree(output, tmp_path / "out")
    shutil.rmtree(copy / "fold2-seed0" / "proposed")
    text = reported(config, copy, monkeypatch)
    assert "5 of 6 runs are finished; missing: fold 2, seed 0, proposed." in text
    with pytest.raises(InputError, match=r"no cell of .* is finished"):
        reported(config, tmp_path / "none", monkeypatch)


def test_a_report_of_one_fold_has_a_fold_of_one_speaker(experiment, tmp_path, monkeypatch):
    """As of IEMOCAP's first session: no interval, no p-value, and still a report."""
    config, output, _ = experiment
    copy = shutil.copytree(output, tmp_path / "out")
    shutil.rmtree(copy / "fold2-seed0")
    for path in copy.glob("fold1-seed0/**/predictions.jsonl"):
        lines = [{**line, "speaker": "1F", "gender": "female"} for line in lines_of(path)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    text = reported(config, copy, monkeypatch)
    assert "[-, -]" in text and "| 1.000 | 1.000 | 1 | 1 |" in text and "With 1 speaker, p cannot fall below" in text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-40], "predictions.jsonl, line .* is incomplete: remove"),
        (
            lambda text: "".join(text.splitlines(keepends=True)[:-1]),
            "63 test lines for 63 utterances, but 64 were scored",
        ),
        (lambda text: text + text.splitlines(keepends=True)[-1], "has 65 test lines for 64 utterances"),
        (lambda text: None, "predictions.jsonl is missing: remove"),
    ],
)
def test_damaged_predictions_are_named_instead_of_counted(experiment, tmp_path, damage, message, monkeypatch):
    config, output, _ = experiment
    copy = shutil.copytree(output, tmp_path / "out")
    path = copy / "fold1-seed0" / "plain" / "stage2" / "predictions.jsonl"
    damaged = damage(path.read_text(encoding="utf-8"))
    path.unlink()
    if damaged is not None:
        path.write_text(damaged, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        reported(config, copy, monkeypatch)


def test_runs_of_another_recipe_are_refused_not_mixed(experiment, demo, tmp_path, monkeypatch):
    config, output, _ = experiment
    other = run(config, output, *OPTIONS, "--data_dir", demo, "--weight_decay", 0.3, expect=1)
    assert "was trained with weight_decay=0.01, not 0.3: remove it, or choose another" in other.stderr
    copy = shutil.copytree(output, tmp_path / "out")
    path = copy / "fold2-seed0" / "proposed" / "stage2" / "arguments.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, "eal_margin": 0.4}), encoding="utf-8")
    with pytest.raises(InputError, match=r"was trained with eal_margin=0\.8, not 0.4 in"):
        reported(config, copy, monkeypatch)
    path.write_text(json.dumps({**record, "stage1": "0123"}), encoding="utf-8")
    with pytest.raises(InputError, match="was trained with a different stage 1 in"):
        reported(config, copy, monkeypatch)


def test_a_record_that_is_cut_short_is_named(experiment, demo, tmp_path):
    config, output, _ = experiment
    copy = shutil.copytree(output, tmp_path / "out")
    path = copy / "fold1-seed0" / "stage1" / "results.json"
    path.write_text(path.read_text(encoding="utf-8")[:50], encoding="utf-8")
    result = run(config, copy, *OPTIONS, "--data_dir", demo, expect=1)
    assert f"{path} is incomplete or not JSON: remove" in result.stderr and "Traceback" not in result.stderr


def test_a_fold_that_there_is_not_stops_with_the_cell_and_keeps_the_others(experiment, demo, tmp_path):
    config, output, _ = experiment
    copy = shutil.copytree(output, tmp_path / "out")
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump({**content, "folds": [1, 6]}), encoding="utf-8")
    result = run(wrong, copy, *OPTIONS, "--data_dir", demo, expect=1)
    assert "--fold 6 is not one of the 5 folds of demo: give 1 to 5 [cell 4: fold 6, seed 0, stage 1]" in result.stderr
    assert len(finished(copy)) == CELLS


def test_the_temperature_is_stored_and_used(experiment):
    """The probabilities that were saved are those of the saved model, temperature included."""
    _, output, _ = experiment
    folder = output / "fold1-seed0" / "proposed" / "stage2"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["calibration_temperature"] == results["scores"]["best"]["temperature"] != 1.0
    assert config["auto_map"]["AutoModel"] == "modeling_ser_align.SERAlignForAudioClassification"


def test_an_invalid_variant_is_refused_before_any_audio_is_read(experiment, tmp_path):
    """Also one whose options parse and whose model cannot be built: 5 heads do not divide the hidden size."""
    config, _, _ = experiment
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["variants"]["proposed"]["options"]["pooling_num_heads"] = 5
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(content), encoding="utf-8")
    corpus = tmp_path / "no corpus"
    argv = ["--config", wrong, "--output_dir", tmp_path / "out", *OPTIONS, "--data_dir", corpus]
    result = run_script("experiment.py", *argv, expect=1)
    assert "pooling_num_heads" in result.stderr and "[cell 3: fold 1, seed 0, proposed]" in result.stderr
    assert "Traceback" not in result.stderr
    assert not corpus.exists()  # the demo corpus is generated when it is first read
    assert not (tmp_path / "out").exists()


def test_a_search_in_stage_1_shows_validation_speakers_alone(experiment, demo, tmp_path):
    config, _, _ = experiment
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    for name in ("tsne", "cited", "ensembles"):
        content.pop(name)
    variants = {"plain": {}, "slow": {"options": {"learning_rate": 0.0001}, "compare_with": "plain"}}
    search = tmp_path / "search.yaml"
    content |= {"folds": [1], "variants": variants, "stage": 1, "scored_on": "validation"}
    search.write_text(yaml.safe_dump(content), encoding="utf-8")
    run(search, tmp_path / "out", *OPTIONS, "--data_dir", demo)
    assert len(finished(tmp_path / "out")) == 2
    last = tmp_path / "out" / "fold1-seed0" / "slow" / "stage1" / "last" / "predictions.jsonl"
    validation = [(line["label"], line["prediction"]) for line in lines_of(last) if line["split"] == "validation"]
    scores = list(csv.DictReader((tmp_path / "out" / "search" / "scores.csv").open(encoding="utf-8")))
    assert [row["system"] for row in scores] == ["chance", "majority class", "plain", "slow"]
    expected = balanced_accuracy_score(*zip(*validation))
    assert float(scores[-1]["last_ua"]) == pytest.approx(expected)
    compared = next(csv.DictReader((tmp_path / "out" / "search" / "comparisons.csv").open(encoding="utf-8")))
    assert float(compared["difference_ua"]) == pytest.approx(expected - float(scores[-2]["last_ua"]))
    assert list(csv.DictReader((tmp_path / "out" / "search" / "steps.csv").open(encoding="utf-8"))) == [compared]
    text = (tmp_path / "out" / "search" / "report.md").read_text(encoding="utf-8")
    assert "for **validation** speakers" in text and "| fold | validation speakers |" in text
    assert "## Step by step" in text and "| slow | plain | " in text
