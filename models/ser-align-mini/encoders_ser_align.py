"""Speech encoders of transformers, one adapter for each family.

An adapter knows which input its family takes, how many frames it outputs, which part is frozen, and how to make it
exact in a batch: an utterance gets the same frames alone and in a padded batch. In transformers, padding affects the
frames of an utterance in three places:

- the GroupNorm of the first convolution computes its statistics over time, including padding;
- zero-padded convolutions (positional in Data2Vec, depthwise in the Conformer) see zeros beyond the end of a single
  utterance, but in a batch they see the activations of the padding;
- the Conformer's BatchNorm includes padding in training mode. It is left unchanged: evaluation uses its running
  statistics.

The lengths of a batch belong to the call, never to a module: two threads may share a model, and activation
checkpointing recomputes a layer with the arguments of its own call.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

import math
import threading
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, SequenceFeatureExtractor, Wav2Vec2FeatureExtractor
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoderLayer

try:
    from .feature_extraction_ser_align import HOP, WINDOW, SERAlignFeatureExtractor
    from .fields_ser_align import SAMPLING_RATE
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from feature_extraction_ser_align import HOP, WINDOW, SERAlignFeatureExtractor
    from fields_ser_align import SAMPLING_RATE

NUM_MEL_BINS = 80

Lengths = TypeVar("Lengths", int, Tensor)


def count_conv_frames(lengths: Lengths, kernels: list[int], strides: list[int]) -> Lengths:
    """Count the frames that unpadded convolutions output for inputs of these lengths: (batch,), or a single length."""
    for kernel, stride in zip(kernels, strides):
        lengths = (lengths - kernel) // stride + 1
    return lengths


def make_length_mask(lengths: Tensor, num_positions: int) -> Tensor:
    """Convert (batch,) lengths to a (batch, num_positions) mask that is True below each length."""
    return torch.arange(num_positions, device=lengths.device) < lengths.unsqueeze(1)


# ------------------------------------------------------------------------------------ exact in a batch


class BatchLengths(NamedTuple):
    """Number of valid positions of each utterance in a batch, each (batch,)."""

    first_steps: Tensor  # after the first convolution
    frames: Tensor  # of the encoder


class _RunningCall(threading.local):
    """Lengths in the current call, for the modules of an encoder; one object per thread. None means no padding.

    A context variable would also work, but torch.compile cannot trace one.
    """

    lengths: BatchLengths | None = None  # while an encoder's forward runs
    valid_frames: Tensor | None = None  # (batch, frames), while a Conformer layer's forward runs


_CALL = _RunningCall()


def _remember_lengths(encoder: PreTrainedModel, args: tuple, kwargs: dict[str, Any]) -> None:
    """Forward pre-hook of a waveform encoder."""
    attention_mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    _CALL.lengths = None
    if attention_mask is not None:
        samples = attention_mask.sum(dim=-1)
        kernels, strides = encoder.config.conv_kernel, encoder.config.conv_stride
        first_steps = count_conv_frames(samples, kernels[:1], strides[:1])
        _CALL.lengths = BatchLengths(first_steps, count_conv_frames(samples, kernels, strides))


def _forget_lengths(*_: Any) -> None:
    """Forward hook of a waveform encoder; also called if its forward pass fails."""
    _CALL.lengths = None


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
    """The first convolution of an encoder with GroupNorm; reuses the modules of the library's layer and their names.

    (batch, 1, samples) to (batch, channels, steps). The lengths are an argument, so that recomputation gets the same.
    """

    layer_norm: nn.GroupNorm

    def __init__(self, layer: Any):
        super().__init__()
        self.conv = layer.conv
        self.layer_norm = layer.layer_norm
        self.activation = layer.activation

    def forward(self, hidden: Tensor, steps: Tensor | None = None) -> Tensor:
        hidden = self.conv(hidden)
        hidden = self.layer_norm(hidden) if steps is None else normalize_over_time(self.layer_norm, hidden, steps)
        return self.activation(hidden)


class ExactFeatureEncoder(nn.Module):
    """The convolutional feature encoder; reuses the library's layers and their names.

    (batch, samples) to (batch, channels, frames). Cached output, (batch, channels, frames), is passed through.
    """

    conv_layers: nn.ModuleList

    def __init__(self, feature_encoder: Any):
        super().__init__()
        self.conv_layers = feature_encoder.conv_layers
        self._requires_grad = True
        first = self.conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            self.conv_layers[0] = ExactGroupNormConvolution(first)

    def forward(self, input_values: Tensor) -> Tensor:
        if input_values.ndim == 3:
            return input_values
        hidden = input_values[:, None]
        if self._requires_grad and self.training:
            hidden.requires_grad = True  # activation checkpointing needs an input with gradients
        lengths = _CALL.lengths
        first, *rest = self.conv_layers
        if lengths is not None and isinstance(first, ExactGroupNormConvolution):
            hidden = first(hidden, lengths.first_steps)
        else:
            hidden = first(hidden)
        for layer in rest:
            hidden = layer(hidden)
        return hidden

    def _freeze_parameters(self) -> None:
        self.requires_grad_(False)
        self._requires_grad = False


class ExactPositionalConvolutions(nn.Module):
    """Data2Vec's stack of positional convolutions; reuses the library's layers and their names.

    (batch, frames, hidden) to the same shape. Each layer sees zeros at the padding, as it does for a single utterance.
    """

    layers: nn.ModuleList

    def __init__(self, positional: Any):
        super().__init__()
        self.layers = positional.layers

    def forward(self, hidden: Tensor) -> Tensor:
        lengths = _CALL.lengths
        hidden = hidden.transpose(1, 2)
        for layer in self.layers:
            if lengths is not None:
                hidden = hidden.masked_fill(~make_length_mask(lengths.frames, hidden.shape[-1]).unsqueeze(1), 0.0)
            hidden = layer(hidden)
        return hidden.transpose(1, 2)


class ExactConformerLayer(Wav2Vec2ConformerEncoderLayer):
    """A Conformer layer whose depthwise convolution sees zeros at the padding.

    The padding is read from the layer's own attention mask, so that recomputation gets the same.
    """

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        _CALL.valid_frames = _read_valid_frames(attention_mask)
        try:
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        finally:
            _CALL.valid_frames = None


def _read_valid_frames(attention_mask: Tensor | None) -> Tensor | None:
    """Convert the library's key mask, in any of its forms, to (batch, frames), True for frames of the utterance."""
    if attention_mask is None:
        return None
    keys = attention_mask[:, 0, 0] if attention_mask.ndim == 4 else attention_mask
    # An additive mask is 0 at valid keys; any other mask is nonzero there.
    return keys == 0 if keys.is_floating_point() else keys.bool()


def _zero_padding(convolution: nn.Conv1d, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Forward pre-hook of a Conformer's depthwise convolution: (batch, hidden, frames)."""
    valid = _CALL.valid_frames
    return inputs if valid is None else (inputs[0].masked_fill(~valid.unsqueeze(1), 0.0),)


# ------------------------------------------------------------------------------------------ families


class WaveformFamily:
    """Encoders that take raw waveforms and have unpadded convolutions: wav2vec 2.0 and its relatives."""

    input_name = "input_values"
    frame_unit = "frames"

    def count_frames(self, config: PreTrainedConfig, lengths: Lengths) -> Lengths:
        """Convert samples at 16 kHz to frames: (batch,), or a single length."""
        return count_conv_frames(lengths, config.conv_kernel, config.conv_stride)

    def compute_frame_seconds(self, config: PreTrainedConfig) -> float:
        return math.prod(config.conv_stride) / SAMPLING_RATE

    def compute_receptive_field(self, config: PreTrainedConfig) -> int:
        """Length of the shortest input that gives one frame, in samples."""
        samples = 1
        for kernel, stride in reversed(list(zip(config.conv_kernel, config.conv_stride))):
            samples = (samples - 1) * stride + kernel
        return samples

    def compute_shortest_samples(self, config: PreTrainedConfig) -> int:
        """Length of the shortest recording that gives one frame, in samples at 16 kHz."""
        return self.compute_receptive_field(config)

    def build_feature_extractor(self, config: PreTrainedConfig) -> SequenceFeatureExtractor:
        """Build the feature extractor of an encoder that is trained from scratch, and so has none of its own."""
        return Wav2Vec2FeatureExtractor(do_normalize=True)

    def prepare(self, encoder: PreTrainedModel) -> None:
        """Make the encoder exact in a batch, in place. Weights and their names do not change; calling twice is safe."""
        if isinstance(encoder.feature_extractor, ExactFeatureEncoder):
            return
        encoder.feature_extractor = ExactFeatureEncoder(encoder.feature_extractor)
        self._prepare_layers(encoder)
        encoder.register_forward_pre_hook(_remember_lengths, with_kwargs=True)
        encoder.register_forward_hook(_forget_lengths, always_call=True)

    def _prepare_layers(self, encoder: PreTrainedModel) -> None:
        """Do nothing: the library zeroes the padding before its only positional convolution."""

    def freeze_feature_encoder(self, encoder: PreTrainedModel) -> None:
        encoder.feature_extractor._freeze_parameters()


class Data2VecFamily(WaveformFamily):
    def _prepare_layers(self, encoder: PreTrainedModel) -> None:
        encoder.encoder.pos_conv_embed = ExactPositionalConvolutions(encoder.encoder.pos_conv_embed)


class ConformerFamily(WaveformFamily):
    def _prepare_layers(self, encoder: PreTrainedModel) -> None:
        layers: Any = encoder.encoder.layers
        for index, layer in enumerate(layers):
            with torch.device("meta"):  # its modules are replaced below: initialise none
                exact = ExactConformerLayer(encoder.config)
            for name, module in layer.named_children():
                setattr(exact, name, module)
            exact.conv_module.depthwise_conv.register_forward_pre_hook(_zero_padding)
            layers[index] = exact


class LogMelFamily:
    """Wav2Vec2-BERT, which takes stacked log-mel frames; the library already masks padding in its convolutions."""

    input_name = "input_features"
    frame_unit = "log-mel frames"

    def count_frames(self, config: PreTrainedConfig, lengths: Lengths) -> Lengths:
        """Return the number of stacked log-mel frames: the encoder outputs one frame for each."""
        return lengths

    def count_stacked_frames(self, config: PreTrainedConfig) -> int:
        """Number of 10 ms log-mel frames in one input frame of the encoder."""
        return config.feature_projection_input_dim // NUM_MEL_BINS

    def compute_frame_seconds(self, config: PreTrainedConfig) -> float:
        return HOP / SAMPLING_RATE * self.count_stacked_frames(config)

    def compute_receptive_field(self, config: PreTrainedConfig) -> int:
        return 1

    def compute_shortest_samples(self, config: PreTrainedConfig) -> int:
        return WINDOW + (self.count_stacked_frames(config) - 1) * HOP

    def build_feature_extractor(self, config: PreTrainedConfig) -> SequenceFeatureExtractor:
        return SERAlignFeatureExtractor(stride=self.count_stacked_frames(config))

    def prepare(self, encoder: PreTrainedModel) -> None:
        """Do nothing: it is already exact in a batch."""

    def freeze_feature_encoder(self, encoder: PreTrainedModel) -> None:
        """Do nothing: it has no convolutional feature encoder."""


Family = WaveformFamily | LogMelFamily
# By the model_type of the encoder's configuration.
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat"), WaveformFamily()),
    "data2vec-audio": Data2VecFamily(),
    "wav2vec2-conformer": ConformerFamily(),
    "wav2vec2-bert": LogMelFamily(),
}


def find_family(model_type: str) -> Family:
    """Find the adapter of an encoder. Raises ValueError if it is not supported; the message lists those that are."""
    if model_type not in FAMILIES:
        raise ValueError(f"encoder_config has model_type={model_type!r}, which is not one of {', '.join(FAMILIES)}")
    return FAMILIES[model_type]
