"""from_pretrained_encoder: every encoder weight arrives, from the layouts that published checkpoints have."""

import json

import pytest
import torch
from conftest import TINY, TINY_CONV, TINY_ENCODERS, assert_same_encoder, batch, utterances
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCTC, AutoModelForPreTraining

from modeling_ser_align import SERAlignForAudioClassification


def randomised(model):
    """No weight keeps its initial value, so that a lost one cannot pass for a loaded one."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def with_old_weight_norm_names(state):
    """As checkpoints before torch 2 name them, facebook/wav2vec2-base among them."""
    new_to_old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed = {}
    for name, value in state.items():
        for new, old in new_to_old.items():
            name = name.replace(new, old)
        renamed[name] = value.contiguous()
    assert any(name.endswith("weight_g") for name in renamed)
    return renamed


@pytest.mark.parametrize("file_name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("head", [AutoModelForPreTraining, AutoModelForCTC])
def test_a_checkpoint_in_the_layout_of_wav2vec2_base(head, file_name, tmp_path):
    """Keys with the prefix wav2vec2., old weight-norm names, heads that are not ours."""
    config = AutoConfig.for_model(**TINY_ENCODERS["wav2vec2-group"], vocab_size=12)
    original = randomised(head.from_config(config))
    state = with_old_weight_norm_names(original.state_dict())
    assert sum(name.startswith("wav2vec2.") for name in state) > 30
    original.config.gradient_checkpointing = True  # old configurations carry it; it belongs to the Trainer
    original.config.save_pretrained(tmp_path)
    if file_name.endswith("bin"):
        torch.save(state, tmp_path / file_name)
    else:
        save_file(state, tmp_path / file_name, metadata={"format": "pt"})

    model = SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path), num_labels=5)
    assert_same_encoder(model.encoder, original.wav2vec2)
    assert model.classifier.out_features == 5
    assert not model.is_gradient_checkpointing and "gradient_checkpointing" not in model.encoder.config.to_dict()
    assert not any(p.requires_grad for p in model.encoder.feature_extractor.parameters())


@pytest.mark.parametrize("encoder", TINY_ENCODERS)
def test_a_bare_checkpoint_of_every_encoder(encoder, tmp_path):
    original = randomised(AutoModel.from_config(AutoConfig.for_model(**TINY_ENCODERS[encoder])))
    original.save_pretrained(tmp_path)
    model = SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path)).eval()
    assert_same_encoder(model.encoder, original.encoder if encoder == "whisper" else original)
    inputs = utterances(model, [0.7, 0.3])
    with torch.no_grad():
        alone = model(**{model.main_input_name: inputs[1][None]}).logits
        together = model(**batch(model, inputs)).logits[1:]
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=0)


def test_the_encoder_configuration_can_be_overridden(tmp_path):
    AutoModel.from_config(AutoConfig.for_model("wav2vec2", **{**TINY, "layerdrop": 0.3}, **TINY_CONV)).save_pretrained(
        tmp_path
    )
    model = SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path), encoder_config={"layerdrop": 0.0})
    assert model.encoder.config.layerdrop == 0 and model.config.encoder_config.layerdrop == 0
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["encoder_config"]["layerdrop"] == 0


def test_a_checkpoint_that_lacks_encoder_weights_is_refused(tmp_path):
    AutoModel.from_config(AutoConfig.for_model(**TINY_ENCODERS["hubert-layer"])).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    lost = "encoder.layers.0.attention.k_proj.weight"
    del state[lost]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"is missing 1 encoder weights, for example {lost}"):
        SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path))


def test_distilhubert_loads(tmp_path):
    """Two layers, no norm before the projection, old weight-norm names, no mask vector, a pickle."""
    settings = {**TINY_ENCODERS["hubert-group"], "feat_proj_layer_norm": False, "num_hidden_layers": 2}
    original = randomised(AutoModel.from_config(AutoConfig.for_model(**settings)))
    original.config.save_pretrained(tmp_path)
    state = with_old_weight_norm_names(original.state_dict())
    del state["masked_spec_embed"]
    torch.save(state, tmp_path / "pytorch_model.bin")
    model = SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path)).eval()
    original.masked_spec_embed = model.encoder.masked_spec_embed
    assert_same_encoder(model.encoder, original)
    assert not any("feature_projection.layer_norm" in name for name in model.state_dict())
    (one,) = utterances(model, [0.5])
    with torch.no_grad():
        expected = original.eval()(one[None]).last_hidden_state
        torch.testing.assert_close(model.encode(one[None])[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("data2vec2", "transformers does not have data2vec 2.0; Data2Vec 1.0 is data2vec-audio"),
        ("sew", "padding would change them"),
        ("bert", "wav2vec2, .*, audio-spectrogram-transformer$"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_with_the_reason(model_type, reason, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ValueError, match=f"model_type='{model_type}', which is not one of .*{reason}"):
        SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path))
