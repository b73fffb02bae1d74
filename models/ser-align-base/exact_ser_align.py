"""Modules that give an utterance the same frames alone and in a padded batch.

In transformers, padding affects the frames of an utterance in three places:

- the GroupNorm of the first convolution computes its statistics over time, including padding;
- zero-padded convolutions (positional in Data2Vec, depthwise in the Conformer, both in Whisper) see zeros beyond the
  end of a single utterance, but in a batch they see the activations of the padding;
- the Conformer's BatchNorm includes padding in training mode. It is left unchanged: evaluation uses its running
  statistics.

Each module reuses the modules of the library and their names. The lengths of a batch are arguments, never state: two
threads may share a model, and activation checkpointing recomputes a layer with the arguments of its own call.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

import threading
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoderLayer

Lengths = TypeVar("Lengths", int, Tensor)


def count_conv_frames(lengths: Lengths, kernels: list[int], strides: list[int]) -> Lengths:
    """Count the frames that unpadded convolutions output for inputs of these lengths: (batch,), or a single length."""
    for kernel, stride in zip(kernels, strides):
        lengths = (lengths - kernel) // stride + 1
    return lengths


def make_length_mask(lengths: Tensor, num_positions: int) -> Tensor:
    """Convert (batch,) lengths to a (batch, num_positions) mask that is True below each length."""
    return torch.arange(num_positions, device=lengths.device) < lengths.unsqueeze(1)


def zero_padding(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Set (batch, frames, hidden) to zero where the (batch, frames) mask is False; None masks nothing."""
    return hidden if mask is None else hidden.masked_fill(~mask.unsqueeze(-1), 0.0)


def average_neighbours(hidden: Tensor, mask: Tensor | None, size: int) -> tuple[Tensor, Tensor | None]:
    """Average each group of `size` neighbouring frames; the last group of an utterance may have fewer.

    Args:
        hidden: (batch, frames, hidden).
        mask: (batch, frames), True for frames of the utterance; None if nothing is padded.

    Returns:
        (batch, ceil(frames / size), hidden) and their mask.
    """
    if size == 1:
        return hidden, mask
    valid = hidden.new_ones(hidden.shape[:2]) if mask is None else mask.to(hidden.dtype)
    count = _sum_neighbours(valid.unsqueeze(-1), size)
    averaged = _sum_neighbours(zero_padding(hidden, mask), size) / count.clamp(min=1)
    return averaged, None if mask is None else count.squeeze(-1) > 0


def _sum_neighbours(hidden: Tensor, size: int) -> Tensor:
    padded = nn.functional.pad(hidden, (0, 0, 0, size - 1))
    return sum(padded[:, start : start + hidden.shape[1] : size] for start in range(size))  # type: ignore[return-value]


def draw_frames(mask: Tensor, dropped: float) -> tuple[Tensor, Tensor]:
    """Draw the frames of each utterance that are kept, in their order and at least one.

    Args:
        mask: (batch, frames), True for frames of the utterance.
        dropped: share of the frames of each utterance to drop.

    Returns:
        their indices, (batch, most kept frames), and the mask of these.
    """
    lengths = mask.sum(dim=1)
    counts = (lengths - (dropped * lengths).long()).clamp(min=1)
    ranks = torch.rand(mask.shape, device=mask.device).masked_fill(~mask, 2.0).argsort(dim=1).argsort(dim=1)
    is_kept = ranks < counts.unsqueeze(1)
    most = int(counts.max())
    kept = (~is_kept).long().argsort(dim=1, stable=True)[:, :most]
    return kept, make_length_mask(counts, most)


def take_frames(hidden: Tensor, kept: Tensor) -> Tensor:
    """(batch, frames, hidden) and the indices of some frames, (batch, kept), to (batch, kept, hidden)."""
    return hidden.gather(1, kept.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


# ------------------------------------------------------------------------------- waveform encoders


def normalize_over_time(norm: nn.GroupNorm, hidden: Tensor, steps: Tensor) -> Tensor:
    """GroupNorm with one channel per group; mean and variance are computed over valid steps only.

    Args:
        norm: provides the weight, bias and eps.
        hidden: (batch, channels, time).
        steps: (batch,), valid time steps.
    """
    values = hidden.float()
    mask = make_length_mask(steps, hidden.shape[-1]).unsqueeze(1)
    count = steps.view(-1, 1, 1)
    # An exported graph sums in float64: ONNX Runtime adds step by step, which loses precision in float32.
    precision = torch.float64 if torch.compiler.is_exporting() else torch.float32
    mean = values.masked_fill(~mask, 0.0).sum(-1, keepdim=True, dtype=precision).float() / count
    centred = values - mean
    variance = centred.masked_fill(~mask, 0.0).square().sum(-1, keepdim=True, dtype=precision).float() / count
    scale = norm.weight.float().view(1, -1, 1) * torch.rsqrt(variance + norm.eps)
    return (centred * scale + norm.bias.float().view(1, -1, 1)).to(hidden.dtype)


class ExactGroupNormConvolution(GradientCheckpointingLayer):
    """The first convolution of an encoder with GroupNorm: (batch, 1, samples) to (batch, channels, steps)."""

    layer_norm: nn.GroupNorm

    def __init__(self, layer: Any):
        super().__init__()
        self.conv = layer.conv
        self.layer_norm = layer.layer_norm
        self.activation = layer.activation

    def forward(self, hidden: Tensor, lengths: Tensor | None = None) -> Tensor:
        hidden = self.conv(hidden)
        if lengths is None:
            return self.activation(self.layer_norm(hidden))
        steps = count_conv_frames(lengths, list(self.conv.kernel_size), list(self.conv.stride))
        return self.activation(normalize_over_time(self.layer_norm, hidden, steps))


class ExactFeatureEncoder(nn.Module):
    """The convolutional feature encoder: (batch, samples) and their lengths to (batch, channels, frames)."""

    conv_layers: nn.ModuleList

    def __init__(self, feature_encoder: Any):
        super().__init__()
        self.conv_layers = feature_encoder.conv_layers
        first = self.conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            self.conv_layers[0] = ExactGroupNormConvolution(first)

    def forward(self, input_values: Tensor, lengths: Tensor | None = None) -> Tensor:
        hidden = input_values[:, None]
        first, *rest = self.conv_layers
        if self.training and first.conv.weight.requires_grad:
            hidden.requires_grad = True  # activation checkpointing needs an input with gradients
        hidden = first(hidden, lengths) if isinstance(first, ExactGroupNormConvolution) else first(hidden)
        for layer in rest:
            hidden = layer(hidden)
        return hidden


class ExactPositionalConvolutions(nn.Module):
    """Data2Vec's stack of positional convolutions: (batch, frames, hidden) and their mask to (batch, frames, hidden).

    Each layer sees zeros at the padding, as it does for a single utterance.
    """

    layers: nn.ModuleList

    def __init__(self, positional: Any):
        super().__init__()
        self.layers = positional.layers

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            hidden = layer(zero_padding(hidden, mask).transpose(1, 2)).transpose(1, 2)
        return hidden


# -------------------------------------------------------------------------------------- Conformer


class _RunningLayer(threading.local):
    """Valid frames in the current call, for the convolution in a Conformer layer; one object per thread.

    A context variable would also work, but torch.compile cannot trace one.
    """

    valid_frames: Tensor | None = None  # (batch, frames), while a layer's forward runs


_RUNNING = _RunningLayer()


class ExactConformerLayer(Wav2Vec2ConformerEncoderLayer):
    """A Conformer layer whose depthwise convolution sees zeros at the padding.

    The padding is read from the layer's own attention mask, so that recomputation gets the same.
    """

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        _RUNNING.valid_frames = _read_valid_frames(attention_mask)
        try:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        finally:
            _RUNNING.valid_frames = None


def _read_valid_frames(attention_mask: Tensor | None) -> Tensor | None:
    """Convert the library's key mask, in any of its forms, to (batch, frames), True for frames of the utterance."""
    if attention_mask is None:
        return None
    keys = attention_mask[:, 0, 0] if attention_mask.ndim == 4 else attention_mask
    # An additive mask is 0 at valid keys; any other mask is nonzero there.
    return keys == 0 if keys.is_floating_point() else keys.bool()


def _zero_padding_of_call(convolution: nn.Conv1d, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Forward pre-hook of a depthwise convolution: (batch, hidden, frames)."""
    valid = _RUNNING.valid_frames
    return inputs if valid is None else (inputs[0].masked_fill(~valid.unsqueeze(1), 0.0),)


def make_conformer_exact(encoder: PreTrainedModel) -> None:
    """Replace the layers of a Conformer by exact ones, in place."""
    layers: Any = encoder.encoder.layers
    for index, layer in enumerate(layers):
        with torch.device("meta"):  # its modules are replaced below: initialise none
            exact = ExactConformerLayer(encoder.config)
        for name, module in layer.named_children():
            setattr(exact, name, module)
        exact.conv_module.depthwise_conv.register_forward_pre_hook(_zero_padding_of_call)
        layers[index] = exact
