"""Finds speech: trims utterances, and splits recordings at pauses.

Training and inference use the same code. A model trained on utterances scores utterances best, so a long recording is
split into phrases: the speech between two pauses.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

try:
    from .fields_ser_align import SAMPLING_RATE
except ImportError:
    if __package__:
        raise
    from fields_ser_align import SAMPLING_RATE

LONGEST_BLOCK = 30.0  # seconds
FRAME, HOP = 2048, 512  # samples: levels are measured over 128 ms, every 32 ms
SILENCE_DB = -80.0  # relative to full scale: a recording that never exceeds it contains no speech
# Ours, chosen on validation actors, in quiet and in noise: range of speech below the loudest frame and above the noise.
SPEECH_RANGE_DB, LEAST_RANGE_DB, ABOVE_NOISE_DB = 40.0, 20.0, 6.0
SHORTEST_PHRASE = 0.1  # seconds: anything shorter is a click


class Phrase(NamedTuple):
    """A stretch of speech between two pauses."""

    start: int  # in samples at 16 kHz, from the beginning of the recording
    waveform: np.ndarray  # (samples,), float32


def measure_levels(waveform: np.ndarray) -> np.ndarray:
    """Measure the level over 128 ms around each multiple of 32 ms: (samples,) to (frames,), dBFS, at least -100."""
    squares = np.pad(np.square(waveform, dtype=np.float64), FRAME // 2)
    sums = np.concatenate([[0.0], np.cumsum(squares)])
    starts = np.arange(0, len(waveform) + 1, HOP)
    return 10 * np.log10(np.maximum((sums[starts + FRAME] - sums[starts]) / FRAME, 1e-10))


def find_loud_intervals(waveform: np.ndarray, threshold_db: float) -> np.ndarray:
    """Find where the level exceeds a threshold: (intervals, 2), samples. Works like `librosa.effects.split`."""
    loud = np.concatenate([[0], (measure_levels(waveform) > threshold_db).astype(int), [0]])
    edges = np.flatnonzero(np.diff(loud))
    return np.minimum(edges.reshape(-1, 2) * HOP, len(waveform))


def trim(waveform: np.ndarray, trim_db: float | None) -> tuple[int, np.ndarray]:
    """Cut leading and trailing audio that is more than `trim_db` below the loudest frame.

    Returns:
        the number of samples cut from the start, and the trimmed waveform, (samples,).
    """
    if trim_db is None or len(waveform) == 0:
        return 0, waveform
    intervals = find_loud_intervals(waveform, measure_levels(waveform).max() - trim_db)
    start, end = int(intervals[0, 0]), int(intervals[-1, 1])
    return start, waveform[start:end]


def cut_phrases(blocks: Iterator[np.ndarray], pause: float) -> Iterator[Phrase]:
    """Split a recording at its pauses.

    Audio counts as speech above a threshold that adapts to the last minute; see [`find_speech_threshold`]. Memory use
    is bounded: a phrase longer than a minute is cut at its quietest point.

    Args:
        blocks: 16 kHz mono, each (samples,) of at most 30 seconds.
        pause: duration in seconds of a silence that ends a phrase.

    Yields:
        the phrases in order, each at least 0.1 s long; none if the recording contains no speech.
    """
    buffer, start = np.zeros(0, np.float32), 0  # audio not yet cut, and where it begins
    before, threshold = np.zeros(0), 0.0  # levels of the previous block, and the current threshold
    limit = int(2 * LONGEST_BLOCK * SAMPLING_RATE)
    for block in blocks:
        if len(block) == 0:
            continue
        levels = measure_levels(block)
        buffer = np.concatenate([buffer, block])
        threshold = find_speech_threshold(np.concatenate([before, levels]))
        before = levels
        spans = find_phrase_spans(buffer, threshold, pause)
        # The last phrase may continue in the next block.
        done, rest = len(buffer), []
        if spans and len(buffer) - spans[-1][1] < pause * SAMPLING_RATE:
            *spans, rest = spans
            done = rest[0]
        yield from _cut_spans(buffer, start, spans)
        buffer, start = buffer[done:], start + done
        while len(buffer) >= limit:
            cut = _find_quietest(buffer)
            yield from _cut_spans(buffer, start, [[0, cut]])
            buffer, start = buffer[cut:], start + cut
    if len(buffer):
        yield from _cut_spans(buffer, start, find_phrase_spans(buffer, threshold, pause))


def find_speech_threshold(levels: np.ndarray) -> float:
    """Compute the level in dB above which a frame counts as speech, from the levels of up to a minute.

    This is 40 dB below the loudest frame, or 6 dB above the noise floor (the 5th percentile) if that is higher. The
    latter is limited to 20 dB below the loudest frame: without pauses, even the quietest frames are speech.
    """
    loudest, noise = levels.max(), np.percentile(levels, 5)
    return max(loudest - SPEECH_RANGE_DB, min(noise + ABOVE_NOISE_DB, loudest - LEAST_RANGE_DB), SILENCE_DB)


def find_phrase_spans(waveform: np.ndarray, threshold_db: float, pause: float) -> list[list[int]]:
    """Find [start, end] of the loud parts, in samples; gaps shorter than `pause` seconds are bridged."""
    spans: list[list[int]] = []
    for start, end in find_loud_intervals(waveform, threshold_db).tolist():
        if spans and start - spans[-1][1] < pause * SAMPLING_RATE:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    return spans


def _cut_spans(buffer: np.ndarray, offset: int, spans: list[list[int]]) -> Iterator[Phrase]:
    for start, end in spans:
        if end - start >= SHORTEST_PHRASE * SAMPLING_RATE:
            yield Phrase(offset + start, buffer[start:end])


def _find_quietest(buffer: np.ndarray) -> int:
    """The quietest point of the second half, in samples: where to cut speech without a pause."""
    levels = measure_levels(buffer)[: -FRAME // 2 // HOP]  # the last ones extend beyond the end
    half = len(levels) // 2
    return int((half + np.argmin(levels[half:])) * HOP)


def cut_windows(phrase: Phrase, window: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (start in samples, waveform) of the phrase, or of equal windows over it that overlap by at least half."""
    size, length = int(window * SAMPLING_RATE), len(phrase.waveform)
    if length <= size:
        yield phrase.start, phrase.waveform
        return
    for start in np.linspace(0, length - size, int(np.ceil(2 * length / size)) - 1).astype(int).tolist():
        yield phrase.start + start, phrase.waveform[start : start + size]
