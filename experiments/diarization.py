"""Emotion diarization: how well a model trained on utterance labels locates where emotions begin and end.

Utterances of one speaker with different emotions are concatenated, so the boundaries are known. The metric is the
emotion diarization error rate of Wang et al. 2023 (Speech Emotion Diarization): missed, false and confused time
divided by the time that has an emotion. Nothing is trained here.

Deletion test: how much probability the predicted class loses when the frames with the highest weights are removed,
compared with removing the same number of other frames.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from core.librosa_loading import load_librosa
from inference.evidence import choose_top_steps
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recording_ser_align import SAMPLING_RATE

SCORING_STEP = 160  # samples: time is counted in steps of 10 ms
REFERENCE_TRIM_DB = 30.0  # librosa.effects.trim at this level finds where an utterance's reference begins and ends
NO_EMOTION = -1
NUM_RANDOM = 5  # random deletions per utterance
BATCH = 32


@dataclass
class Recording:
    """Concatenated utterances of one speaker."""

    waveform: np.ndarray  # (samples,), 16 kHz
    segments: list[tuple[int, int, int]]  # start and end in samples, class index

    @property
    def reference(self) -> np.ndarray:
        """Class indices (steps,), -1 in pauses."""
        steps = np.full(-(-len(self.waveform) // SCORING_STEP), NO_EMOTION)
        for start, end, label in self.segments:
            steps[start // SCORING_STEP : end // SCORING_STEP] = label
        return steps


def concatenate_utterances(
    utterances: list[tuple[np.ndarray, int]], per_recording: int, with_pauses: bool, rng: np.random.Generator
) -> list[Recording]:
    """Concatenate utterances in random order so that neighbours have different classes.

    Args:
        utterances: waveforms (samples,) at 16 kHz and their class indices, of one speaker.
        per_recording: utterances per recording; utterances that do not fill another recording are dropped.
        with_pauses: keep the silence around each utterance; otherwise trim it.
    """
    left = [utterances[index] for index in rng.permutation(len(utterances))]
    recordings: list[Recording] = []
    while True:
        chosen: list[tuple[np.ndarray, int]] = []
        while len(chosen) < per_recording:
            fits = (place for place, (_, label) in enumerate(left) if not chosen or label != chosen[-1][1])
            place = next(fits, None)
            if place is None:  # nothing is left, or only utterances of the last one's class
                return recordings
            chosen.append(left.pop(place))
        recordings.append(_build_recording(chosen, with_pauses))


def _build_recording(utterances: list[tuple[np.ndarray, int]], with_pauses: bool) -> Recording:
    pieces, segments, position = [], [], 0
    for waveform, label in utterances:
        speech, (start, end) = load_librosa().effects.trim(waveform, top_db=REFERENCE_TRIM_DB)
        piece, first = (waveform, start) if with_pauses else (speech, 0)
        segments.append((position + int(first), position + int(first + end - start), label))
        pieces.append(piece)
        position += len(piece)
    return Recording(np.concatenate(pieces), segments)


def count_errors(reference: np.ndarray, hypothesis: np.ndarray) -> np.ndarray:
    """Count missed, false and confused steps, and steps with an emotion, (4,), from class indices (steps,)."""
    spoken, predicted = reference != NO_EMOTION, hypothesis != NO_EMOTION
    return np.array(
        [
            (spoken & ~predicted).sum(),
            (~spoken & predicted).sum(),
            (spoken & predicted & (reference != hypothesis)).sum(),
            spoken.sum(),
        ]
    )


class Methods:
    """The methods that are compared, on one recording; each returns class indices (steps,), -1 without speech.

    All methods share the pipeline's speech segments, so they differ only in the emotion that they predict there.
    """

    def __init__(self, recognize: SpeechEmotionRecognitionPipeline, recording: Recording):
        self.recognize, self.recording = recognize, recording
        self.labels = {label: index for index, label in recognize.model.config.id2label.items()}
        self.num_steps = len(recording.reference)
        self.is_speech = self.timeline() != NO_EMOTION

    def timeline(self) -> np.ndarray:
        """Ours: the pipeline's timeline."""
        steps = np.full(self.num_steps, NO_EMOTION)
        for segment in self.recognize(self.recording.waveform, return_timeline=True)["timeline"]:
            start, end = (round(segment[name] * SAMPLING_RATE / SCORING_STEP) for name in ("start", "end"))
            steps[start:end] = self.labels[segment["label"]]
        return steps

    def true_boundaries(self) -> np.ndarray:
        """Upper bound for this classifier: utterances cut at the reference boundaries."""
        steps = np.full(self.num_steps, NO_EMOTION)
        pieces = [self.recording.waveform[start:end] for start, end, _ in self.recording.segments]
        for (start, end, _), scores in zip(self.recording.segments, probabilities(self.recognize, pieces)):
            steps[start // SCORING_STEP : end // SCORING_STEP] = scores.argmax()
        return steps

    def whole_file(self) -> np.ndarray:
        return self._keep_speech(
            np.full(self.num_steps, probabilities(self.recognize, [self.recording.waveform]).argmax())
        )

    def sliding_window(self, window: float) -> np.ndarray:
        """Windows of `window` seconds with 50 % overlap; overlapping probabilities are averaged."""
        size = int(window * SAMPLING_RATE)
        starts = list(range(0, max(1, len(self.recording.waveform) - size // 2), size // 2))
        scores = probabilities(self.recognize, [self.recording.waveform[start : start + size] for start in starts])
        total = np.zeros((self.num_steps, scores.shape[1]))
        for start, row in zip(starts, scores):
            total[start // SCORING_STEP : (start + size) // SCORING_STEP] += row
        return self._keep_speech(total.argmax(axis=1))

    def frame_logits(self) -> np.ndarray:
        """The classifier's prediction for each frame of the whole file."""
        output = self.recognize.score_waveforms([self.recording.waveform])
        frames = output["frame_logits"][0][output["frame_mask"][0]].argmax(dim=-1).numpy()
        centres = (np.arange(self.num_steps) + 0.5) * SCORING_STEP / SAMPLING_RATE
        places = (centres / self.recognize.model.config.frame_seconds).astype(int)
        return self._keep_speech(frames[np.minimum(places, len(frames) - 1)])

    def _keep_speech(self, steps: np.ndarray) -> np.ndarray:
        return np.where(self.is_speech, steps, NO_EMOTION)


def score_methods(
    recognize: SpeechEmotionRecognitionPipeline, recording: Recording, windows: list[float]
) -> dict[str, list[float]]:
    """`count_errors` of each method, followed by the seconds of audio that it encodes.

    Args:
        windows: lengths of the sliding windows in seconds; each is a separate method.
    """
    methods = Methods(recognize, recording)
    functions: dict[str, Callable[[], np.ndarray]] = {
        "timeline": methods.timeline,
        "frame_logits": methods.frame_logits,
        "whole_file": methods.whole_file,
        **{f"sliding_window_{window:g}": partial(methods.sliding_window, window) for window in windows},
        "true_boundaries": methods.true_boundaries,
    }
    counts = {}
    for name, function in functions.items():
        with count_encoded_frames(recognize) as encoded:
            steps = function()
        seconds = encoded[0] * recognize.model.config.frame_seconds
        counts[name] = [*count_errors(recording.reference, steps).tolist(), seconds]
    return counts


@contextmanager
def count_encoded_frames(recognize: SpeechEmotionRecognitionPipeline) -> Iterator[list[int]]:
    """Count the frames that the encoder processes inside the block; yields a list that contains the count."""
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


def measure_drops(
    recognize: SpeechEmotionRecognitionPipeline, waveform: np.ndarray, rng: np.random.Generator
) -> dict[str, float]:
    """How much probability the predicted class loses when a fifth of the frames is removed from the waveform.

    Args:
        waveform: (samples,), an utterance at 16 kHz.

    Returns:
        `top`: the frames with the highest weights are removed; `random`: the same number of random frames, mean of
        five; `shifted`: the pattern of the top frames moved in time, mean of five.
    """
    output = recognize.score_waveforms([waveform])
    weights = output["frame_weights"][0][output["frame_mask"][0]].float().numpy()
    before = output["probabilities"][0].numpy()
    chosen = choose_top_steps(weights)
    cuts = [chosen]
    cuts += [rng.permutation(chosen) for _ in range(NUM_RANDOM)]
    cuts += [np.roll(chosen, int(rng.integers(1, max(2, len(chosen))))) for _ in range(NUM_RANDOM)]
    size = round(recognize.model.config.frame_seconds * SAMPLING_RATE)
    after = probabilities(recognize, [_cut_frames(waveform, cut, size) for cut in cuts])
    drops = before.max() - after[:, before.argmax()]
    return {
        "top": float(drops[0]),
        "random": float(drops[1 : 1 + NUM_RANDOM].mean()),
        "shifted": float(drops[1 + NUM_RANDOM :].mean()),
    }


def _cut_frames(waveform: np.ndarray, cut: np.ndarray, size: int) -> np.ndarray:
    """The waveform without the frames of `size` samples where `cut` is true."""
    keep = np.repeat(~cut, size)
    return np.concatenate([waveform[: len(keep)][keep[: len(waveform)]], waveform[len(keep) :]])
