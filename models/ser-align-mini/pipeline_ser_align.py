"""pipeline("speech-emotion-recognition"): recognizes the emotions in a recording and when they occur.

    recognize = pipeline("speech-emotion-recognition", "models/ser-align-base", trust_remote_code=True)
    recognize("call.wav")                        # [{"label": ..., "score": ...}, ...], best first
    recognize("call.wav", return_timeline=True)  # {"scores": [...], "timeline": [{"start": ..., "end": ..., ...}]}

Recordings can have any format, sampling rate and length. WAV, FLAC, OGG and MP3 do not need ffmpeg, and memory use does
not grow with the length of a recording.

Part of the model code on the Hugging Face Hub; requires only torch, transformers, soundfile and soxr.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForAudioClassification
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline

try:
    from .dimensions_ser_align import describe_values, name_values
    from .inputs_ser_align import pad_batch
    from .quality_ser_align import RecordingQuality, warn_of
    from .recording_ser_align import SAMPLING_RATE, collect_peaks, describe_recording, name_recording, read_blocks
    from .speech_ser_align import LONGEST_UTTERANCE, PAUSE, SHORTEST_PHRASE, WINDOW, choose_deciding, cut_recording
    from .timeline_ser_align import average_pieces, build_timeline, choose_mixed, name_classes, trace_values
    from .words_ser_align import check_words, choose_words, read_prosody, take_words, tokenize
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from dimensions_ser_align import describe_values, name_values
    from inputs_ser_align import pad_batch
    from quality_ser_align import RecordingQuality, warn_of
    from recording_ser_align import SAMPLING_RATE, collect_peaks, describe_recording, name_recording, read_blocks
    from speech_ser_align import LONGEST_UTTERANCE, PAUSE, SHORTEST_PHRASE, WINDOW, choose_deciding, cut_recording
    from timeline_ser_align import average_pieces, build_timeline, choose_mixed, name_classes, trace_values
    from words_ser_align import check_words, choose_words, read_prosody, take_words, tokenize

TASK = "speech-emotion-recognition"
MIN_DURATION = 0.3  # seconds; ours
BATCH_SIZE = 16
POOL = 4  # batches that are read ahead and sorted by duration, to keep padding small
# The parameters of a call, grouped by the method that takes them.
RETURNS = ("return_timeline", "return_frames", "return_outline", "return_dimensions")
PREPROCESS_PARAMETERS = (*RETURNS, "channel", "pause", "window", "on_error", "allow_urls")
POSTPROCESS_PARAMETERS = (*RETURNS, "top_k", "smoothing", "min_duration")
PARAMETERS = tuple(dict.fromkeys(PREPROCESS_PARAMETERS + POSTPROCESS_PARAMETERS))
SECONDS = ("pause", "window", "smoothing", "min_duration")
BRANCHES = ("voice", "words")  # what a model that reads words also scores alone
COUNTS = {"channel": 0, "top_k": 1}  # with the smallest value of each


class SpeechEmotionRecognitionPipeline(ChunkPipeline):
    """Scores recordings and computes their emotion timelines.

    The model was trained on utterances, so each phrase (the speech between two pauses) is scored as an utterance. A
    phrase longer than `window` is split into windows that overlap by half and are cross-faded. A recording of up to 15
    seconds is also scored as one utterance, which gives its scores; the scores of a longer recording are the mean over
    its phrases, weighted by duration.

    Call arguments:
        inputs: a recording as [`read_blocks`] takes it (path, bytes, file, waveform, pair, dict), or a list, generator
            or `KeyDataset` of them. For a model that reads words, also a dict of `audio`, one of these, and `text`:
            what was said, or a list of dicts of `word`, `start` and `end` (seconds). Words with times also reach the
            phrases of the timeline, which otherwise hears the voice alone, and recordings of more than 15 seconds.
        return_timeline: also return the emotion timeline; see [`build_timeline`].
        return_frames: also return the most influential piece with the weight of each frame: the whole recording if it
            was scored as one utterance, otherwise the window with the largest product of top score and duration.
        return_outline: also return the peak magnitude of every 10 ms, for plotting the waveform.
        return_dimensions: return a dict with the dimensions, of a model that has any.
        top_k: number of labels in the scores; None returns all.
        channel: the channel to read, counted from 0; None averages all channels.
        pause: duration in seconds of a silence that ends a phrase.
        window: duration in seconds of the windows that a longer phrase is split into.
        smoothing: width in seconds of the Hann window that smooths the timeline's probabilities; 0 disables it.
        min_duration: shortest segment of the timeline in seconds; shorter ones are merged with a neighbour or dropped.
        allow_urls: whether to download recordings from http and https addresses.
        on_error: "raise" stops at a recording that cannot be read; "return" returns the exception in its place.
        batch_size: number of phrases, from any recordings, scored together. Changes the speed, not the scores; the
            default is 1 for a waveform encoder on a CPU, otherwise 16.

    Returns:
        a list of {label, score}, best first. With any of the `return_` arguments, a dict with `scores`, `unsure`
        (whether the best score is below `config.unsure_below`), `mixed` (of a model trained on label distributions: the
        scores above `config.mixed_above`; also in each segment of the timeline), `duration` (seconds), `warnings`
        (reasons why the scores may be unreliable; also issued as Python warnings), of a model with dimensions what
        [`describe_values`] returns, in segments the `dimensions` as numbers, and `trace`, their values every 0.1 s of
        speech, as [`trace_values`] returns them; and what was requested: `timeline`;
        `frames`, a dict with `label`, `start` and `end` (seconds), `waveform` (samples,), `weights` (frames,) and
        `frame_seconds`; `outline` (points,). An utterance with words has `alone`, the scores of `voice` and `words`.

    Raises:
        ValueError: a recording cannot be read or contains no speech, or an argument is out of range.
    """

    _load_feature_extractor = True  # type: ignore[assignment]
    _load_tokenizer = None  # loaded where there is one: of a model that reads words
    _load_processor = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.tokenizer is None and getattr(self.model.config, "reads_text", False):
            raise ValueError("this model reads words and needs its tokenizer: load it from the folder of the model")
        if self._batch_size is None:
            # On a CPU, the convolutions over the waveform of one phrase keep all cores busy.
            is_busy = self.device.type == "cpu" and not self.model.config.takes_log_mel
            self._batch_size = 1 if is_busy else BATCH_SIZE

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        if isinstance(inputs, list | tuple) and not inputs:  # the library looks at the first one
            return []
        return super().__call__(inputs, *args, **kwargs)

    def _sanitize_parameters(  # type: ignore[override]
        self, **given: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name, value in given.items():
            if name not in PARAMETERS:
                raise ValueError(f"{name} is not a parameter; valid parameters are {', '.join(PARAMETERS)}")
            is_window, longest = name == "window", self.model.config.longest_seconds
            smallest, largest = (2 * SHORTEST_PHRASE, longest or 60) if is_window else (0, 60)
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if name in SECONDS and not (is_number and smallest <= value <= largest):
                raise ValueError(f"{name}={value!r} is not a number of seconds from {smallest:g} to {largest:g}")
            if name == "on_error" and value not in ("raise", "return"):
                raise ValueError(f"on_error={value!r} is not one of raise, return")
            if name in COUNTS and value is not None:
                check_count(name, value, COUNTS[name])
        return (
            {name: value for name, value in given.items() if name in PREPROCESS_PARAMETERS},
            {},
            {name: value for name, value in given.items() if name in POSTPROCESS_PARAMETERS},
        )

    def set_parameters(self, **given: Any) -> None:
        """Set defaults for the call arguments. Raises ValueError if one is not valid."""
        preprocess, _, postprocess = self._sanitize_parameters(**given)
        self._preprocess_params |= preprocess
        self._postprocess_params |= postprocess

    @property
    def trim_db(self) -> float | None:
        """As in [`trim`]: of the feature extractor, or of the model's configuration as earlier releases wrote it."""
        former = getattr(self.model.config, "trim_db", None)
        return getattr(self.feature_extractor, "trim_db", former)

    def score_waveforms(self, waveforms: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Run the model on complete waveforms, without speech detection.

        Args:
            waveforms: 16 kHz, each (samples,); they are padded into one batch.

        Returns:
            on the CPU: `probabilities` (batch, classes), `frame_logits` (batch, frames, classes), and `frame_weights`
            and `frame_mask` (batch, frames).
        """
        return self.forward(pad_batch([self.extract_features(waveform) for waveform in waveforms]))

    def extract_features(
        self, waveform: np.ndarray, text: str | None = None, words: list[dict[str, Any]] | None = None
    ) -> dict[str, torch.Tensor]:
        """Model inputs of a waveform (samples,), and of its words as [`choose_words`] gives them; without a batch."""
        inputs = self.feature_extractor(  # type: ignore[misc]
            waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt", return_attention_mask=True, is_trimmed=True
        )
        found = {name: values[0] for name, values in inputs.items()}
        if self.tokenizer is None:
            return found
        prosody = read_prosody(self.tokenizer, self.model.config.text_levels, waveform, words)
        return {**found, "text_ids": tokenize(self.tokenizer, text), **prosody}

    def get_iterator(  # type: ignore[override]
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        """Yield results in the order of the recordings; a thread reads ahead while the model computes."""
        check_count("batch_size", batch_size, 1)
        are_several = not (isinstance(inputs, list) and len(inputs) == 1)
        pieces = self._read_pieces(inputs, are_several, **preprocess_params)
        outputs: list[dict[str, Any]] = []
        deciding: dict[str, Any] = {}
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(_take, pieces, POOL * batch_size)
            while pool := reading.result():
                reading = reader.submit(_take, pieces, POOL * batch_size)
                for output in self._score_pieces(pool, batch_size):
                    outputs.append(output)
                    if "waveform" in output:
                        deciding = choose_deciding(deciding, output)
                    if output["is_last"]:
                        yield output["error"] if "error" in output else self.postprocess(outputs, **postprocess_params)
                        outputs, deciding = [], {}

    def _read_pieces(
        self, recordings: Iterable[Any], are_several: bool, on_error: str = "raise", **options: Any
    ) -> Iterator[dict[str, Any]]:
        """Yield the pieces of each recording in turn; with `on_error="return"`, the last one may be an `error`."""
        for number, recording in enumerate(recordings):
            recording, words = take_words(recording)
            name = name_recording(recording, number if are_several else None, options.get("channel"))
            try:
                for piece in self.preprocess(recording, words, **options):
                    yield {**piece, "name": name}
            except (ValueError, OSError) as error:
                if on_error == "raise":
                    error.add_note(f"while reading {name}")
                    raise
                yield {"error": error, "is_last": True}

    def _score_pieces(self, pool: list[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        """Add `probabilities` to each piece, and `frame_weights` if it kept its waveform; the order does not change.

        Batches contain pieces of similar duration.
        """
        by_duration = sorted((piece for piece in pool if "inputs" in piece), key=lambda piece: piece["duration"])
        for start in range(0, len(by_duration), batch_size):
            batch = by_duration[start : start + batch_size]
            output = self.forward(pad_batch([piece.pop("inputs") for piece in batch]))
            for index, piece in enumerate(batch):
                for name in ("probabilities", "dimensions", *(BRANCHES if piece["has_words"] else ())):
                    if name in output:
                        piece[name] = output[name][index].numpy().astype(float)
                if "waveform" in piece:
                    mask = output["frame_mask"][index]
                    piece["frame_weights"] = output["frame_weights"][index][mask].float().numpy()
                if "track" in output:
                    piece["track"] = output["track"][index][output["frame_mask"][index]].numpy()
        return pool

    def preprocess(  # type: ignore[override]
        self,
        recording: Any,
        words: Any = None,
        return_timeline: bool = False,
        return_frames: bool = False,
        return_outline: bool = False,
        return_dimensions: bool = False,
        channel: int | None = None,
        pause: float = PAUSE,
        window: float = WINDOW,
        allow_urls: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Yield the whole recording if it is one utterance, and its phrases if needed, each with its `inputs`.

        Raises:
            ValueError: the recording cannot be read, or contains no speech.
        """
        quality = RecordingQuality()  # of what was read so far; of everything once the last piece is yielded
        peaks: list[np.ndarray] = []
        blocks = read_blocks(recording, channel, quality, allow_urls)
        if return_outline:
            blocks = collect_peaks(blocks, peaks)
        longest = min(LONGEST_UTTERANCE, self.model.config.longest_seconds or LONGEST_UTTERANCE)
        pieces = cut_recording(blocks, return_timeline, pause, window, self.trim_db, longest)
        piece = next(pieces, None)
        if piece is None:
            reason = quality.find_cancellation(describe_recording(recording))
            raise ValueError(reason or f"{describe_recording(recording)} contains no speech: it is empty or silent")
        check_words(words, can_read=self.tokenizer is not None, is_utterance=piece["phrase"] < 0)
        while piece is not None:
            following = next(pieces, None)
            waveform = piece["waveform"] if return_frames else piece.pop("waveform")
            text, placed = choose_words(words, piece)
            yield {
                **piece,
                "inputs": self.extract_features(waveform, text, placed),
                "has_words": bool(text and text.strip()),
                "duration": len(waveform) / SAMPLING_RATE,
                "peaks": peaks,
                "quality": quality,
                "is_last": following is None,
            }
            piece = following

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        output = self.model(**model_inputs)
        return {
            "probabilities": output.logits.float().softmax(dim=-1),
            "frame_logits": output.frame_logits,
            "frame_weights": output.frame_weights,
            "frame_mask": output.frame_mask,
            **({} if output.dimensions is None else {"dimensions": output.dimensions}),
            **({} if output.tracker_logits is None else {"track": output.tracker_logits.float().softmax(dim=-1)}),
            **{
                name: logits.float().softmax(dim=-1)
                for name, logits in zip(BRANCHES, (output.voice_logits, output.text_logits))
                if logits is not None
            },
        }

    def postprocess(  # type: ignore[override]
        self,
        outputs: list[dict[str, Any]],
        return_timeline: bool = False,
        return_frames: bool = False,
        return_outline: bool = False,
        return_dimensions: bool = False,
        top_k: int | None = None,
        smoothing: float = 0.0,
        min_duration: float = MIN_DURATION,
    ) -> list[dict[str, Any]] | dict[str, Any]:
        """Build the result for one recording from the outputs of all its pieces."""
        probabilities = np.stack([output["probabilities"] for output in outputs])
        values = np.stack([output.get("dimensions", np.zeros(0)) for output in outputs])
        both = np.concatenate([probabilities, values], axis=1)
        starts, ends, phrase = (np.array([output[name] for output in outputs]) for name in ("start", "end", "phrase"))
        labels = [self.model.config.id2label[index] for index in range(probabilities.shape[1])]
        is_whole, means = phrase < 0, average_pieces(starts, ends, phrase, both)
        whole = means[: len(labels)]
        scores = _rank_scores(whole, labels)[:top_k]
        last = outputs[-1]
        longest = float(np.max(ends - starts)) / SAMPLING_RATE
        problems = last["quality"].find_problems(last["name"], self.model.config.bandwidth, longest)
        answer: dict[str, Any] = {"scores": scores, "unsure": bool(whole.max() < self.model.config.unsure_below)}
        mixed_above = self.model.config.mixed_above
        if mixed_above is not None:
            answer["mixed"] = name_classes(choose_mixed(whole, mixed_above), labels)
        if is_whole.any() and outputs[0]["has_words"]:
            answer["alone"] = {name: _rank_scores(outputs[0][name], labels) for name in BRANCHES}
        names = self.model.config.dimension_names or []
        if names:
            answer |= describe_values(self.model.config, means[len(labels) :])
        if return_timeline:
            windows = (starts[~is_whole] / SAMPLING_RATE, ends[~is_whole] / SAMPLING_RATE, phrase[~is_whole])
            tracks = [output.get("track", output["probabilities"]) for output in outputs if output["phrase"] >= 0]
            segments = build_timeline(*windows, tracks, smoothing, min_duration, mixed_above, values[~is_whole])
            answer["timeline"] = name_values(name_classes(segments, labels), names)
            if names:
                answer["trace"] = trace_values(*windows, values[~is_whole], names, smoothing)
            if not segments:
                problems["timeline"] = (
                    f"the timeline of {last['name']} is empty: it has no segment of at least {min_duration:g} s; give "
                    "a smaller min_duration"
                )
        warn_of(problems.values())
        if not (return_timeline or return_frames or return_outline or return_dimensions):
            return scores
        if return_frames:
            (deciding,) = (output for output in outputs if "waveform" in output)
            start = deciding["start"] / SAMPLING_RATE
            answer["frames"] = {
                "label": labels[int(deciding["probabilities"].argmax())],
                "start": start,
                "end": start + deciding["duration"],
                "waveform": deciding["waveform"],
                "weights": deciding["frame_weights"],
                "frame_seconds": self.model.config.frame_seconds,
            }
        if return_outline:
            answer["outline"] = np.concatenate(last["peaks"])
        return {**answer, "duration": last["quality"].heard / SAMPLING_RATE, "warnings": [*problems.values()]}


def check_count(name: str, value: Any, smallest: int) -> None:
    """Raise ValueError if the value of a call argument is not a whole number of at least `smallest`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < smallest:
        raise ValueError(f"{name}={value!r} is not a whole number of at least {smallest}")


def _rank_scores(probabilities: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """Labels with their scores, best first."""
    order = np.argsort(-probabilities, kind="stable")
    return [{"label": labels[index], "score": float(probabilities[index])} for index in order]


def _take(pieces: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return list(islice(pieces, count))


PIPELINE_REGISTRY.register_pipeline(
    TASK,
    pipeline_class=SpeechEmotionRecognitionPipeline,
    pt_model=AutoModelForAudioClassification,
    type="audio",
)
