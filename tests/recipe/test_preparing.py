"""Preparing utterances: same input with and without the cache, augmentation, mixing, and errors if too short."""

import pickle

import numpy as np
import pytest
import soundfile
import soxr
import torch
from conftest import ROOT, tiny_model, write_wav
from datasets import Dataset
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

from core.errors import InputError
from core.hashing import hash_frozen_part
from feature_extraction_ser_align import SERAlignSeamlessExtractor
from recipe.augmentation import Augmentation, Variant
from recipe.batching import Collator
from recipe.feature_cache import FeatureCache
from recipe.preparing import AudioCache, UtterancePreparer, measure_bandwidth, prepare_rows


def test_each_waveform_is_normalised_on_its_own(tmp_path):
    path = write_wav(tmp_path / "a.wav", seconds=0.3)
    values = UtterancePreparer(Wav2Vec2FeatureExtractor(do_normalize=True), 400).prepare(path)
    assert values.shape == (4800,) and values.dtype == torch.float32
    assert abs(values.mean().item()) < 1e-5 and abs(values.std(correction=0).item() - 1) < 1e-3


def test_an_utterance_whose_input_is_not_finite_is_named(tmp_path):
    """Also one that was read from the feature cache."""
    path = write_wav(tmp_path / "a.wav")
    cache = FeatureCache(tmp_path / "kept", hash_frozen_part(tiny_model()))
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


@pytest.mark.parametrize("how", ["whole", "energy", "length"])
@pytest.mark.parametrize("cache", [AudioCache(), None])
def test_a_mixed_batch_has_label_distributions_and_the_same_draws_again(tmp_path, cache, how):
    paths = [write_wav(tmp_path / f"{index}.wav", seconds=0.3 + 0.1 * index) for index in range(8)]
    columns = {"audio": [{"path": str(path)} for path in paths], "label": [index % 3 for index in range(8)]}
    columns["id"] = [path.stem for path in paths]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False)
    preparer = UtterancePreparer(
        extractor, 400, augmentation=Augmentation(mix_probability=0.5, mix=how), num_labels=3, cache=cache
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


def test_votes_are_the_targets_and_are_mixed_by_the_same_share(tmp_path):
    paths = [write_wav(tmp_path / f"{index}.wav", seconds=0.4) for index in range(8)]
    votes = [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]] * 4
    columns = {"audio": [{"path": str(path)} for path in paths], "label": [0, 1] * 4, "label_distribution": votes}
    columns["id"] = [path.stem for path in paths]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False)
    assert UtterancePreparer(extractor, 400)(columns)["labels"] == votes
    mixing = UtterancePreparer(extractor, 400, augmentation=Augmentation(mix_probability=1.0), num_labels=3)
    labels = torch.stack(mixing(columns)["labels"]).numpy()
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    shares = (labels[:, 1] - 0.25) / 0.75  # of the second kind of utterance: a line between the two
    np.testing.assert_allclose(labels[:, 0], 0.5 * (1 - shares), atol=1e-6)
    assert len(set(shares.round(3).tolist())) > 2


def test_an_utterance_shorter_than_a_frame_is_named(tmp_path):
    path = write_wav(tmp_path / "blip.wav", seconds=0.02)
    with pytest.raises(InputError, match=r"blip.wav lasts 0.0200 s; one frame of the encoder needs at least 0.0250 s"):
        UtterancePreparer(Wav2Vec2FeatureExtractor(), 400).prepare(path)
    with pytest.raises(InputError, match="after trimming at --trim_db 30"):
        UtterancePreparer(SERAlignSeamlessExtractor(trim_db=30), 560).prepare(path)


@pytest.mark.parametrize(("narrow", "heard"), [(1, 7750.0), (2, 4000.0)])
def test_a_model_has_heard_the_bandwidth_that_a_twentieth_of_its_training_data_do_not_exceed(tmp_path, narrow, heard):
    speech, rate = soundfile.read(ROOT / "examples" / "speech.flac", dtype="float32")
    paths = []
    for index in range(40):
        paths.append(tmp_path / f"{index}.wav")
        soundfile.write(
            paths[-1], soxr.resample(speech, rate, 8000) if index < narrow else speech, 8000 if index < narrow else rate
        )
    rows = Dataset.from_dict({"audio": [{"path": str(path)} for path in paths]})
    augmentation = Augmentation(speed_factors=(0.5, 1.0))  # another voice, but no other bandwidth
    preparer = UtterancePreparer(Wav2Vec2FeatureExtractor(), 400, augmentation=augmentation)
    assert measure_bandwidth(rows, preparer) == heard
    assert measure_bandwidth(rows.select([]), preparer) is None
    parts = rows.add_column("start", [0.0] * 40).add_column("end", [0.3] * 40)  # too short to tell
    assert measure_bandwidth(parts.select(range(6, 40)), preparer) is None
