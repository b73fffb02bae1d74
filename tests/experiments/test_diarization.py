"""Emotion diarization error on hand-made timelines, and on concatenated recordings with known boundaries."""

from itertools import pairwise

import numpy as np
import pytest

from core.loading import load_feature_extractor
from core.shipped import MINI_MODEL
from experiments.diarization import concatenate_utterances, count_errors, measure_drops, score_methods
from experiments.diarization_report import build_deletion_table, build_diarization_table
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline

RATE = 16000


@pytest.fixture(scope="module")
def recognize():
    model = SERAlignForAudioClassification.from_pretrained(MINI_MODEL)
    return SpeechEmotionRecognitionPipeline(model=model, feature_extractor=load_feature_extractor(str(MINI_MODEL)))


def utterance(seconds, level=0.3, seed=0, silence=0.4):
    rng = np.random.default_rng(seed)
    quiet = 1e-5 * rng.standard_normal(int(silence * RATE))
    return np.concatenate([quiet, level * rng.standard_normal(int(seconds * RATE)), quiet]).astype(np.float32)


def test_the_error_counts_missed_false_and_confused_time():
    #                      pause   ------- emotion 0 -------   pause   - emotion 1 -
    reference = np.array([-1, -1, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1, 1, 1, 1, 1])
    hypothesis = np.array([-1, 0, 0, 0, 0, 2, 2, 2, 0, -1, -1, -1, 1, 1, 0, -1])
    #                          false         confused       missed             confused, missed
    assert count_errors(reference, hypothesis).tolist() == [2, 1, 4, 12]
    assert count_errors(reference, reference).tolist() == [0, 0, 0, 12]
    assert count_errors(reference, np.full(16, -1)).tolist() == [12, 0, 0, 12]


@pytest.mark.parametrize("with_pauses", [True, False])
def test_joined_recordings_hold_each_utterance_where_they_say(with_pauses):
    utterances = [(utterance(1 + 0.1 * n, level=0.1 * (n + 1), seed=n), n % 3) for n in range(9)]
    recordings = concatenate_utterances(utterances, 4, with_pauses, np.random.default_rng(0))
    assert len(recordings) == 2  # the ninth is left over
    seen = set()
    for recording in recordings:
        labels = [label for _, _, label in recording.segments]
        assert len(labels) == 4 and all(a != b for a, b in pairwise(labels))
        for start, end, label in recording.segments:
            part = recording.waveform[start:end]
            (source,) = [n for n, (wave, _) in enumerate(utterances) if part[2000] in wave]
            assert source not in seen and utterances[source][1] == label
            seen.add(source)
            assert len(part) / RATE == pytest.approx(1 + 0.1 * source, abs=0.17)  # its speech, without the silence
        total = sum(end - start for start, end, _ in recording.segments)
        if with_pauses:
            assert len(recording.waveform) > total + 4 * 0.6 * RATE
        else:
            assert len(recording.waveform) == total
        assert (recording.reference >= 0).sum() == pytest.approx(total / 160, abs=8)


def test_joining_ends_when_only_one_class_is_left():
    same = [(utterance(0.5, seed=n), 0) for n in range(5)]
    assert concatenate_utterances(same, 3, True, np.random.default_rng(0)) == []
    assert len(concatenate_utterances([*same, (utterance(0.5, seed=9), 1)], 2, True, np.random.default_rng(0))) == 1


def test_every_method_is_scored_and_its_cost_is_what_the_encoder_reads(recognize):
    parts = [(utterance(1.5, seed=n), n % 2) for n in range(6)]
    (recording,) = concatenate_utterances(parts, 6, True, np.random.default_rng(0))
    seconds = len(recording.waveform) / RATE
    counts = score_methods(recognize, recording, [2.0])
    assert set(counts) == {"timeline", "frame_logits", "whole_file", "sliding_window_2", "true_boundaries"}
    spoken = {values[3] for values in counts.values()}
    assert len(spoken) == 1  # all against the same reference
    assert counts["whole_file"][4] == pytest.approx(seconds, abs=0.1)
    assert counts["sliding_window_2"][4] == pytest.approx(2 * seconds, rel=0.15)  # they overlap by half
    assert counts["true_boundaries"][4] == pytest.approx(9, abs=0.8)
    assert counts["true_boundaries"][:2] == [0, 0]


def test_the_timelines_error_is_that_of_its_segments_step_by_step(recognize):
    parts = [(utterance(1.5, level=0.1 + 0.1 * n, seed=n), n % 3) for n in range(6)]
    (recording,) = concatenate_utterances(parts, 6, True, np.random.default_rng(0))
    labels = recognize.model.config.label2id
    segments = recognize(recording.waveform, return_timeline=True)["timeline"]
    missed = false = confused = 0
    for step in range(len(recording.waveform) // 160):
        seconds = (step + 0.5) / 100
        said = [labels[s["label"]] for s in segments if s["start"] <= seconds < s["end"]]
        true = [label for start, end, label in recording.segments if start <= 16000 * seconds < end]
        missed += bool(true and not said)
        false += bool(said and not true)
        confused += bool(said and true and said != true)
    counts = score_methods(recognize, recording, [2.0])["timeline"]
    assert counts[:3] == pytest.approx([missed, false, confused], abs=12)  # a step at each edge


def test_dropping_the_top_frames_is_compared_with_dropping_others(recognize):
    drops = measure_drops(recognize, utterance(2, silence=0.0), np.random.default_rng(0))
    assert set(drops) == {"top", "random", "shifted"}
    assert all(-1 <= drop <= 1 for drop in drops.values())


def test_tables_have_hand_computed_rates_and_advantages():
    # missed, false, confused, spoken, encoded seconds, seconds
    errors = {
        "a": {"pauses": {"timeline": [0, 0, 10, 100, 1.0, 2.0], "sliding_window_2": [0, 0, 30, 100, 4.0, 2.0]}},
        "b": {"pauses": {"timeline": [10, 0, 0, 100, 1.0, 2.0], "sliding_window_2": [10, 10, 20, 100, 4.0, 2.0]}},
    }
    ours, sliding = build_diarization_table(errors, "pauses")
    assert (ours["error"], ours["missed"], ours["confused"], ours["cost"]) == (0.1, 0.05, 0.05, 0.5)
    assert sliding["error"] == 0.35 and sliding["cost"] == 2.0 and sliding["advantage"] == pytest.approx(0.25)
    assert (sliding["low"], sliding["high"]) == (pytest.approx(0.2), pytest.approx(0.3))  # speaker a's, speaker b's
    drops = {"a": [{"top": 0.4, "random": 0.1, "shifted": 0.2}], "b": [{"top": 0.2, "random": 0.1, "shifted": 0.0}]}
    top, random, shifted = build_deletion_table(drops)
    assert top["drop"] == pytest.approx(0.3) and random["less"] == pytest.approx(0.2)
    assert shifted["drop"] == pytest.approx(0.1) and shifted["low"] == pytest.approx(0.2)
