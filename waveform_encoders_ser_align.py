"""Adapters of the encoders that take raw waveforms; encoders_ser_align.py says what an adapter is.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, SequenceFeatureExtractor, Wav2Vec2FeatureExtractor
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module
from transformers.masking_utils import create_bidirectional_mask

try:
    from .exact_ser_align import (
        ExactFeatureEncoder,
        ExactPositionalConvolutions,
        Lengths,
        count_conv_frames,
        make_conformer_exact,
        zero_padding,
    )
    from .fields_ser_align import SAMPLING_RATE
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from exact_ser_align import (
        ExactFeatureEncoder,
        ExactPositionalConvolutions,
        Lengths,
        count_conv_frames,
        make_conformer_exact,
        zero_padding,
    )
    from fields_ser_align import SAMPLING_RATE

Encoder = Any  # a PreTrainedModel; torch types its modules as Tensor | Module


class WaveformFamily:
    """Encoders that take raw waveforms and have unpadded convolutions: wav2vec 2.0 and its relatives."""

    input_name = "input_values"
    input_unit = "samples"
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")  # linear layers that LoRA adapts by default
    never_called: tuple[str, ...] = ()  # linear layers whose weights are used without calling them
    uses_published_extractor = True  # the feature extractor of a pretrained encoder

    # ---------------------------------------------------------------------------------- configuration

    def count_frames(self, config: PreTrainedConfig, lengths: Lengths) -> Lengths:
        """Convert units of the input to frames: (batch,), or a single length."""
        return count_conv_frames(lengths, config.conv_kernel, config.conv_stride)

    def compute_frame_seconds(self, config: PreTrainedConfig) -> float:
        return math.prod(config.conv_stride) / SAMPLING_RATE

    def compute_unit_seconds(self, config: PreTrainedConfig) -> float:
        """Duration of one unit of the input."""
        return 1 / SAMPLING_RATE

    def compute_receptive_field(self, config: PreTrainedConfig) -> int:
        """Length of the shortest input that gives one frame, in units of the input."""
        samples = 1
        for kernel, stride in reversed(list(zip(config.conv_kernel, config.conv_stride))):
            samples = (samples - 1) * stride + kernel
        return samples

    def compute_shortest_samples(self, config: PreTrainedConfig) -> int:
        """Length of the shortest recording that gives one frame, in samples at 16 kHz."""
        return self.compute_receptive_field(config)

    def compute_longest(self, config: PreTrainedConfig) -> int | None:
        """Length of the longest input, in units of the input; None if there is no limit."""
        return None

    def get_input_width(self, config: PreTrainedConfig) -> int | None:
        """Number of features of a log-mel frame; None for waveforms."""
        return None

    def get_channels(self, config: PreTrainedConfig) -> int:
        """Number of features of a frame in the output of the convolutions."""
        return config.conv_dim[-1]

    def count_rows(self, config: PreTrainedConfig) -> int:
        """Number of patches of the spectrogram above each other in one frame; 1 if a frame is one vector."""
        return 1

    def get_state_size(self, config: PreTrainedConfig) -> int:
        """Number of features of a frame in the input and the output of a layer."""
        return config.hidden_size

    def build_feature_extractor(self, config: PreTrainedConfig) -> SequenceFeatureExtractor:
        """Build the feature extractor of an encoder from scratch, or of one whose published extractor does not fit."""
        return Wav2Vec2FeatureExtractor(do_normalize=True)

    # -------------------------------------------------------------------------------------- encoder

    def build(self, config: PreTrainedConfig) -> Encoder:
        """Build a new encoder."""
        return AutoModel.from_config(config)

    def load(self, name_or_path: str, **options: Any) -> tuple[Encoder, dict[str, Any]]:
        """Load a pretrained encoder. Also returns the library's report of its keys."""
        return AutoModel.from_pretrained(name_or_path, output_loading_info=True, **options)

    def prepare(self, encoder: Encoder) -> None:
        """Make the encoder exact in a batch, in place. Weights and their names do not change; calling twice is safe."""
        if not isinstance(encoder.feature_extractor, ExactFeatureEncoder):
            encoder.feature_extractor = ExactFeatureEncoder(encoder.feature_extractor)
            self._prepare_layers(encoder)

    def _prepare_layers(self, encoder: Encoder) -> None:
        """Do nothing: `embed` zeroes the padding before the only positional convolution."""

    def list_convolutions(self, encoder: Encoder) -> list[nn.Module]:
        """List the modules of the convolutional feature encoder, which the paper keeps fixed."""
        return [encoder.feature_extractor]

    def list_layers(self, encoder: Encoder) -> list[nn.Module]:
        return list(encoder.encoder.layers)

    def list_after_layers(self, encoder: Encoder) -> list[nn.Module]:
        """List the modules that `finish` runs."""
        return [encoder.encoder.layer_norm] if encoder.config.do_stable_layer_norm else []

    # ---------------------------------------------------------------------------------- computation

    def convolve(self, encoder: Encoder, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """Run the convolutions: (batch, samples) and lengths, None without padding, to (batch, frames, channels)."""
        return encoder.feature_extractor(inputs, lengths).transpose(1, 2)

    def embed(self, encoder: Encoder, features: Tensor, mask: Tensor | None) -> Tensor:
        """Convert the output of the convolutions to the input of the first layer, (batch, frames, hidden).

        Args:
            mask: (batch, frames), True for frames of the utterance; None without padding.
        """
        projected = encoder.feature_projection(features)
        hidden = projected[0] if isinstance(projected, tuple) else projected
        hidden = zero_padding(self._mask_spans(encoder, hidden, mask), mask)
        return self._add_positions(encoder.encoder, hidden, mask)

    def _mask_spans(self, encoder: Encoder, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Apply SpecAugment in training."""
        config = encoder.config
        if not encoder.training:
            return hidden
        spans = None
        if config.mask_time_prob > 0 and hidden.shape[1] < config.mask_time_length:
            # The library fails on batches shorter than one of its spans: mask no time steps in them.
            spans = torch.zeros(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        return encoder._mask_hidden_states(hidden, spans, None if mask is None else mask.long())

    def _add_positions(self, stack: nn.Module, hidden: Tensor, mask: Tensor | None) -> Tensor:
        hidden = hidden + stack.pos_conv_embed(hidden)
        if not getattr(stack.config, "do_stable_layer_norm", False):
            hidden = stack.layer_norm(hidden)
        return stack.dropout(hidden)

    def run_layers(
        self, encoder: Encoder, hidden: Tensor, mask: Tensor | None, first: int = 0, last: int | None = None
    ) -> list[Tensor]:
        """Run the layers `first` to `last` - 1; returns their outputs, each (batch, frames, hidden).

        Args:
            hidden: input of layer `first`.
            mask: (batch, frames), True for frames of the utterance; None without padding.
        """
        arguments = self._build_layer_arguments(encoder, hidden, mask)
        must_run = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(encoder)  # keeps processes in step
        states = []
        for layer in self.list_layers(encoder)[first:last]:
            if must_run or not self._drops(encoder.config, layer):
                output = layer(hidden, **arguments)
                hidden = output[0] if isinstance(output, tuple) else output
            states.append(hidden)
        return states

    def _drops(self, config: PreTrainedConfig, layer: nn.Module) -> bool:
        """Whether LayerDrop (Fan et al. 2020) skips a layer, in training."""
        probability = self.get_layerdrop(config)
        return layer.training and probability > 0 and bool(torch.rand([]) < probability)

    def get_layerdrop(self, config: PreTrainedConfig) -> float:
        return config.layerdrop

    def _build_layer_arguments(self, encoder: Encoder, hidden: Tensor, mask: Tensor | None) -> dict[str, Any]:
        keys = None if mask is None else mask.long()
        return {"attention_mask": create_bidirectional_mask(encoder.config, hidden, keys)}

    def drop_rows(self, encoder: Encoder, states: list[Tensor], number: int) -> list[Tensor]:
        """Drop rows of patches, the same in all states; only for encoders that have several."""
        raise NotImplementedError

    def read_frames(self, config: PreTrainedConfig, state: Tensor) -> Tensor:
        """Convert the input or output of a layer to (batch, frames, hidden)."""
        return state

    def finish(self, encoder: Encoder, hidden: Tensor) -> Tensor:
        """Run what follows the last layer: the final norm, also if only the first layers of an encoder are kept."""
        for module in self.list_after_layers(encoder):
            hidden = module(hidden)
        return hidden


class Data2VecFamily(WaveformFamily):
    """Data2Vec 1.0: a stack of positional convolutions and a norm before the layers."""

    def _prepare_layers(self, encoder: Encoder) -> None:
        encoder.encoder.pos_conv_embed = ExactPositionalConvolutions(encoder.encoder.pos_conv_embed)

    def _add_positions(self, stack: nn.Module, hidden: Tensor, mask: Tensor | None) -> Tensor:
        return stack.dropout(stack.layer_norm(hidden + stack.pos_conv_embed(hidden, mask)))

    def list_after_layers(self, encoder: Encoder) -> list[nn.Module]:
        return []


class WavLMFamily(WaveformFamily):
    """WavLM: all layers use the relative position bias of the first one."""

    lora_targets = ("intermediate_dense", "output_dense")
    never_called = ("q_proj", "k_proj", "v_proj", "out_proj")

    def _build_layer_arguments(self, encoder: Encoder, hidden: Tensor, mask: Tensor | None) -> dict[str, Any]:
        batch, frames = hidden.shape[:2]
        bias = self.list_layers(encoder)[0].attention.compute_bias(frames, frames)
        return {
            "attention_mask": None if mask is None else mask.long(),
            "position_bias": bias.unsqueeze(0).repeat(batch, 1, 1, 1).view(-1, frames, frames),
        }


class ConformerFamily(WaveformFamily):
    """Conformer: each layer gets the position embeddings."""

    lora_targets = ("linear_q", "linear_v")

    def _prepare_layers(self, encoder: Encoder) -> None:
        make_conformer_exact(encoder)

    def _add_positions(self, stack: nn.Module, hidden: Tensor, mask: Tensor | None) -> Tensor:
        return stack.dropout(hidden)

    def _build_layer_arguments(self, encoder: Encoder, hidden: Tensor, mask: Tensor | None) -> dict[str, Any]:
        arguments = super()._build_layer_arguments(encoder, hidden, mask)
        embed_positions = encoder.encoder.embed_positions
        positions = None if embed_positions is None else embed_positions(hidden)
        return {**arguments, "relative_position_embeddings": positions}

    def list_after_layers(self, encoder: Encoder) -> list[nn.Module]:
        return [encoder.encoder.layer_norm]
