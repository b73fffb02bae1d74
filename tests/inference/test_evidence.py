"""Explanations: voice measures on sounds of known pitch, noise, slope and rate, and the sentence about them."""

import numpy as np
import pytest
from scipy.signal import lfilter, sawtooth

from core.loading import load_feature_extractor
from core.shipped import MINI_MODEL
from inference.evidence import MEASURES, _write_words, choose_top_steps, explain, measure_voice
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
    stretches = [{"start": 0.5, "end": 1.0}, {"start": 2.0, "end": 2.4}]
    scores = {"score": 0.8, "score_without": 0.3}
    assert _write_words("sad", stretches, scores, differences) == (
        "sad: with 0.50-1.00 s and 2.00-2.40 s silenced, its score falls from 0.80 to 0.30; compared with the rest, "
        "the voice there is higher in pitch (+4.0 semitones), darker (-2.5 dB/octave)"
    )
    nothing = dict.fromkeys(MEASURES)
    assert "similar to the rest of the recording" in _write_words("sad", stretches, scores, nothing)
    many = [{"start": float(start), "end": start + 0.15} for start in range(6)]
    assert "with 0.00-0.15 s, 1.00-1.15 s, 2.00-2.15 s, 3.00-3.15 s and 2 more silenced" in _write_words(
        "sad", many, scores, nothing
    )
    assert _write_words("sad", stretches, {"score": 0.8, "score_without": 0.79}, differences) == (
        "sad: rests on no single moment; with 0.50-1.00 s and 2.00-2.40 s silenced, its score is 0.79 instead of 0.80"
    )


def test_the_fifth_with_the_highest_weights_is_taken():
    weights = np.array([0.1, 0.5, 0.1, 0.1, 0.05, 0.05, 0.02, 0.02, 0.03, 0.03])
    assert np.flatnonzero(choose_top_steps(weights)).tolist() == [0, 1]
    assert choose_top_steps(np.array([1.0])).tolist() == [True]


@pytest.fixture(scope="module")
def recognize():
    model = SERAlignForAudioClassification.from_pretrained(MINI_MODEL)
    return SpeechEmotionRecognitionPipeline(model=model, feature_extractor=load_feature_extractor(str(MINI_MODEL)))


@pytest.mark.parametrize("seconds", [2, 20])
def test_silencing_the_stretches_costs_what_is_said(seconds, recognize):
    waveform = np.concatenate([np.zeros(8000, "f4"), *([generate_buzzes()["180 Hz"]] * (seconds // 2))])
    evidence = explain(recognize, waveform)
    values, times = (np.array(evidence["saliency"][name]) for name in ("values", "times"))
    assert len(times) == len(values) <= 20 and np.diff(times) == pytest.approx(times[1] - times[0])
    assert 0.4 < evidence["start"] < times[0] and times[-1] < evidence["end"] + 0.5 and evidence["end"] <= 8.5 + seconds
    covered = np.any([(times > s["start"]) & (times < s["end"]) for s in evidence["stretches"]], axis=0)
    assert covered.sum() == max(1, round(0.2 * len(values))) and values[covered].min() >= values[~covered].max()
    piece = waveform[round(evidence["start"] * RATE) : round(evidence["end"] * RATE)].copy()
    index = recognize.model.config.label2id[evidence["label"]]

    def score(samples):
        return float(recognize.score_waveforms([samples])["probabilities"][0, index])

    assert evidence["score"] == pytest.approx(score(piece), abs=1e-4)
    for stretch in evidence["stretches"]:
        first, last = (round((stretch[name] - evidence["start"]) * RATE) for name in ("start", "end"))
        piece[first:last] = 0
    assert evidence["score_without"] == pytest.approx(score(piece), abs=0.03)  # without its fades of 5 ms
    if seconds == 2:
        assert evidence["label"] == recognize(waveform)[0]["label"]
    with pytest.raises(ValueError, match="contains no speech"):
        explain(recognize, np.zeros(RATE, "f4"))
