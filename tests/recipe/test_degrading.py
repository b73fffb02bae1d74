"""Degrading training utterances: what is drawn, by whom it is prepared, resumed runs, and cached versions."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import Wav2Vec2FeatureExtractor

from core.audio import Excerpt
from core.errors import InputError
from feature_extraction_ser_align import SERAlignWaveformExtractor
from recipe import rooms
from recipe.augmentation import (
    Augmentation,
    Variant,
    build_augmentation,
    check_augmentation,
    degrade,
    describe_degradation,
)
from recipe.augmentation_options import DEGRADATIONS
from recipe.babble import Voices
from recipe.batching import BucketSampler, SeededSampler
from recipe.options import DataArguments
from recipe.preparing import AudioCache, TrainingSet, UtterancePreparer, measure_bandwidth

SPEECH = ROOT / "examples" / "speech.flac"
WAVEFORM, _ = soundfile.read(SPEECH, dtype="float32")


def hum(length, rng):
    return np.sin(np.arange(length) * rng.uniform(0.1, 0.2)).astype(np.float32)


def degrading(*kinds, probability=1.0, most=1, versions=0, **fields):
    return Augmentation(
        **fields,
        degrade_probability=probability,
        degradations=kinds or DEGRADATIONS,
        max_degradations=most,
        degraded_variants=versions,
    )


@pytest.fixture
def recordings(tmp_path):
    """Eight excerpts of speech as files of four speakers, and their rows."""
    paths = []
    for index in range(8):
        paths.append(tmp_path / f"{index}.wav")
        soundfile.write(paths[-1], WAVEFORM[8000 * index : 8000 * index + 24000], 16000)
    columns = {"audio": [{"path": str(path)} for path in paths], "label": [index % 3 for index in range(8)]}
    columns |= {"id": [path.stem for path in paths], "speaker": [f"s{index // 2}" for index in range(8)]}
    return Dataset.from_dict(columns)


def make_set(rows, augmentation, cache=None):
    excerpts = [Excerpt(audio["path"]) for audio in rows["audio"]]
    voices = Voices(excerpts, rows["speaker"][:])
    extractor = SERAlignWaveformExtractor(return_attention_mask=True, trim_db=30)
    return TrainingSet(rows, UtterancePreparer(extractor, 400, augmentation=augmentation, cache=cache, voices=voices))


# ------------------------------------------------------------------------------------------------ drawing


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_every_kind_changes_speech_and_does_so_in_the_same_way_again(kind):
    first, again, other = (degrade(WAVEFORM, degrading(kind), seed, hum) for seed in (1, 1, 4))
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32 and np.isfinite(first).all()
    assert len(first) != len(WAVEFORM) or not np.array_equal(first, WAVEFORM)
    assert len(first) != len(other) or not np.array_equal(first, other)
    shifted = degrade(np.roll(WAVEFORM, 1), degrading(kind), 1, hum)  # another utterance with the same seed
    assert len(shifted) != len(first) or not np.allclose(np.roll(first, 1), shifted, atol=1e-5)


def test_one_to_the_most_degradations_are_combined():
    """Of two that each leave a trace: an offset and a length."""
    offset, length = [], []
    for seed in range(200):
        degraded = degrade(WAVEFORM, degrading("dc", "silence", most=2), seed, hum)
        offset.append(abs(np.mean(degraded)) > 1e-4)
        length.append(len(degraded) > len(WAVEFORM))
    counts = Counter(zip(offset, length))
    assert counts[True, True] == pytest.approx(100, abs=25)
    assert counts[True, False] == pytest.approx(50, abs=20) and counts[False, True] == pytest.approx(50, abs=20)


def test_the_share_of_degraded_utterances_is_the_probability():
    augmentation = degrading(probability=0.3, speed_factors=(0.9, 1.1))
    drawn = [augmentation.draw(seed) for seed in range(2000)]
    degraded = [variant for variant in drawn if variant.degradation is not None]
    assert len(degraded) == pytest.approx(600, abs=70)
    assert len({variant.degradation for variant in degraded}) == len(degraded)
    assert Counter(variant.speed for variant in degraded)[0.9] == pytest.approx(len(degraded) / 2, abs=50)
    assert augmentation.draw(7).degradation == augmentation.draw(7).degradation


def test_versions_are_counted_and_take_the_speeds_in_turn():
    augmentation = degrading(probability=0.5, versions=4, speed_factors=(0.9, 1.0, 1.1))
    variants = augmentation.variants()
    assert variants[:3] == [Variant(0.9), Variant(1.0), Variant(1.1)]
    assert [(variant.speed, variant.degradation) for variant in variants[3:]] == [
        (0.9, 0),
        (1.0, 1),
        (1.1, 2),
        (0.9, 3),
    ]
    torch.manual_seed(0)
    assert {augmentation.draw(seed) for seed in range(300)} == set(variants)


@pytest.mark.parametrize(
    ("probability", "versions", "plain", "degraded"),
    [(0, 0, 2, 0), (0.5, 0, 2, 2), (0.75, 0, 2, 6), (0.95, 0, 2, 8), (1, 0, 0, 2), (0.5, 3, 2, 3)],
)
def test_what_is_fitted_at_once_sees_degraded_speech_in_the_proportion_of_training(
    probability, versions, plain, degraded
):
    augmentation = degrading("noise", probability=probability, versions=versions, speed_factors=(1.0, 1.1))
    variants = augmentation.fitting_variants()
    assert [variant.degradation is None for variant in variants] == [True] * plain + [False] * degraded
    assert len(set(variants)) == plain + degraded


def test_without_degradations_the_draws_of_earlier_releases_stay():
    torch.manual_seed(5)
    plain = [Augmentation([0.9, 1.0, 1.1]).draw(seed).speed for seed in range(30)]
    torch.manual_seed(5)
    assert [[0.9, 1.0, 1.1][int(torch.randint(3, ()))] for _ in range(30)] != plain  # pitch and noise are drawn too
    torch.manual_seed(5)
    drawn = [torch.stack([torch.randint(n, ()) for n in (3, 1, 1)])[0] for _ in range(30)]
    assert [[0.9, 1.0, 1.1][int(index)] for index in drawn] == plain
    assert repr(Variant(0.9)) == "Variant(speed=0.9, pitch_steps=0.0, noise_snr=None)"  # which names cached features


def test_babble_has_only_the_voices_of_other_speakers():
    excerpts = [Excerpt(f"{index}.wav") for index in range(12)]
    voices = Voices(excerpts, [f"s{index // 3}" for index in range(12)])
    drawn = [voices.draw(excerpts[4], 5, np.random.default_rng(seed)) for seed in range(100)]
    assert {excerpt for each in drawn for excerpt in each} == {*excerpts[:3], *excerpts[6:]}
    assert {len(each) for each in drawn} == {5}
    assert {*voices.draw(Excerpt("unknown.wav"), 200, np.random.default_rng(0))} == {*excerpts}
    with pytest.raises(InputError, match="all utterances are of 'a': leave babble out of --degradations"):
        Voices(excerpts[:2], ["a", "a"])


# ---------------------------------------------------------------------------------------------- preparing


def test_neither_workers_nor_the_place_in_the_run_change_what_is_drawn(recordings):
    """With a seed for each utterance of an epoch, which the sampler sends along."""
    dataset = make_set(recordings, degrading(most=2, speed_factors=(0.9, 1.0, 1.1)))
    sampler = SeededSampler(BucketSampler([1.5] * 8, batch_size=2, bucket_batches=2, seed=3))
    assert [draw.row for draw in sampler] == list(sampler.sampler)

    def read_epoch(epoch, workers):
        sampler.set_epoch(epoch)
        torch.manual_seed(epoch + workers)
        batches = DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers, collate_fn=list)
        return [(each["id"], each["input_values"]) for batch in batches for each in batch]

    first, second = read_epoch(0, workers=0), read_epoch(1, workers=0)
    assert sorted(name for name, _ in first) == sorted(name for name, _ in second) == [str(i) for i in range(8)]
    ones, others = dict(first), dict(second)
    assert all(ones[name].shape != others[name].shape or not torch.equal(ones[name], others[name]) for name in ones)
    for epoch, expected in ((1, second), (0, first)):  # as if resumed in the second epoch
        for (name, values), (found_name, found) in zip(expected, read_epoch(epoch, workers=2), strict=True):
            assert name == found_name and torch.equal(values, found)


def test_an_utterance_is_trimmed_after_it_was_degraded(tmp_path):
    """Silence around speech is cut again, since a model is given recordings that are trimmed."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.pad(WAVEFORM, 16000), 16000)
    extractor = SERAlignWaveformExtractor(trim_db=30)
    plain = UtterancePreparer(extractor, 400).read_waveform(path, Variant())
    longer = UtterancePreparer(extractor, 400, augmentation=degrading("gain", "silence"))
    waveforms = [longer.read_waveform(path, Variant(degradation=seed)) for seed in range(12)]
    assert np.median([len(waveform) for waveform in waveforms]) < 1.1 * len(plain)
    untrimmed = UtterancePreparer(Wav2Vec2FeatureExtractor(), 400, augmentation=degrading("silence"))
    assert len(untrimmed.read_waveform(path, Variant(degradation=0))) > len(WAVEFORM) + 32000


def test_the_memory_holds_versions_that_come_again_alone(recordings):
    cache = AudioCache()
    endless = make_set(recordings, degrading("gain"), cache)
    for seed in range(20):
        endless.preparer.prepare(recordings[0]["audio"]["path"], seed)
    assert len(cache._values) == 1  # the recording itself
    versions = make_set(recordings, degrading("gain", versions=3), cache)
    found = {versions.preparer.prepare(recordings[0]["audio"]["path"], seed).numpy().tobytes() for seed in range(40)}
    assert len(found) == 3 and len(cache._values) == 4


def test_degraded_training_data_are_heard_with_their_bandwidth(recordings):
    """A model that was trained on telephone speech gives no warning about it."""
    rows = Dataset.from_dict({"audio": [{"path": str(SPEECH)}] * 40, "speaker": ["a", "b"] * 20})
    preparers = [make_set(rows, degrading("telephone", probability=share)).preparer for share in (0.0, 0.5)]
    assert [measure_bandwidth(rows, preparer) > 4500 for preparer in preparers] == [True, False]


# ------------------------------------------------------------------------------------------------ options


def test_a_run_says_how_it_degrades():
    assert describe_degradation(DataArguments()) == []
    some = DataArguments(degrade_probability=0.5, degradations=["noise", "room"])
    assert describe_degradation(some) == ["  50 % of the training utterances are degraded, anew each time: noise, room"]
    some.degraded_variants = 3
    assert "3 versions of each: noise" in describe_degradation(some)[0]
    assert build_augmentation(some).variants()[1:] == [Variant(degradation=number) for number in range(3)]
    unused = DataArguments(degradations=["noise"], degraded_variants=2)
    assert describe_degradation(unused) == [
        "  --degrade_probability is 0, so --degradations --degraded_variants has no effect"
    ]


def test_a_missing_pyroomacoustics_is_named_before_training(monkeypatch):
    monkeypatch.setattr(rooms, "find_spec", lambda name: None)
    check_augmentation(DataArguments(degrade_probability=0.5, degradations=["noise"]))
    check_augmentation(DataArguments(degrade_probability=0.0))
    with pytest.raises(
        InputError, match=r"pip install -r requirements-rooms\.txt, or leave room out of --degradations"
    ):
        check_augmentation(DataArguments(degrade_probability=0.5))
