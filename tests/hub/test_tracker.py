"""The emotion tracker: against NumPy, exact in a batch, apart from all else, and what it makes of a timeline."""

import math

import numpy as np
import pytest
import torch
from conftest import TINY_ENCODERS, batch, tiny_model, utterances
from transformers import Wav2Vec2FeatureExtractor

from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from timeline_ser_align import build_timeline

SECONDS = (0.6, 1.4, 0.31)
RATE = 16_000


def normalise(values, weight, bias):
    centred = values - values.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias


def gelu(values):
    return values * 0.5 * (1 + np.vectorize(math.erf)(values / np.sqrt(2)))


def track(frames, weights):
    """The tracker in NumPy: (frames, hidden) to (frames, classes)."""
    linear = lambda values, name: values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]  # noqa: E731
    tracked = normalise(linear(frames, "project"), weights["norm.weight"], weights["norm.bias"])
    for layer in range(2):
        kernel = weights[f"spread.{layer}.weight"][:, 0]
        half = kernel.shape[1] // 2
        padded = np.pad(tracked, ((half, half), (0, 0)))
        around = np.stack([(padded[i : i + kernel.shape[1]] * kernel.T).sum(axis=0) for i in range(len(tracked))])
        around = normalise(
            around + weights[f"spread.{layer}.bias"], weights[f"norms.{layer}.weight"], weights[f"norms.{layer}.bias"]
        )
        tracked = tracked + gelu(linear(around, f"mix.{layer}"))
    return linear(tracked, "classify")


def test_it_is_that_of_numpy():
    model = tiny_model(tracker_size=12)
    (values,) = utterances(model, [1.2])
    with torch.no_grad():
        found, frames = model(values[None]).tracker_logits[0], model.encode(values[None])[0][0]
    weights = {name: value.double().numpy() for name, value in model.tracker.state_dict().items()}
    assert weights["spread.0.weight"].shape[2] == 101  # a second on each side at 50 frames a second
    np.testing.assert_allclose(found.numpy(), track(frames.double().numpy(), weights), atol=1e-5)


@pytest.mark.parametrize("encoder", list(TINY_ENCODERS))
def test_alone_is_as_in_a_batch(encoder):
    model = tiny_model(encoder, tracker_size=8)
    inputs = utterances(model, SECONDS)
    with torch.no_grad():
        together = model(**batch(model, inputs, padding=0.0))
        for row, values in enumerate(inputs):
            alone = model(**{model.main_input_name: values[None]}).tracker_logits[0]
            found = together.tracker_logits[row][together.frame_mask[row]]
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)


def test_nothing_else_depends_on_it_and_nothing_else_trains_it():
    plain, model = tiny_model(), tiny_model(tracker_size=8)
    model.load_state_dict(plain.state_dict(), strict=False)
    inputs = batch(model, utterances(model, SECONDS))
    with torch.no_grad():
        expected, found = plain(**inputs), model(**inputs)
    assert expected.tracker_logits is None
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    output = model.train()(**inputs, labels=torch.tensor([0, 1, 2]))
    assert output.tracker_logits is None
    output.loss.backward()
    assert all(p.grad is None and not p.requires_grad for p in model.tracker.parameters())


def test_a_frame_sees_two_seconds_on_each_side():
    model = tiny_model(tracker_size=8)
    frames = torch.randn(1, 400, model.config.encoder_config.hidden_size)
    mask = torch.ones(1, 400, dtype=torch.bool)
    changed = frames.clone()
    changed[0, 200] += 1
    with torch.no_grad():
        moved = (model.tracker(changed, mask) - model.tracker(frames, mask)).abs().amax(dim=-1)[0] > 0
    assert moved.nonzero()[:, 0].tolist() == list(range(100, 301))


def test_frames_of_windows_make_the_segments():
    """Two windows of 2 s that overlap by 1 s. In the overlap, the frames of both are cross-faded."""
    starts, ends, phrase = np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.zeros(2)
    first, second = np.zeros((40, 2)), np.zeros((20, 2))  # of other rates
    first[:10, 0], first[10:, 1] = 1, 1  # class 0 for half a second
    second[:16, 1], second[16:, 0] = 1, 1  # class 1 for 1.6 s
    found = build_timeline(starts, ends, phrase, [first, second])
    assert [(s["label"], s["score"]) for s in found] == [(0, 1.0), (1, pytest.approx(1.0)), (0, 1.0)]
    assert [s["end"] for s in found] == pytest.approx([1.5, 3.6, 4.0])
    second[:10] = [1, 0]  # where both are heard, the first says 1 and the second 0: equal in the middle of the overlap
    found = build_timeline(starts, ends, phrase, [first, second])
    assert [s["label"] for s in found] == [0, 1, 0, 1, 0]
    assert [s["end"] for s in found] == pytest.approx([1.5, 2.5, 3.0, 3.6, 4.0])


@pytest.mark.parametrize("tracker_size", [0, 8])
def test_with_a_tracker_the_timeline_is_its_own_and_the_scores_are_not(tracker_size):
    model = tiny_model(tracker_size=tracker_size, id2label={0: "loud", 1: "soft"})
    recognize = SpeechEmotionRecognitionPipeline(model=model, feature_extractor=Wav2Vec2FeatureExtractor())
    waveform = np.random.default_rng(0).normal(size=4 * RATE).astype(np.float32)
    scores = recognize(waveform)
    said = {}
    for label, sign in (("loud", 1), ("soft", -1)):
        if tracker_size:
            with torch.no_grad():
                model.tracker.classify.bias.copy_(torch.tensor([100.0 * sign, 0.0]))
        answer = recognize(waveform, return_timeline=True)
        assert answer["scores"] == scores
        said[label] = {segment["label"] for segment in answer["timeline"]}
    assert (said == {"loud": {"loud"}, "soft": {"soft"}}) is bool(tracker_size)
