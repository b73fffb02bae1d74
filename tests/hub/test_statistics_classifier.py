"""The logistic regression on statistics of the frozen layers, beside the pooling."""

import copy

import numpy as np
import pytest
import torch
from conftest import TINY_ENCODERS, batch, tiny_model, utterances

from modeling_ser_align import SERAlignForAudioClassification

FIELDS = {"statistics_layers": 1, "freeze_encoder_layers": 1}


def set_weights(model):
    generator = torch.Generator().manual_seed(0)
    for weight in model.statistics_classifier.parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("encoder", TINY_ENCODERS)
@pytest.mark.parametrize("layer_mix", ["last", "weighted"])
def test_statistics_are_those_of_the_frozen_frames_alone_and_in_a_batch(encoder, layer_mix):
    model = tiny_model(encoder, layer_mix=layer_mix, **FIELDS).eval()
    set_weights(model)
    inputs = utterances(model, [1.3, 0.7])
    together = model(**batch(model, inputs))
    for index, values in enumerate(inputs):
        alone = {model.main_input_name: values[None]}
        features = model.extract_features(values[None])
        frames = features[0].chunk(2, dim=-1)[1].double().numpy()  # of the first layer; before it, its input
        if encoder == "audio-spectrogram-transformer":  # without the two tokens of the utterance
            frames = frames.reshape(-1, 5, 32)[:, 2:].mean(axis=1)
        expected = np.concatenate([frames.mean(axis=0), frames.std(axis=0)])
        np.testing.assert_allclose(model.compute_statistics(**alone)[0], expected, atol=1e-5)
        weight, bias = (w.double().numpy() for w in model.statistics_classifier.parameters())
        without = copy.deepcopy(model)
        without.statistics_classifier = None
        added = model(**alone).logits[0] - without(**alone).logits[0]
        np.testing.assert_allclose(added.detach(), weight @ expected + bias, atol=1e-4)
        torch.testing.assert_close(together.logits[index], model(**alone).logits[0], atol=1e-4, rtol=0)
        extracted = model(extracted_features=features, attention_mask=torch.ones(features.shape[:2]))
        torch.testing.assert_close(extracted.logits[0], model(**alone).logits[0], atol=1e-5, rtol=0)


def test_training_leaves_it_alone_and_a_folder_keeps_it(tmp_path):
    model = SERAlignForAudioClassification(tiny_model(**FIELDS).config)
    assert not any(weight.any() or weight.requires_grad for weight in model.statistics_classifier.parameters())
    set_weights(model)
    model.save_pretrained(tmp_path)
    loaded = SERAlignForAudioClassification.from_pretrained(tmp_path)
    for ours, theirs in zip(loaded.statistics_classifier.parameters(), model.statistics_classifier.parameters()):
        assert torch.equal(ours, theirs) and not ours.requires_grad


def test_it_is_dropped_with_the_labels_that_it_was_fitted_on(tmp_path):
    model = tiny_model(**FIELDS)
    set_weights(model)
    model.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="the labels are not those"):
        other = SERAlignForAudioClassification.from_pretrained(tmp_path, num_labels=2, ignore_mismatched_sizes=True)
    assert other.statistics_classifier is None


def test_layers_that_are_trained_cannot_be_described():
    with pytest.raises(ValueError, match="only 0 layers are frozen"):
        tiny_model(statistics_layers=1)
