"""SERAlignConfig: every invalid value raises a clear error that lists the valid ones."""

import json
from dataclasses import fields

import pytest
from conftest import TINY_ENCODERS, tiny_model

from configuration_ser_align import SERAlignConfig
from fields_ser_align import SERAlignFields
from modeling_ser_align import SERAlignForAudioClassification
from options_ser_align import find_choices

CHOICES = {field.name: find_choices(field) for field in fields(SERAlignFields) if find_choices(field)}


@pytest.mark.parametrize("name", CHOICES)
def test_a_wrong_choice_lists_the_valid_ones(name):
    with pytest.raises(ValueError, match=f"{name}='nonsense' is not one of {', '.join(CHOICES[name])}"):
        SERAlignConfig(**{name: "nonsense"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eal_margin": "0.8"}, "eal_margin='0.8' is not a number from -1 to 2"),
        ({"eal_weight": -0.1}, "eal_weight=-0.1 is not a number of at least 0"),
        ({"fual_weight": float("nan")}, "fual_weight=nan is not a number of at least 0"),
        ({"frame_temperature": 0}, "frame_temperature=0 is not a number above 0, or None"),
        ({"pooling_num_heads": 0}, "pooling_num_heads=0 is not a whole number of at least 1"),
        ({"calibration_temperature": 0}, "calibration_temperature=0 is not a number above 0"),
        ({"pooling_num_layers": True}, "pooling_num_layers=True is not a whole number"),
        ({"pooling_num_heads": 5}, "pooling_num_heads=5 does not divide the encoder's hidden size 768"),
        ({"frame_classifier": "separate", "fual_weight": 0}, "is trained only by FUAL"),
        (
            {"ce_weight": 0},
            "no loss trains the classifier: set ce_weight, kl_weight, cosine_weight or focal_weight above 0",
        ),
        ({"ce_weight": 0, "kl_weight": 1, "label_smoothing": 0.1}, "label_smoothing=0.1 smooths the labels of the"),
        ({"pooling": "flam", "pooling_num_heads": 5}, "pooling_num_heads=5 does not divide the encoder's hidden size"),
        ({"id2label": {1: "sad", 2: "angry"}}, r"id2label has the indices \[1, 2\]; they must be 0 to 1"),
        ({"cls_in_embedding": "concat"}, "set frame_classifier='separate'"),
        ({"freeze_feature_encoder": "yes"}, "freeze_feature_encoder='yes' is not true or false"),
        ({"encoder_config": {"model_type": "bert"}}, "model_type='bert', which is not one of wav2vec2, hubert"),
        ({"encoder_config": {"add_adapter": True}}, "add_adapter=True"),
        ({"id2label": {0: "sad", 1: "angry"}, "num_labels": 4}, "num_labels=4 does not match id2label, which has 2"),
    ],
)
def test_a_wrong_value_says_what_is_valid(fields, message):
    with pytest.raises(ValueError, match=message):
        SERAlignConfig(**fields)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("eal_wieght", "eal_weight"),
        ("margin", "eal_margin"),
        ("num_label", "num_labels"),
        ("frame_temperatur", "frame_temperature"),
    ],
)
def test_a_misspelt_field_names_the_nearest(given, nearest):
    with pytest.raises(TypeError, match=f"{given} is not a field of SERAlignConfig; did you mean {nearest}"):
        SERAlignConfig(**{given: 1})


def test_a_wrong_override_while_loading_is_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="pooling='sum' is not one of attentive, self_attention, cls, mean, max, flam"):
        SERAlignForAudioClassification.from_pretrained(tmp_path, pooling="sum")


def test_labels_round_trip_as_words(tmp_path):
    SERAlignConfig(id2label={0: "sad", 1: "angry"}, eal_weight=1).save_pretrained(tmp_path)
    loaded = SERAlignConfig.from_pretrained(tmp_path)
    assert loaded.id2label == {0: "sad", 1: "angry"} and loaded.label2id == {"sad": 0, "angry": 1}
    assert loaded.eal_weight == 1 and loaded.encoder_config.model_type == "wav2vec2"


@pytest.mark.parametrize("encoder", TINY_ENCODERS)
def test_the_encoder_keeps_its_kind(encoder, tmp_path):
    SERAlignConfig(encoder_config=dict(TINY_ENCODERS[encoder])).save_pretrained(tmp_path)
    loaded = SERAlignConfig.from_pretrained(tmp_path)
    assert loaded.encoder_config.model_type == TINY_ENCODERS[encoder]["model_type"]
    assert loaded.encoder_config.hidden_size == 32
    shortest = {"wav2vec2-bert": 1, "whisper": 1, "audio-spectrogram-transformer": 16}.get(encoder, 400)
    assert loaded.receptive_field == shortest


@pytest.mark.parametrize("fields", [{"eal_margin": -1.0}, {"eal_margin": 2.0}, {"label_smoothing": 1.0}])
def test_the_ends_of_a_range_are_valid(fields):
    assert SERAlignConfig(**fields).to_dict().items() >= fields.items()


@pytest.mark.parametrize(("encoder", "seconds"), [("wav2vec2-group", 0.02), ("wav2vec2-bert", 0.02), ("whisper", 0.02)])
def test_seconds_from_one_frame_to_the_next(encoder, seconds):
    assert tiny_model(encoder).config.frame_seconds == pytest.approx(seconds)


def test_the_temperature_of_an_earlier_release_goes_on_loading(tmp_path):
    SERAlignConfig(calibration_temperature=2.5).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["calibration_temperature"] == 2.5 and "temperature" not in saved
    saved["temperature"] = saved.pop("calibration_temperature")
    (tmp_path / "config.json").write_text(json.dumps(saved))
    loaded = SERAlignConfig.from_pretrained(tmp_path)
    assert loaded.calibration_temperature == 2.5 and "temperature" not in loaded.to_dict()
    assert SERAlignConfig(temperature=3.0).calibration_temperature == 3.0
