"""Training on label distributions: what a batch holds, what selects the epoch, what is fitted, and what is refused."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_model, utterances
from datasets import DatasetDict
from making import make_trainer, rows
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from transformers import EvalPrediction

from core.errors import InputError
from recipe.arguments import parse_arguments
from recipe.batching import Collator
from recipe.calibration import fit_temperature
from recipe.checks import check_targets
from recipe.distribution_scores import fit_mixed_threshold, measure, score_guesses
from recipe.distributions import encode_target
from recipe.splits import check_split
from recipe.trainer import EpochLines, compute_metrics, epoch_history
from recipe.training_arguments import build_training_arguments

VOTES = [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [0.4, 0.2, 0.4]]


def lines_of(probabilities, votes):
    names = [f"c{index}" for index in range(len(votes[0]))]
    return [
        {
            "label": names[int(np.argmax(true))],
            "probabilities": dict(zip(names, map(float, found))),
            "label_distribution": dict(zip(names, map(float, true))),
        }
        for found, true in zip(probabilities, votes)
    ]


def test_a_batch_holds_distributions_which_the_model_takes():
    model = tiny_model(ce_weight=0, kl_weight=1.0, cosine_weight=0.3)
    inputs = utterances(model, [0.5, 0.4, 0.3])
    prepared = [{model.main_input_name: x, "labels": votes} for x, votes in zip(inputs, VOTES)]
    batch = Collator(model.main_input_name)(prepared)
    assert batch["labels"].dtype == torch.float32 and batch["labels"].tolist() == torch.tensor(VOTES).tolist()
    assert model(**batch).loss > 0
    assert encode_target(1, 3).tolist() == [0, 1, 0]
    assert encode_target(VOTES[0], 3).tolist() == VOTES[0]


def test_the_scores_of_an_epoch_are_kl_cosine_and_those_of_the_majority():
    logits = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    logits[0, 0] = logits[1, 1] = logits[2, 2] = 3
    found = compute_metrics(EvalPrediction(logits, np.array(VOTES, dtype=np.float32)))
    p = softmax(logits.astype(np.float64), axis=1)
    assert found["kl"] == pytest.approx(entropy(np.array(VOTES), p, axis=1).mean(), rel=1e-5)
    cosine = [np.dot(y, q) / np.linalg.norm(y) / np.linalg.norm(q) for y, q in zip(VOTES, p)]
    assert found["cosine"] == pytest.approx(np.mean(cosine), rel=1e-5)
    assert found["wa"] == pytest.approx(2 / 3)  # the third ties, so that its label is the first class
    several = compute_metrics(EvalPrediction(logits, np.array(VOTES)), ["a", "a", "b"])
    kl = entropy(np.array(VOTES), p, axis=1)
    assert several["kl"] == pytest.approx((kl[:2].mean() + kl[2]) / 2, rel=1e-5)
    assert set(compute_metrics(EvalPrediction(logits, np.array([0, 1, 2])))) == {"ua", "wa", "macro_f1"}


def test_the_lowest_kl_selects_the_epoch_and_of_equal_ones_the_highest_cosine(tmp_path):
    settings = {"metric_for_best_model": "kl", "greater_is_better": False, "save_strategy": "epoch"}
    trainer = make_trainer(tmp_path, eval_strategy="epoch", **settings)
    epochs = [(0.9, 0.5), (0.7, 0.6), (0.7, 0.6), (0.7, 0.8), (0.7, 0.7), (0.8, 0.9), (0.6, 0.1)]
    chosen = []
    for step, (kl, cosine) in enumerate(epochs, start=1):
        scores = {"eval_ua": 0.5, "eval_wa": 0.5, "eval_kl": kl, "eval_cosine": cosine, "eval_clark": -step}
        trainer.state.global_step = step
        trainer.state.log_history.append({"epoch": float(step), "step": step, **scores})
        trainer._determine_best_metric(scores, trial=None)
        chosen.append(trainer.state.best_global_step)
    assert chosen == [1, 2, 2, 4, 4, 4, 7] and trainer.state.best_metric == 0.6
    assert [line["kl"] for line in epoch_history(trainer.state.log_history)] == [kl for kl, _ in epochs]


def test_only_distributions_change_what_selects_the_epoch(tmp_path):
    for argv, metric, is_greater in (([], "ua", True), (["--targets", "distribution"], "kl", False)):
        arguments = parse_arguments([*argv, "--use_cpu", "--output_dir", str(tmp_path)], "")[1]
        built = build_training_arguments(tmp_path, arguments)
        assert (built.metric_for_best_model, built.greater_is_better) == (metric, is_greater)
    for options, message in (
        (["--class_weights", "balanced"], "--class_weights balanced counts labels"),
        (["--statistics_layers", "1", "--freeze_encoder_layers", "1"], "--statistics_layers fits labels"),
        (["--tracker_size", "8"], "--tracker_size follows labels over time"),
    ):
        check_targets(parse_arguments(options, "")[1])
        with pytest.raises(InputError, match=message):
            check_targets(parse_arguments([*options, "--targets", "distribution"], "")[1])


def test_the_temperature_minimises_kl_to_the_votes():
    rng = np.random.default_rng(0)
    votes = rng.dirichlet([0.5, 1, 2], size=400)
    logits = 3 * np.log(votes + 0.05) + rng.normal(size=votes.shape)
    found = fit_temperature(lines_of(softmax(logits, axis=1), votes))
    grid = np.exp(np.linspace(math.log(0.05), math.log(20), 4001))
    kl = [-(votes * log_softmax(logits / t, axis=1)).sum(axis=1).mean() for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(kl))], rel=3e-3) and found > 1.5


def test_the_threshold_of_mixed_answers_has_the_highest_f1_of_labels():
    votes = [[0.6, 0.4, 0.0, 0.0], [0.5, 0.3, 0.2, 0.0], [1.0, 0.0, 0.0, 0.0]]  # above 1/4: two, two and one label
    found = [[0.55, 0.31, 0.1, 0.04], [0.5, 0.32, 0.14, 0.04], [0.6, 0.25, 0.1, 0.05]]
    assert fit_mixed_threshold(lines_of(found, votes)) == pytest.approx(0.305)
    alone = [[0.97, 0.01, 0.01, 0.01]] * 3
    assert fit_mixed_threshold(lines_of(alone, [[1.0, 0, 0, 0]] * 3)) == pytest.approx(0.995)


def test_guesses_are_scored_by_the_mean_of_the_training_targets_alone():
    votes = {"train": [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], "validation": [[0.2, 0.4, 0.4]], "test": [[0.0, 0.0, 1.0]]}
    parts = {name: rows("1").select(range(len(each))) for name, each in votes.items()}
    split = DatasetDict({name: part.add_column("label_distribution", votes[name]) for name, part in parts.items()})
    found = score_guesses(split)
    assert found["training_mean"] == {"angry": 0.5, "happy": 0.25, "sad": 0.25}
    assert found["constant"]["test"]["kl"] == pytest.approx(math.log(4))
    assert found["uniform"]["test"]["kl"] == pytest.approx(math.log(3))
    assert found["uniform"]["validation"]["chebyshev"] == pytest.approx(1 / 3 - 0.2)
    certain = measure(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]))["kl"]
    assert certain == pytest.approx(0.5 * 126 * math.log(2) - math.log(2))  # 2^-126 is the smallest float32


def test_a_class_that_never_has_most_votes_is_no_missing_class(capsys, monkeypatch):
    monkeypatch.setattr("recipe.splits.refuse_shared_audio", lambda split: None)
    parts = {name: rows(speaker, per_class=1, labels=("a", "b", "c")) for name, speaker in zip(("train", "test"), "12")}
    votes = [[0.6, 0.4, 0.0], [0.9, 0.0, 0.1], [0.5, 0.25, 0.25]]
    for name, part in parts.items():
        part = part.remove_columns("label").add_column("label", [0, 0, 0], feature=part.features["label"])
        parts[name] = part.add_column("label_distribution", votes)
    check_split(DatasetDict(parts))
    assert "no test utterance is labelled 'b', 'c'; UA ignores these classes" in capsys.readouterr().err
    unvoted = parts["train"].remove_columns("label_distribution")
    parts["train"] = unvoted.add_column("label_distribution", [[1, 0, 0]] * 3)
    with pytest.raises(InputError, match="no training utterance is labelled 'b'"):
        check_split(DatasetDict(parts))


def test_the_progress_line_names_kl(capsys):
    line = {"epoch": 1.0, "step": 1, "eval_ua": 0.5, "eval_wa": 0.5, "eval_kl": 0.25, "eval_cosine": 0.75}
    state = SimpleNamespace(is_world_process_zero=True, log_history=[line], best_metric=None)
    EpochLines().on_log(None, state, None, logs=line)
    assert "validation KL 0.250  cosine 0.750  UA 0.500  WA 0.500  best so far" in capsys.readouterr().out
