"""EAL and FUAL against NumPy in float64, by hand, and inside the whole stage-2 head."""

import dataclasses
import math

import numpy as np
import pytest
import reference
import torch
from conftest import tiny_model

from configuration_ser_align import SERAlignConfig
from losses_ser_align import (
    LOSS_NAMES,
    emotional_attention_loss,
    frame_to_utterance_alignment_loss,
    weighted_cross_entropy,
)
from modeling_ser_align import SERAlignOutput

LENGTHS = [5, 2, 1]


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    weights = np.zeros((3, 5))
    for row, length in zip(weights, LENGTHS):
        row[:length] = reference.softmax(rng.normal(size=length))
    return {
        "cls": rng.normal(size=(3, 4)),
        "frames": rng.normal(size=(3, 5, 4)),
        "logits": 3 * rng.normal(size=(3, 3)),
        "frame_logits": 3 * rng.normal(size=(3, 5, 3)),
        "weights": weights,
        "mask": np.arange(5) < np.array(LENGTHS)[:, None],
    }


def as_tensor(array):
    return torch.tensor(array, dtype=torch.float32, requires_grad=True)


WEIGHTS = [0.5, 2.0, 7.0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [[2, 0, 1], [[0.0, 0.3, 0.7], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]]])
def test_weighted_cross_entropy_and_its_gradient_agree_with_numpy_and_torch(case, labels, smoothing):
    logits, target = as_tensor(case["logits"]), torch.tensor(labels)
    loss = weighted_cross_entropy(logits, target, WEIGHTS, smoothing)
    loss.backward()

    def expected(x):
        return reference.weighted_cross_entropy(x, labels, WEIGHTS, smoothing)

    assert loss.item() == pytest.approx(expected(case["logits"]), abs=1e-6)
    np.testing.assert_allclose(logits.grad, reference.gradient(expected, case["logits"]), atol=1e-6)
    weights = torch.tensor(WEIGHTS)
    each = torch.nn.CrossEntropyLoss(weights, reduction="none", label_smoothing=smoothing)(logits, target)
    assert loss.item() == pytest.approx(each.mean().item(), abs=1e-6)
    if target.ndim == 2:  # torch's mean is ours for distributions; over class indices it divides by their weights
        assert loss.item() == pytest.approx(
            torch.nn.CrossEntropyLoss(weights, label_smoothing=smoothing)(logits, target).item(), abs=1e-6
        )


def test_a_class_index_weighs_as_its_distribution_and_halves_of_a_batch_as_the_whole(case):
    logits, labels = as_tensor(case["logits"]), torch.tensor([2, 0, 1])
    whole = weighted_cross_entropy(logits, labels, WEIGHTS)
    one_hot = torch.nn.functional.one_hot(labels).float()
    assert whole.item() == pytest.approx(weighted_cross_entropy(logits, one_hot, WEIGHTS).item(), abs=1e-6)
    alone = [weighted_cross_entropy(logits[i : i + 1], labels[i : i + 1], WEIGHTS).item() for i in range(3)]
    assert whole.item() == pytest.approx(np.mean(alone), abs=1e-6)
    assert weighted_cross_entropy(logits, labels).item() == pytest.approx(
        torch.nn.CrossEntropyLoss()(logits, labels).item(), abs=1e-6
    )


@pytest.mark.parametrize("margin", [0.4, 0.8])
def test_eal_and_its_gradient_agree_with_numpy(case, margin):
    cls, frames = as_tensor(case["cls"]), as_tensor(case["frames"])
    loss = emotional_attention_loss(cls, frames, torch.tensor(case["mask"]), margin)
    loss.backward()
    assert loss.item() == pytest.approx(reference.eal(case["cls"], case["frames"], LENGTHS, margin), abs=1e-6)
    by_cls = reference.gradient(lambda x: reference.eal(x, case["frames"], LENGTHS, margin), case["cls"])
    by_frames = reference.gradient(lambda x: reference.eal(case["cls"], x, LENGTHS, margin), case["frames"])
    np.testing.assert_allclose(cls.grad, by_cls, atol=1e-6)
    np.testing.assert_allclose(frames.grad, by_frames, atol=1e-6)
    assert not frames.grad[~torch.tensor(case["mask"])].any()


@pytest.mark.parametrize("direction", ["utterance_to_frames", "frames_to_utterance"])
def test_fual_and_its_gradient_agree_with_numpy(case, direction):
    logits, frame_logits = as_tensor(case["logits"]), as_tensor(case["frame_logits"])
    with np.errstate(divide="ignore"):
        log_weights = torch.tensor(np.log(case["weights"]), dtype=torch.float32)  # minus infinity at padding
    loss = frame_to_utterance_alignment_loss(logits, frame_logits, log_weights, direction)
    loss.backward()

    def expected(u, f):
        return reference.fual(u, f, case["weights"], LENGTHS, direction)

    assert loss.item() == pytest.approx(expected(case["logits"], case["frame_logits"]), abs=1e-6)
    by_logits = reference.gradient(lambda x: expected(x, case["frame_logits"]), case["logits"])
    by_frames = reference.gradient(lambda x: expected(case["logits"], x), case["frame_logits"])
    np.testing.assert_allclose(logits.grad, by_logits, atol=1e-6)
    np.testing.assert_allclose(frame_logits.grad, by_frames, atol=1e-6)


def test_fual_trains_the_chosen_side_only(case):
    log_weights = torch.tensor(np.log(case["weights"] + 1e-30), dtype=torch.float32)
    for gradient, trained in (("both", (True, True)), ("frames", (False, True)), ("utterance", (True, False))):
        logits, frame_logits = as_tensor(case["logits"]), as_tensor(case["frame_logits"])
        frame_to_utterance_alignment_loss(logits, frame_logits, log_weights, gradient=gradient).backward()
        assert tuple(x.grad is not None and bool(x.grad.any()) for x in (logits, frame_logits)) == trained


def test_eal_by_hand():
    """CLS (1, 0). First utterance: cosines 1 and 0. Second: cosine -1, and a padded frame that must not count."""
    cls = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    frames = torch.tensor([[[2.0, 0.0], [0.0, 5.0]], [[-3.0, 0.0], [7.0, 7.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    first = (math.log(1 + math.exp(-0.2)) + math.log(1 + math.exp(0.8))) / 2
    second = math.log(1 + math.exp(1.8))
    assert emotional_attention_loss(cls, frames, mask, 0.8).item() == pytest.approx((first + second) / 2, abs=1e-6)


def test_fual_by_hand():
    """q = (3/4, 1/4); frames (1/2, 1/2) and (1, 0)-ish weighted 1/2 each give p = (3/4, 1/4): loss 0.
    With all weight on the first frame p = (1/2, 1/2): KL = 3/4 log(3/2) + 1/4 log(1/2)."""
    logits = torch.tensor([[math.log(3.0), 0.0]])
    frame_logits = torch.tensor([[[0.0, 0.0], [50.0, -50.0]]])
    even = torch.tensor([[math.log(0.5), math.log(0.5)]])
    first_only = torch.tensor([[0.0, -torch.inf]])
    assert frame_to_utterance_alignment_loss(logits, frame_logits, even).item() == pytest.approx(0, abs=1e-6)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert frame_to_utterance_alignment_loss(logits, frame_logits, first_only).item() == pytest.approx(
        expected, abs=1e-6
    )


def test_losses_stay_float32_and_finite_for_extreme_bfloat16_inputs():
    logits = torch.tensor([[300.0, -300.0]], dtype=torch.bfloat16)
    frame_logits = torch.tensor([[[-300.0, 300.0], [300.0, -300.0]]], dtype=torch.bfloat16, requires_grad=True)
    log_weights = torch.log(torch.tensor([[0.5, 0.5]]))
    loss = frame_to_utterance_alignment_loss(logits, frame_logits, log_weights)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(math.log(2), abs=1e-5)
    assert torch.isfinite(frame_logits.grad).all()
    frames = torch.zeros(1, 2, 4, dtype=torch.bfloat16, requires_grad=True)  # a silent frame has no direction
    loss = emotional_attention_loss(torch.ones(1, 4, dtype=torch.bfloat16), frames, torch.ones(1, 2))
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(frames.grad).all()


@pytest.fixture
def head():
    """The stage-2 head of a model on given frames, its NumPy weights, frames, lengths and labels."""
    model = tiny_model("wav2vec2-bert", pooling="cls", eal_weight=0.3, fual_weight=0.7)
    with torch.no_grad():  # strong enough that the weights are far from even
        model.pooling.cls_token.mul_(30)
        model.classifier.weight.mul_(30)
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    frames = np.random.default_rng(1).normal(size=(3, 6, 32))
    return model, weights, frames, [6, 3, 1], [2, 0, 1]


def numpy_loss(weights, frames, lengths, labels):
    parts = [reference.cls_head(f[:n], weights, num_heads=4) for f, n in zip(frames, lengths)]
    cls_outputs, _, _, logits, _ = zip(*parts)
    ce = reference.cross_entropy(logits, labels)
    eal = reference.eal(cls_outputs, [p[1] for p in parts], lengths, 0.8)
    fual = reference.fual(logits, [p[4] for p in parts], [p[2] for p in parts], lengths)
    return parts, {"ce_loss": ce, "eal_loss": eal, "fual_loss": fual, "loss": ce + 0.3 * eal + 0.7 * fual}


def torch_output(model, frames, lengths, labels, monkeypatch):
    inputs = torch.tensor(frames, dtype=torch.float32)
    mask = torch.arange(inputs.shape[1]) < torch.tensor(lengths)[:, None]
    # The encoder is the library's: here it hands the given frames through, so that the head alone is under test.
    monkeypatch.setattr(model, "_encode", lambda values, mask, features, extracted: ([], features, mask))
    return model(input_features=inputs, attention_mask=mask, labels=torch.tensor(labels))


def test_the_whole_head_agrees_with_numpy(head, monkeypatch):
    model, weights, frames, lengths, labels = head
    output = torch_output(model, frames, lengths, labels, monkeypatch)
    parts, expected = numpy_loss(weights, frames, lengths, labels)
    for index, (_, _, a, logits, frame_logits) in enumerate(parts):
        n = lengths[index]
        np.testing.assert_allclose(output.logits[index].detach(), logits, atol=2e-4)
        np.testing.assert_allclose(output.frame_weights[index, :n].detach(), a, atol=1e-5)
        np.testing.assert_allclose(output.frame_logits[index, :n].detach(), frame_logits, atol=2e-4)
        assert not output.frame_weights[index, n:].any()
    for name, value in expected.items():
        assert output[name].item() == pytest.approx(value, abs=1e-5), name
    assert expected["eal_loss"] > 0.1 and expected["fual_loss"] > 0.01  # the case is not trivial


def test_the_gradient_of_the_whole_head_agrees_with_numpy(head, monkeypatch):
    model, weights, frames, lengths, labels = head
    torch_output(model, frames, lengths, labels, monkeypatch).loss.backward()
    for name in ("pooling.cls_token", "classifier.bias", "pooling.layers.0.attention_norm.bias"):

        def loss(value, name=name):
            return numpy_loss({**weights, name: value}, frames, lengths, labels)[1]["loss"]

        found = dict(model.named_parameters())[name].grad
        np.testing.assert_allclose(found, reference.gradient(loss, weights[name]), atol=2e-5, err_msg=name)


def test_every_loss_of_the_output_has_a_name_in_the_logs():
    """A loss without a name would be neither logged nor kept out of the Trainer's evaluation loop."""
    parts = [field.name for field in dataclasses.fields(SERAlignOutput) if field.name.endswith("_loss")]
    assert parts == list(LOSS_NAMES) and set(parts) <= set(SERAlignConfig.keys_to_ignore_at_inference)
