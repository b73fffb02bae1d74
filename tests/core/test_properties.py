"""Invariances of the model, losses, splits and timeline, on cases that hypothesis generates."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import TINY_ENCODERS, batch, tiny_model, utterances
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from making import make_split, rows, speakers_of
from transformers import Wav2Vec2FeatureExtractor

from configuration_ser_align import SERAlignConfig
from core.errors import InputError
from feature_extraction_ser_align import SERAlignFeatureExtractor
from heads_ser_align import masked_log_softmax
from losses_ser_align import emotional_attention_loss, frame_to_utterance_alignment_loss
from modeling_ser_align import SERAlignForAudioClassification
from recipe.batching import BucketSampler
from speech_ser_align import Phrase, cut_windows
from timeline_ser_align import build_timeline

# The same cases in every run, so that a failure is due to the change at hand.
settings.register_profile("same", deadline=None, derandomize=True, database=None)
settings.load_profile("same")
few = settings(max_examples=12)  # of those that run the model

LOSSES = ("loss", "ce_loss", "eal_loss", "fual_loss", "kl_loss", "focal_loss", "center_loss")
SEEDS = st.integers(0, 2**32 - 1)
SECONDS = st.floats(0.06, 1.0)


# --------------------------------------------------------------------------------------------- model


@pytest.fixture(scope="module", params=["wav2vec2-group", "wav2vec2-bert"])
def model(request):
    """A tiny model whose frames disagree, so that no loss is near 0."""
    weights = {"eal_weight": 0.3, "fual_weight": 0.7, "kl_weight": 0.4, "focal_weight": 0.6, "center_weight": 0.2}
    model = tiny_model(request.param, pooling="cls", **weights)
    with torch.no_grad():
        model.classifier.weight.mul_(30)
    return model


def labels_for(inputs, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 3, size=len(inputs)))


def outputs(model, inputs, labels, more=0, content=0.0):
    """Of a padded batch; `more` frames or so are padded beyond the longest, and all padding holds `content`."""
    padded = batch(model, inputs, content)
    name = model.main_input_name
    more *= 1 if model.config.takes_log_mel else 300
    end = padded[name].new_full((len(inputs), more, *padded[name].shape[2:]), content)
    padded[name] = torch.cat([padded[name], end], dim=1)
    padded["attention_mask"] = torch.nn.functional.pad(padded["attention_mask"], (0, more))
    with torch.no_grad():
        return model(**padded, labels=labels)


def assert_losses(found, expected):
    for name in LOSSES:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-4, msg=name)


@few
@given(seconds=st.lists(SECONDS, min_size=1, max_size=3), more=st.integers(0, 150), content=st.floats(-100, 100))
def test_neither_amount_nor_content_of_the_padding_matters(model, seconds, more, content):
    inputs = utterances(model, seconds)
    labels = labels_for(inputs, 0)
    plain, padded = outputs(model, inputs, labels), outputs(model, inputs, labels, more, content)
    frames = plain.frame_mask.shape[1]
    assert torch.equal(padded.frame_mask[:, :frames], plain.frame_mask) and not padded.frame_mask[:, frames:].any()
    torch.testing.assert_close(padded.logits, plain.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(padded.frame_weights[:, :frames], plain.frame_weights, atol=1e-5, rtol=0)
    assert not padded.frame_weights[~padded.frame_mask].any()
    found = padded.frame_logits[:, :frames][plain.frame_mask]
    torch.testing.assert_close(found, plain.frame_logits[plain.frame_mask], atol=1e-4, rtol=0)
    torch.testing.assert_close(padded.frame_weights.sum(dim=1), torch.ones(len(inputs)))
    assert_losses(padded, plain)


@few
@given(seconds=st.lists(SECONDS, min_size=2, max_size=4), seed=SEEDS)
def test_another_order_of_the_batch_is_another_order_of_the_outputs(model, seconds, seed):
    inputs = utterances(model, seconds)
    labels, order = labels_for(inputs, seed), np.random.default_rng(seed).permutation(len(inputs))
    plain, moved = outputs(model, inputs, labels), outputs(model, [inputs[i] for i in order], labels[order])
    for name in ("logits", "frame_logits", "frame_weights", "embedding"):
        torch.testing.assert_close(moved[name], plain[name][order], atol=1e-4, rtol=1e-5, msg=name)
    assert_losses(moved, plain)


@few
@given(seconds=st.lists(SECONDS, min_size=1, max_size=2), copies=st.integers(2, 3))
def test_an_utterance_that_is_there_twice_counts_twice(model, seconds, copies):
    inputs = utterances(model, seconds)
    labels = labels_for(inputs, 1)
    once, repeated = outputs(model, inputs, labels), outputs(model, copies * inputs, labels.repeat(copies))
    for name in ("logits", "frame_logits", "frame_weights"):
        for copied in repeated[name].split(len(inputs)):
            torch.testing.assert_close(copied, once[name], atol=1e-4, rtol=1e-5, msg=name)
    assert_losses(repeated, once)
    if len(inputs) == 2:  # but one of them alone draws the means to itself
        uneven = outputs(model, [*inputs, inputs[0]], torch.cat([labels, labels[:1]]))
        alone = [outputs(model, [one], labels[index : index + 1]) for index, one in enumerate(inputs)]
        for name in LOSSES:
            torch.testing.assert_close(uneven[name], (2 * alone[0][name] + alone[1][name]) / 3, atol=1e-4, rtol=1e-4)


@few
@given(seconds=st.lists(SECONDS, min_size=1, max_size=3), order=st.permutations(range(3)), seed=SEEDS)
def test_classes_may_be_numbered_in_any_order(model, seconds, order, seed):
    inputs = utterances(model, seconds)
    labels, number = labels_for(inputs, seed), torch.tensor(np.argsort(order))  # what a class is called from now on
    renumbered = copy.deepcopy(model)
    with torch.no_grad():
        renumbered.classifier.weight.copy_(model.classifier.weight[order])
        renumbered.classifier.bias.copy_(model.classifier.bias[order])
        renumbered.objective.centers.copy_(model.objective.centers[order])
    plain, other = outputs(model, inputs, labels), outputs(renumbered, inputs, number[labels])
    torch.testing.assert_close(other.logits, plain.logits[:, order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other.frame_logits, plain.frame_logits[..., order], atol=1e-5, rtol=1e-5)
    assert_losses(other, plain)
    if not torch.equal(number[labels], labels):
        assert abs(outputs(renumbered, inputs, labels).ce_loss - plain.ce_loss) > 1e-4


NORMALIZED = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
AS_IT_IS = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
LOG_MEL = SERAlignFeatureExtractor(stride=2, return_attention_mask=True)


@pytest.mark.parametrize("extractor", [NORMALIZED, AS_IT_IS, LOG_MEL], ids=["normalized", "as it is", "log mel"])
def test_gain_matters_only_where_nothing_takes_it_out(extractor):
    # Biases: without them the first norm would take the gain out by itself.
    encoder = "wav2vec2-bert" if extractor is LOG_MEL else "wav2vec2-layer"
    torch.manual_seed(0)
    config = SERAlignConfig(encoder_config={**TINY_ENCODERS[encoder], "conv_bias": True}, num_labels=3)
    model = SERAlignForAudioClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))

    def logits(waveform):
        with torch.no_grad():
            return model(**extractor(waveform, sampling_rate=16000, return_tensors="pt")).logits

    @few
    @given(seconds=SECONDS, gain=st.floats(0.3, 30), seed=SEEDS)
    def check(seconds, gain, seed):
        assume(abs(np.log(gain)) > 0.5)
        waveform = np.random.default_rng(seed).normal(scale=0.1, size=int(16000 * seconds)).astype(np.float32)
        plain = logits(waveform)
        difference = (logits(np.float32(gain) * waveform) - plain).abs().max()
        assert difference > 1e-3 if extractor is AS_IT_IS else difference < 1e-3
        course = np.linspace(1, gain, len(waveform), dtype=np.float32)  # the level within an utterance is heard
        assert (logits(course * waveform) - plain).abs().max() > 1e-3

    check()


# -------------------------------------------------------------------------------------------- losses


def drawn(seed, frames, classes=3, hidden=5):
    """Logits, frame logits, log-weights, a CLS output and frames of one utterance."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(1, *shape, generator=generator)

    log_weights = masked_log_softmax(3 * normal(frames), torch.ones(1, frames, dtype=torch.bool))
    return 3 * normal(classes), 3 * normal(frames, classes), log_weights, normal(hidden), normal(frames, hidden)


@pytest.mark.parametrize("direction", ["utterance_to_frames", "frames_to_utterance"])
@given(seed=SEEDS, frames=st.integers(1, 6), shift=st.floats(-50, 50))
def test_fual_is_0_where_the_frames_say_what_the_utterance_says_and_else_above(direction, seed, frames, shift):
    logits, frame_logits, log_weights, _, _ = drawn(seed, frames)
    found = frame_to_utterance_alignment_loss(logits, frame_logits, log_weights, direction)
    assert found > 0
    agreeing = (logits + shift).unsqueeze(1).expand_as(frame_logits)  # softmax does not see the shift
    assert frame_to_utterance_alignment_loss(logits, agreeing, log_weights, direction).abs() < 1e-5
    order = torch.randperm(frames, generator=torch.Generator().manual_seed(seed))
    moved = frame_to_utterance_alignment_loss(logits, frame_logits[:, order], log_weights[:, order], direction)
    torch.testing.assert_close(moved, found)
    nearer = torch.lerp(frame_logits.softmax(-1), logits.softmax(-1).unsqueeze(1), 0.5).log()
    assert frame_to_utterance_alignment_loss(logits, nearer, log_weights, direction) < found


@given(seed=SEEDS, frames=st.integers(1, 6), margin=st.floats(-1, 2), pull=st.floats(0.1, 5), length=st.floats(0.1, 9))
def test_eal_falls_as_frames_turn_to_the_cls_output_and_hears_no_length(seed, frames, margin, pull, length):
    *_, cls_output, vectors = drawn(seed, frames)
    mask = torch.ones(1, frames)

    def loss(cls_output, vectors):
        return emotional_attention_loss(cls_output, vectors, mask, margin).item()

    found = loss(cls_output, vectors)
    assert loss(cls_output, vectors + pull * cls_output.unsqueeze(1)) < found
    assert loss(length * cls_output, vectors) == pytest.approx(found, abs=1e-5)
    assert loss(cls_output, length * vectors) == pytest.approx(found, abs=1e-5)
    lowest, highest = np.log1p(np.exp(margin - 1)), np.log1p(np.exp(margin + 1))
    assert lowest - 1e-6 <= found <= highest + 1e-6
    assert loss(cls_output, cls_output.unsqueeze(1).expand_as(vectors)) == pytest.approx(lowest, abs=1e-5)


# -------------------------------------------------------------------------------------------- recipe


@given(
    number=st.integers(1, 150), batch_size=st.integers(1, 20), pool=st.integers(1, 6), seed=SEEDS,
    epoch=st.integers(0, 9),
)  # fmt: skip
def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_alone(number, batch_size, pool, seed, epoch):
    durations = np.random.default_rng(seed).uniform(0.5, 20, size=number).tolist()

    def order(seed, epoch):
        sampler = BucketSampler(durations, batch_size, pool, seed)
        sampler.set_epoch(epoch)
        np.random.seed(sampler.epoch)
        return list(sampler)

    found = order(seed, epoch)
    assert sorted(found) == list(range(number)) and order(seed, epoch) == found
    if number > 20 and batch_size < number / 5:
        assert order(seed, epoch + 1) != found and order(seed + 1, epoch) != found
    if pool * batch_size >= number:  # one pool: no two of its batches overlap in duration
        full = number // batch_size * batch_size
        spans = sorted(
            (min(cut), max(cut))
            for cut in ([durations[i] for i in found[k : k + batch_size]] for k in range(0, full, batch_size))
        )
        assert all(first[1] <= second[0] for first, second in pairwise(spans))


@st.composite
def corpora(draw):
    """Rows of made-up speakers, some without a gender, with sessions, and with as many utterances as it comes."""
    speakers = [f"s{index}" for index in range(draw(st.integers(3, 7)))]
    genders = {s: draw(st.sampled_from(["female", "male", ""])) for s in speakers}
    sessions = {s: draw(st.sampled_from("123")) for s in speakers}
    every = rows(speakers, per_class=3, gender=genders.get, session=sessions.get)
    kept = np.random.default_rng(draw(SEEDS)).random(len(every)) < draw(st.floats(0.4, 1))
    assume(kept.any())
    return every.select(np.flatnonzero(kept))


@settings(max_examples=6)
@given(
    data=corpora(), seed=st.integers(0, 99), num_folds=st.integers(2, 5),
    protocol=st.sampled_from(["speaker_folds", "leave_one_speaker_out", "leave_one_session_out"]),
)  # fmt: skip
def test_whatever_the_corpus_no_speaker_is_in_two_parts_and_everyone_tests_once(data, seed, num_folds, protocol):
    tested, shuffled = [], data.shuffle(seed=seed)
    try:
        for fold in range(1, 100):
            split = make_split(data, "folder", fold, num_folds, seed=seed, protocol=protocol)
            parts = speakers_of(split)
            assert parts["train"] and parts["validation"] and parts["test"]
            assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == len(set(data["speaker"]))
            assert sorted(id for part in split.values() for id in part["id"]) == sorted(data["id"])
            if fold == 1:
                again = make_split(shuffled, "folder", fold, num_folds, seed=seed, protocol=protocol)
                assert speakers_of(again) == parts  # whatever the order of the rows
            tested += parts["test"]
    except InputError as error:
        assume("is not one of the" in str(error))  # the last fold was the one before
    women_and_men = protocol == "leave_one_session_out"  # where a man may validate in place of testing
    assert len(tested) == len(set(tested)) and (women_and_men or set(tested) == set(data["speaker"]))


# ------------------------------------------------------------------------------------------ timeline


@st.composite
def scored_windows(draw):
    """Phrases as (start, end) in seconds; starts, ends, phrases and probabilities of the windows that cover them."""
    phrases, end = [], 0
    for gap, length in draw(st.lists(st.tuples(SAMPLES, SAMPLES), min_size=1, max_size=5)):
        phrases.append(Phrase(end + gap, np.zeros(length, np.float32)))
        end += gap + length
    windows = [
        (start / 16000, (start + len(waveform)) / 16000, number)
        for number, phrase in enumerate(phrases)
        for start, waveform in cut_windows(phrase, 2.0)
    ]
    probabilities = np.random.default_rng(draw(SEEDS)).dirichlet(np.ones(4), size=len(windows))
    spans = [(phrase.start / 16000, (phrase.start + len(phrase.waveform)) / 16000) for phrase in phrases]
    return spans, *map(np.array, zip(*windows)), probabilities


SAMPLES = st.integers(1600, 96000)


@given(case=scored_windows(), smoothing=st.sampled_from([0.0, 0.5, 2.0]), shortest=st.sampled_from([0.0, 0.3, 1.0]))
def test_segments_are_ordered_apart_within_phrases_and_indifferent_to_class_numbers(case, smoothing, shortest):
    spans, starts, ends, phrase, probabilities = case
    found = build_timeline(starts, ends, phrase, probabilities, smoothing, shortest)
    for segment in found:
        assert segment["end"] - segment["start"] >= max(shortest - 1e-6, 1e-3) and 0 < segment["score"] <= 1
        assert any(start - 1e-9 <= segment["start"] < segment["end"] <= end + 1e-9 for start, end in spans)
    for before, after in pairwise(found):
        assert before["end"] <= after["start"] + 1e-9
        assert before["end"] < after["start"] - 1e-3 or before["label"] != after["label"]
    if shortest == 0:  # then everything that was said has an emotion
        covered = sum(segment["end"] - segment["start"] for segment in found)
        assert covered == pytest.approx(sum(end - start for start, end in spans))
        assert all(segment["score"] > 0.25 for segment in found)
    order = np.array([2, 0, 3, 1])
    renumbered = build_timeline(starts, ends, phrase, probabilities[:, order], smoothing, shortest)
    for segment, other in zip(found, renumbered, strict=True):
        assert segment == {**other, "label": order[other["label"]], "score": pytest.approx(other["score"])}
