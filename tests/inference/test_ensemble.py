"""Several models on one recording: their mean, their disagreement, and what they cannot do."""

import json

import numpy as np
import pytest
import torch
from conftest import tiny_model, write_wav
from running import predict
from transformers import AutoTokenizer

from core.ensembles import combine
from core.errors import InputError
from feature_extraction_ser_align import SERAlignWaveformExtractor
from inference.ensemble import Ensemble, describe_disagreement
from inference.outputs import format_csv
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from text_ser_align import read_text_config

LABELS = ["angry", "happy", "sad"]


def make_pipeline(seed, labels=LABELS, trim_db=30.0, folder=None, **fields):
    text = {} if folder is None else {"text_encoder_config": read_text_config(folder)}
    model = tiny_model("wav2vec2-layer", seed, id2label=dict(enumerate(labels)), **text, **fields)
    with torch.no_grad():
        for classifier in (model.classifier, model.fusion and model.fusion.classifier):
            if classifier is not None:
                classifier.weight.mul_(20)
    extractor = SERAlignWaveformExtractor(return_attention_mask=True, trim_db=trim_db)
    tokenizer = None if folder is None else AutoTokenizer.from_pretrained(folder)
    return SpeechEmotionRecognitionPipeline(model, feature_extractor=extractor, tokenizer=tokenizer)


def make_noise(seconds, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(int(16000 * seconds)).astype(np.float32)


def by_label(scores):
    return np.array([{each["label"]: each["score"] for each in scores}[label] for label in LABELS])


@pytest.mark.parametrize("rule", ["certainty", "mean"])
def test_the_answer_is_the_mean_of_the_answers_of_the_members(rule, tiny_bert):
    """Of an utterance; one member has its labels in another order, and one reads the words."""
    members = {
        "one": make_pipeline(0),
        "two": make_pipeline(1, ["sad", "angry", "happy"]),
        "three": make_pipeline(2, folder=tiny_bert),
    }
    recordings = [make_noise(1.0), {"audio": make_noise(1.7, 1), "text": "sad news"}, make_noise(0.8, 2)]
    alone = {
        name: [
            member(each["audio"] if isinstance(each, dict) and member.tokenizer is None else each)
            for each in recordings
        ]
        for name, member in members.items()
    }
    answers = Ensemble(members, rule)(recordings, return_timeline=True, batch_size=3)
    for index, answer in enumerate(answers):
        given = np.stack([by_label(each[index]) for each in alone.values()])
        np.testing.assert_allclose(by_label(answer["scores"]), combine(given, rule), atol=1e-5)
        for name, row in zip(members, given):
            np.testing.assert_allclose([answer["members"][name][label] for label in LABELS], row, atol=1e-5)
        best = [LABELS[number] for number in given.argmax(axis=1)]
        assert ("disagreement" in answer) is (len(set(best)) > 1)
        assert "alone" not in answer and answer["timeline"]
    assert len({tuple(answer["members"]) for answer in answers}) == 1


def test_a_long_recording_is_joined_phrase_by_phrase():
    members = {"one": make_pipeline(0, trim_db=40.0), "two": make_pipeline(1)}
    speech = np.concatenate([part for seed in range(8) for part in (make_noise(1.9, seed), np.zeros(8000, np.float32))])
    ensemble = Ensemble(members, "certainty")
    assert ensemble.trim_db == 40.0
    answer = ensemble(speech, return_timeline=True)
    first = members["one"](speech, return_timeline=True)
    assert [part["start"] for part in answer["timeline"]] == pytest.approx(
        sorted(part["start"] for part in answer["timeline"])
    )
    found = [answer["members"]["one"][label] for label in LABELS]
    np.testing.assert_allclose(found, by_label(first["scores"]), atol=1e-5)
    total = sum(each["score"] for each in answer["scores"])
    assert total == pytest.approx(1, abs=1e-6)


def test_members_that_do_not_fit_are_refused_in_one_line():
    first = make_pipeline(0)
    for other, message in (
        (
            make_pipeline(1, ["angry", "happy", "calm"]),
            "b has the labels angry, calm, happy, and a has",
        ),
        (
            make_pipeline(1, dimension_names=["valence"], dimension_scales=[[1.0, 5.0]]),
            "b has other dimensions than a",
        ),
    ):
        with pytest.raises(InputError, match=message):
            Ensemble({"a": first, "b": other}, "mean")


def test_disagreement_is_one_phrase():
    assert describe_disagreement(["sad", "calm", "sad"]) == "the 3 models disagree: 2 say sad, 1 says calm"
    record = {"file": "a.wav", "scores": {"sad": 0.6}, "label": "sad", "disagreement": "the 2 models disagree: ..."}
    assert "disagreement" in format_csv([record]).splitlines()[0]
    assert "disagreement" not in format_csv([{"file": "b.wav"}])


@pytest.mark.slow
def test_predict_names_every_model_and_shows_where_they_disagree(tmp_path):
    for seed in range(3):
        make_pipeline(seed).save_pretrained(tmp_path / f"model{seed}")
    for seed in range(6):
        write_wav(tmp_path / "calls" / f"{seed}.wav", 1.0, seed=seed)
    models = [word for seed in range(3) for word in ("--model", tmp_path / f"model{seed}")]
    output = tmp_path / "answers.jsonl"
    done = predict(tmp_path / "calls", *models, "--output", output)
    assert all(f"model: {tmp_path / f'model{seed}'}" in done.stderr for seed in range(3))
    records = [json.loads(line) for line in output.read_text().splitlines()]
    for record in records:
        given = np.array([[scores[label] for label in LABELS] for scores in record["members"].values()])
        expected = combine(given, "certainty")
        np.testing.assert_allclose([record["scores"][label] for label in LABELS], expected, atol=1e-5)
        assert ("disagreement" in record) is (len(set(given.argmax(axis=1))) > 1)
    shown = [record["disagreement"] for record in records if "disagreement" in record]
    assert shown and all(phrase in done.stdout for phrase in shown)
    plain = predict(tmp_path / "calls", *models, "--combine", "mean", "--output", tmp_path / "mean.jsonl")
    assert plain.returncode == 0
    first = json.loads((tmp_path / "mean.jsonl").read_text().splitlines()[0])
    mean = np.mean([[scores[label] for label in LABELS] for scores in first["members"].values()], axis=0)
    np.testing.assert_allclose([first["scores"][label] for label in LABELS], mean, atol=1e-5)
    for options, message in (
        ((*models, "--explain"), "--explain is for one model"),
        (("--combine", "mean"), "--combine is for several models"),
        ((*models[:2], *models[:2]), "names a model twice"),
    ):
        refused = predict(tmp_path / "calls", *options, expect=2)
        assert message in refused.stderr
