"""Finds speech: trims utterances, and splits recordings at pauses.

Training and inference use the same code. A model trained on utterances scores utterances best, so a long recording is
split into phrases: the speech between two pauses. The ends of a phrase are trimmed like those of an utterance.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

try:
    from .fields_ser_align import BLOCK_SECONDS, SAMPLING_RATE
except ImportError:
    if __package__:
        raise
    from fields_ser_align import BLOCK_SECONDS, SAMPLING_RATE

FRAME, HOP = 2048, 128  # samples: levels are measured over 128 ms, every 8 ms
SILENCE_DB = -80.0  # relative to full scale: a recording that never exceeds it contains no speech
# Ours, chosen on validation actors, clean and in noise. An utterance ends TRIM_DB below its loudest moment; a phrase
# may be SPEECH_RANGE_DB softer than its neighbours.
TRIM_DB, SPEECH_RANGE_DB = 30.0, 40.0
NOISE_SHARE, STEADY_DB = 0.15, 2.0
ABOVE_NOISE_DB, LEAST_RANGE_DB = 5.0, 10.0
LARGEST_MARGIN = 0.125  # seconds on either side of a phrase that its own levels may add
PAUSE = 0.25  # seconds; ours, chosen on validation actors
LONGEST_UTTERANCE = 15.0  # seconds, the 99th percentile of IEMOCAP; longer recordings are scored phrase by phrase
WINDOW = 2.0  # seconds; ours, chosen on validation actors
SHORTEST_PHRASE = 0.1  # seconds: anything shorter is a click
CLICK = FRAME + 512  # samples: a click is loud for no longer, since every level near it contains it


class Phrase(NamedTuple):
    """A stretch of speech between two pauses."""

    start: int  # in samples at 16 kHz, from the beginning of the recording
    waveform: np.ndarray  # (samples,), float32


def measure_levels(waveform: np.ndarray) -> np.ndarray:
    """Measure the level over 128 ms around each multiple of 8 ms: (samples,) to (frames,), dBFS, at least -100.

    The level is the variance within the 128 ms, so a constant offset is silence. At the ends it is that of the samples
    that are there.
    """
    steps = np.pad(waveform.astype(np.float64), (0, -len(waveform) % HOP)).reshape(-1, HOP)
    sums, squares = (np.concatenate([[0.0], np.cumsum(each)]) for each in (steps.sum(1), np.square(steps).sum(1)))
    centres = np.arange(0, len(waveform) + 1, HOP)
    starts, ends = np.maximum(centres - FRAME // 2, 0), np.minimum(centres + FRAME // 2, len(waveform))
    counts, first, last = np.maximum(ends - starts, 1), starts // HOP, -(-ends // HOP)
    variances = (squares[last] - squares[first]) / counts - ((sums[last] - sums[first]) / counts) ** 2
    return 10 * np.log10(np.maximum(variances, 1e-10))


def remove_offset(waveform: np.ndarray) -> np.ndarray:
    """Subtract the mean of a waveform, (samples,): an offset of the recorder is not part of the voice."""
    return (waveform - waveform.mean(dtype=np.float64)).astype(np.float32)


def find_loudest(levels: np.ndarray) -> float:
    """The highest level that lasts longer than a click, in dB."""
    length = min(CLICK // HOP, len(levels))
    return float(np.lib.stride_tricks.sliding_window_view(levels, length).min(axis=1).max())


def find_noise_threshold(levels: np.ndarray) -> float:
    """The level in dB below which a frame is noise, from the levels of up to a minute; -80 if there is no noise floor.

    Noise is steady and speech is not: a noise floor is where 15 % of the frames lie within 2 dB, at least 10 dB below
    the loudest moment.
    """
    ordered = np.sort(levels[levels > SILENCE_DB])
    count, highest = int(NOISE_SHARE * len(levels)), find_loudest(levels) - LEAST_RANGE_DB
    if not 0 < count < len(ordered):
        return SILENCE_DB
    widths = ordered[count:] - ordered[:-count]
    widths[ordered[count:] > highest] = np.inf
    steadiest = int(widths.argmin())
    if widths[steadiest] > STEADY_DB:
        return SILENCE_DB
    return float(min(ordered[steadiest + count // 2] + ABOVE_NOISE_DB, highest))


def find_phrase_threshold(levels: np.ndarray) -> float:
    """The level in dB below which there is a pause, from the levels of up to a minute."""
    return max(find_noise_threshold(levels), find_loudest(levels) - SPEECH_RANGE_DB - TRIM_DB)


def find_spans(levels: np.ndarray, threshold_db: float, pause: float, length: int) -> list[list[int]]:
    """[start, end] of loud stretches of a waveform, in samples; gaps shorter than `pause` seconds are bridged.

    Args:
        levels: of the waveform, as [`measure_levels`] gives them.
        length: of the waveform, in samples.
    """
    loud = np.concatenate([[0], (levels > threshold_db).astype(int), [0]])
    edges = np.minimum(np.flatnonzero(np.diff(loud)) * HOP, length).reshape(-1, 2)
    spans: list[list[int]] = []
    for start, end in edges.tolist():
        if spans and start - spans[-1][1] < pause * SAMPLING_RATE:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    return [[start, end] for start, end in spans if start < end]


def is_sound(start: int, end: int, length: int) -> bool:
    """Whether a loud stretch of a waveform is more than a click. One at an edge may go on beyond it."""
    if start == 0 or end == length:
        return end - start >= SHORTEST_PHRASE * SAMPLING_RATE
    return end - start > CLICK


def trim(waveform: np.ndarray, trim_db: float | None) -> tuple[int, np.ndarray]:
    """Cut what comes before and after the speech of an utterance.

    Speech exceeds the noise, see [`find_noise_threshold`], and `trim_db` below the loudest moment. A click apart from
    the speech is cut too. A waveform without speech stays as it is.

    Returns:
        the number of samples cut in front, and the rest, (samples,).
    """
    if trim_db is None or len(waveform) == 0:
        return 0, waveform
    levels = measure_levels(waveform)
    start, end = _find_ends(levels, find_noise_threshold(levels), trim_db, len(waveform))
    return start, waveform[start:end]


def _find_ends(levels: np.ndarray, noise_db: float, trim_db: float, length: int) -> tuple[int, int]:
    """Where the speech of a waveform begins and ends, in samples; the whole waveform if it holds none."""
    spans = find_spans(levels, max(noise_db, find_loudest(levels) - trim_db), PAUSE, length)
    sounds = [[start, end] for start, end in spans if is_sound(start, end, length)]
    return (sounds[0][0], sounds[-1][1]) if sounds else (0, length)


def has_speech(blocks: Iterator[np.ndarray]) -> bool:
    """Whether a recording, in blocks of 16 kHz mono, each (samples,), contains any phrase; if not, it is silent."""
    return next(cut_phrases(blocks, PAUSE), None) is not None


def cut_phrases(blocks: Iterator[np.ndarray], pause: float, trim_db: float | None = None) -> Iterator[Phrase]:
    """Cut a recording at its pauses.

    Pauses lie below a threshold that follows the last minute, see [`find_phrase_threshold`]. Memory is bounded: a
    phrase of more than a minute is cut at its quietest point.

    Args:
        blocks: 16 kHz mono, each (samples,) of at most 30 seconds.
        pause: seconds of quiet that end a phrase.
        trim_db: as in [`trim`]; None is 30.

    Yields:
        the phrases in order, each at least 0.1 s long; none if the recording contains no speech.
    """
    buffer, start = np.zeros(0, np.float32), 0  # audio not yet cut, and where it begins
    before, recent = np.zeros(0), np.zeros(0)  # levels of the previous block, and of the last minute
    limit = int(2 * BLOCK_SECONDS * SAMPLING_RATE)
    kept = int(min(pause, LARGEST_MARGIN) * SAMPLING_RATE)  # of a pause, for the margin of the phrase that follows
    for block in blocks:
        if len(block) == 0:
            continue
        buffer, heard = np.concatenate([buffer, block]), measure_levels(block)
        before, recent = heard, np.concatenate([before, heard])
        levels = heard if len(buffer) == len(block) else measure_levels(buffer)
        spans = find_spans(levels, find_phrase_threshold(recent), pause, len(buffer))
        # The last phrase may continue in the next block.
        done = max(0, len(buffer) - kept)
        if spans and len(buffer) - spans[-1][1] < pause * SAMPLING_RATE:
            *spans, rest = spans
            done = max(0, rest[0] - kept)
        yield from _cut_spans(Phrase(start, buffer), levels, spans, recent, pause, trim_db)
        buffer, start = buffer[done:], start + done
        while len(buffer) >= limit:
            cut = _find_quietest(buffer)
            yield Phrase(start, buffer[:cut])
            buffer, start = buffer[cut:], start + cut
    if len(buffer):
        levels = measure_levels(buffer)
        spans = find_spans(levels, find_phrase_threshold(recent), pause, len(buffer))
        yield from _cut_spans(Phrase(start, buffer), levels, spans, recent, pause, trim_db)


def _cut_spans(
    whole: Phrase, levels: np.ndarray, spans: list[list[int]], recent: np.ndarray, pause: float, trim_db: float | None
) -> Iterator[Phrase]:
    """Cut the spans that are phrases, each trimmed by its own loudest moment, as [`trim`] does an utterance alone.

    Args:
        whole: the audio that contains them, with its `levels`.
        spans: of [`find_spans`].
        recent: levels of the last minute.
    """
    noise_db, softest_db = find_noise_threshold(recent), find_loudest(recent) - SPEECH_RANGE_DB
    margin, length = int(min(pause / 2, LARGEST_MARGIN) * SAMPLING_RATE) // HOP, len(whole.waveform)
    for start, end in spans:
        if not is_sound(start, end, length) or levels[start // HOP : end // HOP + 1].max() < softest_db:
            continue
        first, last = max(0, start // HOP - margin), min(len(levels) - 1, -(-end // HOP) + margin)
        stretch = whole.waveform[first * HOP : last * HOP if last < len(levels) - 1 else length]
        ends = _find_ends(levels[first : last + 1], noise_db, TRIM_DB if trim_db is None else trim_db, len(stretch))
        yield Phrase(whole.start + first * HOP + ends[0], stretch[slice(*ends)])


def find_last_phrase(waveform: np.ndarray, trim_db: float | None = None) -> tuple[int, int]:
    """Start and end, in samples, of the last phrase of up to a minute; (0, 0) if it contains none."""
    phrases = list(cut_phrases(iter([waveform]), PAUSE, trim_db))
    return (phrases[-1].start, phrases[-1].start + len(phrases[-1].waveform)) if phrases else (0, 0)


def _find_quietest(buffer: np.ndarray) -> int:
    """The quietest point of the second half, in samples: where to cut speech without a pause."""
    levels = measure_levels(buffer)[: -FRAME // 2 // HOP]  # the last ones reach beyond the end
    half = len(levels) // 2
    return int((half + np.argmin(levels[half:])) * HOP)


def cut_windows(phrase: Phrase, window: float) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the phrase, or equal windows over it that overlap by at least half: start in samples, and waveform."""
    size, length = int(window * SAMPLING_RATE), len(phrase.waveform)
    if length <= size:
        yield phrase.start, phrase.waveform
        return
    for start in np.linspace(0, length - size, int(np.ceil(2 * length / size)) - 1).astype(int).tolist():
        yield phrase.start + start, phrase.waveform[start : start + size]


def cut_recording(
    blocks: Iterator[np.ndarray],
    with_phrases: bool,
    pause: float = PAUSE,
    window: float = WINDOW,
    trim_db: float | None = None,
    longest: float = LONGEST_UTTERANCE,
) -> Iterator[dict[str, Any]]:
    """Cut a recording into the pieces that the model scores.

    Args:
        blocks: 16 kHz mono, each (samples,).
        with_phrases: also yield the phrases of a recording that is short enough to be one utterance.
        pause, window: as in a call of the pipeline.
        trim_db: threshold for trimming the utterance, in dB below its peak.
        longest: duration of the longest recording that is one utterance, in seconds.

    Yields:
        dicts with `waveform`, its `start` and `end` in samples, and the number of its `phrase`. Phrase -1 comes first
        and is the whole recording as one utterance; silent and longer recordings have none.
    """
    held, seconds = [], 0.0
    for block in blocks:
        held.append(block)
        seconds += len(block) / SAMPLING_RATE
        if seconds > longest:
            break
    is_utterance = seconds <= longest
    found = cut_phrases(chain(held, blocks), pause, trim_db)
    first = next(found, None)
    if first is None:
        return
    if is_utterance:
        start, waveform = trim(np.concatenate(held), trim_db)
        yield _describe_piece(start, waveform, -1)
        if not with_phrases:
            return
    for number, phrase in enumerate(chain([first], found)):
        for start, waveform in cut_windows(phrase, window):
            yield _describe_piece(start, waveform, number)


def _describe_piece(start: int, waveform: np.ndarray, phrase: int) -> dict[str, Any]:
    return {"waveform": waveform, "start": start, "end": start + len(waveform), "phrase": phrase}


def choose_deciding(best: dict[str, Any], piece: dict[str, Any]) -> dict[str, Any]:
    """Return the more influential piece; the other one drops its frames, so that memory use stays constant."""
    chosen, other = (piece, best) if not best or _measure_weight(piece) > _measure_weight(best) else (best, piece)
    for name in ("waveform", "frame_weights"):
        other.pop(name, None)
    return chosen


def _measure_weight(piece: dict[str, Any]) -> float:
    """The top score times the duration in samples; the whole recording outweighs its phrases."""
    is_whole = piece["phrase"] < 0
    return float("inf") if is_whole else float(piece["probabilities"].max()) * len(piece["waveform"])
