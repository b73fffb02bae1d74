"""Fitting the emotion tracker: chains of utterances, their labels over time, and what a run keeps of it."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import tiny_model
from running import SHORT, train
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from transformers import Wav2Vec2FeatureExtractor

from core.json_files import read_lines
from recipe import tracking
from recipe.augmentation import Augmentation
from recipe.corpora import load_corpus
from recipe.preparing import UtterancePreparer
from recipe.tracking import Window, encode_windows, fit_tracker, list_chains, read_windows, train_tracker


def test_a_chain_has_one_speaker_and_no_label_twice_in_a_row_and_every_utterance_is_in_one():
    rng = np.random.default_rng(0)
    speakers = [f"s{number}" for number in rng.integers(5, size=200)]
    labels, seconds = rng.integers(3, size=200).tolist(), rng.uniform(0.5, 20, size=200).tolist()
    chains = list_chains(speakers, labels, seconds, seed=3)
    assert sorted(index for chain in chains for index in chain) == list(range(200))
    for chain in chains:
        assert len({speakers[index] for index in chain}) == 1
        assert all(labels[one] != labels[other] for one, other in pairwise(chain))
        assert len(chain) <= 6 and (len(chain) == 1 or sum(seconds[index] for index in chain) <= 15)
    assert max(map(len, chains)) >= 3
    assert list_chains(speakers, labels, seconds, seed=3) == chains != list_chains(speakers, labels, seconds, seed=4)


@pytest.fixture(scope="module")
def rows(demo):
    rows = load_corpus("demo", str(demo))
    return rows.select(range(0, len(rows), 4))


def make_model(rows, **fields):
    return tiny_model(id2label=dict(enumerate(rows.features["label"].names)), tracker_size=16, **fields)


def test_a_frame_has_the_label_of_the_sample_at_its_centre(rows):
    model = make_model(rows)
    preparer = UtterancePreparer(Wav2Vec2FeatureExtractor(), 400, augmentation=Augmentation((1.1,)))
    (variant,) = preparer.augmentation.variants()
    windows, rng = list(read_windows(model, rows, preparer, seed=5)), np.random.default_rng(5)
    changes = 0
    for order in list_chains(rows["speaker"][:], rows["label"][:], rows["duration"][:], seed=5):
        waveforms = [tracking.read_tightly(preparer, rows[index]["audio"]["path"], variant) for index in order]
        labels = np.concatenate([np.full(len(w), rows["label"][index]) for w, index in zip(waveforms, order)])
        for start, frames in encode_windows(model, preparer, np.concatenate(waveforms), rng):
            window = windows.pop(0)
            assert torch.equal(window.frames, frames)
            expected = labels[start + 160 : start + 160 + 320 * len(frames) : 320]
            assert window.labels.tolist() == expected.tolist()
            changes += len(set(expected)) > 1
    assert not windows and changes > 3


def test_a_frame_of_a_window_is_that_of_the_window_by_itself(rows):
    model, waveform = make_model(rows), np.random.default_rng(0).normal(size=70_000).astype(np.float32)
    preparer = UtterancePreparer(Wav2Vec2FeatureExtractor(), 400)
    found = list(encode_windows(model, preparer, waveform, np.random.default_rng(3)))
    starts = [start for start, _ in found]
    assert starts[0] == 0 and set(np.diff(starts[1:])) == {32_000} and 0 < starts[1] < 32_000
    for (start, frames), end in zip(found, [*starts[1:], len(waveform)]):
        values = Wav2Vec2FeatureExtractor()(waveform[start:end], sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            expected = model.encoder(values.input_values).last_hidden_state[0]
        torch.testing.assert_close(frames.float(), expected, atol=2e-3, rtol=2e-3)


@pytest.fixture(scope="module")
def fitted(rows):
    model = make_model(rows)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    speakers = sorted(set(rows["speaker"][:]))
    held_out = rows.filter(lambda row: row["speaker"] in speakers[:2])
    parts = {"train": rows.filter(lambda row: row["speaker"] not in speakers[:2]), "validation": held_out}
    preparer = UtterancePreparer(Wav2Vec2FeatureExtractor(), 400, augmentation=Augmentation((1.0, 1.1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking, "EPOCHS", 2)
        states = [fit_tracker(each, parts, preparer, 1.0, seed=0) for each in (model, make_model(rows))]
    return model, before, states, held_out, preparer


def test_the_same_seed_fits_the_same_and_nothing_else_changes(fitted):
    model, before, (first, second), *_ = fitted
    assert all(torch.equal(first[name], second[name]) for name in first)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("tracker.") for name in changed)
    assert not model.training and not any(p.requires_grad for p in model.tracker.parameters())


def track(model, windows):
    """Logits and labels of all frames."""
    windows = list(windows)
    with torch.no_grad():
        found = [
            model.tracker(window.frames.float()[None], torch.ones(1, len(window.frames), dtype=torch.bool))[0]
            for window in windows
        ]
    return torch.cat(found).double().numpy(), torch.cat([window.labels for window in windows]).numpy()


def test_it_is_calibrated_on_validation_speakers(fitted):
    model, _, (state, _), held_out, preparer = fitted
    model.tracker.load_state_dict(state)
    plain = UtterancePreparer(preparer.feature_extractor, 400)
    logits, labels = track(model, read_windows(model, held_out, plain, seed=0))

    def loss(scale):
        return -log_softmax(scale * logits, axis=1)[np.arange(len(labels)), labels].mean()

    assert minimize_scalar(loss, bounds=(0.05, 20), method="bounded").x == pytest.approx(1, abs=0.02)


def test_it_learns_from_the_frames_around_a_frame_what_that_frame_does_not_tell():
    """Each class has a direction, in noise that hides it from scikit-learn's classifier of single frames."""
    model, rng = tiny_model(num_labels=3, tracker_size=64), np.random.default_rng(0)
    size = model.config.encoder_config.hidden_size
    directions = rng.normal(size=(3, size)) / size**0.5

    def make_window():
        labels = np.repeat(rng.permutation(3), rng.integers(40, 90, size=3))
        frames = directions[labels] + rng.normal(size=(len(labels), size))
        return Window(torch.from_numpy(frames).half(), torch.from_numpy(labels), "")

    train, held_out = ([make_window() for _ in range(number)] for number in (160, 20))
    train_tracker(model, train, 1.0, seed=0)
    logits, labels = track(model, held_out)
    frames, targets = (
        torch.cat(values).numpy() for values in zip(*((window.frames, window.labels) for window in train))
    )
    single = LogisticRegression().fit(frames.astype(float), targets)
    hit = single.score(torch.cat([window.frames for window in held_out]).double().numpy(), labels)
    assert hit < 0.7 < 0.9 < (logits.argmax(axis=1) == labels).mean()


@pytest.mark.slow
def test_a_run_with_a_tracker_has_the_scores_of_one_without(demo, tmp_path):
    for name, size in (("without", 0), ("with", 8)):
        train(*SHORT, "--data_dir", demo, "--output_dir", tmp_path / name, "--tracker_size", size, "--stage", "1")
    without, tracked = tmp_path / "without" / "stage1", tmp_path / "with" / "stage1"
    assert read_lines(tracked / "predictions.jsonl") == read_lines(without / "predictions.jsonl")
    weights = load_file(tracked / "model.safetensors")
    assert load_file(without / "model.safetensors").keys() == {n for n in weights if not n.startswith("tracker.")}
    assert (tracked / "last" / "model.safetensors").is_file() and weights["tracker.classify.bias"].abs().sum() > 0
