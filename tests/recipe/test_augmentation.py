"""Augmentation of the waveforms of training utterances."""

import numpy as np
import pytest

from core.errors import InputError
from recipe.augmentation import Augmentation, Variant

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


def test_a_probability_above_one_is_refused():
    with pytest.raises(InputError, match=r"--mix_probability 1\.5 is not a probability: give a number from 0 to 1"):
        Augmentation(mix_probability=1.5)
