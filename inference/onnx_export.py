"""Exports a model as one ONNX file that takes waveforms, and compares it with PyTorch."""

import ast
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from transformers import SequenceFeatureExtractor

from core.errors import InputError
from inference.onnx_front_ends import build_front_end
from inference.onnx_options import REQUIREMENTS
from modeling_ser_align import SERAlignForAudioClassification
from recording_ser_align import SAMPLING_RATE

OPSET = 20
INPUTS = ["waveform", "attention_mask"]
OUTPUTS = ["logits", "frame_logits", "frame_weights", "frame_mask"]  # and "dimensions", of a model that has any
TOLERANCE = 1e-4
LARGEST_BYTES = 2 * 1000**3  # of one ONNX file, with some room for the graph


class WaveformModel(nn.Module):
    """Feature extraction and model: (batch, samples) waveform and mask to the tensors that `list_outputs` names.

    Raises:
        InputError: the feature extractor is not supported.
    """

    def __init__(self, model: SERAlignForAudioClassification, extractor: SequenceFeatureExtractor):
        super().__init__()
        self.model = model
        self.front_end = build_front_end(extractor)

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        inputs, mask = self.front_end(waveform, attention_mask)
        output = self.model(**{self.model.main_input_name: inputs}, attention_mask=mask)
        return tuple(output[name] for name in list_outputs(self.model))


def list_outputs(model: SERAlignForAudioClassification) -> list[str]:
    return [*OUTPUTS, "dimensions"] if model.config.dimensions else OUTPUTS


# --------------------------------------------------------------------------------------------- files


def export(
    model: SERAlignForAudioClassification, extractor: SequenceFeatureExtractor, path: Path, licence: str | None = None
) -> float:
    """Write the ONNX file, which names the licence. Returns the largest difference between its scores and PyTorch's.

    Raises:
        InputError: the feature extractor is not supported, the weights exceed 2 GB, or the difference exceeds
            `TOLERANCE`. No file is written then.
    """
    if model.config.reads_text:
        raise InputError(
            "the model reads words, and an ONNX file takes waveforms alone: export one without text encoder"
        )
    num_bytes = 4 * model.num_parameters()
    if num_bytes > LARGEST_BYTES:
        raise InputError(
            f"the model has {num_bytes / 1e9:.1f} GB of weights; an ONNX file holds at most 2 GB: use a smaller model"
        )
    exported = _trace(WaveformModel(model, extractor).eval())
    _tidy(exported)
    for name, value in (_describe_model(model, extractor) | {"licence": licence}).items():
        exported.metadata_props.add(key=name, value=json.dumps(value))
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        unchecked = Path(directory) / path.name
        onnx.save(exported, unchecked)
        difference = measure_difference(unchecked, model, extractor)
        if not difference <= TOLERANCE:
            raise InputError(
                f"the exported scores differ from PyTorch's by {difference:.1e}, more than {TOLERANCE:g}, so {path} "
                f"was not written; install the versions in {REQUIREMENTS}"
            )
        unchecked.replace(path)
    return difference


def _trace(waveform_model: WaveformModel) -> onnx.ModelProto:
    batch = pad_utterances(generate_audio(waveform_model.model.config.shortest_samples))
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # from the exporter, about its own code
        program = torch.onnx.export(
            waveform_model,
            tuple(torch.from_numpy(batch[name]) for name in INPUTS),
            dynamo=True,
            dynamic_shapes=(free, free),
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=list_outputs(waveform_model.model),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _tidy(exported: onnx.ModelProto) -> None:
    """Name each node after its module and remove the exporter's notes.

    The notes contain file names of this machine, and shapes that quantization fails on.
    """
    del exported.graph.value_info[:]
    del exported.metadata_props[:]
    for node in exported.graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        modules = ast.literal_eval(notes.get("pkg.torch.onnx.name_scopes", "['', '']"))
        node.name = f"{modules[-2]}/{node.name}"
    for part in (exported.graph, *exported.graph.node, *exported.graph.input, *exported.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""


def _describe_model(model: SERAlignForAudioClassification, extractor: SequenceFeatureExtractor) -> dict[str, Any]:
    config = model.config
    return {
        "labels": [config.id2label[index] for index in range(config.num_labels)],
        "sampling_rate": SAMPLING_RATE,
        "shortest_samples": config.shortest_samples,
        "longest_seconds": config.longest_seconds,
        "trim_db": getattr(extractor, "trim_db", None),
        "frame_seconds": config.frame_seconds,
        "bandwidth": config.bandwidth,
        "unsure_below": config.unsure_below,
        **({} if config.mixed_above is None else {"mixed_above": config.mixed_above}),
        **_describe_dimensions(config),
    }


def _describe_dimensions(config: Any) -> dict[str, Any]:
    """Names, scales, typical errors and source of the dimensions, which the file calibrates; empty without any."""
    if config.dimensions is None:
        return {}
    fitted = config.dimension_calibration
    return {
        "dimensions": config.dimension_names,
        "dimension_scales": config.dimension_scales,
        "dimension_errors": fitted and [error for _, _, error in fitted],
        "dimension_source": config.dimension_source,
    }


# ---------------------------------------------------------------------------------------- comparison


def generate_audio(shortest: int, seed: int = 0) -> list[np.ndarray]:
    """Generate syllable-like noise, float32, 16 kHz, from the shortest utterance to 4 s; one ends in silence."""
    rng = np.random.default_rng(seed)
    utterances = []
    for samples in (64000, shortest, 8000, 30011):
        syllables = np.sin(np.arange(samples) / 2000) ** 2
        utterances.append((0.1 * rng.standard_normal(samples) * syllables).astype(np.float32))
    utterances[-1][15000:] = 0.0
    return utterances


def pad_utterances(utterances: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Prepare the inputs of the ONNX file: utterances, each (samples,), padded on the right into one batch."""
    shape = len(utterances), max(map(len, utterances))
    batch: dict[str, np.ndarray] = {
        "waveform": np.zeros(shape, np.float32),
        "attention_mask": np.zeros(shape, np.int64),
    }
    for index, utterance in enumerate(utterances):
        batch["waveform"][index, : len(utterance)] = utterance
        batch["attention_mask"][index, : len(utterance)] = 1
    return batch


@torch.no_grad()
def measure_difference(
    path: Path,
    model: SERAlignForAudioClassification,
    extractor: SequenceFeatureExtractor,
    utterances: list[np.ndarray] | None = None,
) -> float:
    """Compare a padded batch in ONNX Runtime with single utterances in PyTorch.

    Args:
        utterances: (samples,) each, 16 kHz; None generates some.

    Returns:
        the largest difference in logits, dimensions, frame logits and frame weights; infinite if the numbers of frames
        differ.
    """
    utterances = utterances or generate_audio(model.config.shortest_samples, seed=1)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = list_outputs(model)
    found = dict(zip(outputs, session.run(outputs, pad_utterances(utterances))))
    differences = []
    for index, utterance in enumerate(utterances):
        expected = model(**extractor(utterance, sampling_rate=SAMPLING_RATE, return_tensors="pt", is_trimmed=True))
        frames = expected.frame_logits.shape[1]
        if found["frame_mask"][index].sum() != frames:
            return float("inf")
        for name in set(outputs) - set(OUTPUTS) | {"logits"}:
            differences.append(found[name][index] - expected[name][0].numpy())
        for name in ("frame_logits", "frame_weights"):
            differences.append(found[name][index, :frames] - expected[name][0].numpy())
    return max(float(np.abs(difference).max()) for difference in differences)


@contextmanager
def silence_exporter() -> Iterator[None]:
    """Hide the messages of the exporter and the quantizer about their own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
