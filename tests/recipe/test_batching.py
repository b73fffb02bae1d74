"""Padding and ordering utterances."""

from collections import Counter

import numpy as np
import pytest
import torch

from recipe.batching import BucketSampler, Collator


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


SIZES = {"large": 900, "medium": 90, "small": 10}
CORPORA = [name for name, size in SIZES.items() for _ in range(size)]


@pytest.mark.parametrize("temperature", [0.0, 0.3, 0.7])
def test_an_epoch_draws_each_corpus_by_the_formula_of_xlm_r(temperature):
    """q = p^alpha / sum(p^alpha), p = n / N (Conneau et al. 2020, equation 1); as many draws as utterances."""
    shares = np.array(list(SIZES.values())) / 1000
    expected = 1000 * shares**temperature / (shares**temperature).sum()
    sampler = BucketSampler([1.0] * 1000, 8, 4, 0, CORPORA, temperature)
    order = np.array(list(sampler))
    assert len(order) == len(sampler) == 1000
    for name, number in zip(SIZES, expected):
        times = Counter(index for index in order if CORPORA[index] == name)
        assert abs(sum(times.values()) - number) <= 1
        seen = [times[index] for index in range(1000) if CORPORA[index] == name]
        assert max(seen) - min(seen) <= 1  # none is drawn again before all others are


def test_the_draws_depend_on_seed_and_epoch_alone_and_stay_in_buckets():
    durations = np.random.default_rng(0).uniform(1, 10, size=1000)
    first, again = (BucketSampler(durations.tolist(), 8, 16, 3, CORPORA, 0.5) for _ in range(2))
    epochs = []
    for epoch in (0, 1):
        first.set_epoch(epoch)
        again.set_epoch(epoch)
        assert list(first) == list(first) == list(again)
        epochs.append(list(first))
    assert set(epochs[0]) != set(epochs[1])  # other utterances of the large corpus
    spread = [np.ptp(durations[epochs[0][i : i + 8]]) for i in range(0, 1000, 8)]
    assert np.mean(spread) < 0.3 * np.mean([np.ptp(durations[i : i + 8]) for i in range(0, 1000, 8)])


def test_temperature_1_and_one_corpus_draw_as_without_corpora():
    durations = np.random.default_rng(0).uniform(1, 10, size=1000).tolist()
    plain = list(BucketSampler(durations, 8, 16, 3))
    assert list(BucketSampler(durations, 8, 16, 3, CORPORA, 1.0)) == plain
    assert list(BucketSampler(durations, 8, 16, 3, ["one"] * 1000, 0.0)) == plain
