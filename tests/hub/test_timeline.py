"""The emotion timeline, from the scores of windows."""

import numpy as np
import pytest

from timeline_ser_align import build_timeline, trace_values, weigh_windows


def test_windows_of_a_phrase_are_cross_faded():
    """Two windows of 2 s that overlap by 1 s, the first sure of class 0, the second of class 1."""
    found = build_timeline(np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([0, 0]), np.eye(2))
    assert [(segment["label"], segment["start"], segment["end"]) for segment in found] == [
        (0, 1.0, pytest.approx(2.5)),
        (1, pytest.approx(2.5), 4.0),
    ]
    # Probability 1 for a second, then from 0.95 down in ten steps, of which five are above a half.
    assert found[0]["score"] == pytest.approx((10 * 1.0 + 0.95 + 0.85 + 0.75 + 0.65 + 0.55) / 15)


def test_phrases_stay_apart_and_keep_their_edges():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    found = build_timeline(np.array([0.5, 2.0, 4.0]), np.array([1.5, 3.25, 5.0]), np.array([0, 1, 2]), probabilities)
    assert [tuple(segment.values()) for segment in found] == [
        (0.5, 1.5, 0, pytest.approx(0.9)),
        (2.0, 3.25, 0, pytest.approx(0.8)),
        (4.0, 5.0, 1, pytest.approx(0.7)),
    ]


def test_a_short_segment_joins_its_longer_neighbour_or_goes():
    starts, ends = np.array([0.0, 1.0, 2.0]), np.array([2.0, 3.0, 4.0])
    probabilities = np.array([[1.0, 0.0], [0.4, 0.6], [1.0, 0.0]])
    assert [s["label"] for s in build_timeline(starts, ends, np.zeros(3), probabilities)] == [0, 1, 0]
    (segment,) = build_timeline(starts, ends, np.zeros(3), probabilities, min_duration=1.5)
    assert (segment["label"], segment["start"], segment["end"]) == (0, 0.0, 4.0)
    alone = (np.array([0.0]), np.array([0.2]), np.zeros(1), np.eye(2)[:1])
    assert len(build_timeline(*alone)) == 1 and build_timeline(*alone, min_duration=0.3) == []


def test_smoothing_is_an_average_over_speech_alone():
    """A short phrase is smoothed with its more confident neighbours; pauses of any length have no weight."""
    starts, ends = np.array([0.0, 1.0, 1.3]), np.array([1.0, 1.3, 2.3])
    probabilities = np.array([[1.0, 0.0], [0.45, 0.55], [1.0, 0.0]])
    assert [s["label"] for s in build_timeline(starts, ends, np.arange(3), probabilities)] == [0, 1, 0]
    assert [s["label"] for s in build_timeline(starts, ends, np.arange(3), probabilities, smoothing=1.0)] == [0, 0, 0]
    apart = np.array([0, 50, 100])
    far = build_timeline(starts + apart, ends + apart, np.arange(3), probabilities, smoothing=1.0)
    assert [s["label"] for s in far] == [0, 1, 0]
    assert far[1]["score"] == pytest.approx(0.55)


def test_segments_that_become_equal_keep_the_beginning_of_the_first():
    """Classes 2, 0, 1, 0, a second each but for the 0.5 s of class 1, which joins what follows."""
    starts, ends = np.array([0.0, 1.0, 2.0, 2.5]), np.array([1.0, 2.0, 2.5, 4.5])
    found = build_timeline(starts, ends, np.arange(4), np.eye(3)[[2, 0, 1, 0]])
    assert [s["label"] for s in found] == [2, 0, 1, 0]
    found = build_timeline(starts, ends, np.zeros(4), np.eye(3)[[2, 0, 1, 0]], min_duration=0.8)
    assert [(s["label"], s["start"], s["end"]) for s in found] == [(2, 0.0, 1.0), (0, 1.0, 4.5)]


@pytest.mark.parametrize("smoothing", [0.3, 0.5, 1.1])
def test_smoothing_weighs_by_a_hann_window_of_this_width(smoothing):
    """Against a sum over the steps of 0.1 s: a score of 0.9 after one of 0.6, both of the same class."""
    scores = np.repeat([0.6, 0.9], [10, 10])
    reach = round(smoothing / 0.1 / 2)
    weights = {d: 0.5 + 0.5 * np.cos(np.pi * d / (reach + 1)) for d in range(-reach, reach + 1)}
    smooth = []
    for at in range(20):
        near = {at + d: weight for d, weight in weights.items() if 0 <= at + d < 20}
        smooth.append(sum(weight * scores[i] for i, weight in near.items()) / sum(near.values()))
    values = np.array([[0.6, 0.4], [0.9, 0.1]])
    (found,) = build_timeline(
        np.array([0.0, 1.0]), np.array([1.0, 2.0]), np.array([0, 1]), values, smoothing=smoothing
    )[:1]
    assert found["score"] == pytest.approx(np.mean(smooth[:10]))


def test_nothing_heard_gives_no_timeline():
    assert build_timeline(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros((0, 3)), smoothing=1.0) == []


def test_windows_of_a_phrase_share_its_weight():
    starts, ends = np.array([0.0, 1.0, 2.0, 6.0]), np.array([2.0, 3.0, 4.0, 7.0])
    assert weigh_windows(starts, ends, np.array([0, 0, 0, 1])).tolist() == pytest.approx([4 / 3, 4 / 3, 4 / 3, 1])


def test_values_are_cross_faded_as_probabilities_and_decide_no_segment():
    """Two windows of 2 s that overlap by 1 s: the values go from 10 to 20 over the second that both cover."""
    starts, ends, phrase, values = np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.zeros(2), np.array([[10.0], [20.0]])
    (trace,) = trace_values(starts, ends, phrase, values, ["valence"])
    assert trace["time"] == pytest.approx(np.arange(1.05, 4, 0.1))
    expected = np.concatenate([np.full(10, 10.0), 10 + 10 * np.arange(0.05, 1, 0.1), np.full(10, 20.0)])
    assert trace["valence"] == pytest.approx(expected)
    plain = build_timeline(starts, ends, phrase, np.eye(2))
    valued = build_timeline(starts, ends, phrase, np.eye(2), values=100 * values)
    assert [{key: segment[key] for key in plain[0]} for segment in valued] == plain
    assert valued[0]["dimensions"] == pytest.approx([100 * expected[:15].mean()])
    apart = np.array([0, 5])
    phrases = trace_values(starts + apart, ends + apart, np.array([0, 1]), values, ["valence"])
    assert [each["valence"] for each in phrases] == [pytest.approx([10.0] * 20), pytest.approx([20.0] * 20)]
