"""pipeline("speech-emotion-recognition"): which emotion in a recording, and when.

    recognize = pipeline("speech-emotion-recognition", "models/ser-align-mini", trust_remote_code=True)
    recognize("call.wav")                        # [{"label": ..., "score": ...}, ...], best first
    recognize("call.wav", return_timeline=True)  # {"scores": [...], "timeline": [{"start": ..., "end": ..., ...}]}

Files of any format, rate and length; no ffmpeg is needed for WAV, FLAC, OGG and MP3, and memory does not grow
with the recording.

Part of the model as it travels on the Hugging Face Hub: needs torch, transformers, soundfile and soxr alone.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForAudioClassification
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline

try:
    from .recording_ser_align import (
        SAMPLING_RATE,
        SHORTEST_PHRASE,
        Phrase,
        cut_phrases,
        describe_recording,
        read_blocks,
        trim,
    )
except ImportError:
    if __package__:  # inside a package the relative import must work: do not hide its error
        raise
    from recording_ser_align import (
        SAMPLING_RATE,
        SHORTEST_PHRASE,
        Phrase,
        cut_phrases,
        describe_recording,
        read_blocks,
        trim,
    )

TASK = "speech-emotion-recognition"
LONGEST_UTTERANCE = 15.0  # seconds, the 99th percentile of IEMOCAP: what is longer is scored by its phrases
STEP = 0.1  # seconds: resolution of the timeline within a phrase
PAUSE = 0.25  # seconds; ours, on validation actors
WINDOW = 2.0  # seconds; ours, on validation actors
MIN_DURATION = 0.3  # seconds; ours
BATCH_SIZE = 16
POOL = 4  # batches that are read ahead and sorted by duration, so that little is padded
# Which method takes which parameter of a call.
READING = ("return_timeline", "channel", "pause", "window", "on_error")
TELLING = ("return_timeline", "top_k", "smoothing", "min_duration")
SECONDS = ("pause", "window", "smoothing", "min_duration")


class SpeechEmotionRecognitionPipeline(ChunkPipeline):
    """Scores of a recording, and its emotion timeline.

    What people say between two pauses is scored as an utterance, which is what the model has learned from; a
    phrase longer than `window` is covered by windows that overlap by half, cross-faded. The scores of the whole
    recording are those of one utterance up to 15 seconds, and the mean over the phrases, by duration, beyond.

    Args of a call:
        inputs: a recording as [`read_blocks`] takes it (path, bytes, file, waveform, dict), or a list of them.
        return_timeline: also say when; see [`timeline`].
        top_k: how many labels in the scores; None is all.
        channel: channel to take, counted from 0; None is the mean of all.
        pause: seconds of quiet that end a phrase.
        window: seconds of the windows that cover a longer phrase.
        smoothing: width in seconds of the Hann window over which the timeline's probabilities are averaged; 0 is off.
        min_duration: shorter segments of the timeline join their neighbour, or go.
        on_error: "raise" stops at a recording that cannot be read; "return" gives the exception in its place.
        batch_size: phrases, of whichever recordings, that are scored together; changes the speed, not the scores;
            by default 1 for a waveform encoder on a CPU, else 16.

    Returns:
        a list of {label, score}, best first; with `return_timeline` a dict of `scores`, `timeline` and `duration`
        in seconds.

    Raises:
        ValueError: a recording that cannot be read or holds no speech, or a parameter out of range.
    """

    _load_feature_extractor = True  # type: ignore[assignment]
    _load_tokenizer = False  # type: ignore[assignment]
    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self._batch_size is None:
            # On a CPU the convolutions over a waveform fill the cores, and the caches, with one phrase.
            is_full = self.device.type == "cpu" and not self.model.config.takes_log_mel
            self._batch_size = 1 if is_full else BATCH_SIZE

    def _sanitize_parameters(  # type: ignore[override]
        self, **given: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name, value in given.items():
            if name not in (*READING, *TELLING):
                raise ValueError(f"{name} is not a parameter; valid are {', '.join(dict.fromkeys(READING + TELLING))}")
            smallest = 2 * SHORTEST_PHRASE if name == "window" else 0
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if name in SECONDS and not (is_number and smallest <= value <= 60):
                raise ValueError(f"{name}={value!r} is not a number of seconds from {smallest:g} to 60")
            if name == "on_error" and value not in ("raise", "return"):
                raise ValueError(f"on_error={value!r} is not one of raise, return")
        return (
            {name: value for name, value in given.items() if name in READING},
            {},
            {name: value for name, value in given.items() if name in TELLING},
        )

    def set_parameters(self, **given: Any) -> None:
        """Parameters of a call that count from now on where a call does not give them. Raises ValueError."""
        reading, _, telling = self._sanitize_parameters(**given)
        self._preprocess_params |= reading
        self._postprocess_params |= telling

    def get_iterator(  # type: ignore[override]
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        """Answers in the order of the recordings; a thread reads ahead while the model computes."""
        pieces = self._pieces(inputs, **preprocess_params)
        outputs = []
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(_take, pieces, POOL * batch_size)
            while pool := reading.result():
                reading = reader.submit(_take, pieces, POOL * batch_size)
                for output in self._scored(pool, batch_size):
                    outputs.append(output)
                    if output["is_last"]:
                        yield output["error"] if "error" in output else self.postprocess(outputs, **postprocess_params)
                        outputs = []

    def _pieces(self, recordings: Iterable[Any], on_error: str = "raise", **options: Any) -> Iterator[dict[str, Any]]:
        """The pieces of one recording after the other; with `on_error="return"` an `error` ends one that has some."""
        for recording in recordings:
            try:
                yield from self.preprocess(recording, **options)
            except (ValueError, OSError) as error:
                if on_error == "raise":
                    raise
                yield {"error": error, "is_last": True}

    def _scored(self, pool: list[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        """The pieces with their `probabilities`, in the order given, computed in batches of similar duration."""
        by_duration = sorted((piece for piece in pool if "inputs" in piece), key=lambda piece: piece["duration"])
        for start in range(0, len(by_duration), batch_size):
            batch = by_duration[start : start + batch_size]
            probabilities = self.forward(padded([piece.pop("inputs") for piece in batch]))["probabilities"]
            for piece, row in zip(batch, probabilities.numpy().astype(float)):
                piece["probabilities"] = row
        return pool

    def preprocess(  # type: ignore[override]
        self,
        recording: Any,
        return_timeline: bool = False,
        channel: int | None = None,
        pause: float = PAUSE,
        window: float = WINDOW,
    ) -> Iterator[dict[str, Any]]:
        """The whole recording, if it is an utterance, and its phrases, if they are asked for, each with its `inputs`.

        Raises:
            ValueError: it cannot be read, or holds no speech.
        """
        heard = [0]  # samples so far; all of them by the time that the last piece is given out
        blocks = _counted(read_blocks(recording, channel), heard)
        pieces = recording_pieces(blocks, return_timeline, pause, window, self.model.config.trim_db)
        piece = next(pieces, None)
        if piece is None:
            raise ValueError(f"{describe_recording(recording)} holds no speech: it is empty or silent")
        while piece is not None:
            following = next(pieces, None)
            waveform = piece.pop("waveform")
            inputs = self.feature_extractor(  # type: ignore[misc]
                waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt", return_attention_mask=True
            )
            yield {
                **piece,
                "inputs": {name: values[0] for name, values in inputs.items()},
                "duration": len(waveform) / SAMPLING_RATE,
                "heard": heard[0],
                "is_last": following is None,
            }
            piece = following

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return {"probabilities": self.model(**model_inputs).logits.float().softmax(dim=-1)}

    def postprocess(  # type: ignore[override]
        self,
        outputs: list[dict[str, Any]],
        return_timeline: bool = False,
        top_k: int | None = None,
        smoothing: float = 0.0,
        min_duration: float = MIN_DURATION,
    ) -> list[dict[str, Any]] | dict[str, Any]:
        probabilities = np.stack([output["probabilities"] for output in outputs])
        starts, ends, phrase = (np.array([output[name] for output in outputs]) for name in ("start", "end", "phrase"))
        labels = [self.model.config.id2label[index] for index in range(probabilities.shape[1])]
        is_whole = phrase < 0
        if is_whole.any():
            whole = probabilities[is_whole][0]
        else:
            whole = np.average(probabilities, axis=0, weights=ends - starts)
        order = np.argsort(-whole, kind="stable")[:top_k]
        scores = [{"label": labels[index], "score": float(whole[index])} for index in order]
        if not return_timeline:
            return scores
        windows = ~is_whole
        segments = timeline(
            starts[windows] / SAMPLING_RATE,
            ends[windows] / SAMPLING_RATE,
            phrase[windows],
            probabilities[windows],
            smoothing,
            min_duration,
        )
        return {
            "scores": scores,
            "timeline": [{**segment, "label": labels[segment["label"]]} for segment in segments],
            "duration": outputs[-1]["heard"] / SAMPLING_RATE,
        }


def padded(inputs: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Model inputs of several pieces, each (samples,) or (frames, features), as one batch with zeros to the right.

    The attention mask is left out where nothing is padded: the model is faster without one.
    """
    batch = {name: pad_sequence([each[name] for each in inputs], batch_first=True) for name in inputs[0]}
    if bool(batch["attention_mask"].all()):
        del batch["attention_mask"]
    return batch


def _take(pieces: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return list(islice(pieces, count))


def _counted(blocks: Iterator[np.ndarray], heard: list[int]) -> Iterator[np.ndarray]:
    for block in blocks:
        heard[0] += len(block)
        yield block


def recording_pieces(
    blocks: Iterator[np.ndarray],
    with_phrases: bool,
    pause: float = PAUSE,
    window: float = WINDOW,
    trim_db: float | None = None,
) -> Iterator[dict[str, Any]]:
    """What the model is given: `waveform`, its `start` and `end` in samples, and the number of its `phrase`.

    Phrase -1 is the whole recording as one utterance, first, if it is short enough and not silent.
    """
    held, seconds = [], 0.0
    for block in blocks:
        held.append(block)
        seconds += len(block) / SAMPLING_RATE
        if seconds > LONGEST_UTTERANCE:
            break
    is_utterance = seconds <= LONGEST_UTTERANCE
    found = cut_phrases(chain(held, blocks), pause)
    first = next(found, None)
    if first is None:
        return
    if is_utterance:
        start, waveform = trim(np.concatenate(held), trim_db)
        yield _piece(start, waveform, -1)
        if not with_phrases:
            return
    for number, phrase in enumerate(chain([first], found)):
        for start, waveform in windows_of(phrase, window):
            yield _piece(start, waveform, number)


def _piece(start: int, waveform: np.ndarray, phrase: int) -> dict[str, Any]:
    return {"waveform": waveform, "start": start, "end": start + len(waveform), "phrase": phrase}


def windows_of(phrase: Phrase, window: float) -> Iterator[tuple[int, np.ndarray]]:
    """The phrase itself, or windows of equal length over it that overlap by half or a little more: start, waveform."""
    size, length = int(window * SAMPLING_RATE), len(phrase.waveform)
    if length <= size:
        yield phrase.start, phrase.waveform
        return
    for start in np.linspace(0, length - size, int(np.ceil(2 * length / size)) - 1).astype(int).tolist():
        yield phrase.start + start, phrase.waveform[start : start + size]


# ------------------------------------------------------------------------------------------ timeline


def timeline(
    starts: np.ndarray,
    ends: np.ndarray,
    phrase: np.ndarray,
    probabilities: np.ndarray,
    smoothing: float = 0.0,
    min_duration: float = 0.0,
) -> list[dict[str, Any]]:
    """Segments of one emotion each, from the scores of windows.

    Where windows of a phrase overlap, their probabilities are cross-faded; a segment ends where another emotion
    becomes the most probable, and at every pause.

    Args:
        starts, ends: (windows,), seconds, in order.
        phrase: (windows,), number of the phrase that each belongs to.
        probabilities: (windows, classes).
        smoothing: seconds; width of the Hann window over speech, 0 is off.
        min_duration: seconds; a shorter segment takes the emotion of its longest neighbour in the phrase, and goes
            if there is none.

    Returns:
        dicts of `start`, `end` (seconds), `label` (class index) and `score`, the mean probability of that class.
    """
    cells, spans = [], []  # (steps, classes) of each phrase, and where it starts and ends
    for number in np.unique(phrase):
        chosen = phrase == number
        spans.append((starts[chosen].min(), ends[chosen].max()))
        cells.append(_cross_faded(starts[chosen], ends[chosen], probabilities[chosen]))
    if smoothing > 0 and cells:
        cells = _smoothed(cells, spans, smoothing)
    segments = []
    for (start, end), steps in zip(spans, cells):
        edges = np.linspace(start, end, len(steps) + 1)
        for label, first, last in _joined(_runs(steps.argmax(axis=1)), edges, min_duration):
            score = float(steps[first:last, label].mean())
            segments.append({"start": float(edges[first]), "end": float(edges[last]), "label": label, "score": score})
    return segments


def _cross_faded(starts: np.ndarray, ends: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(steps, classes) over a phrase: each window counts most in its middle."""
    steps = max(1, round((ends.max() - starts.min()) / STEP))
    centres = np.linspace(starts.min(), ends.max(), 2 * steps + 1)[1::2, None]
    inside = np.minimum(centres - starts, ends - centres)  # seconds to the nearer edge of each window
    weights = np.maximum(inside, 0.0)
    return weights @ probabilities / weights.sum(axis=1, keepdims=True)


def _smoothed(cells: list[np.ndarray], spans: list[tuple[float, float]], smoothing: float) -> list[np.ndarray]:
    """Average over time by a Hann window; pauses do not count."""
    positions = [round(start / STEP) for start, _ in spans]
    length = max(position + len(steps) for position, steps in zip(positions, cells))
    kernel = np.hanning(2 * round(smoothing / STEP / 2) + 3)[1:-1]
    values, weights = np.zeros((length, cells[0].shape[1])), np.zeros(length)
    for position, steps in zip(positions, cells):
        values[position : position + len(steps)] = steps
        weights[position : position + len(steps)] = 1.0
    norm = _convolved(weights, kernel)
    smooth = np.stack([_convolved(column, kernel) for column in values.T], axis=1) / np.maximum(norm, 1e-9)[:, None]
    return [smooth[position : position + len(steps)] for position, steps in zip(positions, cells)]


def _convolved(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Centred convolution, (length,) to (length,), also where the kernel is the longer one."""
    half = len(kernel) // 2
    return np.convolve(values, kernel)[half : half + len(values)]


def _runs(labels: np.ndarray) -> list[tuple[int, int, int]]:
    """(label, first, last + 1) of each stretch of equal labels."""
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return [(int(labels[first]), first, last) for first, last in pairwise(edges)]


def _joined(runs: list[tuple[int, int, int]], edges: np.ndarray, min_duration: float) -> list[tuple[int, int, int]]:
    """Runs of at least the minimum duration: the shortest one joins its longer neighbour, until none is too short."""

    def seconds(index: int) -> float:
        return edges[runs[index][2]] - edges[runs[index][1]] if 0 <= index < len(runs) else -1.0

    while runs:
        short = min(range(len(runs)), key=seconds)
        if seconds(short) >= min_duration - 1e-9:
            return runs
        if len(runs) == 1:
            return []
        neighbour = short - 1 if seconds(short - 1) >= seconds(short + 1) else short + 1
        low, high = min(short, neighbour), max(short, neighbour)
        runs = [*runs[:low], (runs[neighbour][0], runs[low][1], runs[high][2]), *runs[high + 1 :]]
        runs = _merged_equal(runs)
    return runs


def _merged_equal(runs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    merged: list[tuple[int, int, int]] = []
    for run in runs:
        if merged and merged[-1][0] == run[0]:
            merged[-1] = (run[0], merged[-1][1], run[2])
        else:
            merged.append(run)
    return merged


PIPELINE_REGISTRY.register_pipeline(
    TASK,
    pipeline_class=SpeechEmotionRecognitionPipeline,
    pt_model=AutoModelForAudioClassification,
    type="audio",
)
