"""Easy and hard utterances: losses against NumPy, shares and pairs by what they must satisfy."""

import numpy as np
import pytest

from core.errors import InputError
from recipe.converted import check_conversion
from recipe.difficulty import choose_pairs, draw_roles, find_roles, measure_difficulty, pair
from recipe.options import DataArguments

RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat([0, 1, 2], [40, 20, 8]))
SPEAKERS = np.array([f"s{index % 7}" for index in range(len(LABELS))])
PROBABILITIES = RNG.uniform(0.01, 0.99, len(LABELS))


def options(**fields):
    return DataArguments(convert="guiding", **fields)


def test_the_losses_are_those_of_the_papers():
    """CE = -log p, GCE = (1 - p^0.7) / 0.7, w = CE / (CE + GCE)."""
    measured = measure_difficulty(PROBABILITIES)
    ce, gce = -np.log(PROBABILITIES), (1 - PROBABILITIES**0.7) / 0.7
    np.testing.assert_allclose(measured["ce"], ce)
    np.testing.assert_allclose(measured["gce"], gce)
    np.testing.assert_allclose(measured["difficulty"], ce / (ce + gce))


def test_difficulty_falls_with_the_probability_and_has_finite_ends():
    sorted_difficulty = measure_difficulty(np.linspace(0, 1, 101))["difficulty"]
    assert (np.diff(sorted_difficulty) < 0).all() and np.isfinite(sorted_difficulty).all()
    assert sorted_difficulty[-1] == 0.5 and sorted_difficulty[0] > 0.99


def test_roles_are_the_ends_of_each_class():
    roles = find_roles(LABELS, measure_difficulty(PROBABILITIES)["difficulty"], options(contrary_share=0.5))
    for label, guiding, contrary in ((0, 10, 20), (1, 5, 10), (2, 2, 4)):
        own = label == LABELS
        assert (roles[own] == "guiding").sum() == guiding and (roles[own] == "contrary").sum() == contrary
        assert PROBABILITIES[own & (roles == "guiding")].min() >= np.sort(PROBABILITIES[own])[-guiding]
        assert PROBABILITIES[own & (roles == "contrary")].max() <= np.sort(PROBABILITIES[own])[contrary - 1]


def test_random_roles_are_as_many_in_each_class():
    roles = draw_roles(LABELS, options(), np.random.default_rng(1))
    assert [(roles[label == LABELS] == "guiding").sum() for label in range(3)] == [10, 5, 2]
    assert set(roles) == {"guiding", "contrary"}


@pytest.mark.parametrize("pairing", ["same_class", "any_class"])
@pytest.mark.parametrize("copies", [1, 3])
def test_voices_are_of_other_speakers_and_of_contrary_utterances(pairing, copies):
    chosen = options(convert_pairing=pairing, convert_copies=copies, contrary_share=0.5)
    pairs, known = choose_pairs(LABELS, SPEAKERS, chosen, 0, PROBABILITIES)
    roles = np.array([each["role"] for each in known])
    sources, references = map(np.array, zip(*pairs))
    assert (roles[sources] == "guiding").all() and (roles[references] == "contrary").all()
    assert (SPEAKERS[sources] != SPEAKERS[references]).all()
    assert (LABELS[sources] == LABELS[references]).all() == (pairing == "same_class")
    voices = {(source, SPEAKERS[reference]) for source, reference in pairs}
    assert len(voices) == len(pairs) > 17 * copies - 6  # few classes lack enough speakers
    assert known[0]["probability"] == PROBABILITIES[0]


def test_the_choice_is_that_of_the_seed():
    for probabilities in (None, PROBABILITIES):
        first, again, other = (choose_pairs(LABELS, SPEAKERS, options(), seed, probabilities) for seed in (0, 0, 1))
        assert first == again and first[0] != other[0]


def test_without_a_contrary_utterance_of_another_speaker_there_is_no_copy():
    roles = np.array(["guiding", "contrary", "guiding", "contrary"])
    speakers, labels = np.array(["a", "a", "a", "b"]), np.array([0, 0, 1, 1])
    assert pair(labels, speakers, roles, options(), np.random.default_rng(0)) == [(2, 3)]


def test_shares_that_overlap_are_refused():
    with pytest.raises(InputError, match=r"--guiding_share 0.7 and --contrary_share 0.5 add up to more than 1"):
        check_conversion(options(guiding_share=0.7, contrary_share=0.5))
    check_conversion(options(guiding_share=0.5, contrary_share=0.5))
