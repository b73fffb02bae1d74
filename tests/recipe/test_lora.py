"""LoRA: adapters on the trained layers of any encoder, resumed as adapters, saved as plain weights."""

import copy
import json

import pytest
import torch
from conftest import TINY_ENCODERS, batch, tiny_model, utterances
from making import make_trainer
from peft import LoraConfig, get_peft_model
from running import SPEAKERS, fresh, lines_of, train

from core.errors import InputError
from modeling_ser_align import SERAlignForAudioClassification
from recipe import lora
from recipe.lora import add_lora, load_merged, merge_lora
from recipe.options import ModelArguments


def adapted_model(encoder, seed=0, targets=(), **fields):
    """Adapters that change something, as trained ones do."""
    model = tiny_model(encoder, seed, **fields)
    add_lora(model, ModelArguments(lora_rank=2, lora_alpha=8, lora_targets=list(targets)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    return model.eval()


def list_trained(model):
    return {name for name, parameter in model.encoder.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("encoder", TINY_ENCODERS)
def test_every_encoder_trains_adapters_alone_and_is_saved_without_them(encoder, tmp_path):
    model = adapted_model(encoder)
    inputs = batch(model, utterances(model, [0.6, 0.4]))
    assert list_trained(model) and all(".lora_" in name for name in list_trained(model))
    model.train()(**inputs, labels=torch.tensor([0, 2])).loss.backward()
    gradients = {name: p.grad for name, p in model.encoder.named_parameters() if p.requires_grad}
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())
    before = tiny_model(encoder)(**inputs).logits
    with torch.no_grad():
        adapted = model.eval()(**inputs).logits
        merge_lora(model)
        merged = model(**inputs).logits
    assert (adapted - before).abs().max() > 1e-4
    torch.testing.assert_close(merged, adapted, atol=1e-5, rtol=0)
    model.save_pretrained(tmp_path)
    loaded, info = SERAlignForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.state_dict().keys() == tiny_model(encoder).state_dict().keys()
    torch.testing.assert_close(loaded(**inputs).logits, merged, atol=1e-6, rtol=0)


def test_frozen_layers_get_no_adapters_and_stay_cacheable():
    model = adapted_model("whisper", targets=["q_proj", "fc1"], freeze_encoder_layers=1)
    assert list_trained(model) == {
        f"layers.1.{name}.lora_{part}.default.weight" for name in ("self_attn.q_proj", "fc1") for part in "AB"
    }
    (one,) = utterances(model, [0.5])
    plain = tiny_model("whisper", freeze_encoder_layers=1)
    assert torch.equal(model.extract_features(one[None]), plain.extract_features(one[None]))


@pytest.mark.parametrize(
    ("encoder", "targets", "message"),
    [
        (
            "whisper",
            ["query"],
            "--lora_targets query: the 2 trained layers of this whisper encoder have fc1, fc2, k_proj",
        ),
        (
            "wavlm-group",
            ["q_proj"],
            "--lora_targets q_proj: the 2 trained layers of this wavlm encoder have gru_rel_pos_",
        ),
    ],
)
def test_a_target_that_would_do_nothing_is_refused(encoder, targets, message):
    """WavLM uses the weights of its projections without calling them: adapters there would have no effect."""
    with pytest.raises(InputError) as error:
        adapted_model(encoder, targets=targets)
    assert str(error.value).startswith(message)


def test_a_missing_peft_is_named(monkeypatch):
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"--lora_rank needs peft, .* pip install -r requirements-lora\.txt"):
        adapted_model("whisper")


def test_a_resumed_run_goes_on_with_its_adapters_and_their_average(tmp_path):
    """The same weights as without an interruption, and a checkpoint that loads as a plain model."""
    options = {"ema_decay": 0.5, "save_strategy": "steps", "save_steps": 1, "max_steps": 2, "logging_steps": 1}
    whole = make_trainer(tmp_path / "whole", adapted_model("wav2vec2-layer"), **options)
    whole.train()
    resumed = make_trainer(tmp_path / "resumed", adapted_model("wav2vec2-layer", seed=1), **options)
    resumed.train(resume_from_checkpoint=str(next((tmp_path / "whole").glob("checkpoint-1"))))
    for found, expected in (
        (resumed.model.state_dict(), whole.model.state_dict()),
        (resumed.averaged.module.state_dict(), whole.averaged.module.state_dict()),
    ):
        assert any(".lora_" in name for name in expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)
    loaded = load_merged(tmp_path / "whole" / "checkpoint-2", ModelArguments(lora_rank=2, lora_alpha=8))
    inputs = batch(loaded, utterances(loaded, [0.4]))
    torch.testing.assert_close(loaded(**inputs).logits, whole.model.eval()(**inputs).logits, atol=1e-5, rtol=0)


def test_get_peft_model_of_a_user_goes_on_working():
    model = tiny_model("whisper")
    settings = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], modules_to_save=["pooling", "classifier"])
    wrapped = get_peft_model(copy.deepcopy(model), settings).train()
    inputs = batch(model, utterances(model, [0.6, 0.4]))
    optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = wrapped(**inputs, labels=torch.tensor([0, 2])).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    adapted = wrapped.eval()(**inputs).logits
    merged = wrapped.merge_and_unload()
    assert merged.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(merged(**inputs).logits, adapted, atol=1e-5, rtol=0)


SCRIPT = """
import importlib.util, json, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.startswith("peft") else find_spec(name, *rest)
sys.modules["peft"] = None  # what imports it fails
from transformers import pipeline
recognize = pipeline("speech-emotion-recognition", sys.argv[1], trust_remote_code=True)
print("RESULT" + json.dumps(recognize(sys.argv[2])))
"""


@pytest.mark.slow
def test_a_published_folder_needs_no_peft(demo, tmp_path):
    config = {**TINY_ENCODERS["whisper"], "max_source_positions": 1500}
    train(
        *("--data_dir", demo, "--output_dir", tmp_path, "--encoder", "none", "--encoder_config", json.dumps(config)),
        *("--lora_rank", "2", "--lora_targets", "q_proj", "fc2", "--ema_decay", "0.5", "--use_cpu"),
        *("--num_epochs", "2", "--max_steps", "4", "--batch_size", "8"),
        *("--only", json.dumps({"speaker": SPEAKERS[:4]}), "--num_folds", "4"),
    )
    line = next(line for line in lines_of(tmp_path / "stage2" / "predictions.jsonl") if line["split"] == "test")
    recording = next(demo.rglob(f"{line['id']}.wav"))
    answer, _ = fresh(SCRIPT, tmp_path / "stage2", recording, home=tmp_path / "hf")
    temperature_scaled = {entry["label"]: entry["score"] for entry in answer}
    assert temperature_scaled == pytest.approx(line["probabilities"], abs=1e-4)
