"""The table of gaps: pooled over runs, and compared with the baseline on common speakers."""

import numpy as np
import pytest

from experiments.cells import Cell, read_experiment
from experiments.gaps import build_gap_table
from experiments.systems import Run, System
from experiments.variants import Variant
from recipe.statistics import compute_gaps, holm

LABELS = ["angry", "sad"]


def make_lines(seed, skill, fold):
    """Two women and two men; `skill` is the share of right answers of each gender."""
    rng, lines = np.random.default_rng(seed), []
    for number in range(160):
        gender, label = ("female", "male")[number % 2], LABELS[number // 2 % 2]
        wrong = LABELS[1 - LABELS.index(label)]
        answer = label if rng.random() < skill[gender] else wrong
        speaker = f"{fold}-{number % 4}"
        lines.append(
            {"id": f"{fold}-{number}", "speaker": speaker, "gender": gender, "label": label, "prediction": answer}
        )
    return lines


def make_system(key, skill, folds=(1, 2)):
    variant = Variant(key, key, {}, (0,), {})
    runs = []
    for fold in folds:
        lines = make_lines(fold, skill, fold)
        runs.append(Run(Cell(fold, 0, variant), {}, {"best": lines, "last": lines}, "test", LABELS))
    return System(key, key, {}, runs)


def count(lines):
    """(genders, classes, classes), counted one by one."""
    matrices = np.zeros((2, 2, 2))
    for line in lines:
        gender, true, predicted = (
            line["gender"] == "male",
            LABELS.index(line["label"]),
            LABELS.index(line["prediction"]),
        )
        matrices[int(gender), true, predicted] += 1
    return matrices


FAIR, UNFAIR = {"female": 0.8, "male": 0.8}, {"female": 0.95, "male": 0.5}


def test_gaps_are_pooled_and_compared_with_the_baseline():
    systems = [make_system("plain", UNFAIR), make_system("other", FAIR), make_system("partial", FAIR, folds=(2,))]
    rows = build_gap_table(systems, "plain", "best")
    assert [row["system"] for row in rows] == ["plain", "other", "partial"]
    assert {(row["column"], row["groups"]) for row in rows} == {("gender", "female male")}
    expected = [compute_gaps(count(system.collect_lines("best"))) for system in systems]
    for row, gaps in zip(rows, expected):
        assert row["tpr_gap"] == pytest.approx(gaps["tpr_gap"]) and row["dp_gap"] == pytest.approx(gaps["dp_gap"])
        assert row["tpr_gap_low"] <= row["tpr_gap"] <= row["tpr_gap_high"]
    assert "tpr_gap_difference" not in rows[0]
    assert rows[1]["tpr_gap_difference"] == pytest.approx(expected[1]["tpr_gap"] - expected[0]["tpr_gap"])
    common = compute_gaps(count(systems[0].runs[1].lines["best"]))["tpr_gap"]
    assert rows[2]["tpr_gap_difference"] == pytest.approx(expected[2]["tpr_gap"] - common)
    assert rows[1]["tpr_gap_difference_high"] < 0
    adjusted = holm([row[f"{gap}_p"] for row in rows[1:] for gap in ("tpr_gap", "dp_gap")])
    assert [row[f"{gap}_p_holm"] for row in rows[1:] for gap in ("tpr_gap", "dp_gap")] == adjusted


def test_without_groups_there_is_no_table():
    system = make_system("plain", FAIR)
    for line in system.collect_lines("best"):
        line["gender"] = ""
    assert build_gap_table([system], "plain", "best") == []


def test_variants_may_convert_if_they_share_no_stage_1(tmp_path):
    text = "title: T\nconfig: run_configs/quickstart.yaml\nfolds: [1]\n{}"
    text += "variants:\n  a: {{options: {{convert: random}}}}\n"
    path = tmp_path / "e.yaml"
    path.write_text(text.format("stage: 1\n"))
    experiment = read_experiment(str(path), [])
    assert experiment.parse_cell(experiment.list_cells()[0])[1].data.convert == "random"
    path.write_text(text.format(""))
    with pytest.raises(ValueError, match=r"'convert' must be the same for all variants"):
        read_experiment(str(path), [])
