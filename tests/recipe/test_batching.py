"""Preparing, padding and ordering utterances."""

import pickle

import numpy as np
import pytest
import soundfile
import torch
from conftest import tiny_model, write_wav
from datasets import Dataset
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

from core.errors import InputError
from recipe.augmentation import Augmentation, Variant
from recipe.batching import BucketSampler, Collator
from recipe.feature_cache import FeatureCache
from recipe.preparing import AudioCache, UtterancePreparer, prepare_rows


def test_the_collator_pads_on_the_right():
    batch = Collator("input_values")(
        [
            {"input_values": torch.tensor([1.0, 2.0]), "labels": 0, "id": "a"},
            {"input_values": torch.tensor([3.0, 4.0, 5.0]), "labels": 3, "id": "b"},
        ]
    )
    assert batch["input_values"].tolist() == [[1, 2, 0], [3, 4, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [0, 3] and set(batch) == {"input_values", "attention_mask", "labels"}
    single = Collator("input_features")([{"input_features": torch.ones(2, 160), "labels": 1}])
    assert single["input_features"].shape == (1, 2, 160) and single["attention_mask"].tolist() == [[1, 1]]


def test_each_waveform_is_normalised_on_its_own(tmp_path):
    path = write_wav(tmp_path / "a.wav", seconds=0.3)
    values = UtterancePreparer(Wav2Vec2FeatureExtractor(do_normalize=True), 400).prepare(path)
    assert values.shape == (4800,) and values.dtype == torch.float32
    assert abs(values.mean().item()) < 1e-5 and abs(values.std(correction=0).item() - 1) < 1e-3


def test_an_utterance_whose_input_is_not_finite_is_named(tmp_path):
    """Also one that was read from the feature cache."""
    path = write_wav(tmp_path / "a.wav")
    cache = FeatureCache(tmp_path / "kept", tiny_model())
    preparer = UtterancePreparer(Wav2Vec2FeatureExtractor(), 400, feature_cache=cache)
    columns = {"audio": [{"path": str(path)}], "label": [0], "id": ["a"]}
    cache.write(preparer.locate_features(path, Variant()), torch.ones(3, 16))
    assert preparer(columns)["labels"] == [0]
    cache.write(preparer.locate_features(path, Variant()), torch.tensor([[1.0, torch.inf]]))
    with pytest.raises(InputError, match=r"a\.wav: its model input is not finite"):
        preparer(columns)


@pytest.mark.parametrize("seconds", [0.30, 0.305, 0.31])
def test_log_mel_frames_are_those_of_the_feature_extractor_alone(tmp_path, seconds):
    """Also where an odd number of mel frames leaves a half-filled stacked frame, which does not count."""
    path = write_wav(tmp_path / "a.wav", seconds)
    extractor = SeamlessM4TFeatureExtractor()
    values = UtterancePreparer(extractor, 560).prepare(path)
    expected = extractor(soundfile.read(path, dtype="float32")[0], sampling_rate=16000, return_tensors="np")
    valid = expected["attention_mask"][0].sum()
    np.testing.assert_array_equal(values.numpy(), expected["input_features"][0, :valid])


def test_a_long_training_utterance_keeps_its_middle_and_the_cache_gives_the_same(tmp_path):
    path = write_wav(tmp_path / "a.wav", seconds=1.0)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False)
    whole = UtterancePreparer(extractor, 400).prepare(path)
    cached = UtterancePreparer(extractor, 400, max_duration=0.5, cache=AudioCache())
    assert torch.equal(cached.prepare(path), whole[4000:12000])
    path.unlink()
    assert torch.equal(cached.prepare(path), whole[4000:12000])


def test_stages_that_share_a_cache_decode_a_file_once_and_hashing_does_not_copy_it(tmp_path):
    """`datasets` pickles a transform to hash it: neither the time nor the result may depend on what is cached."""
    path = write_wav(tmp_path / "a.wav", seconds=0.5)
    extractor, cache = Wav2Vec2FeatureExtractor(do_normalize=False), AudioCache()
    empty = pickle.dumps(cache)
    first = UtterancePreparer(extractor, 400, cache=cache).prepare(path)
    rows = Dataset.from_dict({"audio": [{"path": str(path)}], "label": [0], "id": ["a"]})
    path.unlink()
    second = prepare_rows(rows, UtterancePreparer(extractor, 400, max_duration=0.25, cache=cache))[0]
    assert torch.equal(second["input_values"], first[2000:6000])
    assert pickle.dumps(cache) == empty
    with pytest.raises(InputError, match="no such audio file"):
        UtterancePreparer(extractor, 400, cache=AudioCache()).prepare(path)


def test_variants_are_drawn_from_the_generator_that_a_resumed_run_restores(tmp_path):
    path = write_wav(tmp_path / "a.wav", seconds=0.5)
    preparer = UtterancePreparer(
        Wav2Vec2FeatureExtractor(), 400, augmentation=Augmentation([0.9, 1.0, 1.1]), cache=AudioCache()
    )
    torch.manual_seed(0)
    first = [len(preparer.prepare(path)) for _ in range(20)]
    torch.manual_seed(0)
    assert [len(preparer.prepare(path)) for _ in range(20)] == first and len(set(first)) == 3


@pytest.mark.parametrize("cache", [AudioCache(), None])
def test_a_mixed_batch_has_label_distributions_and_the_same_draws_again(tmp_path, cache):
    paths = [write_wav(tmp_path / f"{index}.wav", seconds=0.3 + 0.1 * index) for index in range(8)]
    columns = {"audio": [{"path": str(path)} for path in paths], "label": [index % 3 for index in range(8)]}
    columns["id"] = [path.stem for path in paths]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False)
    preparer = UtterancePreparer(
        extractor, 400, augmentation=Augmentation(mix_probability=0.5), num_labels=3, cache=cache
    )
    torch.manual_seed(3)
    batch = preparer(columns)
    torch.manual_seed(3)
    again = preparer(columns)
    labels = torch.stack(batch["labels"])
    assert torch.equal(labels, torch.stack(again["labels"]))
    assert all(torch.equal(one, other) for one, other in zip(batch["input_values"], again["input_values"]))
    assert torch.allclose(labels.sum(1), torch.ones(8)) and labels.shape == (8, 3)
    plain = [UtterancePreparer(extractor, 400).prepare(path) for path in paths]
    assert [len(values) for values in batch["input_values"]] == [len(values) for values in plain]
    unchanged = [torch.equal(one, other) for one, other in zip(batch["input_values"], plain)]
    assert 0 < sum(unchanged) < 8
    for kept, label, index in zip(unchanged, labels, columns["label"]):
        assert not kept or label[index] == 1
    collated = Collator("input_values")([{"input_values": v, "labels": label} for v, label in zip(plain, labels)])
    assert torch.equal(collated["labels"], labels)


def test_an_utterance_shorter_than_a_frame_is_named(tmp_path):
    path = write_wav(tmp_path / "blip.wav", seconds=0.02)
    with pytest.raises(InputError, match=r"blip.wav lasts 0.0200 s; one frame of the encoder needs at least 0.0250 s"):
        UtterancePreparer(Wav2Vec2FeatureExtractor(), 400).prepare(path)
    with pytest.raises(InputError, match="after trimming at --trim_db 30"):
        UtterancePreparer(SeamlessM4TFeatureExtractor(), 560, trim_db=30).prepare(path)


def test_the_bucket_sampler_visits_all_once_in_batches_of_similar_duration():
    durations = np.random.default_rng(0).uniform(1, 10, size=403)
    sampler = BucketSampler(durations.tolist(), batch_size=8, bucket_batches=16, seed=1)
    order = list(sampler)
    assert sorted(order) == list(range(403)) and len(sampler) == 403
    spread = [np.ptp(durations[order[i : i + 8]]) for i in range(0, 400, 8)]
    random_spread = [np.ptp(durations[i : i + 8]) for i in range(0, 400, 8)]
    assert np.mean(spread) < 0.3 * np.mean(random_spread)
    means = [durations[order[i : i + 8]].mean() for i in range(0, 400, 8)]
    assert abs(np.corrcoef(means, range(50))[0, 1]) < 0.5  # but not from short to long


def test_the_order_depends_on_seed_and_epoch_alone():
    durations = list(range(100))
    first, again, other = (BucketSampler(durations, 8, 4, seed) for seed in (1, 1, 2))
    np.random.seed(5)
    torch.manual_seed(5)
    assert list(first) == list(again) != list(other)
    first.set_epoch(1)
    assert list(first) != list(again)
    again.set_epoch(1)
    assert list(first) == list(again)


def test_fewer_utterances_than_a_batch():
    assert sorted(BucketSampler([1.0, 2.0, 3.0], 8, 4, 0)) == [0, 1, 2]
