"""Exports a model as one ONNX file that takes waveforms: front end, export, 8-bit copy, comparison with PyTorch."""

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
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from transformers import SequenceFeatureExtractor, Wav2Vec2FeatureExtractor

from core.errors import InputError
from encoders_ser_align import make_length_mask
from feature_extraction_ser_align import (
    DECIBELS_PER_UNIT,
    FFT,
    HOP,
    WINDOW,
    SERAlignFeatureExtractor,
    Trimming,
    mel_filters,
)
from inference.onnx_options import REQUIREMENTS
from modeling_ser_align import SERAlignForAudioClassification
from recording_ser_align import SAMPLING_RATE

OPSET = 20
INPUTS = ["waveform", "attention_mask"]
OUTPUTS = ["logits", "frame_logits", "frame_weights", "frame_mask"]
TOLERANCE = 1e-4
LARGEST_BYTES = 2 * 1000**3  # of one ONNX file, with some room for the graph
VARIANCE_FLOOR = 1e-7  # of Wav2Vec2FeatureExtractor
# The first projection reads features that span 80 dB, and the query of the pooling layer weights all frames of an
# utterance. Keeping these in 32 bits halves the largest change of a logit (1,440 RAVDESS utterances).
KEPT_IN_FLOAT = ("front_end/", "feature_projection.", ".query/")


# ----------------------------------------------------------------------------------------- front ends


def sum_exactly(values: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Sum in float64: ONNX Runtime adds value by value, which loses precision in float32."""
    return values.sum(dim=dim, keepdim=True, dtype=torch.float64).float()


class NormalizedWaveform(nn.Module):
    """Wav2Vec2FeatureExtractor as a module: each utterance gets mean 0 and variance 1 over its own samples.

    (batch, samples) waveform and mask to (batch, samples) waveform and mask; 0 at the padding.
    """

    def __init__(self, extractor: Wav2Vec2FeatureExtractor):
        super().__init__()
        self.do_normalize = extractor.do_normalize
        self.removes_offset = extractor.do_normalize or isinstance(extractor, Trimming)

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        padding = attention_mask == 0
        waveform = waveform.masked_fill(padding, 0.0)
        samples = attention_mask.sum(dim=1, keepdim=True)
        if self.removes_offset:
            waveform = (waveform - sum_exactly(waveform, dim=1) / samples).masked_fill(padding, 0.0)
        if self.do_normalize:
            waveform = waveform / torch.sqrt(sum_exactly(waveform.square(), dim=1) / samples + VARIANCE_FLOOR)
        return waveform, attention_mask


class LogMel(nn.Module):
    """SERAlignFeatureExtractor as a module.

    (batch, samples) waveform and mask to (batch, frames, stride * feature_size) log-mel frames and their mask; 0 at the
    padding. The Fourier transform is a matrix product, which ONNX Runtime computes faster than its own.
    """

    window: Tensor
    fourier: Tensor
    filters: Tensor

    def __init__(self, extractor: SERAlignFeatureExtractor):
        super().__init__()
        self.stride, self.feature_size = extractor.stride, extractor.feature_size
        self.preemphasis = extractor.preemphasis
        self.quietest = 10 ** (-extractor.dynamic_range / 10)  # power, as a share of the loudest
        times = torch.arange(WINDOW, dtype=torch.float64).unsqueeze(1)
        angles = 2 * torch.pi * times * torch.arange(FFT // 2 + 1) / FFT
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False) ** 0.85)
        self.register_buffer("fourier", torch.cat([angles.cos(), angles.sin()], dim=1).float())
        self.register_buffer("filters", mel_filters(extractor.feature_size, extractor.sampling_rate))

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        power = self._compute_mel_power(waveform.masked_fill(attention_mask == 0, 0.0))
        lengths = (attention_mask.sum(dim=1) - WINDOW) // HOP + 1
        padding = ~make_length_mask(lengths, power.shape[1]).unsqueeze(-1)
        floor = power.masked_fill(padding, 0.0).amax(dim=(1, 2), keepdim=True) * self.quietest
        decibels = 10 * torch.maximum(power, floor.clamp(min=torch.finfo(torch.float32).tiny)).log10()
        values = lengths.view(-1, 1, 1) * self.feature_size
        mean = sum_exactly(decibels.masked_fill(padding, 0.0), dim=(1, 2)) / values
        normalized = (decibels - mean) / DECIBELS_PER_UNIT
        num_frames = power.shape[1] // self.stride
        # The memory layout of a slice depends on its length, so the trace would support only some lengths.
        stacked = normalized.index_select(1, torch.arange(num_frames * self.stride, device=waveform.device))
        frames = stacked.reshape(waveform.shape[0], num_frames, self.stride * self.feature_size)
        mask = make_length_mask(lengths // self.stride, num_frames)
        return frames.masked_fill(~mask.unsqueeze(-1), 0.0), mask.long()

    def _compute_mel_power(self, waveform: Tensor) -> Tensor:
        """(batch, samples) to (batch, log-mel frames of 10 ms, feature_size)."""
        windows = waveform.unfold(1, WINDOW, HOP)
        windows = windows - windows.mean(dim=-1, keepdim=True)
        before = torch.cat([windows[..., :1], windows[..., :-1]], dim=-1)
        windows = (windows - self.preemphasis * before) * self.window
        real, imaginary = (windows @ self.fourier).chunk(2, dim=-1)
        return (real.square() + imaginary.square()) @ self.filters


class WaveformModel(nn.Module):
    """Feature extraction and model: (batch, samples) waveform and mask to the tensors named in `OUTPUTS`.

    Raises:
        InputError: the feature extractor is not supported.
    """

    def __init__(self, model: SERAlignForAudioClassification, extractor: SequenceFeatureExtractor):
        super().__init__()
        self.model = model
        if isinstance(extractor, SERAlignFeatureExtractor):
            self.front_end: nn.Module = LogMel(extractor)
        elif isinstance(extractor, Wav2Vec2FeatureExtractor):
            self.front_end = NormalizedWaveform(extractor)
        else:
            raise InputError(
                f"{type(extractor).__name__} cannot be exported; only Wav2Vec2FeatureExtractor and "
                "SERAlignFeatureExtractor are supported"
            )

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        inputs, mask = self.front_end(waveform, attention_mask)
        output = self.model(**{self.model.main_input_name: inputs}, attention_mask=mask)
        return tuple(output[name] for name in OUTPUTS)


# --------------------------------------------------------------------------------------------- files


def export(model: SERAlignForAudioClassification, extractor: SequenceFeatureExtractor, path: Path) -> float:
    """Write the ONNX file. Returns the largest difference between its scores and PyTorch's.

    Raises:
        InputError: the feature extractor is not supported, the weights exceed 2 GB, or the difference exceeds
            `TOLERANCE`. No file is written then.
    """
    num_bytes = 4 * model.num_parameters()
    if num_bytes > LARGEST_BYTES:
        raise InputError(
            f"the model has {num_bytes / 1e9:.1f} GB of weights; an ONNX file holds at most 2 GB: use a smaller model"
        )
    exported = _trace(WaveformModel(model, extractor).eval())
    _tidy(exported)
    for name, value in _describe_model(model, extractor).items():
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


def quantize(path: Path, int8_path: Path) -> None:
    """Write a copy of an exported file with 8-bit weights in the matrix products, except in `KEPT_IN_FLOAT`.

    Activations are quantized to 8 bits too, over the range of the whole batch, so padding changes the scores slightly.
    """
    nodes = onnx.load(path).graph.node
    quantize_dynamic(
        path,
        int8_path,
        op_types_to_quantize=["MatMul", "Gemm"],  # a convolution in 8 bits is slower than in 32
        nodes_to_exclude=[node.name for node in nodes if any(part in node.name for part in KEPT_IN_FLOAT)],
        weight_type=QuantType.QUInt8,  # signed weights overflow on processors without VNNI: logits 0.5 off
        per_channel=True,
    )


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
            output_names=OUTPUTS,
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
        "trim_db": getattr(extractor, "trim_db", None),
        "frame_seconds": config.frame_seconds,
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
def measure_difference(path: Path, model: SERAlignForAudioClassification, extractor: SequenceFeatureExtractor) -> float:
    """Compare a padded batch in ONNX Runtime with single utterances in PyTorch.

    Returns:
        the largest difference in logits, frame logits and frame weights; infinite if the numbers of frames differ.
    """
    utterances = generate_audio(model.config.shortest_samples, seed=1)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = dict(zip(OUTPUTS, session.run(OUTPUTS, pad_utterances(utterances))))
    differences = []
    for index, utterance in enumerate(utterances):
        expected = model(**extractor(utterance, sampling_rate=SAMPLING_RATE, return_tensors="pt", is_trimmed=True))
        frames = expected.frame_logits.shape[1]
        if found["frame_mask"][index].sum() != frames:
            return float("inf")
        differences.append(found["logits"][index] - expected.logits[0].numpy())
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
