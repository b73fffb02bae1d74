"""studies/conversion.py on synthetic voices, whose pitch and speakers are known."""

import numpy as np
import pytest
from sklearn.metrics import recall_score

from studies.conversion import (
    VERSIONS,
    Utterance,
    choose_targets,
    compare_pitch,
    describe_emotions,
    measure_pitch,
    name_speakers,
)

PITCHES = {"01": 110.0, "02": 220.0, "03": 150.0}


def hum(pitch, seconds=0.6):
    time = np.arange(int(seconds * 16000)) / 16000
    return (0.3 * (2 * (pitch * time % 1) - 1)).astype(np.float32)


UTTERANCES = [
    Utterance(hum(PITCHES[actor]), ("happy", "sad", "calm")[number % 3], actor, ("01", "02")[number % 2])
    for actor in PITCHES
    for number in range(6)
]
TARGETS = choose_targets(UTTERANCES)


def test_every_actor_is_converted_to_every_other_one():
    pairs = {(each.actor, target) for each, target in zip(UTTERANCES, TARGETS)}
    assert pairs == {(source, target) for source in PITCHES for target in PITCHES if source != target}


def test_pitch_is_measured_in_semitones():
    assert measure_pitch([hum(220)]) - measure_pitch([hum(110)]) == pytest.approx(12, abs=0.1)
    perfect = [hum(PITCHES[target]) for target in TARGETS]
    (row,) = compare_pitch(UTTERANCES, TARGETS, perfect)
    assert row["measured"].startswith("0.0 semitones from")
    (row,) = compare_pitch(UTTERANCES, TARGETS, [each.waveform for each in UTTERANCES])
    distance = np.median([12 * abs(np.log2(PITCHES[a] / PITCHES[b])) for a in PITCHES for b in PITCHES if a != b])
    assert row["measured"].endswith(f"differ by {distance:.1f}") and row["measured"].startswith(f"{distance:.1f} ")


def test_speakers_are_named_by_their_statistics():
    rng = np.random.default_rng(0)

    def describe(actors):
        return np.array([10 * np.eye(3)[list(PITCHES).index(actor)] for actor in actors]) + rng.normal(0, 0.1, (18, 3))

    own = [each.actor for each in UTTERANCES]
    rows = name_speakers(UTTERANCES, TARGETS, dict(zip(VERSIONS, map(describe, (own, own, TARGETS)))))
    assert [row["measured"] for row in rows] == [
        "100 % the speaker; chance 33 %",
        "100 % the speaker; chance 33 %",
        "0 % the speaker, 100 % the target; chance 33 %",
    ]


def test_emotions_are_scored_as_ua_with_calm_as_neutral():
    right = ["neutral" if each.label == "calm" else each.label for each in UTTERANCES]
    changed = ["sad" if target == "02" else answer for answer, target in zip(right, TARGETS)]
    rows = describe_emotions(UTTERANCES, TARGETS, dict(zip(VERSIONS, (right, right, changed))), women={"02"})
    assert rows[0]["measured"] == "UA 100.0 %" and rows[1]["measured"] == "UA 100.0 %; 100 % of the answers stay"
    ua = recall_score(right, changed, average="macro")
    stay = np.mean(np.array(right) == np.array(changed))
    assert rows[2]["measured"].startswith(f"UA {100 * ua:.1f} %; {100 * stay:.0f} % of the answers stay; to the same ")
