"""The pooling layers of SER-Align, which turn frames into an utterance vector and one weight per frame.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

try:
    from .configuration_ser_align import SERAlignConfig
    from .dimensions_ser_align import list_signs, normalize_values, read_scales
    from .exact_ser_align import zero_padding
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from configuration_ser_align import SERAlignConfig
    from dimensions_ser_align import list_signs, normalize_values, read_scales
    from exact_ser_align import zero_padding


class Pooled(NamedTuple):
    """Output of a pooling layer: utterance vector, weighted frames, their log-weights, and the CLS output, if any."""

    embedding: Tensor  # (batch, hidden)
    frames: Tensor  # (batch, frames, hidden)
    log_frame_weights: Tensor  # (batch, frames), float32
    cls_output: Tensor | None  # (batch, hidden)


def masked_log_softmax(scores: Tensor, frame_mask: Tensor) -> Tensor:
    """Log-softmax over the frames of each utterance in float32, (batch, frames); padding gets weight 0."""
    scores = scores.float().masked_fill(~frame_mask, torch.finfo(torch.float32).min)
    return F.log_softmax(scores, dim=-1)


def weighted_sum(log_frame_weights: Tensor, frames: Tensor) -> Tensor:
    """Weighted sum of the frames: (batch, frames) and (batch, frames, hidden) to (batch, hidden)."""
    return (log_frame_weights.exp().to(frames.dtype).unsqueeze(-1) * frames).sum(dim=1)


class FrameScorer(nn.Module):
    """One score per frame, v^T tanh(W h + b) or v^T h: (batch, frames, hidden) to (batch, frames)."""

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        hidden_size = config.encoder_config.hidden_size
        if config.attentive_scorer == "tanh":
            width = config.attentive_hidden_size or hidden_size
            self.scorer = nn.Sequential(nn.Linear(hidden_size, width), nn.Tanh(), nn.Linear(width, 1, bias=False))
        else:
            self.scorer = nn.Sequential(nn.Linear(hidden_size, 1, bias=False))

    def forward(self, frames: Tensor) -> Tensor:
        return self.scorer(frames).squeeze(-1)


class LayerMix(nn.Module):
    """Learned weighted sum of the layers' outputs (SUPERB, Yang et al. 2021); the softmax weights start uniform.

    Takes the input of the first layer and the output of each, (batch, frames, hidden). With `layer_mix="normalized"`,
    each is normalised over its hidden dimension first, so that its weight does not depend on its scale.
    """

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        self.normalizes = config.layer_mix == "normalized"
        self.weights = nn.Parameter(torch.zeros(config.encoder_config.num_hidden_layers + 1))

    def forward(self, states: list[Tensor]) -> Tensor:
        if self.normalizes:
            states = [F.layer_norm(state, state.shape[-1:]) for state in states]
        weights = self.weights.float().softmax(dim=0).to(states[0].dtype)
        return (torch.stack(states, dim=-1) * weights).sum(dim=-1)


class AttentivePooling(nn.Module):
    """Stage 1: softmax over learned frame scores, then the weighted sum of the frames."""

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        self.scorer = FrameScorer(config)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Pooled:
        log_weights = masked_log_softmax(self.scorer(frames), frame_mask)
        return Pooled(weighted_sum(log_weights, frames), frames, log_weights, None)


class MeanPooling(nn.Module):
    """The mean of the frames."""

    def __init__(self, config: SERAlignConfig):
        super().__init__()

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Pooled:
        log_weights = masked_log_softmax(frames.new_zeros(frames.shape[:2]), frame_mask)
        return Pooled(weighted_sum(log_weights, frames), frames, log_weights, None)


class MaxPooling(nn.Module):
    """The largest value of each dimension; a frame's weight is the share of dimensions in which it is the largest."""

    def __init__(self, config: SERAlignConfig):
        super().__init__()

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Pooled:
        lowest = torch.finfo(frames.dtype).min
        embedding, largest = frames.masked_fill(~frame_mask.unsqueeze(-1), lowest).max(dim=1)
        positions = torch.arange(frames.shape[1], device=frames.device)
        weights = (largest.unsqueeze(1) == positions.unsqueeze(-1)).float().mean(dim=-1)
        return Pooled(embedding, frames, weights.log(), None)


class SelfAttention(GradientCheckpointingLayer):
    """Multi-head self-attention over the frames, added to them."""

    def __init__(self, config: SERAlignConfig, scale: float | None = None):
        super().__init__()
        hidden_size = config.encoder_config.hidden_size
        self.scale = scale  # of the products; None divides by the square root of the size of a head
        self.num_heads = config.pooling_num_heads
        self.dropout = config.pooling_dropout
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def attend(self, tokens: Tensor, token_mask: Tensor, context: Tensor | None = None) -> Tensor:
        context = tokens if context is None else context
        query, key, value = (
            projection(source).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, source in ((self.query, tokens), (self.key, context), (self.value, context))
        )
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=token_mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
            scale=self.scale,
        )
        return self.output(attended.transpose(1, 2).flatten(-2))

    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        return tokens + self._drop(self.attend(tokens, token_mask))

    def read(self, tokens: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """Attention to a context, (batch, others, hidden), added to the tokens."""
        return tokens + self._drop(self.attend(tokens, context_mask, context))

    def _drop(self, hidden: Tensor) -> Tensor:
        return F.dropout(hidden, self.dropout, self.training)


class SelfAttentionLayer(SelfAttention):
    """One Transformer encoder layer (Vaswani et al. 2017), with layer norm after or before each block."""

    def __init__(self, config: SERAlignConfig):
        super().__init__(config)
        hidden_size = config.encoder_config.hidden_size
        intermediate_size = config.pooling_intermediate_size or 4 * hidden_size
        self.pre_norm = config.pooling_norm == "pre"
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden_size, intermediate_size),
            nn.ReLU() if config.pooling_activation == "relu" else nn.GELU(),
            nn.Dropout(config.pooling_dropout),
            nn.Linear(intermediate_size, hidden_size),
        )
        self.feed_forward_norm = nn.LayerNorm(hidden_size)

    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        if self.pre_norm:
            tokens = tokens + self._drop(self.attend(self.attention_norm(tokens), token_mask))
            return tokens + self._drop(self.feed_forward(self.feed_forward_norm(tokens)))
        tokens = self.attention_norm(tokens + self._drop(self.attend(tokens, token_mask)))
        return self.feed_forward_norm(tokens + self._drop(self.feed_forward(tokens)))


class SelfAttentionPooling(nn.Module):
    """Baseline: self-attention over the frames without CLS, then the attentive scorer of stage 1, or the mean."""

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        self.layers = nn.ModuleList([SelfAttentionLayer(config) for _ in range(config.pooling_num_layers)])
        self.scorer = FrameScorer(config) if config.self_attention_readout == "attentive" else None

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Pooled:
        for layer in self.layers:
            frames = layer(frames, frame_mask)
        scores = frames.new_zeros(frames.shape[:2]) if self.scorer is None else self.scorer(frames)
        log_weights = masked_log_softmax(scores, frame_mask)
        return Pooled(weighted_sum(log_weights, frames), frames, log_weights, None)


class CLSPooling(nn.Module):
    """Stage 2: self-attention over [CLS; frames], then frames weighted by similarity to the CLS output."""

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        hidden_size = config.encoder_config.hidden_size
        self.cls_token = nn.Parameter(torch.empty(hidden_size))
        self.layers = nn.ModuleList([SelfAttentionLayer(config) for _ in range(config.pooling_num_layers)])
        self.similarity = config.frame_similarity
        self.temperature = config.frame_temperature or (math.sqrt(hidden_size) if self.similarity == "dot" else 0.1)
        self.cls_in_embedding = config.cls_in_embedding

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Pooled:
        cls_token = self.cls_token.to(frames.dtype).expand(frames.shape[0], 1, -1)
        tokens = torch.cat([cls_token, frames], dim=1)
        token_mask = F.pad(frame_mask, (1, 0), value=True)
        for layer in self.layers:
            tokens = layer(tokens, token_mask)
        cls_output, frames = tokens[:, 0], tokens[:, 1:]
        log_weights = masked_log_softmax(self._similarity(cls_output, frames) / self.temperature, frame_mask)
        embedding = weighted_sum(log_weights, frames)
        if self.cls_in_embedding == "add":
            embedding = embedding + cls_output
        elif self.cls_in_embedding == "concat":
            embedding = torch.cat([embedding, cls_output], dim=-1)
        return Pooled(embedding, frames, log_weights, cls_output)

    def _similarity(self, cls_output: Tensor, frames: Tensor) -> Tensor:
        cls_output, frames = cls_output.float().unsqueeze(1), frames.float()
        if self.similarity == "cosine":
            return F.cosine_similarity(cls_output, frames, dim=-1)
        return (cls_output * frames).sum(dim=-1)


class FLAMPooling(nn.Module):
    """Frame-level attention (Wang et al., arXiv 2512.04551): H = attention(F) + F, weights softmax_t(w^T h_t).

    Norms and a feed-forward layer are not part of it, as far as is known.
    """

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        self.attention = SelfAttention(config)
        self.scorer = nn.Linear(config.encoder_config.hidden_size, 1, bias=False)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Pooled:
        frames = self.attention(frames, frame_mask)
        log_weights = masked_log_softmax(self.scorer(frames).squeeze(-1), frame_mask)
        return Pooled(weighted_sum(log_weights, frames), frames, log_weights, None)


class GatedConvolution(nn.Module):
    """Convolution over 5 frames with a gated linear unit (Dauphin et al. 2017), added to them; exact in a batch."""

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        hidden_size = config.encoder_config.hidden_size
        self.dropout = config.pooling_dropout
        self.convolution = nn.Conv1d(hidden_size, 2 * hidden_size, kernel_size=5, padding=2)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        frames = zero_padding(frames, frame_mask)
        gated = F.glu(self.convolution(frames.transpose(1, 2)), dim=1).transpose(1, 2)
        return frames + F.dropout(gated, self.dropout, self.training)


class StylePooling(nn.Module):
    """Style pooling of EmoSphere-SER (Cho et al., arXiv 2505.19693), as in the authors' code.

    Two linear layers with Mish, two gated convolutions, self-attention with a residual, a linear layer, and the mean.
    """

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        hidden_size = config.encoder_config.hidden_size
        self.spectral = nn.Sequential(
            *(nn.Linear(hidden_size, hidden_size), nn.Mish(), nn.Dropout(config.pooling_dropout)),
            *(nn.Linear(hidden_size, hidden_size), nn.Mish(), nn.Dropout(config.pooling_dropout)),
        )
        self.temporal = nn.ModuleList([GatedConvolution(config) for _ in range(2)])
        self.attention = SelfAttention(config, scale=1 / math.sqrt(hidden_size))
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Pooled:
        frames = self.spectral(frames)
        for convolution in self.temporal:
            frames = convolution(frames, frame_mask)
        frames = self.output(self.attention(frames, frame_mask))
        log_weights = masked_log_softmax(frames.new_zeros(frames.shape[:2]), frame_mask)
        return Pooled(weighted_sum(log_weights, frames), frames, log_weights, None)


def make_dimension_head(config: SERAlignConfig, size: int, outputs: int) -> nn.Module:
    """The head of EmoSphere-SER (Cho et al., arXiv 2505.19693), (..., size) to (..., outputs), as in its code."""
    dropout = config.dimension_dropout
    layers = (nn.Dropout(dropout), nn.Linear(size, size), nn.LayerNorm(size), nn.ReLU(), nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(size, outputs))


class DimensionHead(nn.Module):
    """Values of the dimensions on their own scales, calibrated: (..., size) to (..., dimensions), float32."""

    def __init__(self, config: SERAlignConfig, size: int):
        super().__init__()
        assert config.dimensions is not None
        self.config = config
        self.layers = make_dimension_head(config, size, len(config.dimensions))

    def forward(self, vectors: Tensor) -> Tensor:
        config = self.config
        middles, halves = (torch.tensor(part, device=vectors.device) for part in read_scales(config.dimensions))
        values = middles + halves * self.layers(vectors).float()
        if config.dimension_calibration is None:
            return values
        slopes, intercepts, _ = torch.tensor(config.dimension_calibration, device=vectors.device).T
        return slopes * values + intercepts

    def score_regions(self, values: Tensor) -> Tensor:
        """Logits of the regions: (..., dimensions) to (..., regions).

        Each dimension is high or low by itself: the softmax is the product of a sigmoid of each distance to the middle.
        """
        signs = torch.tensor(list_signs(values.shape[-1]), device=values.device)
        return normalize_values(values, self.config.dimensions) @ signs.T


def make_classifier(config: SERAlignConfig, size: int) -> nn.Module:
    """A classifier of vectors of this size, (..., size) to (..., classes): linear, or with a hidden layer.

    The hidden layer is that of the MLP head of Onyekwelu-Udoka et al. 2025, https://arxiv.org/abs/2511.00402.
    """
    hidden = config.classifier_hidden_size
    if hidden == 0:
        return nn.Linear(size, config.num_labels)
    layers = (
        nn.LayerNorm(size),
        nn.Linear(size, hidden),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(hidden, config.num_labels),
    )
    return nn.Sequential(*layers)


class StatisticsClassifier(nn.Module):
    """Logits from the mean and standard deviation over time of the first layers' outputs, which are frozen.

    Few speakers overfit an encoder sooner than a linear classifier, and their errors differ, so the sum of both logits
    is right more often than either. The weights are zero until a logistic regression replaces them, so that they do not
    change how the rest is trained.
    """

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        self.num_layers = config.statistics_layers
        features = 2 * self.num_layers * config.encoder_config.hidden_size
        self.weight = nn.Parameter(torch.zeros(config.num_labels, features), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(config.num_labels), requires_grad=False)

    def describe(self, states: list[Tensor], frame_mask: Tensor) -> Tensor:
        """The statistics of layers 1 to n, whose outputs follow the input of layer 1: (batch, features), float32."""
        frames = torch.cat(states[1 : self.num_layers + 1], dim=-1).float()
        valid = frame_mask.unsqueeze(-1).to(frames.dtype)
        count = valid.sum(dim=1)
        mean = (frames * valid).sum(dim=1) / count
        variance = ((frames - mean.unsqueeze(1)).square() * valid).sum(dim=1) / count
        return torch.cat([mean, variance.sqrt()], dim=-1)

    def forward(self, states: list[Tensor], frame_mask: Tensor) -> Tensor:
        statistics = self.describe(states, frame_mask)
        return F.linear(statistics, self.weight.float(), self.bias.float()).to(states[0].dtype)


POOLINGS = {
    "attentive": AttentivePooling,
    "self_attention": SelfAttentionPooling,
    "cls": CLSPooling,
    "mean": MeanPooling,
    "max": MaxPooling,
    "flam": FLAMPooling,
    "style": StylePooling,
}
