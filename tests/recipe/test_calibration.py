"""Calibration: the fitted temperature against a grid search, ECE by hand, and the temperature in the model."""

import numpy as np
import pytest
import torch
from conftest import batch, tiny_model, utterances
from scipy.special import softmax

from recipe.calibration import (
    expected_calibration_error,
    fit_temperature,
    fit_unsure_threshold,
    read_log_probabilities,
    reliability,
    undo_temperature,
)

LABELS = ["angry", "happy", "sad"]


def lines(logits, labels):
    return [
        {"label": LABELS[label], "probabilities": dict(zip(LABELS, softmax(row)))} for row, label in zip(logits, labels)
    ]


def overconfident(seed=0, number=3000, factor=3.0):
    """Labels drawn from softmax(logits), answers from softmax(factor x logits): the right temperature is the factor."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(number, 3))
    labels = [rng.choice(3, p=softmax(row)) for row in logits]
    return factor * logits, labels


def test_the_temperature_of_a_model_that_is_known_to_be_three_times_too_sure():
    logits, labels = overconfident()
    assert fit_temperature(lines(logits, labels)) == pytest.approx(3.0, rel=0.1)


def test_the_temperature_is_the_best_of_a_grid():
    logits, labels = overconfident(seed=1, number=400, factor=0.6)
    grid = np.geomspace(0.1, 10, 2001)
    likelihood = [np.mean(np.log(softmax(logits / t, axis=1))[np.arange(400), labels]) for t in grid]
    assert fit_temperature(lines(logits, labels)) == pytest.approx(grid[np.argmax(likelihood)], rel=0.005)


@pytest.mark.parametrize(("answers", "bound"), [([0, 1, 2], 0.05), ([1, 2, 0], 20.0)])
def test_all_right_or_all_wrong_ends_at_a_bound_instead_of_at_infinity(answers, bound):
    assert fit_temperature(lines(0.4 * np.eye(3), answers)) == pytest.approx(bound, rel=0.01)


def test_a_probability_of_zero_does_not_break_the_fit():
    predictions = [
        {"label": "angry", "probabilities": {"angry": 0.0, "happy": 1.0, "sad": 0.0}},
        *lines(np.eye(3), [0, 1, 2]),
    ]
    assert np.isfinite(fit_temperature(predictions))


def test_calibrated_probabilities_can_be_taken_back():
    logits, labels = overconfident(number=50)
    log_probabilities, _ = read_log_probabilities(lines(logits / 2.5, labels))
    np.testing.assert_allclose(
        undo_temperature(np.exp(log_probabilities), 2.5), softmax(logits, axis=1), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("accuracy", [0.5, 0.7, 0.8, 0.95])
def test_the_most_answers_are_sure_of_which_enough_are_right(accuracy):
    """Against every possible threshold."""
    logits, labels = overconfident(number=300)
    threshold = fit_unsure_threshold(lines(logits, labels), accuracy)
    probabilities = softmax(logits, axis=1)
    confidences, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    coverages = {at: (confidences >= at).mean() for at in confidences if correct[confidences >= at].mean() >= accuracy}
    expected = max(coverages.values())
    assert (confidences >= threshold).mean() == pytest.approx(expected)
    assert (threshold == 0) == (correct.mean() >= accuracy)


def test_every_corpus_counts_as_much_as_any_other():
    """A corpus repeated nine times changes nothing; without its name, it decides alone."""
    logits, labels = overconfident(number=60)
    others, other_labels = overconfident(seed=1, number=60, factor=0.5)
    small = [{**line, "corpus": "small"} for line in lines(logits, labels)]
    large = [{**line, "corpus": "large"} for line in lines(others, other_labels)]
    assert fit_temperature(small + 9 * large) == pytest.approx(fit_temperature(small + large), rel=1e-4)
    assert fit_unsure_threshold(small + 9 * large, 0.6) == pytest.approx(fit_unsure_threshold(small + large, 0.6))
    unnamed = [{**line, "corpus": "large"} for line in small] + 9 * large
    assert fit_temperature(unnamed) < 0.8 * fit_temperature(small + large)


def test_all_answers_or_none_are_sure():
    right, wrong = ([{"label": label, "probabilities": {"a": 0.9, "b": 0.1}}] for label in "ab")
    assert fit_unsure_threshold(30 * right, 0.8) == 0.0 == fit_unsure_threshold(30 * wrong, 0.0)
    assert fit_unsure_threshold(30 * wrong, 0.8) == 1.0
    few = [{"label": "a", "probabilities": {"a": 0.95, "b": 0.05}}]
    assert fit_unsure_threshold(9 * few + 30 * wrong, 0.8) == 1.0  # nine are too few to tell


def test_the_error_by_hand():
    """Bin (0.4, 0.6]: confidence 0.5, accuracy 1/2; bin (0.8, 1.0]: confidence 0.9, accuracy 1/2: 0.4 x half."""
    confidences, correct = np.array([0.5, 0.5, 0.9, 0.9]), np.array([True, False, True, False])
    assert reliability(confidences, correct, 5) == [(0.5, 0.5, 0.5), (0.9, 0.5, 0.5)]
    assert expected_calibration_error(confidences, correct, 5) == pytest.approx(0.2)


def test_calibration_lowers_the_error_of_an_overconfident_model():
    logits, labels = overconfident()
    fitted = fit_temperature(lines(logits, labels))
    correct = logits.argmax(axis=1) == labels
    before, after = (softmax(logits / t, axis=1).max(axis=1) for t in (1.0, fitted))
    assert expected_calibration_error(after, correct) < 0.04 < expected_calibration_error(before, correct)


def test_the_model_divides_its_logits_by_its_temperature(tmp_path):
    model = tiny_model()
    inputs = batch(model, utterances(model, [0.4, 0.6]))
    with torch.no_grad():
        raw = model(**inputs)
        model.config.calibration_temperature = 2.5
        model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path)
        output = loaded(**inputs)
    torch.testing.assert_close(output.logits, raw.logits / 2.5)
    torch.testing.assert_close(output.frame_logits, raw.frame_logits / 2.5)
    torch.testing.assert_close(output.frame_weights, raw.frame_weights)
