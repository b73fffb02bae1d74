"""KL, focal, center and supervised contrastive loss against NumPy in float64, by hand, and in the model."""

import math

import numpy as np
import pytest
import reference
import torch
from conftest import batch, tiny_model, utterances

from losses_ser_align import (
    broadcast_context,
    center_loss,
    cosine_distance,
    focal_loss,
    soft_label_divergence,
    supervised_contrastive_loss,
    weighted_cross_entropy,
)
from modeling_ser_align import SERAlignForAudioClassification

HARD, SOFT = [2, 0, 2, 2], [[0.0, 0.3, 0.7], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6], [0.5, 0.5, 0.0]]
LENGTHS = [5, 2, 1, 3]
WEIGHTS = [0.5, 2.0, 7.0]
MASK = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
ALL = {
    "kl_weight": 0.3,
    "cosine_weight": 0.1,
    "focal_weight": 0.4,
    "center_weight": 0.2,
    "contrastive_weight": 0.6,
    "center_size": 5,
}
NAMES = ("kl_loss", "cosine_loss", "focal_loss", "center_loss", "contrastive_loss")


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    shapes = {"logits": (4, 3), "frames": (4, 5, 6), "projections": (4, 6), "centers": (3, 6)}
    return {name: 2 * rng.normal(size=shape) for name, shape in shapes.items()}


def assert_agrees(loss, expected, *arrays):
    """Assert that a loss and its gradient by each array are those of the reference in float64."""
    tensors = [torch.tensor(array, dtype=torch.float32, requires_grad=True) for array in arrays]
    found = loss(*tensors)
    found.backward()
    assert found.dtype == torch.float32 and found.item() == pytest.approx(expected(*arrays), rel=1e-5, abs=1e-6)
    for index, tensor in enumerate(tensors):

        def by_one(x, index=index):
            return expected(*arrays[:index], x, *arrays[index + 1 :])

        np.testing.assert_allclose(tensor.grad, reference.gradient(by_one, arrays[index]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_kl_and_focal_loss_and_their_gradients_agree_with_numpy(case, labels, weights):
    target, ones = torch.tensor(labels), weights or [1.0] * 3
    assert_agrees(
        lambda x: soft_label_divergence(x, target, weights),
        lambda x: reference.soft_label_divergence(x, labels, ones),
        case["logits"],
    )
    for gamma in (0.0, 0.5, 2.0):
        assert_agrees(
            lambda x, gamma=gamma: focal_loss(x, target, gamma, weights),
            lambda x, gamma=gamma: reference.focal(x, labels, gamma, ones),
            case["logits"],
        )


@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_center_loss_and_its_gradients_agree_with_numpy(case, labels):
    assert_agrees(
        lambda z, c: center_loss(z, c, torch.tensor(labels)),
        lambda z, c: reference.center(z, c, labels),
        case["projections"],
        case["centers"],
    )


@pytest.mark.parametrize("samples", ["utterances", "frames"])
@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_contrastive_loss_and_its_gradient_agree_with_numpy_and_padding_does_not_count(case, labels, samples):
    assert_agrees(
        lambda x: supervised_contrastive_loss(x, MASK, torch.tensor(labels), 0.3, samples),
        lambda x: reference.contrastive(x, LENGTHS, labels, 0.3, samples, 3),
        case["frames"],
    )


@pytest.mark.parametrize("labels", [HARD, SOFT], ids=["hard", "soft"])
def test_the_cosine_distance_and_its_gradient_agree_with_numpy(case, labels):
    target = torch.tensor(labels)
    assert_agrees(lambda x: cosine_distance(x, target), lambda x: reference.cosine_distance(x, labels), case["logits"])


def test_the_loss_of_em2ldl_is_kl_and_three_tenths_of_the_cosine_distance_beside_eal_and_fual():
    soft = torch.tensor(SOFT[:2])
    model = tiny_model(ce_weight=0, kl_weight=1.0, cosine_weight=0.3, eal_weight=0, fual_weight=0)
    inputs = batch(model, utterances(model, [1.0, 0.4]))
    output = model(**inputs, labels=soft)
    logits = output.logits.detach().numpy().astype(np.float64)
    kl, cosine = (
        reference.soft_label_divergence(logits, soft.numpy(), [1.0] * 3),
        reference.cosine_distance(logits, SOFT[:2]),
    )
    assert output.loss.item() == pytest.approx(kl + 0.3 * cosine, rel=1e-5) and output.ce_loss is None
    both = tiny_model(ce_weight=0, kl_weight=1.0, cosine_weight=0.3, eal_weight=0.5, fual_weight=0.7)
    found = both(**inputs, labels=soft)
    expected = found.kl_loss + 0.3 * found.cosine_loss + 0.5 * found.eal_loss + 0.7 * found.fual_loss
    torch.testing.assert_close(found.loss, expected)
    assert found.eal_loss > 0 and found.fual_loss > 0


def test_kl_has_the_gradient_of_the_cross_entropy_and_focal_with_gamma_0_is_the_cross_entropy(case):
    logits, soft, hard = torch.tensor(case["logits"], requires_grad=True), torch.tensor(SOFT), torch.tensor(HARD)
    (by_kl,) = torch.autograd.grad(soft_label_divergence(logits, soft), logits)
    (by_ce,) = torch.autograd.grad(weighted_cross_entropy(logits, soft), logits)
    torch.testing.assert_close(by_kl, by_ce)
    for labels, gammas in ((hard, WEIGHTS), (hard, None)):
        ce = weighted_cross_entropy(logits, labels, gammas)
        torch.testing.assert_close(soft_label_divergence(logits, labels, gammas), ce)
        torch.testing.assert_close(focal_loss(logits, labels, 0.0, gammas), ce)


def test_contrastive_loss_by_hand():
    """Three utterances in the plane at 0°, 90° and 0°; the first two are of one class.

    Similarities (temperature 1): first 0 and 1, second 0 and 0. The third has no partner and counts 0.
    """
    frames = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]], [[5.0, 0.0]]])
    found = supervised_contrastive_loss(frames, torch.ones(3, 1), torch.tensor([0, 0, 1]), temperature=1.0)
    assert found.item() == pytest.approx((math.log(1 + math.e) + math.log(2) + 0) / 3, abs=1e-6)
    alone = supervised_contrastive_loss(frames[:1], torch.ones(1, 1), torch.tensor([0]))
    assert alone.item() == 0
    broadcast = broadcast_context(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[True, True, False]]))
    assert broadcast[0, :2, 0].tolist() == [1.5, 2.5]


def test_losses_stay_float32_and_finite_for_extreme_and_silent_inputs():
    logits = torch.tensor([[300.0, -300.0], [-300.0, 300.0]], dtype=torch.bfloat16, requires_grad=True)
    labels = torch.tensor([0, 0])
    frames = torch.zeros(2, 3, 4, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        losses = [
            *(focal_loss(logits, labels, gamma) for gamma in (0.0, 0.5, 2.0)),
            soft_label_divergence(logits, labels),
            cosine_distance(logits, labels),
            *(supervised_contrastive_loss(frames, torch.ones(2, 3), labels, 0.1, s) for s in ("utterances", "frames")),
        ]
    sum(losses).backward()
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses)
    assert losses[0].item() == pytest.approx(300) and torch.isfinite(logits.grad).all()
    assert torch.isfinite(frames.grad).all()


def test_autocast_does_not_change_the_contrastive_loss(case):
    frames, labels = torch.tensor(case["frames"], dtype=torch.float32), torch.tensor(SOFT)
    plain = supervised_contrastive_loss(frames, MASK, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert supervised_contrastive_loss(frames, MASK, labels).item() == plain.item()


@pytest.mark.parametrize("labels", [torch.tensor([2, 0, 2]), torch.tensor(SOFT[:3])], ids=["hard", "soft"])
@pytest.mark.parametrize("pooling", ["cls", "flam"])
def test_all_losses_add_up_beside_eal_and_fual_and_a_weight_of_0_switches_each_off(pooling, labels):
    model = tiny_model(pooling=pooling, ce_weight=0.5, eal_weight=0.3, fual_weight=0.7, **ALL)
    inputs = batch(model, utterances(model, [1.0, 0.4, 0.6]))
    output = model(**inputs, labels=labels)
    weights = {"ce_loss": 0.5, **{name: ALL[name.replace("loss", "weight")] for name in NAMES}}
    weights |= {"eal_loss": 0.3, "fual_loss": 0.7} if pooling == "cls" else {}
    parts = {name: output[name] for name in weights}
    assert all(loss > 0 for loss in parts.values())
    torch.testing.assert_close(output.loss, sum(weights[name] * loss for name, loss in parts.items()))
    torch.testing.assert_close(output.kl_loss, soft_label_divergence(output.logits, labels))
    torch.testing.assert_close(output.focal_loss, focal_loss(output.logits, labels, 2.0))
    torch.testing.assert_close(output.cosine_loss, cosine_distance(output.logits, labels))
    z = model.objective.projection(output.embedding)
    torch.testing.assert_close(output.center_loss, center_loss(z, model.objective.centers, labels))
    for name in NAMES:
        without = tiny_model(pooling=pooling, **{**ALL, name.replace("loss", "weight"): 0.0})
        found = without(**inputs, labels=labels)
        assert [other for other in NAMES if found.get(other) is None] == [name]
    only = tiny_model(pooling=pooling, ce_weight=0, eal_weight=0, fual_weight=0, kl_weight=1.0)
    found = only(**inputs, labels=labels)
    assert found.ce_loss is None
    torch.testing.assert_close(found.loss, found.kl_loss)


def test_centres_are_saved_and_neither_needed_nor_used_in_inference(tmp_path):
    model = tiny_model(**ALL)
    model.save_pretrained(tmp_path)
    loaded = SERAlignForAudioClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.objective.centers, model.objective.centers)
    inputs, labels = batch(model, utterances(model, [1.0, 0.4])), torch.tensor([0, 1])
    torch.testing.assert_close(loaded(**inputs, labels=labels).loss, model(**inputs, labels=labels).loss)
    without, info = SERAlignForAudioClassification.from_pretrained(tmp_path, center_weight=0, output_loading_info=True)
    assert not info["missing_keys"]
    assert set(info["unexpected_keys"]) == {
        "objective.centers",
        "objective.projection.weight",
        "objective.projection.bias",
    }
    assert torch.equal(without(**inputs).logits, model(**inputs).logits)
    with torch.no_grad():
        for parameter in model.objective.parameters():
            parameter.fill_(torch.nan)
    assert torch.equal(without(**inputs).logits, model(**inputs).logits)


def test_other_labels_need_new_centres_too(tmp_path):
    tiny_model(**ALL).save_pretrained(tmp_path)
    labels = {0: "a", 1: "b", 2: "c", 3: "d"}
    with pytest.raises(ValueError, match="pass ignore_mismatched_sizes=True to start with a new classifier"):
        SERAlignForAudioClassification.from_pretrained(tmp_path, id2label=labels)
    model = SERAlignForAudioClassification.from_pretrained(tmp_path, id2label=labels, ignore_mismatched_sizes=True)
    assert model.objective.centers.shape == (4, 5) and model.objective.centers.isfinite().all()
    assert 0.2 < model.objective.centers.std() < 3
