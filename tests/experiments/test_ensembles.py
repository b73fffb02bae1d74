"""Ensembles of finished variants: their predictions by hand, and the paired test of weighted against plain."""

from types import SimpleNamespace

import numpy as np
import pytest

from core.errors import InputError
from experiments.cells import Cell
from experiments.ensembles import build_ensembles, list_pairs
from experiments.systems import Run, System
from experiments.tables import build_comparison_table, build_score_table
from experiments.variants import Variant

LABELS = ["angry", "happy", "sad"]
RESULTS = {"history": [{"test_ua": 0.9}], "class_counts": {"test": dict.fromkeys(LABELS, 20), "train": {"angry": 1}}}
EXPERIMENT = SimpleNamespace(ensembles={"all": {"name": "all three", "members": ["a", "b", "c"]}})


def make_lines(seed, fold, dimensions=False):
    rng = np.random.default_rng([seed, fold])
    lines = []
    for number in range(60):
        label = LABELS[number % 3]
        values = rng.dirichlet(np.where(np.array(LABELS) == label, 2.0, 1.0))
        line = {
            "id": f"{fold}-{number}",
            "speaker": f"{fold}-{number % 4}",
            "gender": ("female", "male")[number % 2],
            "label": label,
            "prediction": LABELS[int(values.argmax())],
            "probabilities": dict(zip(LABELS, values.tolist())),
        }
        lines.append(line | ({"dimensions": {"valence": float(rng.random())}} if dimensions else {}))
    return lines


def make_system(key, seed, folds, **options):
    variant = Variant(key, key, {}, (0,), {})
    runs = []
    for fold in folds:
        lines = {"best": make_lines(seed, fold, **options), "last": make_lines(seed + 10, fold, **options)}
        runs.append(Run(Cell(fold, 0, variant), RESULTS, lines, "test", LABELS))
    return System(key, key, {}, runs)


def test_an_ensemble_is_the_mean_of_its_members_on_the_folds_that_all_have_finished():
    systems = [make_system("a", 0, (1, 2)), make_system("b", 1, (1, 2, 3)), make_system("c", 2, (2, 1))]
    systems[1].runs[0].lines["best"].reverse()  # the order of the lines does not matter
    plain, weighted = build_ensembles(EXPERIMENT, systems)
    assert (plain.name, weighted.name) == ("all three, plain mean", "all three, weighted by certainty")
    for system in (plain, weighted):
        assert [run.cell.fold for run in system.runs] == [1, 2]
        for run in system.runs:
            for weights in ("best", "last"):
                given = [
                    {line["id"]: list(line["probabilities"].values()) for line in each.lines[weights]}
                    for member in systems
                    for each in member.runs
                    if each.cell.fold == run.cell.fold
                ]
                for line in run.lines[weights]:
                    rows = np.array([each[line["id"]] for each in given])
                    shares = np.ones(3)
                    if system is weighted:
                        shares = 1 + (rows * np.log(rows)).sum(axis=1) / np.log(3)
                    expected = (shares[:, None] * rows).sum(axis=0) / shares.sum()
                    np.testing.assert_allclose(list(line["probabilities"].values()), expected, atol=1e-9)
                    assert line["prediction"] == LABELS[int(expected.argmax())]
    # Nothing of an epoch is claimed, and the weighted one is tested against the plain one.
    assert [row["picked_on_test_ua"] for row in build_score_table([plain, weighted])[2:]] == [None, None]
    (row,) = build_comparison_table([*systems, plain, weighted], list_pairs(EXPERIMENT), "best")
    assert (row["system"], row["baseline"], row["speakers"]) == (weighted.name, plain.name, 8)
    assert 0 < row["p"] <= 1


def test_dimensions_are_plain_means():
    systems = [make_system(key, seed, (1,), dimensions=True) for seed, key in enumerate("abc")]
    for ensemble in build_ensembles(EXPERIMENT, systems):
        for index, line in enumerate(ensemble.runs[0].lines["best"]):
            values = [system.runs[0].lines["best"][index]["dimensions"]["valence"] for system in systems]
            assert line["dimensions"]["valence"] == pytest.approx(np.mean(values))


def test_without_a_member_there_is_no_ensemble_and_other_utterances_are_refused():
    systems = [make_system(key, seed, (1,)) for seed, key in enumerate("abc")]
    assert build_ensembles(EXPERIMENT, systems[:2]) == []
    assert build_ensembles(EXPERIMENT, [*systems[:2], make_system("c", 2, (2,))]) == []
    systems[2].runs[0].lines["best"].pop()
    with pytest.raises(InputError, match="members of the ensemble all have other utterances or labels"):
        build_ensembles(EXPERIMENT, systems)
