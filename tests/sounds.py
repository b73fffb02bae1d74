"""Waveforms that several tests need."""

import numpy as np
import torch

from fields_ser_align import SAMPLING_RATE
from inference.onnx_export import pad_utterances


def voice(seconds, level=0.3, seed=0):
    """White noise."""
    return (level * np.random.default_rng(seed).standard_normal(int(seconds * SAMPLING_RATE))).astype(np.float32)


def voices(lengths, seed=0):
    """Noise of another gain and another offset each."""
    rng = np.random.default_rng(seed)
    gains = 10.0 ** -np.arange(len(lengths))
    return [
        (gain * (rng.standard_normal(length) * np.sin(np.arange(length) / 3000) + 0.3)).astype(np.float32)
        for gain, length in zip(gains, lengths)
    ]


def torch_batch(waveforms):
    batch = pad_utterances(waveforms)
    return torch.from_numpy(batch["waveform"]), torch.from_numpy(batch["attention_mask"])
