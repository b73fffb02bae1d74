"""A checkpoint written by the first release still loads and gives the same scores."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from hub.first_release.make import waveform

from core.json_files import read_json
from core.loading import load_pipeline

FOLDER = ROOT / "tests" / "hub" / "first_release"


@pytest.fixture(scope="module")
def recognize():
    return load_pipeline(str(FOLDER), device="cpu")


def test_it_gives_the_stored_logits(recognize):
    expected = read_json(FOLDER / "expected.json")
    inputs = recognize.feature_extractor(waveform(), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        output = recognize.model(**inputs)
    np.testing.assert_allclose(output.logits[0], expected["logits"], atol=1e-5)
    np.testing.assert_allclose(output.frame_logits[0], expected["frame_logits"], atol=1e-5)
    assert np.ptp(expected["logits"]) > 0.1  # they say something


def test_it_says_labels_and_scores_as_it_did(recognize):
    logits = np.array(read_json(FOLDER / "expected.json")["logits"])
    scores = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    answer = {entry["label"]: entry["score"] for entry in recognize(waveform())}
    assert answer == pytest.approx(dict(zip(("angry", "calm", "sad"), scores)), abs=1e-5)


def test_it_names_the_code_that_a_newer_release_puts_beside_it():
    config = read_json(FOLDER / "config.json")
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForAudioClassification"}
    named = [*config["auto_map"].values(), *(task["impl"] for task in config["custom_pipelines"].values())]
    for name in named:
        module, _, member = name.partition(".")
        assert f"class {member}(" in (ROOT / f"{module}.py").read_text(encoding="utf-8")
