"""8-bit copies of an exported file: dynamic, with 8-bit weights, and static, with 8-bit weights and activations."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from core.audio import SAMPLING_RATE, read_audio
from core.errors import InputError
from inference.files import find_recordings
from inference.onnx_export import pad_utterances
from speech_ser_align import LONGEST_UTTERANCE

FRONT_END = ("front_end",)  # log-mel frames need more than 8 bits
# The first projection reads features that span 80 dB, and the query of the pooling layer weights all frames of an
# utterance. Keeping these in 32 bits halves the largest change of a logit (1,440 RAVDESS utterances).
KEPT_IN_FLOAT = (*FRONT_END, "feature_projection.", ".query/")
CALIBRATION_RECORDINGS = 200  # ours: spread over those given; of each, as much as one utterance lasts


def quantize(path: Path, int8_path: Path) -> None:
    """Write a copy of an exported file with 8-bit weights in the matrix products, except in `KEPT_IN_FLOAT`.

    Activations are quantized to 8 bits too, over the range of the whole batch, so padding changes the scores slightly.
    """
    quantize_dynamic(
        path,
        int8_path,
        op_types_to_quantize=["MatMul", "Gemm"],  # a convolution in 8 bits is slower than in 32
        nodes_to_exclude=_list_nodes(path, KEPT_IN_FLOAT),
        weight_type=QuantType.QUInt8,  # signed weights overflow on processors without VNNI: logits 0.5 off
        per_channel=True,
    )


def quantize_statically(
    path: Path,
    int8_path: Path,
    utterances: Sequence[np.ndarray],
    kept: Sequence[str] = FRONT_END,
    per_channel: bool = False,
    method: CalibrationMethod = CalibrationMethod.MinMax,
) -> None:
    """Write a copy of an exported file with 8-bit weights and activations in matrix products and convolutions.

    The ranges of the activations are those of the utterances, so padding does not change the scores.

    Args:
        utterances: (samples,) each, 16 kHz, such as those of the training speakers.
        kept: parts of the names of modules that stay in 32 bits.
        per_channel: whether each output of a layer has weights of a scale of its own.
        method: how ranges follow from activations; all but MinMax need utterances of one length.
    """
    quantize_static(
        path,
        int8_path,
        UtteranceReader(utterances),
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        nodes_to_exclude=_list_nodes(path, kept),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QUInt8,
        per_channel=per_channel,
        calibrate_method=method,
    )


class UtteranceReader(CalibrationDataReader):
    """Gives the calibration one utterance at a time, as the exported file takes it."""

    def __init__(self, utterances: Sequence[np.ndarray]):
        self.batches: Iterator[dict[str, np.ndarray]] = (pad_utterances([utterance]) for utterance in utterances)

    def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
        return next(self.batches, None)


def read_calibration(folder: str, trim_db: float | None, shortest: int) -> list[np.ndarray]:
    """Read up to `CALIBRATION_RECORDINGS` utterances of a folder, spread evenly over its recordings.

    Args:
        folder: searched with all of its folders.
        trim_db: of the feature extractor, as in `trim`.
        shortest: samples of the shortest utterance that the model takes.

    Raises:
        InputError: the folder contains no recordings, or one of them is not audio or too short.
    """
    recordings, utterances = spread(find_recordings([folder]), CALIBRATION_RECORDINGS), []
    for recording in recordings:
        utterance = read_audio(recording, trim_db)[: int(LONGEST_UTTERANCE * SAMPLING_RATE)]
        if len(utterance) < shortest:
            raise InputError(
                f"{recording} lasts {len(utterance) / SAMPLING_RATE:.3f} s, but the model takes no less than "
                f"{shortest / SAMPLING_RATE:.3f} s: remove it from --calibration {folder}"
            )
        utterances.append(utterance)
    return utterances


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """Up to so many of the items, at equal distances."""
    return [items[index] for index in np.linspace(0, len(items) - 1, min(len(items), most)).astype(int)]


def _list_nodes(path: Path, parts: Sequence[str]) -> list[str]:
    """Names of the nodes of a file whose modules have any of these parts in their names."""
    return [node.name for node in onnx.load(path).graph.node if any(part in node.name for part in parts)]
