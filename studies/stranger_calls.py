"""Objects and options that strangers give to the pipeline. Part of studies/strangers.py."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from fields_ser_align import SAMPLING_RATE

Call = Callable[[Any, np.ndarray], Any]  # of the pipeline and the speech, float32 (samples,)


def encode(speech: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speech, SAMPLING_RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def as_integers(speech: np.ndarray, kind: type[np.signedinteger]) -> np.ndarray:
    return (speech * np.iinfo(kind).max).astype(kind)


def as_dict(values: Any, rate: Any = SAMPLING_RATE) -> dict[str, Any]:
    return {"array": values, "sampling_rate": rate}


def read_to_end(file: io.BytesIO) -> io.BytesIO:
    file.read()
    return file


CALLS: dict[str, Call] = {
    "bytes of a file": lambda recognize, speech: recognize(encode(speech)),
    "a memoryview of a file": lambda recognize, speech: recognize(memoryview(encode(speech))),
    "an open file": lambda recognize, speech: recognize(io.BytesIO(encode(speech))),
    "64-bit floats in memory": lambda recognize, speech: recognize(speech.astype(np.float64)),
    "16-bit floats in memory": lambda recognize, speech: recognize(speech.astype(np.float16)),
    "16-bit integers in memory": lambda recognize, speech: recognize(as_integers(speech, np.int16)),
    "32-bit integers in memory": lambda recognize, speech: recognize(as_integers(speech, np.int32)),
    "8-bit integers in memory": lambda recognize, speech: recognize((128 + 127 * speech).astype(np.uint8)),
    "booleans": lambda recognize, speech: recognize(speech > 0),
    "complex numbers": lambda recognize, speech: recognize(speech.astype(complex)),
    "texts in an array": lambda recognize, speech: recognize(np.array(["a", "b"])),
    "a tensor": lambda recognize, speech: recognize(torch.from_numpy(speech)),
    "a tensor with a gradient": lambda recognize, speech: recognize(torch.from_numpy(speech).requires_grad_()),
    "a bfloat16 tensor": lambda recognize, speech: recognize(torch.from_numpy(speech).bfloat16()),
    "(1, samples), as torchaudio gives it": lambda recognize, speech: recognize(speech[None]),
    "(2, samples)": lambda recognize, speech: recognize(np.stack([speech, speech])),
    "(samples, 2)": lambda recognize, speech: recognize(np.stack([speech, speech], axis=1)),
    "a batch in one array": lambda recognize, speech: recognize(np.stack([speech] * 3)),
    "several recordings in a tuple": lambda recognize, speech: recognize((speech, speech)),
    "several recordings from map": lambda recognize, speech: recognize(map(np.asarray, [speech])),
    "a waveform and its rate in a list": lambda recognize, speech: recognize([speech, SAMPLING_RATE]),
    "a row of a dataset": lambda recognize, speech: recognize({"audio": as_dict(speech), "label": 0}),
    "a masked array": lambda recognize, speech: recognize(np.ma.masked_greater(speech, 0.01)),
    "16-bit samples in 32-bit integers": lambda recognize, speech: recognize(
        as_integers(speech, np.int16).astype(np.int32)
    ),
    "an open file that was read before": lambda recognize, speech: recognize(read_to_end(io.BytesIO(encode(speech)))),
    "three dimensions": lambda recognize, speech: recognize(speech[None, None]),
    "a list of floats": lambda recognize, speech: recognize(speech.tolist()),
    "(array, rate), as librosa gives it": lambda recognize, speech: recognize((speech, SAMPLING_RATE)),
    "(rate, array), as Gradio gives it": lambda recognize, speech: recognize((SAMPLING_RATE, speech)),
    "a dict": lambda recognize, speech: recognize(as_dict(speech)),
    "a dict with a NumPy rate": lambda recognize, speech: recognize(as_dict(speech, np.int64(SAMPLING_RATE))),
    "a dict with a text as rate": lambda recognize, speech: recognize(as_dict(speech, "16000")),
    "a dict without a rate": lambda recognize, speech: recognize({"array": speech}),
    "a dict with bytes and path": lambda recognize, speech: recognize({"bytes": encode(speech), "path": None}),
    "None": lambda recognize, speech: recognize(None),
    "a number": lambda recognize, speech: recognize(5),
    "an empty text": lambda recognize, speech: recognize(""),
    "a URL": lambda recognize, speech: recognize("https://example.com/a.wav"),
    "a folder": lambda recognize, speech: recognize(Path(".")),
    "an empty array": lambda recognize, speech: recognize(speech[:0]),
    "an infinite sample": lambda recognize, speech: recognize(np.append(speech, np.inf)),
    "a list with a missing file": lambda recognize, speech: recognize([speech, "missing.wav"]),
    "half the rate in a dict": lambda recognize, speech: recognize(as_dict(speech[::2], SAMPLING_RATE // 2)),
    "channel='left'": lambda recognize, speech: recognize(speech, channel="left"),
    "channel=5": lambda recognize, speech: recognize(speech, channel=5),
    "top_k=0": lambda recognize, speech: recognize(speech, top_k=0),
    "top_k=1.5": lambda recognize, speech: recognize(speech, top_k=1.5),
    "window=nan": lambda recognize, speech: recognize(speech, window=float("nan")),
    "pause='long'": lambda recognize, speech: recognize(speech, pause="long"),
    "an unknown option": lambda recognize, speech: recognize(speech, return_timestamps=True),
    "an empty list": lambda recognize, speech: recognize([]) or recognize(speech),
    "batch_size=0": lambda recognize, speech: recognize(speech, batch_size=0),
}
