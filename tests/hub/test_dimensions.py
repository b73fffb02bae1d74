"""Emotion dimensions in the model: concordance, regions, heads and style pooling, against NumPy in float64."""

import math

import numpy as np
import pytest
import reference
import torch
from conftest import batch, tiny_model, utterances

from configuration_ser_align import SERAlignConfig
from dimensions_ser_align import find_regions, list_regions
from losses_ser_align import concordance, concordance_loss
from modeling_ser_align import SERAlignForAudioClassification

SCALES = {"valence": [1.0, 7.0], "arousal": [1.0, 5.0], "dominance": [-1.0, 1.0]}
NAMED = {"dimension_names": [*SCALES], "dimension_scales": [*SCALES.values()]}
TARGETS = [[2.0, 4.5, 0.2], [6.5, 1.5, -0.7], [4.0, 3.0, 0.0]]
ALONE = {"ce_weight": 0.0, "eal_weight": 0.0, "fual_weight": 0.0, "classes_are_regions": True}
ALONE["id2label"] = dict(enumerate(list_regions(SCALES)))


def dimensional(**fields):
    return tiny_model(**NAMED, **fields)


def read(module):
    return {name: value.double().numpy() for name, value in module.state_dict().items()}


def test_the_concordance_loss_and_its_gradient_agree_with_numpy():
    rng = np.random.default_rng(0)
    found, true = rng.normal(3, 1.5, size=(9, 3)), rng.normal(2, 0.7, size=(9, 3))
    tensor = torch.tensor(found, dtype=torch.float32, requires_grad=True)
    loss = concordance_loss(tensor, torch.tensor(true))
    loss.backward()
    assert loss.item() == pytest.approx(sum(1 - reference.concordance(found, true)), rel=1e-5)
    expected = reference.gradient(lambda x: sum(1 - reference.concordance(x, true)), found)
    np.testing.assert_allclose(tensor.grad, expected, atol=1e-5)


def test_concordance_is_1_for_equal_values_and_0_without_a_gradient_for_a_constant_or_a_single_utterance():
    true = torch.tensor(TARGETS)
    torch.testing.assert_close(concordance(true, true), torch.ones(3))
    torch.testing.assert_close(
        concordance(10 - true, true)[1:],
        torch.tensor(reference.concordance(10 - true.numpy(), true.numpy())[1:]).float(),
    )
    constant = true.mean(dim=0).expand(3, 3).clone().requires_grad_()
    concordance_loss(constant, true).backward()
    assert concordance(constant, true).tolist() == [0, 0, 0] and constant.grad.isfinite().all()
    for one in (true[:1] + 1, true[:1]):
        one = one.clone().requires_grad_()
        loss = concordance_loss(one, true[:1])
        loss.backward()
        assert loss.item() == 3 and not one.grad.any()


def test_regions_are_the_octants_by_sign_and_the_middle_of_a_scale_is_high():
    names = list_regions(SCALES)
    assert (
        names[0] == "valence- arousal- dominance-" and names[-1] == "valence+ arousal+ dominance+" and len(names) == 8
    )
    found = find_regions(torch.tensor(TARGETS), SCALES).tolist()
    assert [names[index] for index in found] == [
        "valence- arousal+ dominance+",
        "valence+ arousal- dominance-",
        "valence+ arousal+ dominance+",
    ]


def test_the_weight_of_the_regions_falls_as_in_the_authors_code_and_they_are_then_left_out():
    model = dimensional(region_weight=0.5)
    inputs = batch(model, utterances(model, [0.4, 0.5, 0.6]))
    targets = {"labels": torch.tensor([0, 1, 2]), "dimensions": torch.tensor(TARGETS)}
    shares = []
    for epoch in range(7):
        model.objective.start_epoch(epoch)
        shares.append(model.objective.region_share)
        output = model(**inputs, **targets)
        expected = output.ce_loss + 0.05 * (output.eal_loss + output.fual_loss) + output.ccc_loss
        if epoch < 5:
            expected = expected + 0.5 * shares[-1] * output.region_loss
        torch.testing.assert_close(output.loss, expected)
        assert (output.region_loss is None) == (epoch >= 5)
    assert shares == pytest.approx([1, 0.802, 0.604, 0.406, 0.208, 0, 0])
    model.config.region_epochs = 0
    model.objective.start_epoch(11)
    assert model.objective.region_share == 1


def test_the_loss_of_regions_and_of_dimensions_is_that_of_their_own_heads():
    weights = [0.5, 1.0, 2.0, 4.0, 1.0, 1.0, 3.0, 1.5]
    model = dimensional(region_weight=1.0, region_class_weights=weights, pooling="style", pooling_num_heads=2, **ALONE)
    inputs = batch(model, utterances(model, [0.4, 0.5, 0.6]))
    targets = torch.tensor(TARGETS)
    output = model(**inputs, labels=find_regions(targets, SCALES), dimensions=targets)
    logits = model.objective.region_classifier(output.embedding).detach().double().numpy()
    regions = reference.weighted_cross_entropy(logits, [3, 4, 7], weights)
    assert output.region_loss.item() == pytest.approx(regions, rel=1e-5)
    ccc = sum(1 - reference.concordance(output.dimensions.detach().double().numpy(), np.array(TARGETS)))
    assert output.loss.item() == pytest.approx(ccc + regions, rel=1e-5)
    output.loss.backward()
    assert all(weight.grad is not None for weight in model.dimension_head.parameters())


def test_a_head_is_that_of_the_authors_code_on_the_scale_of_each_dimension_and_calibrated():
    model = dimensional(**ALONE)
    x = np.random.default_rng(1).normal(size=(4, model.config.encoder_config.hidden_size))
    weights = read(model.dimension_head.layers)
    hidden = np.maximum(reference.layer_norm(reference.linear(x, weights, "1"), weights, "2"), 0)
    expected = np.array([4.0, 3.0, 0.0]) + np.array([3.0, 2.0, 1.0]) * reference.linear(hidden, weights, "5")
    vectors = torch.tensor(x, dtype=torch.float32)
    np.testing.assert_allclose(model.dimension_head(vectors).detach(), expected, atol=1e-5)
    model.config.dimension_calibration = [[2.0, 1.0, 0.5], [1.0, 0.0, 0.4], [0.5, -0.1, 0.3]]
    calibrated = expected * [2, 1, 0.5] + [1, 0, -0.1]
    np.testing.assert_allclose(model.dimension_head(vectors).detach(), calibrated, atol=1e-5)


def test_the_scores_of_regions_are_the_product_of_how_high_each_dimension_is():
    model = dimensional(calibration_temperature=0.5, **ALONE)
    output = model(**batch(model, utterances(model, [0.5, 0.3])))
    normalized = (output.dimensions.detach().double().numpy() - [4, 3, 0]) / [3, 2, 1]
    high = 1 / (1 + np.exp(-2 * normalized / 0.5))
    for row, p in zip(output.logits.softmax(dim=-1).tolist(), high):
        expected = [
            math.prod(p[k] if name.split()[k].endswith("+") else 1 - p[k] for k in range(3))
            for name in list_regions(SCALES)
        ]
        assert row == pytest.approx(expected, rel=1e-4)
    assert model.classifier is None


def test_style_pooling_agrees_with_numpy_and_padding_has_no_influence():
    model = tiny_model(pooling="style", pooling_num_heads=2, pooling_dropout=0.1)
    size = model.config.encoder_config.hidden_size
    frames = torch.randn(3, 9, size, generator=torch.Generator().manual_seed(0))
    lengths = [9, 4, 1]
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    pooled = model.pooling(frames, mask)
    for row, length in enumerate(lengths):
        expected = reference.style_pooling(frames[row, :length].double().numpy(), read(model.pooling), num_heads=2)
        np.testing.assert_allclose(pooled.embedding[row].detach(), expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "style"])
def test_dimensions_are_the_same_alone_and_in_a_padded_batch_and_after_saving(pooling, tmp_path):
    model = dimensional(pooling=pooling, pooling_num_heads=2, region_weight=1.0, **ALONE)
    model.config.dimension_calibration = [[1.5, 0.2, 0.5], [1.0, 0.0, 0.4], [0.7, -0.2, 0.3]]
    inputs = utterances(model, [0.7, 0.2, 0.5])
    together = model(**batch(model, inputs)).dimensions
    model.save_pretrained(tmp_path)
    loaded = SERAlignForAudioClassification.from_pretrained(tmp_path).eval()
    assert loaded.config.dimensions == SCALES
    for row, waveform in zip(together, inputs):
        torch.testing.assert_close(
            loaded(**{model.main_input_name: waveform[None]}).dimensions[0], row, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dimension_names": [], "dimension_scales": []}, "is not a map of 1 to 6 dimensions"),
        ({"dimension_names": ["valence"], "dimension_scales": [[5.0, 1.0]]}, "the scale of valence is"),
        ({"dimension_names": ["valence"], "dimension_scales": [[1.0, float("nan")]]}, "the scale of valence is"),
        ({"dimension_names": ["valence"]}, "dimension_scales=None are not those of"),
        ({**NAMED, **ALONE, "ccc_weight": 0.0}, "no loss trains the dimensions"),
        ({"region_weight": 1.0}, "regions are those of dimensions"),
        ({**NAMED, "dimension_source": "guessed"}, "is not one of rated, mapped, known"),
        ({**NAMED, "dimension_calibration": [[1.0, 0.0, 1.0]]}, "is not slope, intercept and error of 3 dim"),
        ({**NAMED, "region_class_weights": [1.0]}, "1 weights for 8 regions"),
        ({**NAMED, **ALONE, "id2label": {0: "a", 1: "b", 2: "c"}}, "not 3 labels"),
        ({**NAMED, **ALONE, "ce_weight": 1.0}, "ce_weight=1 trains labels"),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        SERAlignConfig(**fields)


def test_a_model_with_dimensions_asks_for_them():
    model = dimensional()
    inputs = batch(model, utterances(model, [0.4, 0.5]))
    labels = torch.tensor([0, 1])
    for given, message in (
        (None, "dimensions is NoneType"),
        (torch.zeros(2, 2), r"has the shape \[2, 2\]"),
        (torch.full((2, 3), math.nan), "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**inputs, labels=labels, dimensions=given)
    assert model(**inputs).dimensions.shape == (2, 3) and tiny_model()(**inputs).dimensions is None
