"""Finding speech: levels, trimming and phrases, against NumPy, hand-made cases and real speech."""

import tracemalloc

import numpy as np
import pytest
from sounds import voice

from core.audio import read_audio
from recording_ser_align import SAMPLING_RATE, read_blocks
from speech_ser_align import FRAME, HOP, cut_phrases, measure_levels, trim


def quiet(seconds):
    return voice(seconds, level=1e-5, seed=9)


@pytest.mark.parametrize("length", [1, HOP - 1, 4 * HOP, 9000])
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_a_level_is_the_variance_of_the_128_ms_around_it(length, offset):
    waveform = 0.1 * np.random.default_rng(0).standard_normal(length) + offset
    centres = range(0, length + 1, HOP)
    expected = [np.var(waveform[max(0, at - FRAME // 2) : at + FRAME // 2]) for at in centres]
    np.testing.assert_allclose(measure_levels(waveform), 10 * np.log10(np.maximum(expected, 1e-10)), atol=1e-6)


def find_ends(waveform, trim_db=30.0):
    """Start and end of the trimmed waveform, in seconds."""
    start, speech = trim(waveform.astype(np.float32), trim_db)
    return start / SAMPLING_RATE, (start + len(speech)) / SAMPLING_RATE


def test_trimming_keeps_what_lies_above_the_threshold():
    """Up to 64 ms more at each end: a level is that of 128 ms."""
    soft = voice(0.25, level=0.02)  # 24 dB below
    waveform = np.concatenate([quiet(1), soft, voice(2), quiet(0.25), soft, quiet(1)])
    assert find_ends(waveform, 30) == pytest.approx((1 - 0.032, 3.75 + 0.032), abs=0.02)
    assert find_ends(waveform, 20) == pytest.approx((1.25 - 0.064, 3.25 + 0.064), abs=0.02)
    assert find_ends(waveform, None) == (0, 4.75)
    assert find_ends(np.zeros(1000)) == (0, 1000 / SAMPLING_RATE)  # nothing to keep: it stays as it is


def test_an_offset_of_the_recorder_changes_no_cut():
    waveform = np.concatenate([quiet(1), voice(2, level=0.05), quiet(1)])
    for offset in (0.02, -0.3):
        assert find_ends(waveform + offset) == find_ends(waveform)
        shifted = (waveform + offset).astype(np.float32)
        np.testing.assert_allclose(spans(shifted), spans(waveform), atol=0.01)


@pytest.mark.parametrize("below", [25, 15])
def test_a_noise_floor_above_the_threshold_is_trimmed_too(below):
    waveform = np.concatenate([quiet(2), voice(2), quiet(2)]) + voice(6, level=0.3 * 10 ** (-below / 20), seed=3)
    assert find_ends(waveform) == pytest.approx((2, 4), abs=0.08)


def test_a_loud_click_in_the_silence_moves_no_end():
    waveform = np.concatenate([quiet(2), voice(2, level=0.05), quiet(2)])
    clicked = waveform.copy()
    clicked[[8000, -8000]] = 1.0
    assert find_ends(clicked) == find_ends(waveform)
    assert spans(clicked) == spans(waveform)


def place(utterance, others, position):
    """A recording with the utterance after `position` samples of silence, and other utterances around it."""
    pause = np.zeros(SAMPLING_RATE, np.float32)
    before = np.concatenate([part for other in others for part in (other, pause)])
    return np.concatenate([before, np.zeros(position, np.float32), utterance, pause, before]), len(before) + position


@pytest.mark.slow
def test_an_utterance_in_a_long_recording_is_cut_as_it_is_alone(corpora):
    """Nine utterances of different loudness, each in the middle of the others: the same samples."""
    paths = sorted((corpora / "ravdess" / "Actor_13").glob("03-01-0[358]-0*-01-01-13.*"))
    utterances = [read_audio(path) for path in paths]
    same = 0
    for index, utterance in enumerate(utterances):
        recording, position = place(utterance, utterances, 640 * HOP * index)
        start, alone = trim(utterance, 30.0)
        phrases = list(cut_phrases(read_blocks(recording), 0.5))
        (found,) = (phrase for phrase in phrases if abs(phrase.start - position - start) < 8000)
        same += abs(found.start - position - start) <= HOP and abs(len(found.waveform) - len(alone)) <= 2 * HOP
    assert len(utterances) >= 5 and same >= len(utterances) - 1


def spans(waveform, pause=0.25, block=30.0):
    size = int(block * SAMPLING_RATE)
    blocks = (waveform[start : start + size] for start in range(0, len(waveform), size))
    return [
        (phrase.start / SAMPLING_RATE, (phrase.start + len(phrase.waveform)) / SAMPLING_RATE)
        for phrase in cut_phrases(blocks, pause)
    ]


def test_phrases_lie_between_pauses_whatever_the_blocks():
    waveform = np.concatenate([quiet(1), voice(2), quiet(0.5), voice(1), quiet(0.1), voice(1), quiet(2), voice(0.03)])
    expected = [(1.0, 3.0), (3.5, 5.6)]  # 0.1 s is no pause, and 0.03 s no phrase
    for block in (30.0, 2.5, 1.7):  # seams inside a phrase, inside a pause, at neither's edge
        np.testing.assert_allclose(spans(waveform, block=block)[:2], expected, atol=0.13)
    assert len(spans(waveform)) == 2
    assert len(spans(waveform, pause=0.6)) == 1


def test_each_phrase_is_the_recordings_own_audio():
    waveform = np.concatenate([quiet(1), voice(40), quiet(1), voice(3, seed=1), quiet(30), voice(2, seed=2)])
    found = list(cut_phrases(read_blocks(waveform), 0.25))
    assert len(found) == 3
    for phrase in found:
        part = waveform[phrase.start : phrase.start + len(phrase.waveform)]
        np.testing.assert_array_equal(phrase.waveform, part)


def test_a_steady_noise_does_not_hide_the_pauses():
    speech = np.concatenate([quiet(1), voice(2), quiet(1), voice(2), quiet(1)])
    noisy = speech + voice(7, level=0.3 * 10 ** (-27 / 20), seed=3)  # 27 dB below the speech
    np.testing.assert_allclose(spans(noisy), [(1, 3), (4, 6)], atol=0.15)


def test_speech_without_a_pause_is_kept_whole():
    (span,) = spans(np.concatenate([voice(20), voice(3, level=0.1), voice(20)]))
    np.testing.assert_allclose(span, (0, 43), atol=0.1)


def test_gain_changes_nothing():
    waveform = np.concatenate([quiet(1) * 0, voice(2), quiet(1) * 0, voice(1)])
    assert spans(0.01 * waveform) == spans(waveform)


@pytest.mark.parametrize("waveform", [np.zeros(0), np.zeros(50000), 5e-5 * np.ones(50000), voice(2, level=1e-5)])
def test_silence_holds_no_phrase(waveform):
    assert spans(waveform.astype(np.float32)) == []


def test_endless_speech_is_cut_where_it_is_quietest_in_bounded_memory():
    def blocks():
        for number in range(20):  # ten minutes without a pause
            block = voice(30, seed=number)
            block[20 * SAMPLING_RATE : 20 * SAMPLING_RATE + 3200] *= 0.2  # a dip, but no pause
            yield block

    tracemalloc.start()
    position, starts = 0, []
    for phrase in cut_phrases(blocks(), 0.25):
        assert phrase.start == position  # nothing is lost between two pieces
        position += len(phrase.waveform)
        starts.append(phrase.start / SAMPLING_RATE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert position == 600 * SAMPLING_RATE
    assert all(start % 30 == pytest.approx(20.1, abs=0.15) for start in starts[1:])
    assert peak < 100e6  # ten minutes of samples are 38 MB, their squares and levels many times that


def test_a_minute_without_a_pause_is_cut_where_it_is_quietest():
    minute = voice(60)
    minute[45 * SAMPLING_RATE : 45 * SAMPLING_RATE + 3200] *= 0.9
    first, second = cut_phrases(iter(np.split(minute, 2)), pause=0.25)
    assert (len(first.waveform) / SAMPLING_RATE, second.start) == (pytest.approx(45.1, abs=0.1), len(first.waveform))
    assert len(first.waveform) + len(second.waveform) == pytest.approx(len(minute), abs=HOP)
