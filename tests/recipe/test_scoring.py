"""UA and WA: the local evaluate module, and scores computed from predictions.jsonl alone."""

import json

import evaluate
import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_model, write_wav
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score
from transformers import EvalPrediction, Wav2Vec2FeatureExtractor

from core.errors import InputError
from core.json_files import write_lines
from recipe.corpora.rows import make_rows
from recipe.preparing import UtterancePreparer
from recipe.scoring import never_predicted, predict, score_file
from recipe.trainer import compute_metrics


@pytest.fixture
def metric():
    return evaluate.load(str(ROOT / "metrics" / "ser_scores"))


def test_scores_of_several_corpora_stand_beside_those_of_all_and_their_mean_selects_the_epoch(tmp_path):
    """The larger corpus has no class 2; scikit-learn's recall over the classes that each has is the reference."""
    rng = np.random.default_rng(0)
    corpora = np.array(["large"] * 60 + ["small"] * 20)
    references = np.concatenate([rng.integers(0, 2, 60), rng.integers(0, 3, 20)])
    logits = rng.standard_normal((80, 3))
    predictions = logits.argmax(axis=1)
    expected = {}
    for name in ("large", "small"):
        part = corpora == name
        there = np.unique(references[part])
        expected[name] = recall_score(references[part], predictions[part], labels=there, average="macro")
    epoch = compute_metrics(EvalPrediction(logits, references), corpora.tolist())
    assert epoch["ua"] == pytest.approx(np.mean(list(expected.values())))
    assert (epoch["ua/large"], epoch["ua/small"]) == pytest.approx(tuple(expected.values()))
    assert "ua/large" not in compute_metrics(EvalPrediction(logits, references))

    lines = [
        {"split": "test", "corpus": str(corpus), "label": "abc"[label], "prediction": "abc"[prediction]}
        | {"probabilities": {"a": 0, "b": 0, "c": 1}}
        for corpus, label, prediction in zip(corpora, references, predictions)
    ]
    write_lines(tmp_path / "predictions.jsonl", lines)
    scores = score_file(tmp_path / "predictions.jsonl")["test"]
    assert {name: score["ua"] for name, score in scores["corpora"].items()} == pytest.approx(expected)
    assert scores["ua"] == pytest.approx(recall_score(references, predictions, average="macro"))
    assert scores["mean_ua"] == pytest.approx(epoch["ua"])
    assert scores["corpora"]["small"]["confusion_matrix"] == (
        confusion_matrix(references[60:], predictions[60:], labels=[0, 1, 2]).tolist()
    )


@pytest.mark.parametrize("seed", range(5))
def test_ua_and_wa_equal_scikit_learn(metric, seed):
    rng = np.random.default_rng(seed)
    references, predictions = rng.choice(5, 200, p=[0.5, 0.2, 0.15, 0.1, 0.05]), rng.integers(0, 5, 200)
    scores = metric.compute(predictions=predictions, references=references)
    assert scores["ua"] == pytest.approx(recall_score(references, predictions, average="macro"))
    assert scores["wa"] == pytest.approx(accuracy_score(references, predictions))
    assert scores["macro_f1"] == pytest.approx(f1_score(references, predictions, average="macro"))
    assert scores["confusion_matrix"] == confusion_matrix(references, predictions).tolist()


def test_ua_and_wa_by_hand(metric):
    """Class 0: 3 of 4 right; class 1: 0 of 1. UA = (3/4 + 0) / 2, WA = 3/5."""
    scores = metric.compute(predictions=[0, 0, 0, 1, 0], references=[0, 0, 0, 0, 1])
    assert scores["ua"] == 0.375 and scores["wa"] == 0.6 and scores["confusion_matrix"] == [[3, 1], [1, 0]]


def test_a_class_without_reference_has_no_recall_but_a_place_in_the_matrix(metric):
    scores = metric.compute(predictions=[0, 2, 1], references=[0, 0, 1], num_classes=4)
    assert scores["ua"] == 0.75 and np.array(scores["confusion_matrix"]).shape == (4, 4)


def test_scores_come_from_the_predictions_file(tmp_path):
    def line(split, label, prediction):
        return {"split": split, "id": "x", "label": label, "prediction": prediction, "probabilities": {"b": 0, "a": 1}}

    lines = [line("validation", "a", "a"), line("test", "a", "b"), line("test", "a", "a"), line("test", "b", "b")]
    path = tmp_path / "predictions.jsonl"
    write_lines(path, lines)
    assert [json.loads(text) for text in path.read_text().splitlines()] == lines
    scores = score_file(path)
    assert scores["validation"]["ua"] == 1.0 and scores["validation"]["num_utterances"] == 1
    assert scores["test"]["ua"] == 0.75 and scores["test"]["wa"] == pytest.approx(2 / 3)
    assert scores["test"]["labels"] == ["b", "a"] and scores["test"]["confusion_matrix"] == [[1, 0], [1, 1]]


def test_a_class_that_is_never_predicted_is_known(metric):
    """c is taken for a; d has no utterance, so that nobody can expect it."""
    scores = metric.compute(predictions=[0, 1, 0], references=[0, 1, 2], num_classes=4)
    assert never_predicted({**scores, "labels": list("abcd")}) == ["c"]


def test_a_model_is_not_scored_on_labels_in_another_order_or_with_answers_that_are_not_numbers(tmp_path):
    model = tiny_model()
    preparer = UtterancePreparer(Wav2Vec2FeatureExtractor(), model.config.shortest_samples)
    row = {"id": "a", "audio": write_wav(tmp_path / "a.wav"), "label": "sad", "speaker": "anna"}
    right, other = (make_rows([row], labels) for labels in (["angry", "happy", "sad"], ["happy", "angry", "sad"]))
    assert predict(model, right, preparer, 1)[0]["label"] == "sad"
    with pytest.raises(
        InputError, match="labels are angry, happy, sad, in this order, but those of the utterances are happy, angry"
    ):
        predict(model, other, preparer, 1)
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    with pytest.raises(InputError, match="the model's output for a is not finite"):
        predict(model, right, preparer, 1)
