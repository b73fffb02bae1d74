"""The models in models/: small, fast, complete, and those that their cards and predictions describe."""

import json
import time
from statistics import median

import numpy as np
import pytest
import torch
from conftest import ROOT
from running import fresh, lines_of
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score

from core.audio import read_audio
from core.loading import load_feature_extractor
from core.shipped import DEFAULT_MODEL, SHIPPED_MODELS
from modeling_ser_align import SERAlignForAudioClassification
from models.ship import CODE, PREDICTIONS, generate_buzzes
from recipe.corpora import load_corpus

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
# Most parameters, bytes on disk, and seconds for four seconds of speech on one core.
LIMITS = {"base": (22_000_000, 45_000_000, 0.6), "mini": (2_500_000, 6_000_000, 0.1)}
CITED = {
    "base": ("Livingstone and Frank A. Russo", "Burkhardt", "Christop", "openai/whisper-base"),
    "mini": ("Livingstone and Frank A. Russo",),
}

each_model = pytest.mark.parametrize("name", SHIPPED_MODELS)


def read_results(name):
    return json.loads((SHIPPED_MODELS[name] / "results.json").read_text(encoding="utf-8"))


def load(name):
    return SERAlignForAudioClassification.from_pretrained(SHIPPED_MODELS[name]).eval()


def test_the_default_model_is_one_of_them():
    assert DEFAULT_MODEL in SHIPPED_MODELS


@each_model
def test_it_is_small_and_the_two_stage_model_with_both_losses(name):
    folder, (parameters, size, _) = SHIPPED_MODELS[name], LIMITS[name]
    model = load(name)
    assert model.num_parameters() <= parameters
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= size
    config = model.config
    assert (config.pooling, config.eal_weight, config.fual_weight, config.eal_margin) == ("cls", 0.05, 0.05, 0.8)
    assert read_results(name)["stage"] == 2
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    stored = load_file(folder / "model.safetensors")  # as it is on disk
    kinds = {tensor.dtype for tensor in stored.values() if tensor.dim() == 2}
    assert kinds == {torch.float16 if name == "base" else torch.float32}


@each_model
def test_a_fresh_process_gives_the_stored_predictions(name, tmp_path):
    np.savez(tmp_path / "audio.npz", **generate_buzzes())
    found, _ = fresh(SCRIPT, SHIPPED_MODELS[name], tmp_path / "audio.npz", home=tmp_path / "hf", cwd=tmp_path)
    stored = json.loads(PREDICTIONS.read_text(encoding="utf-8"))[SHIPPED_MODELS[name].name]
    assert found.keys() == stored.keys()
    for buzz, answers in found.items():
        for answer in answers:
            assert answer["score"] == pytest.approx(stored[buzz][answer["label"]], abs=1e-3), buzz


@each_model
def test_four_seconds_are_scored_fast_on_one_core(name):
    model, extractor = load(name), load_feature_extractor(str(SHIPPED_MODELS[name]))
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
    assert median(seconds) < LIMITS[name][2]


@each_model
def test_its_code_is_the_projects(name):
    for file in CODE:
        ours = (ROOT / file).read_text(encoding="utf-8")
        assert (SHIPPED_MODELS[name] / file).read_text(encoding="utf-8") == ours, file


@each_model
def test_its_card_has_licence_attribution_and_the_score_of_the_recipe(name):
    card = (SHIPPED_MODELS[name] / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-nc-sa-4.0" in card and all(author in card for author in CITED[name])
    assert "six speaker-disjoint folds" in card and "Do not use it to judge people" in card
    assert f"| {read_results(name)['scores']['best']['test']['ua']:.3f} |" in card


@each_model
def test_its_predictions_on_unseen_actors_are_those_that_its_score_counts(name, corpora):
    stored = [line for line in lines_of(SHIPPED_MODELS[name] / "predictions.jsonl") if line["split"] == "test"]
    ua = balanced_accuracy_score(*zip(*((line["label"], line["prediction"]) for line in stored)))
    assert ua == pytest.approx(read_results(name)["scores"]["best"]["test"]["ua"], abs=1e-9)

    names = sorted({line.get("corpus", "ravdess") for line in stored})
    rows = {corpus: load_corpus(corpus, str(corpora / corpus)) for corpus in names}
    paths = {
        (corpus, utterance): audio["path"]
        for corpus in names
        for utterance, audio in zip(rows[corpus]["id"], rows[corpus]["audio"])
    }
    model, extractor = load(name), load_feature_extractor(str(SHIPPED_MODELS[name]))
    for line in stored[:: max(1, len(stored) // 120)]:
        corpus = line.get("corpus", "ravdess")
        waveform = read_audio(paths[corpus, line["id"].removeprefix(f"{corpus}/")])
        with torch.no_grad():
            logits = model(**extractor(waveform, sampling_rate=16000, return_tensors="pt")).logits
        found = dict(zip(model.config.id2label.values(), logits.softmax(-1)[0].tolist()))
        assert found == pytest.approx(line["probabilities"], abs=1e-3), line["id"]
