"""Recognize the emotion in a recording with a model from export_onnx.py, without torch or transformers.

    pip install onnxruntime librosa
    python examples/onnx_inference.py model.onnx recording.wav

Prints each label with its probability, best first.
"""

import json
import sys

import librosa
import numpy as np
import onnxruntime


def main(model: str, recording: str) -> None:
    sys.stdout.reconfigure(errors="backslashreplace")  # a console may lack the letters of a label
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    settings = {name: json.loads(metadata[name]) for name in ("labels", "sampling_rate", "shortest_samples", "trim_db")}
    waveform, _ = librosa.load(recording, sr=settings["sampling_rate"])  # resampled, mono
    if settings["trim_db"] is not None and waveform.any():  # as in training
        waveform, _ = librosa.effects.trim(waveform, top_db=settings["trim_db"])
    if len(waveform) < settings["shortest_samples"]:
        sys.exit(f"error: {recording} has {len(waveform)} samples; at least {settings['shortest_samples']} are needed")
    batch = {"waveform": waveform[None], "attention_mask": np.ones((1, len(waveform)), np.int64)}
    (logits,) = session.run(["logits"], batch)[0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    for index in probabilities.argsort()[::-1]:
        print(f"{settings['labels'][index]:9} {probabilities[index]:.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("error: give a model and a recording: python examples/onnx_inference.py model.onnx recording.wav")
    main(*sys.argv[1:])
