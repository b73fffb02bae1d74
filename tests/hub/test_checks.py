"""What a user may give the model by mistake is refused, with what is valid; what is meant clearly is taken."""

import numpy as np
import pytest
import torch
from conftest import batch, tiny_model, utterances


@pytest.fixture(scope="module")
def model():
    return tiny_model("wav2vec2-group")


@pytest.fixture(scope="module")
def inputs(model):
    return batch(model, utterances(model, [0.5, 0.2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (1000 * x).to(torch.int16), "input_values is torch.int16, not a tensor of floats"),
        (lambda x: (1000 * x).long(), "input_values is torch.int64, not a tensor of floats"),
        (lambda x: x.numpy(), r"input_values is ndarray, not a tensor .* return_tensors='pt'"),
        (lambda x: list(x), "input_values is list, not a tensor of floats"),
        (lambda x: x[0], r"has the shape \[8000\]; expected \(batch, samples\), one channel"),
        (lambda x: x[:, None].repeat(1, 2, 1), r"has the shape \[2, 2, 8000\]; .* average the channels"),
    ],
)
def test_audio_that_no_feature_extractor_made(model, inputs, change, message):
    with pytest.raises(ValueError, match=message):
        model(change(inputs["input_values"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask[:, :-500], r"shape \[2, 7500\], but the input begins with \[2, 8000\]"),
        (lambda mask: mask[:1], r"shape \[1, 8000\], but the input begins with \[2, 8000\]"),
        (lambda mask: torch.cat([mask[:, :1000], 0 * mask[:, :500], mask[:, 1500:]], 1), "is 1 again after a 0"),
        (lambda mask: mask.flip(1), "pad on the right"),
        (lambda mask: (1.0 - mask) * -1e9, "must be 1 on the utterance and 0 on the padding"),
    ],
)
def test_a_mask_of_other_audio(model, inputs, change, message):
    with pytest.raises(ValueError, match=message):
        model(inputs["input_values"], attention_mask=change(inputs["attention_mask"]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32, torch.float64])
def test_a_mask_of_any_type(model, inputs, dtype):
    mask = inputs["attention_mask"].to(dtype)
    assert torch.equal(model(inputs["input_values"], attention_mask=mask).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3]), r"labels contains \[0, 3\]; expected 2 class indices from 0 to 2"),
        (torch.tensor([0, -100]), r"labels contains \[0, -100\]"),
        (torch.tensor([0.0, 1.0]), "labels is torch.float32"),
        (torch.tensor([[0], [1]]), r"labels has the shape \[2, 1\]"),
        (torch.tensor([0]), r"labels has the shape \[1\]"),
        (torch.ones(2, 3), "labels contains a row that does not add up to 1"),
        (torch.tensor([[1.5, -0.5, 0.0], [1.0, 0.0, 0.0]]), "labels contains a row that does not add up to 1"),
        (["sad", "angry"], "labels is list, not a tensor"),
    ],
)
def test_labels_that_are_neither_classes_nor_distributions(model, inputs, labels, message):
    with pytest.raises(ValueError, match=message):
        model(**inputs, labels=labels)


def test_classes_of_any_integer_type_and_one_hot_rows_give_the_loss_of_numpy(model, inputs):
    logits = model(**inputs).logits.detach().double().numpy()
    expected = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, (2, 0))])
    one_hot = torch.eye(3)[[2, 0]]
    for labels in (torch.tensor([2, 0]), torch.tensor([2, 0], dtype=torch.uint8), one_hot, one_hot.long()):
        assert model(**inputs, labels=labels).ce_loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions"])
def test_outputs_that_the_model_does_not_have_are_refused(inputs, name):
    model = tiny_model()
    model.set_attn_implementation("eager")  # the library refuses output_attentions with any other
    setattr(model.config, name, True)
    with pytest.raises(ValueError, match=rf"config.{name}=True is not supported: set it to False") as refusal:
        model(**inputs)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("encoder", ["wav2vec2-group", "whisper"])
def test_the_meta_device_gives_shapes_and_a_mask_there_is_refused(encoder):
    model = tiny_model(encoder).eval()
    given = {name: values.to("meta") for name, values in batch(model, utterances(model, [0.5, 0.2])).items()}
    model = model.to("meta")
    with pytest.raises(ValueError, match="attention_mask is on the meta device and has no values: leave it out"):
        model(**given)
    del given["attention_mask"]
    labels = torch.zeros(2, dtype=torch.long, device="meta")
    output = model(**given, labels=labels)
    assert output.logits.shape == (2, 3) and output.loss.shape == ()


@pytest.mark.parametrize("encoder", ["wav2vec2-bert", "whisper"])
def test_log_mel_frames_of_another_width_are_refused(encoder):
    model = tiny_model(encoder)
    (frames,) = utterances(model, [0.5])
    for shape in ((1, len(frames), frames.shape[1] - 1), (1, frames.shape[1], len(frames)), frames.shape):
        with pytest.raises(
            ValueError, match=rf"expected \(batch, frames, {frames.shape[1]}\): create it with the model"
        ):
            model(input_features=torch.zeros(shape))


def test_no_recordings_have_no_answers(recognize):
    assert recognize([]) == recognize(()) == []
    assert recognize([], return_timeline=True) == []
