"""Computes the record that predict.py writes for each recording."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import InputError
from core.loading import load_pipeline
from core.model_files import is_classical
from core.shipped import name_model
from inference.ensemble import Ensemble
from inference.evidence import explain_frames
from inference.options import TIMELINE_OPTIONS, list_models
from inference.outputs import Record
from inference.spoken import join_words
from inference.values import round_dimensions
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recording_ser_align import count_channels

STANDARD_INPUT = "standard input"


class Job(NamedTuple):
    """One result to compute."""

    file: str
    channel: int | None  # None is the mean of all channels


def load_recognizer(options: argparse.Namespace, device: Any = None) -> SpeechEmotionRecognitionPipeline:
    """Load the pipeline with the command-line options; `device` applies if they set none. Raises InputError."""
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(f"--batch_size {options.batch_size} is not a whole number of at least 1")
    if options.revision is not None and Path(options.model).is_dir():
        raise InputError(
            f"--revision {options.revision} is for models on the Hub, but --model {options.model} is a folder"
        )
    recognize = load_member(options.model, options, device)
    if options.members:
        names = map(name_model, list_models(options))
        members = [recognize, *(load_member(model, options, device) for model in options.members)]
        recognize = Ensemble(dict(zip(names, members)), options.combine)
    given = {name: getattr(options, name) for name in TIMELINE_OPTIONS if getattr(options, name) is not None}
    try:
        recognize.set_parameters(**given)
    except ValueError as error:
        raise InputError(f"--{error}") from None
    return recognize


def load_member(model: str, options: argparse.Namespace, device: Any) -> SpeechEmotionRecognitionPipeline:
    """Load the pipeline of one model. Raises InputError."""
    device = options.device or device
    if not is_classical(model):
        return load_pipeline(model, options.revision, device, options.batch_size, options.dtype)
    refuse_network_options(model, options)
    from core.classical import load_classical_pipeline  # scikit-learn takes a second to import

    return load_classical_pipeline(model, device, options.batch_size)


def refuse_network_options(model: str, options: argparse.Namespace) -> None:
    """Raise InputError for what a classical model does not have: frames with weights, and another data type."""
    for given, name in ((options.explain, "--explain"), (options.dtype != "float32", f"--dtype {options.dtype}")):
        if given:
            raise InputError(f"{name} is for networks, and {model} is a classical model: remove it")


def list_jobs(recordings: dict[str, Any], channels: str) -> list[Job]:
    """One job for each recording (`mix`), or for each of its channels (`each`)."""
    if channels == "mix":
        return [Job(name, None) for name in recordings]
    return [Job(name, channel) for name in recordings for channel in range(_count_channels(recordings[name]))]


def _count_channels(recording: Any) -> int:
    try:
        return count_channels(recording)
    except ValueError:
        return 1  # the result will say why it cannot be read


def answer_jobs(
    recognize: SpeechEmotionRecognitionPipeline,
    jobs: list[Job],
    open_recording: Callable[[str], Any],
    with_frames: bool,
    with_outline: bool,
    listen: Callable[[Any, int | None], Any] | None = None,
) -> Iterator[Any]:
    """Yield the pipeline's result for each job, or the exception if the recording cannot be read.

    Consecutive jobs with the same channel go through the pipeline together.

    Args:
        open_recording: gives the pipeline what it reads for the name of a file; called when it comes to that file.
        listen: says the words of a recording and a channel, which are in the result as `said`; None for none.
    """
    for channel, group in groupby(jobs, key=lambda job: job.channel):
        members = list(group)
        said: dict[Job, Any] = {}
        answers = recognize(  # type: ignore[misc]
            _add_words(members, open_recording, listen, recognize.tokenizer is not None, said),
            return_timeline=True,
            return_frames=with_frames,
            return_outline=with_outline,
            channel=channel,
            on_error="return",
        )
        for job, answer in zip(members, answers):
            if said.get(job) and not isinstance(answer, Exception):
                answer["said"] = said[job]
            yield answer


def _add_words(
    jobs: list[Job], open_recording: Callable[[str], Any], listen: Any, can_read: bool, said: dict[Job, Any]
) -> Iterator[Any]:
    """Yield each recording, with its words if the model can read them; `said` receives them."""
    for job in jobs:
        recording = open_recording(job.file)
        if listen is not None:
            with suppress(ValueError, OSError):  # of a recording that cannot be read, as the pipeline will say
                said[job] = listen(recording, job.channel)
        yield {"audio": recording, "text": said[job]} if can_read and said.get(job) else recording


def build_record(job: Job, answer: Any, explainer: SpeechEmotionRecognitionPipeline | None = None) -> Record:
    """Build the record of one recording: the result in rounded numbers, or `error`.

    Args:
        explainer: the pipeline, which then also explains the answer; the answer needs its `frames`.
    """
    record: Record = {"file": job.file, "channel": job.channel}
    if isinstance(answer, Exception):
        channel = "" if job.channel is None else f" (channel {job.channel})"
        return {**record, "error": f"{' '.join(str(answer).split())}{channel}"}
    scores = {entry["label"]: round(entry["score"], 6) for entry in answer["scores"]}
    label = answer["scores"][0]["label"]
    record |= {"duration": round(answer["duration"], 3), "label": label, "score": scores[label], "scores": scores}
    record["unsure"] = answer["unsure"]
    if "said" in answer:
        record["text"] = join_words(answer["said"])
    if "alone" in answer:
        record["alone"] = {
            name: {entry["label"]: round(entry["score"], 6) for entry in scores}
            for name, scores in answer["alone"].items()
        }
    record |= _round_mixed(answer) | round_dimensions(answer)
    if "members" in answer:
        record["members"] = {
            name: {label: round(score, 6) for label, score in scores.items()}
            for name, scores in answer["members"].items()
        }
    if "disagreement" in answer:
        record["disagreement"] = answer["disagreement"]
    record["warnings"] = answer["warnings"]
    record["timeline"] = [_round_segment(segment) for segment in answer["timeline"]]
    if isinstance(answer.get("said"), list):
        record["words"] = answer["said"]
    if "trace" in answer:
        record["trace"] = [
            {name: [round(x, 3) for x in part] for name, part in each.items()} for each in answer["trace"]
        ]
    if explainer is not None:
        record["evidence"] = explain_frames(explainer, answer["frames"])
    return record


def _round_segment(segment: dict[str, Any]) -> dict[str, Any]:
    times = {name: round(segment[name], 3) for name in ("start", "end")}
    return {
        **times,
        "label": segment["label"],
        "score": round(segment["score"], 6),
        **_round_mixed(segment),
        **_round_values(segment),
    }


def _round_values(segment: dict[str, Any]) -> dict[str, Any]:
    if "dimensions" not in segment:
        return {}
    return {"dimensions": {name: round(value, 4) for name, value in segment["dimensions"].items()}}


def _round_mixed(answer: dict[str, Any]) -> dict[str, Any]:
    """`mixed` as label: score, if the model was trained on label distributions."""
    if "mixed" not in answer:
        return {}
    return {"mixed": {entry["label"]: round(entry["score"], 6) for entry in answer["mixed"]}}
