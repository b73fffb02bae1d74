"""Padding and ordering utterances."""

import numpy as np
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
