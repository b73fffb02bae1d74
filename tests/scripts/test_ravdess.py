"""Real speech: the same code reads it, trains on it, and scores it exactly in batches."""

import json

import pytest
import torch
from conftest import ROOT, TINY_ENCODERS, tiny_model
from making import make_split
from running import lines_of, train

from recipe.corpora import load_corpus, ravdess
from recipe.preparing import AudioCache, UtterancePreparer
from recipe.scoring import predict

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("encoder", TINY_ENCODERS)
def test_real_utterances_score_the_same_in_batches_of_any_size(corpora, encoder):
    model = tiny_model(encoder, id2label=dict(enumerate(ravdess.LABELS)))
    with torch.no_grad():
        model.classifier.weight.mul_(20)  # probabilities far from even, so that a difference shows
    extractor = model.config.build_feature_extractor(trim_db=30)
    preparer = UtterancePreparer(extractor, model.config.shortest_samples, cache=AudioCache())
    rows = make_split(load_corpus("ravdess", str(corpora / "ravdess")), "ravdess", 1)["test"].select(range(0, 240, 24))
    alone, together = (predict(model, rows, preparer, batch_size) for batch_size in (1, 10))
    for one, other in zip(alone, together):
        for label, probability in one["probabilities"].items():
            assert abs(probability - other["probabilities"][label]) < 1e-4


def test_both_stages_run_on_real_speech(corpora, tmp_path):
    """The mini recipe for a few updates; docs/RESULTS.md has the whole run."""
    argv = ["--config", ROOT / "run_configs" / "ravdess" / "mini.yaml", "--data_dir", corpora / "ravdess"]
    train(*argv, "--output_dir", tmp_path, "--max_steps", 2, "--batch_size", 4, "--use_cpu")
    results = json.loads((tmp_path / "stage2" / "results.json").read_text())
    assert results["speakers"]["test"] == ["01", "11", "20", "21"]
    assert len(results["speakers"]["train"]) == 20 - len(results["speakers"]["validation"])
    assert len([line for line in lines_of(tmp_path / "stage2" / "predictions.jsonl") if line["split"] == "test"]) == 240
    card = (tmp_path / "stage2" / "README.md").read_text()
    assert "license: cc-by-nc-sa-4.0" in card and "Livingstone and Russo 2018" in card
