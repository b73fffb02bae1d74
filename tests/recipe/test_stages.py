"""What each stage starts from."""

import json
import math

import pytest
import torch
from conftest import TINY_ENCODERS, assert_same_encoder, tiny_model
from datasets import ClassLabel, Features, Value

from core.errors import InputError
from recipe.arguments import parse_arguments
from recipe.stages import build_model


class Rows:
    """All that build_model asks of the rows."""

    features = Features({"label": ClassLabel(names=["angry", "happy", "sad"]), "id": Value("string")})


@pytest.fixture
def stage1(tmp_path):
    model = tiny_model("wav2vec2-group", pooling="attentive", seed=3)
    model.save_pretrained(tmp_path)
    return tmp_path, model


def second_model(folder, *argv):
    args = parse_arguments(["--stage", "2", "--init_from", str(folder), "--encoder", "none", *argv], "")[2]
    return build_model(2, args, Rows)


def test_stage_2_takes_the_encoder_and_starts_pooling_and_classifier_anew(stage1):
    folder, first = stage1
    model = second_model(folder)
    assert_same_encoder(model.encoder, first.encoder)
    assert model.config.pooling == "cls" and not torch.equal(model.classifier.weight, first.classifier.weight)
    assert not any(p.requires_grad for p in model.encoder.feature_extractor.parameters())
    assert all(p.requires_grad for name, p in model.named_parameters() if "feature_extractor" not in name)


def test_stage_1_can_have_another_pooling(stage1):
    shape = ["--encoder", "none", "--encoder_config", json.dumps(TINY_ENCODERS["wav2vec2-group"])]
    for pooling in ([], ["--stage1_pooling", "flam"]):
        model = build_model(1, parse_arguments([*shape, "--pooling", "cls", *pooling], "")[1], Rows)
        assert model.config.pooling == (pooling[1] if pooling else "attentive")
    assert second_model(stage1[0], "--stage1_pooling", "flam", "--pooling", "max").config.pooling == "max"


def test_stage_2_can_keep_the_classifier_and_train_the_feature_encoder(stage1):
    folder, first = stage1
    kept = second_model(folder, "--init_classifier", "stage1")
    assert torch.equal(kept.classifier.weight, first.classifier.weight)
    unfrozen = second_model(folder, "--freeze_feature_encoder", "false")
    assert all(p.requires_grad for p in unfrozen.encoder.feature_extractor.parameters())


def test_stage_2_cannot_keep_a_classifier_of_another_shape(stage1):
    with pytest.raises(InputError, match="has another width or hidden layer: use --init_classifier new"):
        second_model(stage1[0], "--init_classifier", "stage1", "--classifier_hidden_size", "8")


def test_other_labels_in_stage_1_are_said_and_its_classifier_is_then_refused(stage1, capsys, monkeypatch):
    folder, _ = stage1
    second_model(folder)
    assert "warning" not in capsys.readouterr().err
    monkeypatch.setitem(Rows.features, "label", ClassLabel(names=["happy", "angry", "sad"]))
    second_model(folder)
    line = f"{folder} was trained on angry, happy, sad, in this order, but the labels here are happy, angry, sad"
    assert f"warning: {line}; stage 2 uses only its encoder\n" in capsys.readouterr().err
    with pytest.raises(
        InputError, match=r"--init_classifier stage1: .* was trained on angry, happy, sad, in this order"
    ):
        second_model(folder, "--init_classifier", "stage1")


def test_weights_that_are_not_numbers_are_refused_before_training(stage1):
    folder, first = stage1
    with torch.no_grad():
        first.encoder.encoder.layers[0].attention.k_proj.bias[3] = math.inf
    first.save_pretrained(folder)
    with pytest.raises(
        InputError, match=r"the weights encoder\.encoder\.layers\.0\.attention\.k_proj\.bias are not finite"
    ):
        second_model(folder)


def test_stage_2_cannot_reshape_the_encoder(stage1):
    with pytest.raises(InputError, match=r"stage 2 keeps the encoder of .*, where hidden_size is 32, not 64"):
        second_model(stage1[0], "--encoder_config", '{"hidden_size": 64}')
    shape = TINY_ENCODERS["wav2vec2-group"]["conv_dim"]
    second_model(stage1[0], "--encoder_config", f'{{"hidden_size": 32, "conv_dim": {shape}}}')


def test_stage_2_averages_frames_where_stage_1_did(tmp_path):
    first = tiny_model("whisper", pooling="attentive", average_frames=2, freeze_encoder_layers=1)
    first.save_pretrained(tmp_path)
    frozen = ["--average_frames", "2", "--freeze_encoder_layers", "2"]
    with pytest.raises(InputError, match=r"frames after layer 2 .* after layer 1: set --average_after 1"):
        second_model(tmp_path, *frozen)
    model = second_model(tmp_path, *frozen, "--average_after", "1").eval()
    frames = torch.randn(1, 80, first.config.encoder_config.num_mel_bins)
    torch.testing.assert_close(model.encode(input_features=frames)[0], first.encode(input_features=frames)[0])
