"""The Hub contract: a saved folder loads in a fresh process, elsewhere, offline, with the same logits."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from conftest import batch, tiny_model, utterances
from running import fresh
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

from feature_extraction_ser_align import SERAlignFeatureExtractor

pytestmark = pytest.mark.slow

SCRIPT = textwrap.dedent(
    """
    import json, sys
    import numpy as np, torch
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline

    folder = sys.argv[1]
    case = np.load(sys.argv[2])
    trust = {"trust_remote_code": True}
    config = AutoConfig.from_pretrained(folder, **trust)
    result = {"config": type(config).__name__, "labels": list(config.id2label.values())}
    names = ("input_values", "input_features", "attention_mask")
    inputs = {name: torch.tensor(case[name]) for name in names if name in case}
    for auto in (AutoModel, AutoModelForAudioClassification):
        model = auto.from_pretrained(folder, **trust).eval()
        with torch.no_grad():
            result[auto.__name__] = model(**inputs).logits.tolist()
    waveforms = [case["short"], case["long"]]
    classify = pipeline("audio-classification", folder, **trust)
    result["pipeline"] = classify(waveforms, top_k=None)
    result["pipeline_batched"] = classify(waveforms, top_k=None, batch_size=2)
    result["asks_for_mask"] = AutoFeatureExtractor.from_pretrained(folder, **trust).return_attention_mask
    model.save_pretrained(sys.argv[3])
    print("RESULT" + json.dumps(result))
    """
)


@pytest.mark.parametrize(
    "encoder, extractor, fields",
    [
        ("wav2vec2-group", Wav2Vec2FeatureExtractor(return_attention_mask=True), {}),
        ("wav2vec2-bert", SeamlessM4TFeatureExtractor(), {}),
        ("wav2vec2-bert", SERAlignFeatureExtractor(stride=2), {"log_mel_layer_norm": False}),
    ],
    ids=["waveform", "log-mel", "own log-mel"],
)
def test_a_fresh_process_loads_the_folder_and_gives_the_same_logits(encoder, extractor, fields, tmp_path):
    model = tiny_model(encoder, id2label={0: "angry", 1: "calm", 2: "sad"}, **fields)
    folder = tmp_path / "folder with space"
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    inputs = batch(model, utterances(model, [1.0, 0.4]))
    with torch.no_grad():
        expected = model(**inputs).logits
    rng = np.random.default_rng(0)
    waveforms = {"short": rng.normal(size=6000).astype("f4"), "long": rng.normal(size=30000).astype("f4")}
    np.savez(tmp_path / "case.npz", **{name: tensor.numpy() for name, tensor in inputs.items()}, **waveforms)

    again = tmp_path / "again"
    result, run = fresh(
        SCRIPT, folder, tmp_path / "case.npz", again, home=tmp_path / "hf", HF_HUB_DISABLE_PROGRESS_BARS="1"
    )
    output = (run.stdout + run.stderr).lower()
    for complaint in ("missing", "unexpected", "newly initialized", "mismatch", "not initialized"):
        assert complaint not in output, output

    assert result["config"] == "SERAlignConfig" and result["labels"] == ["angry", "calm", "sad"]
    for auto in ("AutoModel", "AutoModelForAudioClassification"):
        np.testing.assert_allclose(result[auto], expected.numpy(), atol=1e-5)
    assert result["asks_for_mask"] is True
    for one, batched in zip(result["pipeline"], result["pipeline_batched"]):
        assert {entry["label"] for entry in one} == {"angry", "calm", "sad"}
        alone = {entry["label"]: entry["score"] for entry in one}
        for entry in batched:
            assert abs(entry["score"] - alone[entry["label"]]) < 1e-4
    saved_again = {path.name for path in again.iterdir()}
    assert {"config.json", "model.safetensors", "modeling_ser_align.py", "configuration_ser_align.py"} <= saved_again
    auto_map = json.loads((again / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForAudioClassification"}


def test_the_hub_files_import_nothing_of_the_project(tmp_path):
    """The two files alone, in an empty directory."""
    tiny_model().save_pretrained(tmp_path)
    code = "import modeling_ser_align as m, sys; print(any(name.startswith('recipe') for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "False", run.stderr
