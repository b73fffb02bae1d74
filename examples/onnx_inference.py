"""Recognize the emotion in a recording with a model from export_onnx.py, without torch or transformers.

    pip install onnxruntime librosa
    python examples/onnx_inference.py model.onnx recording.wav

Prints each label with its probability, best first. The recording is scored as one utterance; predict.py also cuts
longer ones into phrases.
"""

import json
import sys
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import onnxruntime
import soundfile

sys.path.insert(0, str(Path(__file__).parent.parent))
from speech_ser_align import trim

LONGEST, MOST = 15, 60  # seconds: of utterances as in training, and of what fits into memory at once


def main(model: str, recording: str) -> None:
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a console may lack a label's letters
    session, settings = load_model(model)
    waveform = read_utterance(recording, settings)
    batch = {"waveform": waveform[None], "attention_mask": np.ones((1, len(waveform)), np.int64)}
    (logits,) = session.run(["logits"], batch)[0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    for index in probabilities.argsort()[::-1]:
        print(f"{settings['labels'][index]:9} {probabilities[index]:.3f}")


def load_model(model: str) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    """The model and its labels, sampling rate, shortest length and trimming level."""
    try:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        names = ("labels", "sampling_rate", "shortest_samples", "trim_db")
        return session, {name: json.loads(metadata[name]) for name in names}
    except (RuntimeError, KeyError) as error:  # onnxruntime's errors are RuntimeErrors
        reason = " ".join(str(error).split())
        sys.exit(f"error: {model} cannot be loaded ({reason}): give a file that export_onnx.py wrote")


def read_utterance(recording: str, settings: dict[str, Any]) -> np.ndarray:
    """The speech as the model takes it: (samples,) float32 mono, resampled and trimmed as in training."""
    try:
        channels, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:
        sys.exit(f"error: {recording!r} cannot be read ({error}); give a WAV, FLAC, OGG or MP3 file")
    if not np.isfinite(channels).all():
        sys.exit(f"error: {recording!r} contains samples that are not finite numbers; export it again")
    if not len(channels) or not channels.mean(axis=1).std() > 0.1 * channels.std():
        sys.exit(f"error: {recording!r} contains no speech: it is empty or silent, or its channels cancel each other")
    waveform = librosa.resample(channels.mean(axis=1), orig_sr=rate, target_sr=settings["sampling_rate"])
    _, waveform = trim(waveform, settings["trim_db"])
    seconds, shortest = (
        samples / settings["sampling_rate"] for samples in (len(waveform), settings["shortest_samples"])
    )
    if len(waveform) < settings["shortest_samples"] or seconds > MOST:
        sys.exit(f"error: {recording!r} lasts {seconds:.3f} s; valid are {shortest:.3f} to {MOST} s of one utterance")
    if seconds > LONGEST:
        print(f"warning: {recording!r} lasts {seconds:.0f} s; the utterances of training are shorter", file=sys.stderr)
    return waveform


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("error: give a model and a recording: python examples/onnx_inference.py model.onnx recording.wav")
    main(*sys.argv[1:])
