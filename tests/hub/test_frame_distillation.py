"""The distance between frames and those of a teacher: against NumPy in float64, and in the model."""

import numpy as np
import pytest
import torch
from conftest import batch, tiny_model, utterances

from losses_ser_align import frame_distillation_loss


def reference(frames, lengths, targets, target_lengths):
    """One utterance at a time: each frame and the teacher's frame at the same place, standardised over the batch."""
    pairs = []
    for row, (length, number) in enumerate(zip(lengths, target_lengths)):
        for index in range(length):
            pairs.append((frames[row, index], targets[row, int((index + 0.5) / length * number)]))
    ours, theirs = (np.array(side, dtype=np.float64) for side in zip(*pairs))
    return np.mean((ours - (theirs - theirs.mean(0)) / theirs.std(0)) ** 2)


@pytest.mark.parametrize("target_lengths", [[5, 2, 3], [11, 4, 6], [3, 1, 2]])
def test_it_is_that_of_numpy_whatever_the_rates_of_the_frames(target_lengths):
    rng, lengths = np.random.default_rng(0), [5, 2, 3]
    frames, targets = rng.normal(size=(3, 5, 4)), rng.normal(3, 10, size=(3, max(target_lengths), 4))
    for row, number in enumerate(target_lengths):
        targets[row, number:] = 0
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    loss = frame_distillation_loss(torch.tensor(frames), mask, torch.tensor(targets))
    assert loss.item() == pytest.approx(reference(frames, lengths, targets, target_lengths), rel=1e-5)


def test_frames_at_the_padding_do_not_count():
    generator = torch.Generator().manual_seed(0)
    frames, targets = torch.randn(2, 4, 3, generator=generator), torch.randn(2, 6, 3, generator=generator)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    targets[1, 3:] = 0
    expected = frame_distillation_loss(frames, mask, targets)
    wider = torch.nn.functional.pad(torch.where(mask[..., None], frames, torch.nan), (0, 0, 0, 2), value=torch.nan)
    longer = torch.nn.functional.pad(targets, (0, 0, 0, 5))
    torch.testing.assert_close(frame_distillation_loss(wider, torch.nn.functional.pad(mask, (0, 2)), longer), expected)


@pytest.mark.parametrize("encoder", ["wav2vec2-group", "whisper", "wav2vec2-bert"])
def test_it_trains_the_encoder_alone_and_counts_by_its_weight(encoder):
    model = tiny_model(encoder, frame_distillation_weight=0.5, teacher_size=6, ce_weight=1.0, pooling="attentive")
    inputs, labels = batch(model, utterances(model, [0.4, 0.7])), torch.tensor([0, 1])
    targets = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0))
    model.eval()
    output, plain = model(**inputs, labels=labels, teacher_frames=targets), model(**inputs, labels=labels)
    assert plain.frame_distillation_loss is None
    torch.testing.assert_close(output.loss, plain.loss + 0.5 * output.frame_distillation_loss)
    frames, mask = model.encode(**inputs)
    expected = frame_distillation_loss(model.objective.teacher_map(frames), mask, targets)
    torch.testing.assert_close(output.frame_distillation_loss, expected)
    output.frame_distillation_loss.backward()
    trained = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert trained == {"encoder", "objective"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "frame_distillation_weight=1 compares the frames with those of a teacher: name it with --teacher"),
        ({"teacher_size": 6, "patchout_frames": 0.5}, "patchout_frames drops frames, which frame_distillation_weight"),
    ],
)
def test_what_cannot_be_compared_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(frame_distillation_weight=1.0, **fields)
