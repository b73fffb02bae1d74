"""What a recording sounds like, by a model that export_onnx.py wrote: no torch, no transformers.

    pip install onnxruntime librosa
    python examples/onnx_inference.py model.onnx recording.wav

Prints each label with its probability, the most probable first.
"""

import json
import sys

import librosa
import numpy as np
import onnxruntime


def main(model: str, recording: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    about = {name: json.loads(metadata[name]) for name in ("labels", "sampling_rate", "shortest_samples", "trim_db")}
    waveform, _ = librosa.load(recording, sr=about["sampling_rate"])  # any file: resampled, mono
    if about["trim_db"] is not None and waveform.any():  # as in training
        waveform, _ = librosa.effects.trim(waveform, top_db=about["trim_db"])
    if len(waveform) < about["shortest_samples"]:
        sys.exit(f"error: {recording} has {len(waveform)} samples; the model needs {about['shortest_samples']}")
    batch = {"waveform": waveform[None], "attention_mask": np.ones((1, len(waveform)), np.int64)}
    (logits,) = session.run(["logits"], batch)[0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    for index in probabilities.argsort()[::-1]:
        print(f"{about['labels'][index]:9} {probabilities[index]:.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("error: give a model and a recording: onnx_inference.py model.onnx recording.wav")
    main(*sys.argv[1:])
