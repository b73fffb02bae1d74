"""The model in models/ser-align-mini: small, fast, complete, and the one that its card and predictions describe."""

import json
import time
from statistics import median

import numpy as np
import pytest
import torch
from conftest import ROOT
from running import fresh, lines_of
from sklearn.metrics import balanced_accuracy_score

from core.loading import load_feature_extractor
from core.shipped import MINI_MODEL
from modeling_ser_align import SERAlignForAudioClassification
from models.ship import CODE, PREDICTIONS, generate_buzzes
from recipe.corpora import load_corpus
from recipe.preparing import UtterancePreparer
from recipe.scoring import predict

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
import numpy as np
from transformers import AutoModelForAudioClassification, pipeline
model = AutoModelForAudioClassification.from_pretrained(sys.argv[1], trust_remote_code=True)
classify = pipeline("audio-classification", sys.argv[1], trust_remote_code=True)
audio = np.load(sys.argv[2])
print("RESULT" + json.dumps({name: classify(audio[name], top_k=None) for name in audio}))
"""


def test_it_is_small_and_the_two_stage_model_with_both_losses():
    model = SERAlignForAudioClassification.from_pretrained(MINI_MODEL)
    assert model.num_parameters() <= 2_500_000
    assert sum(path.stat().st_size for path in MINI_MODEL.rglob("*")) <= 6_000_000
    config = model.config
    assert (config.pooling, config.eal_weight, config.fual_weight, config.eal_margin) == ("cls", 0.05, 0.05, 0.8)
    assert json.loads((MINI_MODEL / "results.json").read_text(encoding="utf-8"))["stage"] == 2


def test_a_fresh_process_gives_the_stored_predictions(tmp_path):
    np.savez(tmp_path / "audio.npz", **generate_buzzes())
    found, _ = fresh(SCRIPT, MINI_MODEL, tmp_path / "audio.npz", home=tmp_path / "hf", cwd=tmp_path)
    stored = json.loads(PREDICTIONS.read_text(encoding="utf-8"))
    assert found.keys() == stored.keys()
    for name, answers in found.items():
        for answer in answers:
            assert answer["score"] == pytest.approx(stored[name][answer["label"]], abs=1e-3), name


def test_four_seconds_take_less_than_a_tenth_of_a_second_on_one_core():
    model = SERAlignForAudioClassification.from_pretrained(MINI_MODEL).eval()
    extractor = load_feature_extractor(str(MINI_MODEL))
    waveform = np.random.default_rng(0).normal(size=64000).astype(np.float32)
    threads, seconds = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(12):
            start = time.perf_counter()
            with torch.no_grad():
                model(**extractor(waveform, sampling_rate=16000, return_tensors="pt"))
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    assert median(seconds) < 0.1


def test_its_code_is_the_projects():
    for name in CODE:
        assert (MINI_MODEL / name).read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8"), name


def test_its_card_has_licence_attribution_and_the_score_of_the_recipe():
    card = (MINI_MODEL / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-nc-sa-4.0" in card and "Livingstone and Frank A. Russo" in card
    assert "six speaker-disjoint folds" in card and "Do not use it to judge people" in card
    results = json.loads((MINI_MODEL / "results.json").read_text(encoding="utf-8"))
    assert [len(results["speakers"][part]) for part in ("train", "validation", "test")] == [20, 2, 2]
    assert f"| {results['scores']['best']['test']['ua']:.3f} |" in card


def test_its_predictions_on_unseen_actors_are_those_that_its_score_counts(corpora):
    results = json.loads((MINI_MODEL / "results.json").read_text(encoding="utf-8"))
    stored = {line["id"]: line for line in lines_of(MINI_MODEL / "predictions.jsonl") if line["split"] == "test"}
    rows = load_corpus("ravdess", str(corpora / "ravdess")).filter(lambda name: name in stored, input_columns="id")
    model = SERAlignForAudioClassification.from_pretrained(MINI_MODEL).eval()
    extractor = load_feature_extractor(str(MINI_MODEL))
    preparer = UtterancePreparer(extractor, model.config.shortest_samples)
    found = predict(model, rows, preparer, 16)
    assert len(found) == len(stored) == 120
    for line in found:
        for label, probability in line["probabilities"].items():
            assert probability == pytest.approx(stored[line["id"]]["probabilities"][label], abs=1e-3)
    ua = balanced_accuracy_score(*zip(*((line["label"], line["prediction"]) for line in found)))
    assert ua == pytest.approx(results["scores"]["best"]["test"]["ua"], abs=0.01)
