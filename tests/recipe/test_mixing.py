"""Mixing of training utterances: level, place, length, and the weight of the second label."""

import numpy as np
import pytest
import torch

from recipe.mixing import draw_segment, mix, mix_segment, overlay

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)


def noise(length, seed=0):
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32)


def energy(waveform):
    return float(np.sum(waveform.astype(np.float64) ** 2))


@pytest.mark.parametrize("length, offset, covered", [(4000, 0.5, slice(6000, 10000)), (16000, 0.3, slice(0, 16000))])
@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0])
def test_mixing_has_its_level_its_place_and_its_share(length, offset, covered, snr):
    second = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    both, share = overlay(TONE, second, snr, offset)
    added = both - TONE
    assert 10 * np.log10(np.mean(TONE**2) / np.mean(added[covered] ** 2)) == pytest.approx(snr, abs=0.01)
    assert not np.delete(added, np.r_[covered]).any()
    energy = np.sum(added.astype(np.float64) ** 2)
    assert share == pytest.approx(energy / (np.sum(TONE.astype(np.float64) ** 2) + energy), abs=1e-4)


def test_a_longer_second_utterance_is_cut_at_the_offset():
    second = np.r_[np.zeros(8000), np.ones(8000)].astype(np.float32)
    late, share = overlay(TONE[:8000], second, 0.0, offset=1.0)
    assert share == 0.5 and np.all(late - TONE[:8000] > 0.3)
    early, _ = overlay(TONE[:8000], second, 0.0, offset=0.0)
    np.testing.assert_array_equal(early, TONE[:8000])


def test_silence_changes_nothing():
    both, share = overlay(TONE, np.zeros(16000, np.float32), 0.0, 0.0)
    np.testing.assert_array_equal(both, TONE)
    assert share == 0.0


@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0])
@pytest.mark.parametrize("length", [0.1, 0.5])
def test_a_segment_has_its_level_its_place_and_its_share_of_the_energy(length, snr):
    first, second = TONE * np.linspace(0.2, 1, 16000, dtype=np.float32), noise(9000)
    both, share = mix_segment(first, second, snr, length, (0.25, 1.0), by_energy=True)
    samples = int(length * 16000)
    start = int(0.25 * (16000 - samples))
    added = both - first
    assert not np.delete(added, slice(start, start + samples)).any()
    part = slice(start, start + samples)
    assert 10 * np.log10(np.mean(first[part] ** 2) / np.mean(added[part] ** 2)) == pytest.approx(snr, abs=0.01)
    correlation = np.corrcoef(added[part], second[9000 - samples :])[0, 1]
    assert correlation == pytest.approx(1, abs=1e-4)
    assert share == pytest.approx(energy(added) / (energy(added) + energy(first)), abs=1e-4)


@pytest.mark.parametrize("snr", [-5.0, 10.0])
def test_in_even_speech_the_share_is_that_of_level_and_coverage(snr):
    """c r / (1 + c r), for coverage c and r = 10^(-SNR/10)."""
    _, share = mix_segment(TONE, noise(16000), snr, 0.4, (0.5, 0.5), by_energy=True)
    relative = 0.4 * 10 ** (-snr / 10)
    assert share == pytest.approx(relative / (1 + relative), abs=1e-3)


def test_by_length_a_segment_is_added_as_it_is_with_the_share_that_it_covers():
    second = noise(16000)
    both, share = mix_segment(TONE, second, -5.0, 0.25, (0.0, 0.5), by_energy=False)
    assert share == 0.25
    np.testing.assert_allclose(both[:4000] - TONE[:4000], second[6000:10000], atol=1e-6)
    np.testing.assert_array_equal(both[4000:], TONE[4000:])
    _, share = mix_segment(TONE, second[:2000], 0.0, 0.5, (0.0, 0.5), by_energy=False)
    assert share == 2000 / 16000  # cut to the second utterance


def test_a_silent_segment_on_either_side_changes_neither_waveform_nor_label():
    half = np.r_[np.zeros(8000), TONE[:8000]].astype(np.float32)
    for first, second in ((half, TONE), (TONE, half)):
        both, share = mix_segment(first, second, 0.0, 0.5, (0.0, 0.0), by_energy=True)
        np.testing.assert_array_equal(both, first)
        assert share == 0


@pytest.mark.parametrize("how", ["whole", "energy", "length"])
def test_each_way_draws_from_the_generator_and_keeps_length_and_type(how):
    torch.manual_seed(0)
    found = [mix(how, TONE, noise(9000, seed)) for seed in range(50)]
    torch.manual_seed(0)
    again = [mix(how, TONE, noise(9000, seed)) for seed in range(50)]
    shares = [share for _, share in found]
    for (both, share), (same, as_before) in zip(found, again):
        assert share == as_before and np.array_equal(both, same)
        assert both.shape == TONE.shape and both.dtype == np.float32 and 0 <= share < 1
        if how != "whole":
            assert np.count_nonzero(both - TONE) <= 8000
    assert len(set(shares)) > 40
    assert mix(how, TONE[:1], noise(5000))[0].shape == (1,)


def test_segments_are_up_to_half_the_utterance_at_every_level_and_place():
    torch.manual_seed(0)
    snrs, lengths, places = zip(*(draw_segment() for _ in range(2000)))
    for values, low, high in ((snrs, -5, 10), (lengths, 0, 0.5), (np.array(places).ravel(), 0, 1)):
        assert low <= min(values) < low + 0.02 * (high - low) and high - 0.02 * (high - low) < max(values) <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
