"""Adapter of the Audio Spectrogram Transformer; encoders_ser_align.py says what an adapter is.

Its tokens are patches of the spectrogram, several above each other in each step of time, and two tokens of the whole
utterance. Here, the tokens of a step lie side by side, (batch, frames, tokens per frame * hidden), so that all else
sees frames over time; the two are repeated in each step. The frames that the model pools are means over the patches.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, SequenceFeatureExtractor

try:
    from .exact_ser_align import Lengths
    from .feature_extraction_ser_align import HOP, WINDOW, SERAlignSpectrogramExtractor
    from .fields_ser_align import SAMPLING_RATE
    from .waveform_encoders_ser_align import Encoder, WaveformFamily
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from exact_ser_align import Lengths
    from feature_extraction_ser_align import HOP, WINDOW, SERAlignSpectrogramExtractor
    from fields_ser_align import SAMPLING_RATE
    from waveform_encoders_ser_align import Encoder, WaveformFamily

NUM_SPECIAL = 2  # tokens of the whole utterance: of classification and of distillation


class SpectrogramFamily(WaveformFamily):
    """The Audio Spectrogram Transformer on inputs as long as the utterance; the library's own takes a fixed length."""

    input_name = "input_features"
    input_unit = "log-mel frames"

    def count_frames(self, config: PreTrainedConfig, lengths: Lengths) -> Lengths:
        """Convert log-mel frames of 10 ms to steps of patches that lie within the utterance."""
        return (lengths - config.patch_size) // config.time_stride + 1

    def compute_frame_seconds(self, config: PreTrainedConfig) -> float:
        return config.time_stride * HOP / SAMPLING_RATE

    def compute_unit_seconds(self, config: PreTrainedConfig) -> float:
        return HOP / SAMPLING_RATE

    def compute_receptive_field(self, config: PreTrainedConfig) -> int:
        return config.patch_size

    def compute_shortest_samples(self, config: PreTrainedConfig) -> int:
        return WINDOW + (config.patch_size - 1) * HOP

    def compute_longest(self, config: PreTrainedConfig) -> int | None:
        return config.max_length

    def get_input_width(self, config: PreTrainedConfig) -> int | None:
        return config.num_mel_bins

    def count_rows(self, config: PreTrainedConfig) -> int:
        """Number of patches above each other in one step of time."""
        return (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1

    def get_channels(self, config: PreTrainedConfig) -> int:
        return self.count_rows(config) * config.hidden_size

    def get_state_size(self, config: PreTrainedConfig) -> int:
        return (self.count_rows(config) + NUM_SPECIAL) * config.hidden_size

    def build_feature_extractor(self, config: PreTrainedConfig) -> SequenceFeatureExtractor:
        return SERAlignSpectrogramExtractor(config.num_mel_bins)

    def prepare(self, encoder: Encoder) -> None:
        """Do nothing: patches lie within the utterance, and attention masks the others."""

    def list_convolutions(self, encoder: Encoder) -> list[nn.Module]:
        return [encoder.embeddings.patch_embeddings]

    def list_layers(self, encoder: Encoder) -> list[nn.Module]:
        return list(encoder.layers)

    def list_after_layers(self, encoder: Encoder) -> list[nn.Module]:
        return [encoder.layernorm]

    def get_layerdrop(self, config: PreTrainedConfig) -> float:
        return 0.0

    def convolve(self, encoder: Encoder, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """Cut patches: (batch, log-mel frames, mel bins) to (batch, frames, rows * hidden)."""
        patches = encoder.embeddings.patch_embeddings.projection(inputs.transpose(1, 2).unsqueeze(1))
        return patches.permute(0, 3, 2, 1).flatten(2)

    def embed(self, encoder: Encoder, features: Tensor, mask: Tensor | None) -> Tensor:
        """Add the positions, cut to the length of the batch, and put the two tokens of the utterance into each step."""
        embeddings, hidden_size = encoder.embeddings, encoder.config.hidden_size
        batch, frames = features.shape[:2]
        positions = embeddings.position_embeddings[0]
        in_grid = positions[NUM_SPECIAL:].view(self.count_rows(encoder.config), -1, hidden_size)
        patches = features + in_grid[:, :frames].transpose(0, 1).flatten(1)
        special = torch.cat([embeddings.cls_token[0], embeddings.distillation_token[0]]) + positions[:NUM_SPECIAL]
        special = special.flatten().expand(batch, frames, -1)
        return embeddings.dropout(torch.cat([special, patches], dim=2))

    def run_layers(
        self, encoder: Encoder, hidden: Tensor, mask: Tensor | None, first: int = 0, last: int | None = None
    ) -> list[Tensor]:
        size = encoder.config.hidden_size
        batch, frames = hidden.shape[:2]
        patches = hidden[:, :, NUM_SPECIAL * size :].reshape(batch, -1, size)
        tokens = torch.cat([hidden[:, 0, : NUM_SPECIAL * size].view(batch, NUM_SPECIAL, size), patches], dim=1)
        if mask is not None:
            of_patches = mask.repeat_interleave(patches.shape[1] // frames, dim=1)
            mask = torch.cat([of_patches.new_ones(batch, NUM_SPECIAL), of_patches], dim=1)
        states = super().run_layers(encoder, tokens, mask, first, last)
        return [self._lay_out(state, frames) for state in states]

    def _lay_out(self, tokens: Tensor, frames: int) -> Tensor:
        """(batch, tokens, hidden) to (batch, frames, tokens per frame * hidden)."""
        batch = tokens.shape[0]
        special = tokens[:, :NUM_SPECIAL].reshape(batch, 1, -1).expand(-1, frames, -1)
        return torch.cat([special, tokens[:, NUM_SPECIAL:].reshape(batch, frames, -1)], dim=2)

    def drop_rows(self, encoder: Encoder, states: list[Tensor], number: int) -> list[Tensor]:
        rows = self.count_rows(encoder.config)
        kept = torch.randperm(rows, device=states[0].device)[number:].sort().values + NUM_SPECIAL
        kept = torch.cat([torch.arange(NUM_SPECIAL, device=kept.device), kept])
        return [state.unflatten(2, (-1, encoder.config.hidden_size))[:, :, kept].flatten(2) for state in states]

    def read_frames(self, config: PreTrainedConfig, state: Tensor) -> Tensor:
        patches = state[:, :, NUM_SPECIAL * config.hidden_size :]
        return patches.unflatten(2, (-1, config.hidden_size)).mean(dim=2)

    def finish(self, encoder: Encoder, hidden: Tensor) -> Tensor:
        tokens = hidden.unflatten(2, (-1, encoder.config.hidden_size))
        return self.read_frames(encoder.config, encoder.layernorm(tokens).flatten(2))
