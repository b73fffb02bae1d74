"""Recognize the emotion in a recording with a model from export_onnx.py, without torch or transformers.

    pip install onnxruntime soundfile soxr
    python examples/onnx_inference.py model.onnx recording.wav

Prints each label with its probability, best first, and the dimensions of a model that has any. The recording is scored
as one utterance; predict.py also cuts longer ones into phrases.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).parent.parent))
from decoding_ser_align import describe_recording
from quality_ser_align import RecordingQuality, warn_of
from recording_ser_align import read_blocks
from speech_ser_align import has_speech, trim

MOST = 60  # seconds: what fits into memory at once


def main(model: str, recording: str) -> None:
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a console may lack a label's letters
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    session, settings = load_model(model)
    waveform = read_utterance(recording, settings)
    batch = {"waveform": waveform[None], "attention_mask": np.ones((1, len(waveform)), np.int64)}
    outputs = ["logits", "dimensions"] if settings["dimensions"] else ["logits"]
    logits, *values = (output[0] for output in session.run(outputs, batch))
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    if probabilities.max() < settings["unsure_below"]:
        print("unsure")
    for index in probabilities.argsort()[::-1]:
        print(f"{settings['labels'][index]:9} {probabilities[index]:.3f}")
    for name, (low, high), value in zip(settings["dimensions"], settings["dimension_scales"], *values):
        print(f"{name:9} {value:.3f} ({low:g} to {high:g})")


def load_model(model: str) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    """The model and the settings that export_onnx.py has written into it."""
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        names = ("labels", "sampling_rate", "shortest_samples", "trim_db")
        # Files of earlier releases have no longest duration, which only some encoders limit, and nothing newer.
        longest = json.loads(metadata.get("longest_seconds", "null")) or MOST
        newer = {"bandwidth": "null", "unsure_below": "0", "dimensions": "[]", "dimension_scales": "[]"}
        settings = {name: json.loads(metadata[name]) for name in names}
        settings |= {name: json.loads(metadata.get(name, default)) for name, default in newer.items()}
        return session, {**settings, "longest_seconds": longest}
    except Exception as error:  # the errors of onnxruntime have no class in common
        reason = " ".join(str(error).split())
        sys.exit(f"error: {model} cannot be loaded ({reason}): give a file that export_onnx.py wrote")


def read_utterance(recording: str, settings: dict[str, Any]) -> np.ndarray:
    """The speech as the model takes it: (samples,) float32, 16 kHz mono, trimmed as in training.

    Warns of what makes its scores unreliable, as predict.py does.
    """
    quality = RecordingQuality()
    try:
        blocks = list(read_blocks(recording, quality=quality))
    except ValueError as error:
        sys.exit(f"error: {error}")
    if not has_speech(iter(blocks)):
        sys.exit(f"error: {recording!r} contains no speech: it is empty or silent")
    _, waveform = trim(np.concatenate(blocks), settings["trim_db"])
    seconds, most = len(waveform) / settings["sampling_rate"], min(MOST, settings["longest_seconds"])
    if len(waveform) < settings["shortest_samples"] or seconds > most:
        shortest = settings["shortest_samples"] / settings["sampling_rate"]
        sys.exit(f"error: {recording!r} lasts {seconds:.3f} s; valid are {shortest:.3f} to {most:g} s of one utterance")
    warn_of(quality.find_problems(describe_recording(recording), settings["bandwidth"], seconds).values())
    return waveform


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("error: give a model and a recording: python examples/onnx_inference.py model.onnx recording.wav")
    main(*sys.argv[1:])
