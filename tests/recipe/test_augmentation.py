"""Augmentation of the waveforms of training utterances."""

import numpy as np
import pytest

from core.errors import InputError
from recipe.augmentation import Augmentation, Variant, mix

TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)


def frequency(waveform: np.ndarray) -> float:
    return np.argmax(np.abs(np.fft.rfft(waveform))) * 16000 / len(waveform)


def test_speed_moves_duration_and_pitch():
    """A tone of 440 Hz and 1 s, 1.25 times as fast, is one of 550 Hz and 0.8 s."""
    fast = Variant(speed=1.25).apply(TONE)
    assert len(fast) == 12800 and frequency(fast) == pytest.approx(550, abs=2)


def test_pitch_moves_without_duration():
    shifted = Variant(pitch_steps=-12).apply(TONE)
    assert len(shifted) == 16000 and frequency(shifted) == pytest.approx(220, abs=2)


def test_noise_has_its_level():
    noise = Variant(noise_snr=20.0).apply(TONE) - TONE
    assert 10 * np.log10(np.mean(TONE**2) / np.mean(noise**2)) == pytest.approx(20, abs=0.3)


@pytest.mark.parametrize("length, offset, covered", [(4000, 0.5, slice(6000, 10000)), (16000, 0.3, slice(0, 16000))])
@pytest.mark.parametrize("snr", [-5.0, 0.0, 10.0])
def test_mixing_has_its_level_its_place_and_its_share(length, offset, covered, snr):
    second = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    both, share = mix(TONE, second, snr, offset)
    added = both - TONE
    assert 10 * np.log10(np.mean(TONE**2) / np.mean(added[covered] ** 2)) == pytest.approx(snr, abs=0.01)
    assert not np.delete(added, np.r_[covered]).any()
    energy = np.sum(added.astype(np.float64) ** 2)
    assert share == pytest.approx(energy / (np.sum(TONE.astype(np.float64) ** 2) + energy), abs=1e-4)


def test_a_longer_second_utterance_is_cut_at_the_offset():
    second = np.r_[np.zeros(8000), np.ones(8000)].astype(np.float32)
    late, share = mix(TONE[:8000], second, 0.0, offset=1.0)
    assert share == 0.5 and np.all(late - TONE[:8000] > 0.3)
    early, _ = mix(TONE[:8000], second, 0.0, offset=0.0)
    np.testing.assert_array_equal(early, TONE[:8000])


def test_silence_changes_nothing():
    both, share = mix(TONE, np.zeros(16000, np.float32), 0.0, 0.0)
    np.testing.assert_array_equal(both, TONE)
    assert share == 0.0


def test_a_probability_above_one_is_refused():
    with pytest.raises(InputError, match=r"--mix_probability 1\.5 is not a probability: give a number from 0 to 1"):
        Augmentation(mix_probability=1.5)
