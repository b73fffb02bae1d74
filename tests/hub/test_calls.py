"""The lengths of a batch belong to its call: threads, recomputation and copies of a model do not interfere."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import batch, tiny_model, utterances

from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline

pytestmark = pytest.mark.slow

# One with a GroupNorm over time, one with a stack of positional convolutions, one with depthwise convolutions, and one
# whose convolutions pad themselves.
ENCODERS = ("wav2vec2-group", "data2vec-audio", "wav2vec2-conformer-group", "whisper")
NO_CHANCE = {"attention_dropout": 0.0, "hidden_dropout": 0.0, "activation_dropout": 0.0, "feat_proj_dropout": 0.0}
NO_CHANCE |= {"apply_spec_augment": False, "conformer_conv_dropout": 0.0}
NUM_THREADS, NUM_BATCHES = 4, 60


def make_batches(model, count=NUM_BATCHES):
    """Padded batches of different lengths, so that one's lengths would be wrong for another."""
    rng = np.random.default_rng(0)
    return [batch(model, utterances(model, rng.uniform(0.05, 0.4, 3).tolist(), seed)) for seed in range(count)]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_four_threads_on_one_model_answer_as_one_thread_does(encoder):
    model = tiny_model(encoder)
    batches = make_batches(model)
    together = threading.Barrier(NUM_THREADS)

    @torch.no_grad()
    def answer(inputs):
        return model(**inputs).logits

    def answer_all(_):
        together.wait()
        return [answer(inputs) for inputs in batches]

    expected = [answer(inputs) for inputs in batches]
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for found in threads.map(answer_all, range(NUM_THREADS)):
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_four_threads_on_one_pipeline_answer_as_one_thread_does(encoder):
    model = tiny_model(encoder)
    recognize = SpeechEmotionRecognitionPipeline(model=model, feature_extractor=model.config.build_feature_extractor())
    rng = np.random.default_rng(0)
    recordings = [(0.1 * rng.standard_normal(int(s * 16000))).astype(np.float32) for s in rng.uniform(0.2, 0.8, 15)]

    def answer_all(_):
        return [
            [(part["label"], part["score"]) for part in found]
            for found in recognize(recordings, batch_size=np.int64(3), top_k=np.int64(3))
        ]

    expected = answer_all(0)
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for found in threads.map(answer_all, range(NUM_THREADS)):
            for one, other in zip(found, expected, strict=True):
                assert [label for label, _ in one] == [label for label, _ in other]
                np.testing.assert_allclose([s for _, s in one], [s for _, s in other], atol=1e-6)


def make_training_model(encoder, checkpointing):
    plain = tiny_model(encoder, freeze_feature_encoder=False)
    config = copy.deepcopy(plain.config)
    for name, value in NO_CHANCE.items():
        setattr(config.encoder_config, name, value)
    model = SERAlignForAudioClassification(config).train()
    model.load_state_dict(plain.state_dict())
    for module in model.modules():  # its running statistics would depend on how often a layer is computed
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eval()
    if checkpointing:
        model.activation_checkpointing_enable()
    return model


def collect_gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_two_forwards_before_one_backward_give_the_gradients_of_no_checkpointing(encoder):
    gradients = []
    for checkpointing in (False, True):
        model = make_training_model(encoder, checkpointing)
        first, second = (batch(model, utterances(model, seconds)) for seconds in ([1.0, 0.3], [0.5, 1.4]))
        labels = torch.tensor([0, 1])
        (model(**first, labels=labels).loss + model(**second, labels=labels).loss).backward()
        gradients.append(collect_gradients(model))
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_evaluation_between_forward_and_backward_changes_no_gradient(encoder, checkpointing):
    gradients = []
    for evaluates in (False, True):
        model = make_training_model(encoder, checkpointing)
        inputs = batch(model, utterances(model, [1.0, 0.3]))
        loss = model(**inputs, labels=torch.tensor([0, 1])).loss
        if evaluates:
            with torch.no_grad():
                model(**batch(model, utterances(model, [0.2, 0.7, 1.2], seed=1)))
                model(**{model.main_input_name: utterances(model, [0.4])[0][None]})  # without a mask
        loss.backward()
        gradients.append(collect_gradients(model))
    for name, value in gradients[0].items():
        assert torch.equal(gradients[1][name], value), name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_forward_that_fails_leaves_no_lengths_behind(encoder):
    model = tiny_model(encoder)
    padded, alone = make_batches(model, 1)[0], utterances(model, [0.3])[0][None]
    expected, _ = model.encode(**{model.main_input_name: alone})
    padded["attention_mask"] = padded["attention_mask"][:, None].expand(-1, 2, -1)
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        model(**padded)
    assert torch.equal(model.encode(**{model.main_input_name: alone})[0], expected)


@pytest.mark.parametrize("encoder", (*ENCODERS, "wav2vec2-bert"))
def test_a_pickled_and_a_copied_model_are_exact_in_a_batch_too(encoder):
    model = tiny_model(encoder)
    inputs = make_batches(model, 1)[0]
    expected = model(**inputs).logits
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(**inputs).logits, expected)
        assert {n for n, p in other.named_parameters() if p.requires_grad} == trained
        other.classifier.weight.data.zero_()  # nothing is shared with the original
        assert torch.equal(model(**inputs).logits, expected)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_compiled_model_is_one_graph(encoder):
    """The state of a call does not break the compiled graph, and the outputs are the same."""
    model = tiny_model(encoder)
    inputs = make_batches(model, 1)[0]
    with torch.no_grad():
        assert torch._dynamo.explain(model)(**inputs).graph_break_count == 0
        torch.testing.assert_close(torch.compile(model, backend="eager")(**inputs).logits, model(**inputs).logits)
