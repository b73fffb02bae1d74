"""When: how well a model that has only seen utterance labels tells where one emotion ends and the next begins.

Utterances of one speaker with different emotions are joined to recordings whose boundaries are known. The measure is
the emotion diarization error rate of Wang et al. 2023 (Speech Emotion Diarization): missed, false and confused time
over the time that has an emotion. Nothing is trained here.

Also whether the frames with the highest weights carried the decision: how much the predicted class loses when they
are cut out, against as many frames elsewhere.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from core.librosa_loading import load_librosa
from inference.evidence import choose_top_frames
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recording_ser_align import SAMPLING_RATE

STEP = 160  # samples: time is counted in steps of 10 ms
SPEECH_DB = 30.0  # an utterance's speech is what librosa.effects.trim leaves: where its reference begins and ends
NO_EMOTION = -1
NUM_RANDOM = 5  # random cuts for each utterance
BATCH = 32


@dataclass
class Recording:
    """Utterances of one speaker in a row."""

    waveform: np.ndarray  # (samples,), 16 kHz
    segments: list[tuple[int, int, int]]  # start and end in samples, class index

    @property
    def reference(self) -> np.ndarray:
        """(steps,) class indices, -1 in pauses."""
        steps = np.full(-(-len(self.waveform) // STEP), NO_EMOTION)
        for start, end, label in self.segments:
            steps[start // STEP : end // STEP] = label
        return steps


def joined(
    utterances: list[tuple[np.ndarray, int]], per_recording: int, with_pauses: bool, rng: np.random.Generator
) -> list[Recording]:
    """Recordings of so many utterances each, in random order, neighbours of different classes.

    Args:
        utterances: waveforms (samples,) at 16 kHz and their class indices, of one speaker.
        with_pauses: keep the silence around each utterance; else only its speech, one after the other.
    """
    left = [utterances[index] for index in rng.permutation(len(utterances))]
    recordings: list[Recording] = []
    while True:
        chosen: list[tuple[np.ndarray, int]] = []
        while len(chosen) < per_recording:
            fits = (place for place, (_, label) in enumerate(left) if not chosen or label != chosen[-1][1])
            place = next(fits, None)
            if place is None:  # nothing is left, or only what the last one is too
                return recordings
            chosen.append(left.pop(place))
        recordings.append(_recording(chosen, with_pauses))


def _recording(utterances: list[tuple[np.ndarray, int]], with_pauses: bool) -> Recording:
    pieces, segments, position = [], [], 0
    for waveform, label in utterances:
        speech, (start, end) = load_librosa().effects.trim(waveform, top_db=SPEECH_DB)
        piece, first = (waveform, start) if with_pauses else (speech, 0)
        segments.append((position + int(first), position + int(first + end - start), label))
        pieces.append(piece)
        position += len(piece)
    return Recording(np.concatenate(pieces), segments)


def diarization_error(reference: np.ndarray, hypothesis: np.ndarray) -> np.ndarray:
    """Missed, false and confused steps, and those that have an emotion: (steps,) twice to (4,)."""
    spoken, told = reference != NO_EMOTION, hypothesis != NO_EMOTION
    return np.array(
        [
            (spoken & ~told).sum(),
            (~spoken & told).sum(),
            (spoken & told & (reference != hypothesis)).sum(),
            spoken.sum(),
        ]
    )


class Methods:
    """Ways to tell when, on one recording: each gives class indices (steps,), -1 where it sees no speech.

    All of them know where speech is, as the pipeline finds it: what differs is which emotion they see there.
    """

    def __init__(self, recognize: SpeechEmotionRecognitionPipeline, recording: Recording):
        self.recognize, self.recording = recognize, recording
        self.labels = {label: index for index, label in recognize.model.config.id2label.items()}
        self.num_steps = len(recording.reference)
        self.is_speech = self.timeline() != NO_EMOTION

    def timeline(self) -> np.ndarray:
        """Ours: the pipeline as it is."""
        steps = np.full(self.num_steps, NO_EMOTION)
        for segment in self.recognize(self.recording.waveform, return_timeline=True)["timeline"]:
            start, end = (round(segment[name] * SAMPLING_RATE / STEP) for name in ("start", "end"))
            steps[start:end] = self.labels[segment["label"]]
        return steps

    def true_boundaries(self) -> np.ndarray:
        """The best that this classifier could do: utterances cut as in the reference."""
        steps = np.full(self.num_steps, NO_EMOTION)
        pieces = [self.recording.waveform[start:end] for start, end, _ in self.recording.segments]
        for (start, end, _), scores in zip(self.recording.segments, probabilities(self.recognize, pieces)):
            steps[start // STEP : end // STEP] = scores.argmax()
        return steps

    def whole_file(self) -> np.ndarray:
        return self._spoken(np.full(self.num_steps, probabilities(self.recognize, [self.recording.waveform]).argmax()))

    def sliding_window(self, window: float) -> np.ndarray:
        """Windows that overlap by half; where two lie over a step their probabilities are averaged."""
        size = int(window * SAMPLING_RATE)
        starts = list(range(0, max(1, len(self.recording.waveform) - size // 2), size // 2))
        scores = probabilities(self.recognize, [self.recording.waveform[start : start + size] for start in starts])
        total = np.zeros((self.num_steps, scores.shape[1]))
        for start, row in zip(starts, scores):
            total[start // STEP : (start + size) // STEP] += row
        return self._spoken(total.argmax(axis=1))

    def frame_logits(self) -> np.ndarray:
        """The classifier's answer to each frame of the whole file."""
        output = self.recognize.score_waveforms([self.recording.waveform])
        frames = output["frame_logits"][0][output["frame_mask"][0]].argmax(dim=-1).numpy()
        centres = (np.arange(self.num_steps) + 0.5) * STEP / SAMPLING_RATE
        places = (centres / self.recognize.model.config.frame_seconds).astype(int)
        return self._spoken(frames[np.minimum(places, len(frames) - 1)])

    def _spoken(self, steps: np.ndarray) -> np.ndarray:
        return np.where(self.is_speech, steps, NO_EMOTION)


def diarization_errors(
    recognize: SpeechEmotionRecognitionPipeline, recording: Recording, windows: list[float]
) -> dict[str, list[float]]:
    """`diarization_error` of each method, and the seconds of audio that it encodes; the sliding window once for each
    length in seconds."""
    methods = Methods(recognize, recording)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "timeline": methods.timeline,
        "frame_logits": methods.frame_logits,
        "whole_file": methods.whole_file,
        **{f"sliding_window_{window:g}": partial(methods.sliding_window, window) for window in windows},
        "true_boundaries": methods.true_boundaries,
    }
    counts = {}
    for name, way in ways.items():
        with frames_counted(recognize) as encoded:
            steps = way()
        seconds = encoded[0] * recognize.model.config.frame_seconds
        counts[name] = [*diarization_error(recording.reference, steps).tolist(), seconds]
    return counts


@contextmanager
def frames_counted(recognize: SpeechEmotionRecognitionPipeline) -> Iterator[list[int]]:
    """The number of frames that the encoder is given meanwhile, in a list of one."""
    count = [0]

    def add(module: Any, inputs: Any, output: Any) -> None:
        count[0] += int(output.frame_mask.sum())

    handle = recognize.model.register_forward_hook(add)
    try:
        yield count
    finally:
        handle.remove()


def probabilities(recognize: SpeechEmotionRecognitionPipeline, waveforms: list[np.ndarray]) -> np.ndarray:
    """(utterances, classes)."""
    shortest = SAMPLING_RATE // 10  # the end of a sliding window may be too short for one frame
    waveforms = [np.pad(waveform, (0, max(0, shortest - len(waveform)))) for waveform in waveforms]
    batches = [waveforms[first : first + BATCH] for first in range(0, len(waveforms), BATCH)]
    return np.concatenate([recognize.score_waveforms(batch)["probabilities"].numpy() for batch in batches])


def deletion_drops(
    recognize: SpeechEmotionRecognitionPipeline, waveform: np.ndarray, rng: np.random.Generator
) -> dict[str, float]:
    """Loss of the predicted class's probability when a fifth of the frames is cut out of the waveform.

    Args:
        waveform: (samples,), an utterance at 16 kHz.

    Returns:
        `top`: the frames with the highest weights; `random`: as many frames anywhere, mean of five; `shifted`: the
        top frames' pattern at another place, mean of five.
    """
    output = recognize.score_waveforms([waveform])
    weights = output["frame_weights"][0][output["frame_mask"][0]].float().numpy()
    before = output["probabilities"][0].numpy()
    chosen = choose_top_frames(weights)
    cuts = [chosen]
    cuts += [rng.permutation(chosen) for _ in range(NUM_RANDOM)]
    cuts += [np.roll(chosen, int(rng.integers(1, max(2, len(chosen))))) for _ in range(NUM_RANDOM)]
    size = round(recognize.model.config.frame_seconds * SAMPLING_RATE)
    after = probabilities(recognize, [_without(waveform, cut, size) for cut in cuts])
    drops = before.max() - after[:, before.argmax()]
    return {
        "top": float(drops[0]),
        "random": float(drops[1 : 1 + NUM_RANDOM].mean()),
        "shifted": float(drops[1 + NUM_RANDOM :].mean()),
    }


def _without(waveform: np.ndarray, cut: np.ndarray, size: int) -> np.ndarray:
    """The waveform less the frames of `size` samples that are cut."""
    keep = np.repeat(~cut, size)
    return np.concatenate([waveform[: len(keep)][keep[: len(waveform)]], waveform[len(keep) :]])
