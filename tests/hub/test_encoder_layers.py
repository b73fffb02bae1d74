"""Layers of the encoder: the first ones kept, all of them mixed, the first ones frozen."""

import copy
import pickle

import numpy as np
import pytest
import torch
from conftest import TINY_ENCODERS, batch, tiny_model, utterances
from transformers import AutoModel

from configuration_ser_align import SERAlignConfig
from encoders_ser_align import FAMILIES
from modeling_ser_align import SERAlignForAudioClassification

EVERY_ENCODER = pytest.mark.parametrize("encoder", TINY_ENCODERS)


def library_model(model):
    """The library's own model with the same weights, and its inputs for one utterance, of full length if it must be."""
    torch.manual_seed(0)
    theirs = AutoModel.from_config(model.config.encoder_config).eval()
    theirs = theirs.encoder if model.config.encoder_config.model_type == "whisper" else theirs
    theirs.load_state_dict(model.encoder.state_dict())
    (ours,) = utterances(model, [model.config.longest_seconds or 0.7])
    inputs = ours.T if model.config.encoder_config.model_type == "whisper" else ours
    return theirs, inputs[None], {model.main_input_name: ours[None]}


def run_library(theirs, inputs):
    """Input of the first layer and output of each, (frames, hidden); of patches, the means over those of one time."""
    output = theirs(inputs, output_hidden_states=True)
    states = [state[0] for state in (*output.hidden_states[:-1], output.last_hidden_state)]
    if theirs.config.model_type == "audio-spectrogram-transformer":
        states = [state[2:].unflatten(0, (3, -1)).mean(dim=0) for state in states]
    return np.stack([state.numpy() for state in states])


@EVERY_ENCODER
@torch.no_grad()
def test_mixed_frames_are_the_weighted_sum_of_the_librarys_hidden_states(encoder):
    for mix in ("last", "weighted", "normalized"):
        model = tiny_model(encoder, layer_mix=mix)
        theirs, inputs, ours = library_model(model)
        states = run_library(theirs, inputs)
        found = model.encode(**ours)[0][0]
        assert len(states) == 3
        if mix == "last":
            expected = states[-1]
        else:
            model.layer_mix.weights.copy_(torch.tensor([0.3, -0.5, 1.0]))
            found = model.encode(**ours)[0][0]
            if mix == "normalized":
                deviation = np.sqrt(states.var(axis=-1, keepdims=True) + 1e-5)
                states = (states - states.mean(axis=-1, keepdims=True)) / deviation
            weights = np.exp([0.3, -0.5, 1.0]) / np.exp([0.3, -0.5, 1.0]).sum()
            expected = np.einsum("l,ltd->td", weights, states)
        np.testing.assert_allclose(found, expected, atol=2e-5)


@EVERY_ENCODER
@torch.no_grad()
def test_the_first_layers_of_a_pretrained_encoder_are_kept(encoder, tmp_path):
    """Also its final norm, where it has one."""
    model = tiny_model(encoder)
    theirs, inputs, ours = library_model(model)
    theirs.save_pretrained(tmp_path)
    shortened = SERAlignForAudioClassification.from_pretrained_encoder(
        str(tmp_path), encoder_config={"num_hidden_layers": 1}
    ).eval()
    layers = theirs.layers if hasattr(theirs, "layers") else theirs.encoder.layers
    del layers[1]
    np.testing.assert_allclose(shortened.encode(**ours)[0][0], run_library(theirs, inputs)[-1], atol=1e-5)
    assert len(shortened.config.family.list_layers(shortened.encoder)) == 1


def test_more_layers_than_the_checkpoint_has_are_refused(tmp_path):
    tiny_model("whisper").encoder.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is missing 15 encoder weights, for example layers\.2\."):
        SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path), encoder_config={"encoder_layers": 3})
    kept = SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path), encoder_config={"encoder_layers": 1})
    assert len(kept.encoder.layers) == 1


@EVERY_ENCODER
@pytest.mark.parametrize("mix", ["last", "normalized"])
def test_frozen_and_mixed_layers_are_exact_in_a_batch(encoder, mix):
    model = tiny_model(encoder, layer_mix=mix, freeze_encoder_layers=1)
    inputs = utterances(model, [0.31, 1.4, 0.05])
    together = model(**batch(model, inputs, padding=7.0))
    for index, one in enumerate(inputs):
        alone = model(**{model.main_input_name: one[None]})
        torch.testing.assert_close(together.logits[index], alone.logits[0], atol=1e-5, rtol=0)


@EVERY_ENCODER
@pytest.mark.parametrize("frozen", [0, 1])
@torch.no_grad()
def test_averaged_frames_are_the_means_of_neighbours_alone_and_in_a_batch(encoder, frozen):
    """With all layers frozen, the frames before the final norm are those of the full rate, averaged."""
    model = tiny_model(encoder, average_frames=3, freeze_encoder_layers=frozen, layer_mix="weighted")
    full = tiny_model(encoder, freeze_encoder_layers=frozen, layer_mix="weighted")
    assert model.config.frame_seconds == 3 * full.config.frame_seconds
    inputs = utterances(model, [0.31, 1.4, 0.05])
    together = model(**batch(model, inputs, padding=7.0))
    for index, one in enumerate(inputs):
        alone = model(**{model.main_input_name: one[None]})
        torch.testing.assert_close(together.logits[index], alone.logits[0], atol=1e-5, rtol=0)
        length = full.encode(**{model.main_input_name: one[None]})[0].shape[1]
        assert alone.frame_mask.shape[1] == -(-length // 3) == together.frame_mask[index].sum()
        extracted = model(extracted_features=model.extract_features(one[None]))
        torch.testing.assert_close(extracted.logits, alone.logits, atol=1e-6, rtol=0)
    states = full.extract_features(inputs[0][None])[0].numpy()
    means = [states[start : start + 3].mean(axis=0) for start in range(0, len(states), 3)]
    found = model.extract_features(inputs[0][None])[0].numpy()
    np.testing.assert_allclose(found, states if frozen == 0 else np.stack(means), atol=1e-5)


@EVERY_ENCODER
@torch.no_grad()
def test_more_frozen_layers_do_not_change_frames_that_are_averaged_after_the_same_layer(encoder):
    """As in stage 2, which may freeze the layers that stage 1 has trained."""
    fields = {"average_frames": 2, "layer_mix": "normalized"}
    first = tiny_model(encoder, freeze_encoder_layers=1, **fields)
    second = tiny_model(encoder, freeze_encoder_layers=2, average_after=1, **fields)
    inputs = utterances(first, [0.31, 1.4, 0.05])
    together = batch(first, inputs, padding=7.0)
    for expected, found in zip(first.encode(**together), second.encode(**together)):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    extracted = second.extract_features(inputs[1][None])
    vectors = 5 if encoder == "audio-spectrogram-transformer" else 1  # three patches and two tokens of the utterance
    assert extracted.shape[2] == 3 * vectors * 32 == second.config.extracted_size
    expected = first.encode(**{first.main_input_name: inputs[1][None]})[0]
    torch.testing.assert_close(second.encode(extracted_features=extracted)[0], expected, atol=1e-6, rtol=0)


def test_frames_are_averaged_in_the_frozen_part():
    with pytest.raises(ValueError, match="average_after=2, but only 1 layers are frozen: freeze the layers before"):
        tiny_model("whisper", freeze_encoder_layers=1, average_frames=2, average_after=2)


@EVERY_ENCODER
def test_frozen_layers_get_no_gradient_and_have_no_dropout(encoder):
    model = tiny_model(encoder, freeze_encoder_layers=1, layer_mix="weighted").train()
    layers = model.config.family.list_layers(model.encoder)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    if encoder == "whisper":
        layers[0].dropout = layers[1].dropout = 0.5
    inputs = batch(model, utterances(model, [0.7, 0.5]))
    model.encoder.config.apply_spec_augment, model.encoder.config.mask_time_prob = True, 0.9
    model(**inputs, labels=torch.tensor([0, 1])).loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    in_encoder = {name for name in trained if name.startswith("encoder.")}
    assert in_encoder and all(
        ".layers.1." in name or "layer_norm" in name or "encoder.layernorm" in name for name in in_encoder
    )
    assert "layer_mix.weights" in trained and model.layer_mix.weights.grad.abs().min() > 0
    assert not layers[0].training and layers[1].training and model.pooling.training
    (one,) = utterances(model, [0.6])
    first, second = (model.extract_features(one[None]) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(model.encode(extracted_features=first)[0], model.encode(extracted_features=first)[0])
    model.eval()
    assert torch.equal(model.extract_features(one[None]), first) and not layers[1].training


def test_frozen_layers_stay_frozen_in_copies_and_after_loading(tmp_path):
    model = tiny_model("whisper", freeze_encoder_layers=1)
    expected = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("encoder.layers.1" in name for name in expected)
    assert not any("conv" in name or "layers.0.self" in name for name in expected if name.startswith("encoder."))
    model.save_pretrained(tmp_path)
    loaded = SERAlignForAudioClassification.from_pretrained(tmp_path)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert {name for name, parameter in other.named_parameters() if parameter.requires_grad} == expected
        assert not other.train().encoder.layers[0].training


def test_layer_drop_skips_trained_layers_alone():
    settings = {**TINY_ENCODERS["whisper"], "encoder_layers": 3, "encoder_layerdrop": 0.999}
    config = SERAlignConfig(encoder_config=settings, freeze_encoder_layers=2)
    model = SERAlignForAudioClassification(config).train()
    (one,) = utterances(model, [0.5])
    family = model.config.family
    hidden = family.embed(model.encoder, family.convolve(model.encoder, one[None], None), None)
    states = [hidden, *family.run_layers(model.encoder, hidden, None)]
    assert not torch.equal(states[0], states[1]) and not torch.equal(states[1], states[2])
    assert torch.equal(states[2], states[3])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_whispers_spec_augment_masks_its_log_mel_frames(attention):
    settings = {**TINY_ENCODERS["whisper"], "apply_spec_augment": True, "mask_time_prob": 0.9, "mask_time_length": 5}
    model = SERAlignForAudioClassification(SERAlignConfig(encoder_config=settings)).train()
    model.set_attn_implementation(attention)
    inputs = batch(model, utterances(model, [0.5, 0.3]))
    before = inputs["input_features"].clone()
    np.random.seed(0)
    assert not torch.equal(model.encode(**inputs)[0], model.encode(**inputs)[0])
    assert torch.equal(inputs["input_features"], before)  # the batch itself is not written into
    assert model(**batch(model, utterances(model, [0.03])), labels=torch.tensor([0])).loss.isfinite()
    model.eval()
    assert torch.equal(model.encode(**inputs)[0], model.encode(**inputs)[0])


def test_more_frozen_layers_than_there_are_is_refused():
    with pytest.raises(ValueError, match="freeze_encoder_layers=3, but the encoder has 2 layers: give at most 2"):
        tiny_model("whisper", freeze_encoder_layers=3)


def test_every_family_lists_its_layers_and_what_follows_them():
    for encoder, settings in TINY_ENCODERS.items():
        model, family = tiny_model(encoder), FAMILIES[settings["model_type"]]
        assert len(family.list_layers(model.encoder)) == 2
        assert len(family.list_convolutions(model.encoder)) == {"wav2vec2-bert": 0, "whisper": 2}.get(encoder, 1)
