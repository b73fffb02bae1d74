"""The model: every encoder, every pooling, exact batches, freezing, short utterances."""

import copy

import numpy as np
import pytest
import reference
import torch
from conftest import TINY_ENCODERS, batch, tiny_model, utterances
from transformers import AutoModel

from configuration_ser_align import SERAlignConfig
from encoders_ser_align import FAMILIES
from modeling_ser_align import SERAlignForAudioClassification

POOLINGS = ("attentive", "self_attention", "cls", "mean", "max", "flam", "style")
ALL_LOSSES = {"kl_weight": 0.3, "focal_weight": 0.4, "center_weight": 0.2, "contrastive_weight": 0.6}
TOLERANCE = 1e-4


def largest_difference(alone, batched, row):
    """Largest difference of logits, frame logits and weights of one utterance alone and as a row of a batch."""
    frames = alone.frame_mask.shape[1]
    assert batched.frame_mask[row].sum() == frames
    assert not batched.frame_weights[row, frames:].any()
    return max(
        (alone.logits[0] - batched.logits[row]).abs().max().item(),
        (alone.frame_logits[0] - batched.frame_logits[row, :frames]).abs().max().item(),
        (alone.frame_weights[0] - batched.frame_weights[row, :frames]).abs().max().item(),
    )


@torch.no_grad()
def assert_batch_invariant(model):
    inputs = utterances(model, [0.31, 1.4, 0.05, 3.0])
    for padding in (0.0, 7.0):  # not even the padding's value may matter
        batched = model(**batch(model, inputs, padding))
        for row, one in enumerate(inputs):
            assert largest_difference(model(**{model.main_input_name: one[None]}), batched, row) < TOLERANCE


def test_all_supported_encoders_are_tested():
    assert {config["model_type"] for config in TINY_ENCODERS.values()} == set(FAMILIES)


@pytest.mark.parametrize("encoder", TINY_ENCODERS)
def test_every_encoder_trains_saves_loads_and_is_exact_in_a_batch(encoder, tmp_path):
    model = tiny_model(encoder, pooling="cls").train()
    labels = torch.tensor([2, 0])
    inputs = batch(model, utterances(model, [1.0, 0.6]))
    model(**inputs, labels=labels).loss.backward()
    without_gradient = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    # The library leaves the Conformer's positional convolution unused under relative positions.
    assert all(name == "encoder.masked_spec_embed" or "pos_conv_embed" in name for name in without_gradient)
    assert "conformer" in encoder or without_gradient <= {"encoder.masked_spec_embed"}
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    model.eval().save_pretrained(tmp_path)
    loaded, info = SERAlignForAudioClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits, atol=1e-6, rtol=0)
    assert_batch_invariant(model)
    assert_batch_invariant(loaded)


@pytest.mark.parametrize("encoder", TINY_ENCODERS)
def test_every_encoder_trains_with_every_pooling_and_all_losses_and_is_exact_in_a_batch(encoder):
    whole = tiny_model(encoder)
    inputs = utterances(whole, [0.31, 1.4, 0.05])
    for pooling in POOLINGS:
        settings = {"encoder_config": whole.config.encoder_config, "pooling": pooling, "num_labels": 3, **ALL_LOSSES}
        model = SERAlignForAudioClassification(SERAlignConfig(**settings), encoder=whole.encoder).eval()
        output = model(**batch(model, inputs), labels=torch.tensor([2, 0, 2]))
        output.loss.backward()
        untrained = {name for name, p in model.named_parameters() if not name.startswith("encoder.") and p.grad is None}
        assert not untrained and torch.isfinite(output.loss)
        with torch.no_grad():
            for row, one in enumerate(inputs):
                alone = model(**{model.main_input_name: one[None]})
                assert largest_difference(alone, output, row) < 1e-5, pooling


def test_mean_max_and_flam_pooling_agree_with_numpy():
    rng = np.random.default_rng(0)
    frames, length = rng.normal(size=(6, 32)), 4
    inputs = torch.tensor(frames, dtype=torch.float32)[None], torch.arange(6)[None] < length
    valid = frames[:length]
    pooled = tiny_model(pooling="mean").pooling(*inputs)
    np.testing.assert_allclose(pooled.embedding[0], valid.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(pooled.log_frame_weights[0].exp(), [0.25] * 4 + [0, 0], atol=1e-6)
    pooled = tiny_model(pooling="max").pooling(*inputs)
    np.testing.assert_allclose(pooled.embedding[0], valid.max(axis=0), atol=1e-6)
    shares = [(valid.argmax(axis=0) == t).mean() for t in range(length)]
    np.testing.assert_allclose(pooled.log_frame_weights[0].exp(), [*shares, 0, 0], atol=1e-6)
    model = tiny_model(pooling="flam", pooling_num_heads=16)
    with torch.no_grad():
        model.pooling.scorer.weight.mul_(30)  # far from even weights
    weights = {name: value.double().numpy() for name, value in model.pooling.state_dict().items()}
    attended = valid + reference.attend(valid, weights, "attention", num_heads=16)
    expected = reference.softmax(attended @ weights["scorer.weight"][0])
    with torch.no_grad():
        pooled = model.pooling(*inputs)
    np.testing.assert_allclose(pooled.frames[0, :length], attended, atol=1e-5)
    np.testing.assert_allclose(pooled.log_frame_weights[0].exp(), [*expected, 0, 0], atol=1e-6)
    np.testing.assert_allclose(pooled.embedding[0], expected @ attended, atol=1e-5)
    assert expected.max() > 0.4


@pytest.mark.parametrize("encoder", ["wav2vec2-group", "data2vec-audio", "wav2vec2-conformer-layer"])
def test_as_shipped_these_encoders_change_their_frames_in_a_batch(encoder):
    """The reason for exact_ser_align.py: if this fails, the library is fixed, so remove it."""
    from transformers import AutoModel

    model = tiny_model(encoder)
    as_shipped = AutoModel.from_config(model.config.encoder_config).eval()
    as_shipped.load_state_dict(model.encoder.state_dict())
    inputs = utterances(model, [0.5, 1.5])
    with torch.no_grad():
        alone = as_shipped(inputs[0][None]).last_hidden_state
        together = as_shipped(**batch(model, inputs)).last_hidden_state[:1, : alone.shape[1]]
        assert (alone - together).abs().max() > 10 * TOLERANCE
        alone_exact, _ = model.encode(inputs[0][None])
        together_exact = model.encode(**batch(model, inputs))[0][:1, : alone.shape[1]]
    torch.testing.assert_close(alone, alone_exact, atol=1e-5, rtol=0)  # alone nothing has changed
    torch.testing.assert_close(alone_exact, together_exact, atol=TOLERANCE, rtol=0)


def test_full_size_first_convolution_is_exact_in_a_batch():
    """The real convolutions of facebook/wav2vec2-base, with only two Transformer layers."""
    torch.manual_seed(0)
    config = SERAlignConfig(encoder_config={"model_type": "wav2vec2", "num_hidden_layers": 2}, num_labels=4)
    assert config.encoder_config.hidden_size == 768 and config.encoder_config.feat_extract_norm == "group"
    assert_batch_invariant(SERAlignForAudioClassification(config).eval())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("encoder", ["wav2vec2-group", "wav2vec2-bert"])
def test_an_encoder_taken_over_from_another_model_is_exact_in_a_batch(encoder, pooling):
    """Stage 2 takes the encoder of stage 1; its configuration must not lose the attention on the way."""
    first = tiny_model(encoder, pooling="attentive")
    config = SERAlignConfig(encoder_config=first.config.encoder_config, pooling=pooling, num_labels=3)
    assert_batch_invariant(SERAlignForAudioClassification(config, encoder=first.encoder).eval())


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_pooling_is_exact_with_either_attention(pooling, attention):
    model = tiny_model(pooling=pooling, pooling_num_layers=2)
    model.set_attn_implementation(attention)
    assert model.encoder.config._attn_implementation == attention
    assert_batch_invariant(model)


@pytest.mark.parametrize(
    "fields",
    [
        {"pooling_norm": "pre", "pooling_activation": "gelu"},
        {"frame_similarity": "cosine", "frame_temperature": 0.2},
        {"cls_in_embedding": "add"},
        {"cls_in_embedding": "concat", "frame_classifier": "separate"},
        {"pooling": "self_attention", "self_attention_readout": "mean"},
        {"pooling": "attentive", "attentive_scorer": "linear"},
        {"pooling": "attentive", "attentive_hidden_size": 7},
        {"fual_direction": "frames_to_utterance", "fual_gradient": "frames"},
        {"pooling_intermediate_size": 11, "pooling_dropout": 0.1},
    ],
)
def test_every_other_reading_of_the_method_trains_and_is_exact(fields, tmp_path):
    default, model = tiny_model(pooling=fields.get("pooling", "cls")), tiny_model(**fields)
    with torch.no_grad():  # frames that disagree, so that FUAL is far from 0
        default.classifier.weight.mul_(30)
        model.classifier.weight.mul_(30)
    inputs = batch(model, utterances(model, [1.0, 0.4]))
    output = model(**inputs, labels=torch.tensor([0, 1]))
    output.loss.backward()
    assert_batch_invariant(model)
    model.save_pretrained(tmp_path)
    loaded = SERAlignForAudioClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**inputs).logits, output.logits, atol=1e-6, rtol=0)
    loss = default(**inputs, labels=torch.tensor([0, 1])).loss
    assert abs(output.loss - loss) > 1e-5  # the field is not dead


def test_loss_parts_add_up_and_weights_of_zero_switch_them_off():
    labels = torch.tensor([0, 1])
    for eal_weight, fual_weight in ((0.05, 0.5), (0.0, 0.5), (0.05, 0.0), (0.0, 0.0)):
        model = tiny_model(eal_weight=eal_weight, fual_weight=fual_weight)
        output = model(**batch(model, utterances(model, [1.0, 0.4])), labels=labels)
        assert (output.eal_loss is None) == (eal_weight == 0)
        assert (output.fual_loss is None) == (fual_weight == 0)
        parts = eal_weight * (output.eal_loss or 0) + fual_weight * (output.fual_loss or 0)
        torch.testing.assert_close(output.loss, output.ce_loss + parts)
        torch.testing.assert_close(output.ce_loss, torch.nn.functional.cross_entropy(output.logits, labels))
    stage1 = tiny_model(pooling="attentive")(torch.randn(1, 8000), labels=torch.tensor([0]))
    assert stage1.eal_loss is None and stage1.fual_loss is None
    torch.testing.assert_close(stage1.loss, stage1.ce_loss)


def test_label_distributions_and_label_smoothing():
    model = tiny_model(pooling="attentive")
    inputs = torch.randn(2, 8000)
    hard = model(inputs, labels=torch.tensor([0, 2]))
    soft = model(inputs, labels=torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    torch.testing.assert_close(hard.loss, soft.loss)
    model.config.label_smoothing = 0.3
    smooth = 0.7 * torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]) + 0.1
    expected = -(smooth * hard.logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(model(inputs, labels=torch.tensor([0, 2])).loss, expected)


def test_frame_weights_sum_to_one_and_outputs_have_their_documented_shapes():
    model = tiny_model()
    output = model(**batch(model, utterances(model, [1.0, 0.4])))
    assert output.logits.shape == (2, 3) and output.frame_logits.shape == (2, 49, 3)
    assert output.embedding.shape == (2, 32) and output.frame_mask.sum(1).tolist() == [49, 19]
    torch.testing.assert_close(output.frame_weights.sum(1), torch.ones(2))
    assert output.loss is None
    assert isinstance(model(torch.randn(1, 8000), return_dict=False), tuple)


def test_the_feature_encoder_is_frozen_also_after_loading(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path)
    for frozen in (model, SERAlignForAudioClassification.from_pretrained(tmp_path)):
        assert not any(p.requires_grad for p in frozen.encoder.feature_extractor.parameters())
        assert all(p.requires_grad for n, p in frozen.named_parameters() if "feature_extractor" not in n)
        frozen.train()(torch.randn(2, 8000), labels=torch.tensor([0, 1])).loss.backward()
        assert all(p.grad is None for p in frozen.encoder.feature_extractor.parameters())
    trained = tiny_model(freeze_feature_encoder=False).train()
    trained(torch.randn(2, 8000), labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad is not None for p in trained.encoder.feature_extractor.parameters())


@pytest.mark.parametrize("encoder", ["wav2vec2-group", "wav2vec2-conformer-group", "data2vec-audio"])
@pytest.mark.parametrize("freeze", [True, False])
def test_activation_checkpointing_gives_the_same_gradients(encoder, freeze):
    encoder_off = {"attention_dropout": 0.0, "hidden_dropout": 0.0, "activation_dropout": 0.0, "layerdrop": 0.0}
    encoder_off |= {"feat_proj_dropout": 0.0, "apply_spec_augment": False, "conformer_conv_dropout": 0.0}
    plain = tiny_model(encoder, freeze_feature_encoder=freeze)
    config = copy.deepcopy(plain.config)
    for name, value in encoder_off.items():
        setattr(config.encoder_config, name, value)
    gradients = []
    for checkpointing in (False, True):
        model = SERAlignForAudioClassification(copy.deepcopy(config)).train()
        model.load_state_dict(plain.state_dict())
        if checkpointing:
            model.activation_checkpointing_enable()
        inputs = batch(model, utterances(model, [1.0, 0.5]))
        model(**inputs, labels=torch.tensor([0, 1])).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(value, gradients[1][name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("encoder", ["wav2vec2-group", "wav2vec2-bert"])
def test_bfloat16_weights_and_autocast_stay_close_to_float32(encoder):
    model = tiny_model(encoder)
    inputs, labels = batch(model, utterances(model, [1.0, 0.5])), torch.tensor([0, 1])
    exact = model(**inputs, labels=labels)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = model(**inputs, labels=labels)
    halved = copy.deepcopy(model).to(torch.bfloat16)(**inputs, labels=labels)
    for output in (autocast, halved):
        assert output.loss.dtype == torch.float32 and output.frame_weights.dtype == torch.float32
        assert abs(output.loss.item() - exact.loss.item()) < 0.05
        torch.testing.assert_close(output.frame_weights.sum(1), torch.ones(2), atol=1e-5, rtol=0)


def test_own_parameters_start_as_configured():
    model = SERAlignForAudioClassification(
        SERAlignConfig(encoder_config=dict(TINY_ENCODERS["wav2vec2-layer"], hidden_size=512), cls_init_std=0.5)
    )
    assert 0.4 < model.pooling.cls_token.std().item() < 0.6
    assert 0.015 < model.classifier.weight.std().item() < 0.025
    assert not model.classifier.bias.any()
    with torch.device("meta"):  # as from_pretrained builds it: what a checkpoint lacks must be filled, not left over
        on_meta = SERAlignForAudioClassification(model.config)
    assert on_meta.pooling.cls_token.is_meta


def test_weights_that_a_checkpoint_lacks_are_initialised(tmp_path):
    model = tiny_model("wav2vec2-layer", pooling="attentive", cls_init_std=0.5)
    model.save_pretrained(tmp_path)
    loaded = SERAlignForAudioClassification.from_pretrained(tmp_path, pooling="cls")
    assert 0.2 < loaded.pooling.cls_token.std().item() < 0.9
    assert all(torch.isfinite(p).all() and p.abs().max() < 10 for p in loaded.parameters())


@pytest.mark.parametrize("encoder", ["wav2vec2-group", "hubert-layer", "data2vec-audio", "wav2vec2-bert"])
def test_short_and_long_utterances_train_together_and_alone_under_spec_augment(encoder):
    model = tiny_model(encoder).train()
    model.encoder.config.mask_time_prob = 0.5
    np.random.seed(0)
    for seconds in ([0.1, 10.0], [0.1, 0.1], [0.03 if encoder != "wav2vec2-bert" else 0.1]):
        labels = torch.zeros(len(seconds), dtype=torch.long)
        loss = model(**batch(model, utterances(model, seconds)), labels=labels).loss
        loss.backward()
        assert torch.isfinite(loss)


def test_utterances_too_short_for_a_frame_say_so():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"399 samples \(0\.0249 s.*at least 400 \(0\.0250 s\)"):
        model(torch.randn(1, 399))
    with pytest.raises(ValueError, match=r"utterance 1 of the batch has 0 samples"):
        model(torch.randn(2, 8000), attention_mask=torch.tensor([[1] * 8000, [0] * 8000]))
    with pytest.raises(ValueError, match=r"0 samples"):
        model(torch.zeros(1, 0))
    with pytest.raises(ValueError, match="the batch is empty"):
        model(torch.zeros(0, 8000))
    assert model(torch.randn(1, 400)).frame_mask.shape == (1, 1)
    log_mel = tiny_model("wav2vec2-bert")
    with pytest.raises(ValueError, match=r"0 log-mel frames"):
        log_mel(input_features=torch.zeros(1, 0, 160))


def test_wrong_inputs_say_what_is_valid():
    with pytest.raises(ValueError, match="wav2vec2-bert encoder takes only input_features"):
        tiny_model("wav2vec2-bert")(torch.randn(1, 8000))
    with pytest.raises(ValueError, match="wav2vec2 encoder takes only input_values"):
        tiny_model()(input_features=torch.randn(1, 10, 160))
    left_padded = torch.tensor([[0] * 4000 + [1] * 4000])
    with pytest.raises(ValueError, match="pad on the right"):
        tiny_model()(torch.randn(1, 8000), attention_mask=left_padded)


@pytest.mark.parametrize(("frames", "masks"), [(9, False), (10, True), (40, True)])
def test_spans_of_time_are_masked_in_training_where_one_fits(frames, masks):
    model = tiny_model().train()
    settings = model.encoder.config
    settings.mask_time_prob, settings.mask_time_length, settings.mask_time_min_masks = 0.9, 10, 1
    samples = model.config.receptive_field + 320 * (frames - 1)
    output = model(torch.randn(2, samples), labels=torch.tensor([0, 1]))
    assert output.frame_mask.shape[1] == frames
    output.loss.backward()
    gradient = model.encoder.masked_spec_embed.grad  # of what a masked frame is replaced by
    assert masks == (gradient is not None and bool(gradient.abs().max() > 0))


def test_an_encoder_whose_configuration_was_taken_over_gets_its_fast_attention_back():
    encoder = AutoModel.from_config(tiny_model("wav2vec2-layer").config.encoder_config)
    config = SERAlignConfig(encoder_config=encoder.config)
    assert encoder.config._attn_implementation is None  # else there would be nothing to do
    model = SERAlignForAudioClassification(config, encoder)
    assert model.encoder.config._attn_implementation == "sdpa"


def test_flash_attention_is_refused_by_nothing_but_its_missing_package():
    config = SERAlignConfig(
        encoder_config=dict(TINY_ENCODERS["wav2vec2-group"]), attn_implementation="flash_attention_2"
    )
    with pytest.raises(ImportError, match="the package for FlashAttention2"):
        SERAlignForAudioClassification(config)


def test_a_classifier_with_a_hidden_layer():
    """LayerNorm, linear, ReLU, linear in NumPy, on the utterance and on each frame; the same after saving."""
    model = tiny_model("wav2vec2-layer", classifier_hidden_size=8, fual_weight=0.05).eval()
    vectors = torch.randn(2, 3, model.config.encoder_config.hidden_size, generator=torch.Generator().manual_seed(0))
    found = model.classifier(vectors).detach().numpy()
    weights = {name: weight.detach().double().numpy() for name, weight in model.classifier.named_parameters()}
    assert weights["1.weight"].shape == (8, vectors.shape[-1])
    centred = vectors.double().numpy()
    centred -= centred.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + model.classifier[0].eps)
    hidden = np.maximum(
        (normed * weights["0.weight"] + weights["0.bias"]) @ weights["1.weight"].T + weights["1.bias"], 0
    )
    np.testing.assert_allclose(found, hidden @ weights["4.weight"].T + weights["4.bias"], atol=1e-6)
    with torch.no_grad():
        output = model(**batch(model, utterances(model, [0.5, 1.0])))
    assert output.frame_logits.shape[-1] == output.logits.shape[-1] == model.config.num_labels
