"""Adapters of the encoders that take log-mel frames; encoders_ser_align.py says what an adapter is.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, SequenceFeatureExtractor, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

try:
    from .exact_ser_align import Lengths, make_length_mask, zero_padding
    from .feature_extraction_ser_align import HOP, WINDOW, SERAlignFeatureExtractor
    from .fields_ser_align import SAMPLING_RATE
    from .waveform_encoders_ser_align import ConformerFamily, Encoder, WaveformFamily
    from .whisper_features_ser_align import SERAlignWhisperFeatureExtractor
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from exact_ser_align import Lengths, make_length_mask, zero_padding
    from feature_extraction_ser_align import HOP, WINDOW, SERAlignFeatureExtractor
    from fields_ser_align import SAMPLING_RATE
    from waveform_encoders_ser_align import ConformerFamily, Encoder, WaveformFamily
    from whisper_features_ser_align import SERAlignWhisperFeatureExtractor

NUM_MEL_BINS = 80  # of Wav2Vec2-BERT


class LogMelFamily(ConformerFamily):
    """Wav2Vec2-BERT, which takes stacked log-mel frames; the library already masks padding in its convolutions."""

    input_name = "input_features"
    input_unit = "log-mel frames"

    def count_frames(self, config: PreTrainedConfig, lengths: Lengths) -> Lengths:
        """Return the number of stacked log-mel frames: the encoder outputs one frame for each."""
        return lengths

    def count_stacked_frames(self, config: PreTrainedConfig) -> int:
        """Number of 10 ms log-mel frames in one input frame of the encoder."""
        return config.feature_projection_input_dim // NUM_MEL_BINS

    def compute_frame_seconds(self, config: PreTrainedConfig) -> float:
        return HOP / SAMPLING_RATE * self.count_stacked_frames(config)

    def compute_unit_seconds(self, config: PreTrainedConfig) -> float:
        return self.compute_frame_seconds(config)

    def compute_receptive_field(self, config: PreTrainedConfig) -> int:
        return 1

    def compute_shortest_samples(self, config: PreTrainedConfig) -> int:
        return WINDOW + (self.count_stacked_frames(config) - 1) * HOP

    def get_input_width(self, config: PreTrainedConfig) -> int | None:
        return config.feature_projection_input_dim

    def get_channels(self, config: PreTrainedConfig) -> int:
        return config.feature_projection_input_dim

    def build_feature_extractor(self, config: PreTrainedConfig) -> SequenceFeatureExtractor:
        return SERAlignFeatureExtractor(stride=self.count_stacked_frames(config))

    def prepare(self, encoder: Encoder) -> None:
        """Do nothing: it is already exact in a batch."""

    def list_convolutions(self, encoder: Encoder) -> list[nn.Module]:
        """List nothing: it has no convolutional feature encoder."""
        return []

    def convolve(self, encoder: Encoder, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        return inputs

    def _build_layer_arguments(self, encoder: Encoder, hidden: Tensor, mask: Tensor | None) -> dict[str, Any]:
        arguments = super()._build_layer_arguments(encoder, hidden, mask)
        return {**arguments, "conv_attention_mask": None if mask is None else mask.long()}

    def list_after_layers(self, encoder: Encoder) -> list[nn.Module]:
        return [] if encoder.intermediate_ffn is None else [encoder.intermediate_ffn]

    def finish(self, encoder: Encoder, hidden: Tensor) -> Tensor:
        return hidden if encoder.intermediate_ffn is None else hidden + 0.5 * encoder.intermediate_ffn(hidden)


class WhisperFamily(WaveformFamily):
    """The encoder of Whisper, on inputs as long as the utterance; the library's own forward pass takes exactly 30 s."""

    input_name = "input_features"
    input_unit = "log-mel frames"
    uses_published_extractor = False  # it pads to 30 s

    def count_frames(self, config: PreTrainedConfig, lengths: Lengths) -> Lengths:
        """Convert log-mel frames of 10 ms to frames: the second convolution has stride 2."""
        return (lengths - 1) // 2 + 1

    def compute_frame_seconds(self, config: PreTrainedConfig) -> float:
        return 2 * HOP / SAMPLING_RATE

    def compute_unit_seconds(self, config: PreTrainedConfig) -> float:
        return HOP / SAMPLING_RATE

    def compute_receptive_field(self, config: PreTrainedConfig) -> int:
        return 1

    def compute_shortest_samples(self, config: PreTrainedConfig) -> int:
        return HOP

    def compute_longest(self, config: PreTrainedConfig) -> int | None:
        return 2 * config.max_source_positions

    def get_input_width(self, config: PreTrainedConfig) -> int | None:
        return config.num_mel_bins

    def get_channels(self, config: PreTrainedConfig) -> int:
        return config.hidden_size

    def build_feature_extractor(self, config: PreTrainedConfig) -> SequenceFeatureExtractor:
        return SERAlignWhisperFeatureExtractor(config.num_mel_bins, longest=self.compute_longest(config))

    def build(self, config: PreTrainedConfig) -> Encoder:
        return WhisperEncoder._from_config(config)

    def load(self, name_or_path: str, **options: Any) -> tuple[Encoder, dict[str, Any]]:
        """Load the encoder of any Whisper checkpoint; the decoder is not read."""
        options |= {"key_mapping": {r"^(model\.)?encoder\.": ""}, "output_loading_info": True}
        return WhisperEncoder.from_pretrained(name_or_path, **options)  # type: ignore[return-value]

    def prepare(self, encoder: Encoder) -> None:
        """Do nothing: `convolve` zeroes the padding."""

    def list_convolutions(self, encoder: Encoder) -> list[nn.Module]:
        return [encoder.conv1, encoder.conv2]

    def list_layers(self, encoder: Encoder) -> list[nn.Module]:
        return list(encoder.layers)

    def convolve(self, encoder: Encoder, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """Run the convolutions: (batch, log-mel frames, mel bins) to (batch, frames, hidden).

        Both are zero-padded, so both see zeros at the padding, as they do beyond the end of a single utterance.
        """
        mask = None if lengths is None else make_length_mask(lengths, inputs.shape[1])
        hidden = zero_padding(self._mask_spans(encoder, inputs, mask), mask)
        hidden = nn.functional.gelu(encoder.conv1(hidden.transpose(1, 2))).transpose(1, 2)
        hidden = zero_padding(hidden, mask)
        return nn.functional.gelu(encoder.conv2(hidden.transpose(1, 2))).transpose(1, 2)

    def _mask_spans(self, encoder: Encoder, hidden: Tensor, mask: Tensor | None) -> Tensor:
        config = encoder.config
        if not (encoder.training and config.apply_spec_augment) or hidden.shape[1] < config.mask_time_length:
            return hidden
        features = hidden.transpose(1, 2).clone()  # the library writes into it
        keys = None if mask is None else mask.long()
        return WhisperModel._mask_input_features(encoder, features, keys).transpose(1, 2)  # type: ignore[arg-type]

    def embed(self, encoder: Encoder, features: Tensor, mask: Tensor | None) -> Tensor:
        hidden = features + encoder.embed_positions.weight[: features.shape[1]]
        return nn.functional.dropout(hidden, encoder.dropout, encoder.training)

    def get_layerdrop(self, config: PreTrainedConfig) -> float:
        return config.encoder_layerdrop

    def list_after_layers(self, encoder: Encoder) -> list[nn.Module]:
        return [encoder.layer_norm]
