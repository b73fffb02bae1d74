"""Saliency: each method against its definition, on a model whose answer is known to rest on one place."""

import numpy as np
import pytest
import torch
from conftest import tiny_model

from core.loading import load_pipeline
from core.shipped import MINI_MODEL
from inference.saliency import (
    METHODS,
    STEP,
    average_steps,
    integrate_gradients,
    measure_occlusion,
    measure_pooling,
    measure_saliency,
    silence,
)
from pipeline_ser_align import SpeechEmotionRecognitionPipeline

SAMPLES = 8 * STEP + 700  # nine steps, the last one shorter


@pytest.fixture(params=["wav2vec2-layer", "wav2vec2-bert", "whisper"])
def recognize(request):
    model = tiny_model(request.param)
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    return SpeechEmotionRecognitionPipeline(
        model=model, feature_extractor=model.config.build_feature_extractor(), device="cpu"
    )


def noise() -> np.ndarray:
    return (0.1 * np.random.default_rng(3).standard_normal(SAMPLES)).astype(np.float32)


def score(recognize, waveform, label):
    return np.log(float(recognize.score_waveforms([waveform])["probabilities"][0, label]))


def test_occlusion_is_the_loss_of_each_step_scored_alone(recognize):
    waveform, label = noise(), 1
    found = measure_occlusion(recognize, waveform, label)
    assert found.shape == (9,)
    for step in (0, 4, 8):
        quiet = waveform * np.r_[np.ones(step * STEP), np.zeros(STEP), np.ones(SAMPLES)][:SAMPLES].astype("f4")
        expected = score(recognize, waveform, label) - score(recognize, quiet, label)
        assert found[step] == pytest.approx(expected, abs=0.15)  # without its fades of 5 ms


def test_silence_fades_over_5_ms_and_changes_nothing_else():
    ones = np.ones(SAMPLES, np.float32)
    found = silence(ones, np.arange(9) == 4)
    inside = slice(4 * STEP + 80, 5 * STEP - 80)
    assert not found[inside].any() and np.abs(np.diff(found)).max() < 0.01
    assert (found[: 4 * STEP - 80] == pytest.approx(1)) and (found[5 * STEP + 80 :] == pytest.approx(1))
    assert silence(ones, np.zeros(9, bool)) == pytest.approx(1)


def test_gradients_sum_to_the_difference_from_silence(recognize):
    """Completeness (Sundararajan et al. 2017): they add up to what the label gains over the baseline."""
    waveform, label, model = noise(), 2, recognize.model
    name = model.config.family.input_name
    inputs = recognize.extract_features(waveform)[name][None]
    silent = recognize.extract_features(np.zeros_like(waveform))[name][None]
    baseline = torch.minimum(silent, inputs.amin()) if model.config.takes_log_mel else torch.zeros_like(inputs)
    with torch.no_grad():
        gained = [model(**{name: values}).logits.log_softmax(-1)[0, label].item() for values in (inputs, baseline)]
    seconds = model.config.family.compute_unit_seconds(model.config.encoder_config)
    places = np.minimum(((np.arange(inputs.shape[1]) + 0.5) * seconds / 0.15).astype(int), 8)
    total = (integrate_gradients(recognize, waveform, label) * np.bincount(places, minlength=9)).sum()
    # The first norm of a waveform encoder changes abruptly next to zeros, which 24 steps meet only roughly.
    tolerance = 0.02 + 0.03 * abs(gained[0]) if model.config.takes_log_mel else 0.1
    assert total == pytest.approx(gained[0] - gained[1], abs=tolerance)


def test_pooling_averages_the_weights_of_the_frames_of_a_step(recognize):
    weights, seconds = measure_pooling(recognize, noise())
    found = measure_saliency(recognize, noise(), 0, "pooling")
    centres = (np.arange(len(weights)) + 0.5) * seconds
    for step in range(8):
        inside = (centres >= step * 0.15) & (centres < (step + 1) * 0.15)
        assert found[step] == pytest.approx(weights[inside].mean())
    assert average_steps(np.arange(4.0), 0.15, 2 * STEP).tolist() == [0.0, 2.0]  # what reaches beyond counts last


def test_a_pipeline_without_gradients_is_refused():
    """The packed layers of the fast pipeline would silently give none."""
    with pytest.raises(ValueError, match="have no gradients: make one of load_model"):
        measure_saliency(load_pipeline(str(MINI_MODEL)), noise(), 0, "gradients")
    assert METHODS == ("pooling", "occlusion", "gradients")
