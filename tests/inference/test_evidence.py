"""Explanations: voice measures on sounds of known pitch, noise, slope and rate, and the sentence about them."""

import numpy as np
import pytest
from scipy.signal import lfilter, sawtooth

from core.loading import load_feature_extractor
from core.shipped import MINI_MODEL
from inference.evidence import MEASURES, _write_words, choose_top_frames, explain, measure_voice
from modeling_ser_align import SERAlignForAudioClassification
from models.ship import generate_buzzes
from pipeline_ser_align import SpeechEmotionRecognitionPipeline

RATE = 16000
TIMES = np.arange(2 * RATE) / RATE


def median(name, waveform):
    return float(np.nanmedian(measure_voice(waveform.astype(np.float32))[name][10:-10]))


@pytest.mark.parametrize("hertz", [90, 130, 210, 380])
def test_pitch_is_that_of_the_sound(hertz):
    assert median("pitch", 0.3 * sawtooth(2 * np.pi * hertz * TIMES)) == pytest.approx(
        12 * np.log2(hertz / 65), abs=0.2
    )


@pytest.mark.parametrize("ratio", [5, 10, 20])
def test_harmonics_to_noise_is_the_ratio_of_their_powers(ratio):
    tone = np.sin(2 * np.pi * 150 * TIMES)
    noise = np.random.default_rng(0).standard_normal(len(tone)) * np.sqrt(0.5) * 10 ** (-ratio / 20)
    assert median("harmonics_to_noise", 0.2 * (tone + noise)) == pytest.approx(ratio, abs=1.5)


def test_slope_is_that_of_the_filter():
    """A pulse train is flat; one pole near zero frequency takes 6 dB an octave away."""
    pulses = np.zeros(len(TIMES))
    pulses[:: RATE // 125] = 1.0
    flat, falling = (median("spectral_slope", x) for x in (pulses, lfilter([1], [1, -0.99], pulses)))
    assert flat == pytest.approx(0, abs=1)
    assert falling - flat == pytest.approx(-6, abs=0.5)


def test_loudness_and_syllables_are_counted():
    rhythm = np.clip(np.sin(2 * np.pi * 4 * TIMES), 0.01, None)  # four syllables a second
    voice = sawtooth(2 * np.pi * 120 * TIMES) * rhythm
    measures = measure_voice((0.2 * voice).astype(np.float32))
    assert measures["syllables"].sum() == pytest.approx(8, abs=1)
    louder = measure_voice((0.4 * voice).astype(np.float32))
    difference = np.nanmedian(louder["loudness"]) - np.nanmedian(measures["loudness"])
    assert difference == pytest.approx(20 * np.log10(2), abs=0.01)
    assert np.isnan(measure_voice(np.random.default_rng(0).standard_normal(8000).astype("f4"))["pitch"]).mean() > 0.8


def test_words_say_what_is_clearly_different_and_nothing_else():
    differences = {
        "pitch": 4.0,
        "loudness": -1.0,
        "harmonics_to_noise": None,
        "spectral_slope": -2.5,
        "syllable_rate": 0.2,
    }
    stretches = [{"start": 2.0, "end": 2.4, "weight": 0.2}, {"start": 0.5, "end": 1.0, "weight": 0.3}]
    assert _write_words("sad", stretches, differences) == (
        "sad: highest weights at 0.50-1.00 s, 2.00-2.40 s; compared with the rest, the voice there is "
        "higher in pitch (+4.0 semitones), darker (-2.5 dB/octave)"
    )
    assert "similar to the rest of the recording" in _write_words("sad", stretches, dict.fromkeys(MEASURES))


def test_the_fifth_with_the_highest_weights_is_taken():
    weights = np.array([0.1, 0.5, 0.1, 0.1, 0.05, 0.05, 0.02, 0.02, 0.03, 0.03])
    assert np.flatnonzero(choose_top_frames(weights)).tolist() == [0, 1]
    assert choose_top_frames(np.array([1.0])).tolist() == [True]


@pytest.fixture(scope="module")
def recognize():
    model = SERAlignForAudioClassification.from_pretrained(MINI_MODEL)
    return SpeechEmotionRecognitionPipeline(model=model, feature_extractor=load_feature_extractor(str(MINI_MODEL)))


@pytest.mark.parametrize("seconds", [2, 20])
def test_stretches_hold_the_weight_of_the_pieces_that_was_scored(seconds, recognize):
    waveform = np.concatenate([np.zeros(8000, "f4"), *([generate_buzzes()["180 Hz"]] * (seconds // 2))])
    evidence = explain(recognize, waveform)
    weights, times = (np.array(evidence["weights"][name]) for name in ("values", "times"))
    assert weights.sum() == pytest.approx(1, abs=1e-4) and len(times) == len(weights)
    assert 0.4 < evidence["start"] < evidence["end"] <= len(waveform) / RATE
    for stretch in evidence["stretches"]:
        inside = (times > stretch["start"]) & (times < stretch["end"])
        assert weights[inside].sum() == pytest.approx(stretch["weight"], abs=1e-5)
    chosen = choose_top_frames(weights)
    covered = np.any([(times > s["start"]) & (times < s["end"]) for s in evidence["stretches"]], axis=0)
    assert covered[chosen].all()
    if seconds == 2:
        assert evidence["label"] == recognize(waveform)[0]["label"]
    with pytest.raises(ValueError, match="contains no speech"):
        explain(recognize, np.zeros(RATE, "f4"))
