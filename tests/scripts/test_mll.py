"""run_configs/mll: trained, described, loaded by the pipeline and exported, on a tiny encoder and the demo corpus."""

import json

import numpy as np
import onnxruntime
import pytest
import soundfile
from running import run_script, train
from safetensors.torch import load_file

import export_onnx
from core.json_files import read_json
from core.loading import load_pipeline
from studies.encoders import TINY_ENCODERS

pytestmark = pytest.mark.slow

TINY = {**TINY_ENCODERS["whisper"], "num_mel_bins": 80, "max_source_positions": 500}
ARGV = ["--encoder", "none", "--encoder_config", json.dumps(TINY), "--corpus", "demo", "--use_cpu", "--max_steps", 3]
ARGV += ["--logging_steps", 1, "--batch_size", 8, "--speed_factors", 1.0]


@pytest.fixture(scope="module")
def trained(demo, tmp_path_factory):
    output = tmp_path_factory.mktemp("mll")
    run = train("--config", "run_configs/mll/ravdess.yaml", *ARGV, "--data_dir", demo, "--output_dir", output)
    return output / "stage1", run.stdout


def test_it_trains_in_one_stage_with_four_losses_and_mixed_labels(trained):
    folder, stdout = trained
    assert "Stage 1: whisper encoder, flam pooling" in stdout and "Stage 2" not in stdout
    assert "and 2 layers run in every epoch: --mix_probability creates new audio every time" in stdout
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    names = {name for line in log for name in line if name.endswith("_loss") and not name.startswith(("eval", "train"))}
    assert names == {"kl_loss", "focal_loss", "center_loss", "contrastive_loss"}
    weights = load_file(folder / "model.safetensors")
    assert weights["objective.centers"].shape == (4, 64) and weights["objective.centers"].isfinite().all()
    assert read_json(folder / "config.json")["pooling"] == "flam"


def test_its_card_says_what_it_is(trained):
    card = (trained[0] / "README.md").read_text(encoding="utf-8")
    assert "Stage 1 trains a speech encoder with FLAM pooling: self-attention over the frames with a residual" in card
    losses = "0.5 × KL to the label + 0.5 × focal + 0.02 × center + 0.2 × supervised contrastive"
    assert f"The training loss is {losses}." in card and "It implements *Frame and Utterance" not in card


def test_the_pipeline_and_the_onnx_file_give_the_same_scores_without_the_centres(trained, demo, tmp_path):
    folder, path = trained[0], next(demo.rglob("*.wav"))
    answer = load_pipeline(str(folder), device="cpu")(str(path), return_timeline=True)
    assert sum(score["score"] for score in answer["scores"]) == pytest.approx(1, abs=1e-4) and answer["timeline"]
    exported = tmp_path / "mll.onnx"
    export_onnx.main(["--model", str(folder), "--output", str(exported)])  # refuses a difference above 1e-4
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    waveform = soundfile.read(path, dtype="float32")[0][None]
    (weights,) = session.run(["frame_weights"], {"waveform": waveform, "attention_mask": np.ones_like(waveform, int)})
    assert weights.sum() == pytest.approx(1, abs=1e-4)
    assert b"objective" not in exported.read_bytes()
    run = run_script("predict.py", path, "--model", folder)
    assert answer["scores"][0]["label"] in run.stdout
