"""Prosody: pitch, energy and timing of each word, and statistics of an utterance, for a model that also reads words.

Training and inference use the same code. The pitch is that of the voice detector. The levels are those of MATER (Jon et
al. 2025, arXiv 2506.19887); what is measured in each is ours.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

try:
    from .fields_ser_align import SAMPLING_RATE
    from .quality_ser_align import FRAME, measure_power
    from .speech_ser_align import TRIM_DB
    from .voice_ser_align import VOICED, measure_periodicity
except ImportError:
    if __package__:
        raise
    from fields_ser_align import SAMPLING_RATE
    from quality_ser_align import FRAME, measure_power
    from speech_ser_align import TRIM_DB
    from voice_ser_align import VOICED, measure_periodicity

HOP = 160  # samples: a frame of 64 ms every 10 ms
# Ours: of 0 to 0.15, the one with the fewest gross errors beside pYIN on eight utterances of RAVDESS, 1.7 % of frames.
OCTAVE_COST = 0.05
# Ours, so that most values lie within -2 and 2: pitch in octaves above PITCH, energy in steps of ENERGY_STEP below the
# loudest frame, durations in octaves above DURATION, pauses in seconds, voiced stretches per RATE of a second.
PITCH, ENERGY_STEP, LOWEST_ENERGY, DURATION, LONGEST_PAUSE, RATE = 150.0, 20.0, 60.0, 0.25, 2.0, 0.25
# Values of a word and of an utterance; the range is that between the 10th and the 90th percentile.
WORD_VALUES = ("pitch", "voiced_share", "energy", "duration", "pause")
UTTERANCE_VALUES = (
    *("pitch_mean", "pitch_sd", "pitch_range", "energy_mean", "energy_sd", "energy_range"),
    *("voiced_rate", "pause_share"),
)


class Frames(NamedTuple):
    """What is measured every 10 ms; each is (frames,)."""

    pitch: np.ndarray  # octaves above PITCH; meaningless without voice
    energy: np.ndarray  # in steps of ENERGY_STEP dB below the loudest frame: 0 and less
    is_speech: np.ndarray  # at most TRIM_DB softer than the loudest frame
    is_voiced: np.ndarray


def measure_frames(waveform: np.ndarray) -> Frames:
    """Measure a waveform at 16 kHz, (samples,), at each multiple of 10 ms. The recording level does not matter."""
    power = measure_power(np.pad(waveform.astype(np.float64), FRAME // 2), HOP)
    strengths, pitches, _ = measure_periodicity(power, OCTAVE_COST)
    levels = 10 * np.log10(np.maximum(power.sum(axis=1), 1e-20))
    energy = np.maximum(levels - levels.max(), -LOWEST_ENERGY) / ENERGY_STEP
    is_speech = energy > -TRIM_DB / ENERGY_STEP
    return Frames(np.log2(pitches / PITCH), energy, is_speech, is_speech & (strengths >= VOICED))


def describe_words(frames: Frames, words: Sequence[dict[str, Any]]) -> np.ndarray:
    """The values of each word, (words, values + 1); the last column is 1 for a word within the frames.

    A word without voice has the pitch 0; one beyond the frames has no values, and its row is 0. Of one that reaches
    beyond them, the part within counts: Whisper gives the first and the last word the silence around an utterance.

    Args:
        frames: of the waveform, as [`measure_frames`] gives them.
        words: in order, dicts of `start` and `end` in seconds of the waveform.
    """
    table, before = np.zeros((len(words), len(WORD_VALUES) + 1), np.float32), None
    seconds = len(frames.energy) * HOP / SAMPLING_RATE
    for row, word in zip(table, words):
        if word["end"] < 0 or word["start"] >= seconds:
            continue
        start, end = max(word["start"], 0.0), min(word["end"], seconds)
        pause, before = 0.0 if before is None else start - before, end
        first, last = (round(time * SAMPLING_RATE / HOP) for time in (start, end))
        part = slice(min(first, len(frames.energy) - 1), max(last, first + 1))
        voiced = frames.is_voiced[part]
        pitch = frames.pitch[part][voiced].mean() if voiced.any() else 0.0
        duration = np.log2(max(end - start, HOP / SAMPLING_RATE) / DURATION)
        row[:] = pitch, voiced.mean(), frames.energy[part].mean(), duration, np.clip(pause, 0.0, LONGEST_PAUSE), 1.0
    return table


def describe_utterance(frames: Frames) -> np.ndarray:
    """The values of an utterance, (values,): 0 for the pitch of one without voice.

    The rate is that of voiced stretches, which eGeMAPS takes for that of syllables (Eyben et al. 2016).
    """
    pitch, energy = frames.pitch[frames.is_voiced], frames.energy[frames.is_speech]
    stretches = int((np.diff(frames.is_voiced.astype(int), prepend=0) == 1).sum())
    rate = stretches / (len(frames.is_voiced) * HOP / SAMPLING_RATE) * RATE
    values = [*_summarize(pitch), *_summarize(energy), rate, 1 - frames.is_speech.mean()]
    return np.array(values, np.float32)


def _summarize(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, standard deviation and range."""
    if len(values) == 0:
        return 0.0, 0.0, 0.0
    low, high = np.percentile(values, [10, 90])
    return float(values.mean()), float(values.std()), float(high - low)
