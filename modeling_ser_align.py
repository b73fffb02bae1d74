"""SER-Align: speech emotion recognition that aligns the frames of an utterance with the utterance.

A speech encoder gives frames, a pooling gives the utterance vector and one weight per frame, and one
classifier labels both the utterance and each frame. Two losses align the frames with the utterance
(Byun and Lee, Future Internet 2025, 17(11), 509). Padding never changes a score: an utterance gets the
same logits alone and in a batch, for every supported encoder.

Part of the model as it travels on the Hugging Face Hub: needs torch and transformers alone.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import ModelOutput, can_return_tuple, logging

try:
    from .configuration_ser_align import SAMPLING_RATE, SERAlignConfig, refuse_attention_code
except ImportError:
    if __package__:  # inside a package the relative import must work: do not hide its error
        raise
    from configuration_ser_align import SAMPLING_RATE, SERAlignConfig, refuse_attention_code


@dataclass
class SERAlignOutput(ModelOutput):
    """What [`SERAlignForAudioClassification`] returns. B utterances, T frames, D hidden size, C classes.

    Args:
        loss: scalar, CE + eal_weight * EAL + fual_weight * FUAL; None without labels.
        logits: (B, C), utterance scores before the softmax.
        frame_logits: (B, T, C), frame scores before the softmax; meaningless where `frame_mask` is False.
        frame_weights: (B, T), attention of the pooling, sums to 1 over an utterance's frames, 0 at padding.
        frame_mask: (B, T), True on frames of the utterance, `config.frame_seconds` apart.
        embedding: (B, D), or (B, 2D) with `cls_in_embedding="concat"`: what the classifier sees.
        ce_loss: scalar, cross-entropy; None without labels.
        eal_loss: scalar, emotional attention loss before weighting; None when switched off.
        fual_loss: scalar, frame-to-utterance alignment loss before weighting; None when switched off.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    frame_logits: Tensor | None = None
    frame_weights: Tensor | None = None
    frame_mask: Tensor | None = None
    embedding: Tensor | None = None
    ce_loss: Tensor | None = None
    eal_loss: Tensor | None = None
    fual_loss: Tensor | None = None


# --------------------------------------------------------------------------------------------- losses


def emotional_attention_loss(cls_output: Tensor, frames: Tensor, frame_mask: Tensor, margin: float = 0.8) -> Tensor:
    """EAL: pulls every frame towards the CLS output until their cosine passes the margin.

    mean over frames of softplus(margin - cos(cls_output, frame)), then the mean over utterances.
    Computed in float32. Source: Byun and Lee 2025, emotional attention loss.

    Args:
        cls_output: (batch, hidden), output of the pooling encoder at the CLS position.
        frames: (batch, frames, hidden), outputs of the pooling encoder at the frames.
        frame_mask: (batch, frames), nonzero on frames of the utterance; the others do not count.
        margin: cosine above which a frame's pull fades; the paper's best is 0.8.

    Returns:
        A scalar, at least 0.
    """
    similarity = F.cosine_similarity(cls_output.float().unsqueeze(1), frames.float(), dim=-1)
    mask = frame_mask.to(similarity.dtype)
    per_utterance = (F.softplus(margin - similarity) * mask).sum(dim=1) / mask.sum(dim=1)
    return per_utterance.mean()


def frame_to_utterance_alignment_loss(
    logits: Tensor,
    frame_logits: Tensor,
    log_frame_weights: Tensor,
    direction: str = "utterance_to_frames",
    gradient: str = "both",
) -> Tensor:
    """FUAL: the weighted mean of the frames' class distributions must agree with the utterance's.

    q = softmax(logits), p = sum over frames of weight * softmax(frame_logits); KL(q || p), or KL(p || q)
    with `direction="frames_to_utterance"`; mean over utterances. Computed in float32 from
    log-probabilities. Source: Byun and Lee 2025, frame-to-utterance alignment loss.

    Args:
        logits: (batch, classes), of the utterance.
        frame_logits: (batch, frames, classes).
        log_frame_weights: (batch, frames), logarithm of the pooling's frame weights; very negative or
            minus infinity at padding, which then does not count.
        direction: `"utterance_to_frames"` or `"frames_to_utterance"`.
        gradient: `"both"`, `"frames"` or `"utterance"`: the side that is trained; the other is held constant.

    Returns:
        A scalar, at least 0.
    """
    log_utterance = F.log_softmax(logits.float(), dim=-1)
    log_each_frame = F.log_softmax(frame_logits.float(), dim=-1)
    log_frames = torch.logsumexp(log_frame_weights.float().unsqueeze(-1) + log_each_frame, dim=1)
    if gradient == "frames":
        log_utterance = log_utterance.detach()
    elif gradient == "utterance":
        log_frames = log_frames.detach()
    log_p, log_q = (log_utterance, log_frames) if direction == "utterance_to_frames" else (log_frames, log_utterance)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1).mean()


# ------------------------------------------------------------------------------------------- pooling


class Pooled(NamedTuple):
    """What a pooling returns: utterance vector, frames it weighed, their log-weights, the CLS output if any."""

    embedding: Tensor  # (batch, hidden)
    frames: Tensor  # (batch, frames, hidden)
    log_frame_weights: Tensor  # (batch, frames), float32
    cls_output: Tensor | None  # (batch, hidden)


def masked_log_softmax(scores: Tensor, frame_mask: Tensor) -> Tensor:
    """log softmax over the frames of each utterance in float32, (batch, frames); padding gets weight 0."""
    scores = scores.float().masked_fill(~frame_mask, torch.finfo(torch.float32).min)
    return F.log_softmax(scores, dim=-1)


def weighted_sum(log_frame_weights: Tensor, frames: Tensor) -> Tensor:
    """Sum of the frames by their weights: (batch, frames) and (batch, frames, hidden) to (batch, hidden)."""
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


class AttentivePooling(nn.Module):
    """Stage 1: softmax of a learned score over the frames, then the weighted sum."""

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        self.scorer = FrameScorer(config)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Pooled:
        log_weights = masked_log_softmax(self.scorer(frames), frame_mask)
        return Pooled(weighted_sum(log_weights, frames), frames, log_weights, None)


class SelfAttentionLayer(GradientCheckpointingLayer):
    """One Transformer encoder layer (Vaswani et al. 2017), norm after or before each block."""

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        hidden_size = config.encoder_config.hidden_size
        intermediate_size = config.pooling_intermediate_size or 4 * hidden_size
        self.num_heads = config.pooling_num_heads
        self.pre_norm = config.pooling_norm == "pre"
        self.dropout = config.pooling_dropout
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.feed_forward = nn.Sequential(
            nn.Linear(hidden_size, intermediate_size),
            nn.ReLU() if config.pooling_activation == "relu" else nn.GELU(),
            nn.Dropout(config.pooling_dropout),
            nn.Linear(intermediate_size, hidden_size),
        )
        self.feed_forward_norm = nn.LayerNorm(hidden_size)

    def attend(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        query, key, value = (
            projection(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=token_mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.output(attended.transpose(1, 2).flatten(-2))

    def forward(self, tokens: Tensor, token_mask: Tensor) -> Tensor:
        if self.pre_norm:
            tokens = tokens + self._drop(self.attend(self.attention_norm(tokens), token_mask))
            return tokens + self._drop(self.feed_forward(self.feed_forward_norm(tokens)))
        tokens = self.attention_norm(tokens + self._drop(self.attend(tokens, token_mask)))
        return self.feed_forward_norm(tokens + self._drop(self.feed_forward(tokens)))

    def _drop(self, hidden: Tensor) -> Tensor:
        return F.dropout(hidden, self.dropout, self.training)


class SelfAttentionPooling(nn.Module):
    """Baseline: self-attention over the frames without CLS, then the scorer of stage 1 or the mean."""

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
    """Stage 2: self-attention over [CLS; frames], then frames weighted by their similarity to the CLS output."""

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


POOLINGS = {"attentive": AttentivePooling, "self_attention": SelfAttentionPooling, "cls": CLSPooling}


# ---------------------------------------------------------------------------------- batch invariance
# Three places in the encoders let padding reach an utterance's own frames: the GroupNorm of the first
# convolution (statistics over time), convolutions that pad themselves with zeros, which alone see
# zeros beyond the end of a clip but in a batch see whatever the padding has become (positional
# convolutions of Data2Vec, depthwise ones of the Conformer), and in training mode the Conformer's
# BatchNorm, which is left as it is: evaluation uses its running statistics.


Lengths = TypeVar("Lengths", int, Tensor)


def num_output_frames(lengths: Lengths, kernels: list[int], strides: list[int]) -> Lengths:
    """Frames that unpadded convolutions give for inputs of these lengths: (batch,) to (batch,), or one to one."""
    for kernel, stride in zip(kernels, strides):
        lengths = (lengths - kernel) // stride + 1
    return lengths


def length_mask(lengths: Tensor, num_positions: int) -> Tensor:
    """(batch,) lengths to a (batch, num_positions) mask, True before the length."""
    return torch.arange(num_positions, device=lengths.device) < lengths.unsqueeze(1)


class MaskedGroupNorm(nn.GroupNorm):
    """GroupNorm with one channel a group whose mean and variance are taken over valid time steps only.

    Same weights and keys as the module it replaces; `valid_steps` (batch,) is set before each forward.
    """

    valid_steps: Tensor | None = None

    @classmethod
    def replacing(cls, norm: nn.GroupNorm) -> "MaskedGroupNorm":
        masked = cls(norm.num_groups, norm.num_channels, norm.eps)
        masked.weight, masked.bias = norm.weight, norm.bias
        return masked

    def forward(self, hidden: Tensor) -> Tensor:
        if self.valid_steps is None:
            return super().forward(hidden)
        values = hidden.float()  # (batch, channels, time)
        mask = length_mask(self.valid_steps, hidden.shape[-1]).unsqueeze(1)
        steps = self.valid_steps.view(-1, 1, 1)
        # An exported graph sums in float64: ONNX Runtime adds one step after the other, which loses digits.
        precision = torch.float64 if torch.compiler.is_exporting() else torch.float32
        mean = values.masked_fill(~mask, 0.0).sum(-1, keepdim=True, dtype=precision).float() / steps
        centred = values - mean
        variance = centred.masked_fill(~mask, 0.0).square().sum(-1, keepdim=True, dtype=precision).float() / steps
        scale = self.weight.float().view(1, -1, 1) * torch.rsqrt(variance + self.eps)
        return (centred * scale + self.bias.float().view(1, -1, 1)).to(hidden.dtype)


def _pads_itself(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv1d) and module.padding[0] > 0


def _zero_padding_frames(convolution: nn.Conv1d, inputs: tuple[Tensor]) -> tuple[Tensor]:
    (hidden,) = inputs  # (batch, channels, frames)
    steps: Tensor | None = convolution.valid_steps  # type: ignore[assignment]
    if steps is None:
        return inputs
    return (hidden.masked_fill(~length_mask(steps, hidden.shape[-1]).unsqueeze(1), 0.0),)


def _set_valid_steps(encoder: PreTrainedModel, args: tuple, kwargs: dict[str, Any]) -> None:
    attention_mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    first_steps = frames = None
    if attention_mask is not None:
        samples = attention_mask.sum(dim=-1)
        kernels, strides = encoder.config.conv_kernel, encoder.config.conv_stride
        first_steps = num_output_frames(samples, kernels[:1], strides[:1])
        frames = num_output_frames(samples, kernels, strides)
    for module in encoder.modules():
        if isinstance(module, MaskedGroupNorm):
            module.valid_steps = first_steps
        elif _pads_itself(module):
            module.valid_steps = frames  # type: ignore[assignment]


def take_extracted_features(encoder: PreTrainedModel) -> None:
    """Let the convolutional feature encoder pass on what it has made before, (batch, channels, frames), in place."""
    extractor = encoder.feature_extractor
    kind: Any = type(extractor)

    class PassingOn(kind):
        def forward(self, input_values: Tensor) -> Tensor:
            return input_values if input_values.ndim == 3 else super().forward(input_values)

    extractor.__class__ = PassingOn


def make_batch_invariant(encoder: PreTrainedModel) -> None:
    """Make a waveform encoder give an utterance the same frames alone and padded in a batch, in place.

    Weights and their names stay as they are. The encoder reads the lengths from the attention mask of
    each call, so that it is exact wherever it is called from. Doing it twice does no harm.
    """
    if getattr(encoder, "is_batch_invariant", False):
        return
    encoder.is_batch_invariant = True  # type: ignore[assignment]
    first = encoder.feature_extractor.conv_layers[0]
    if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
        first.layer_norm = MaskedGroupNorm.replacing(first.layer_norm)
    take_extracted_features(encoder)
    for module in encoder.modules():
        if _pads_itself(module):
            module.valid_steps = None  # type: ignore[assignment]
            module.register_forward_pre_hook(_zero_padding_frames)
    encoder.register_forward_pre_hook(_set_valid_steps, with_kwargs=True)


# --------------------------------------------------------------------------------------------- model


class SERAlignForAudioClassification(PreTrainedModel):
    """Speech emotion recognition by frame and utterance alignment, on any supported speech encoder.

    Args:
        config: the configuration.
        encoder: a speech encoder that already has its weights; None builds `config.encoder_config` new.
    """

    config: SERAlignConfig
    config_class = SERAlignConfig
    base_model_prefix = "encoder"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over the batch: the Trainer must scale it itself
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: SERAlignConfig, encoder: PreTrainedModel | None = None):
        super().__init__(config)
        config.validate()
        if encoder is None:
            encoder = AutoModel.from_config(config.encoder_config)
        elif encoder.config._attn_implementation is None:
            # A configuration that SERAlignConfig took over has forgotten its attention: without one, transformers
            # drops the padding mask in silence.
            encoder.set_attn_implementation("sdpa" if encoder._supports_sdpa else "eager")
        self.encoder = encoder
        if config.takes_log_mel:
            self.main_input_name = "input_features"
            if not config.log_mel_layer_norm:
                self.encoder.feature_projection.layer_norm = nn.Identity()
        else:
            make_batch_invariant(self.encoder)
        hidden_size = config.encoder_config.hidden_size
        embedding_size = hidden_size * (2 if config.pooling == "cls" and config.cls_in_embedding == "concat" else 1)
        self.pooling = POOLINGS[config.pooling](config)
        self.classifier = nn.Linear(embedding_size, config.num_labels)
        # Only FUAL teaches a frame classifier of its own, and FUAL needs the CLS output.
        separate = config.pooling == "cls" and config.frame_classifier == "separate"
        self.frame_classifier = nn.Linear(hidden_size, config.num_labels) if separate else None
        # One class serves both names; registration alone can hold only one of them.
        auto_map = getattr(config, "auto_map", None) or {}
        config.auto_map = {**auto_map, "AutoModel": "modeling_ser_align.SERAlignForAudioClassification"}
        self.post_init()
        if config.freeze_feature_encoder:
            self.freeze_feature_encoder()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, of safetensors alone; freezes the feature encoder again, which loading undoes."""
        loaded = super().from_pretrained(*args, **{**kwargs, "use_safetensors": True})
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.config.freeze_feature_encoder:
            model.freeze_feature_encoder()
        return loaded

    @classmethod
    def from_pretrained_encoder(
        cls, name_or_path: str, encoder_config: dict[str, Any] | None = None, **config_overrides: Any
    ) -> "SERAlignForAudioClassification":
        """A new pooling and classifier on a pretrained speech encoder.

        Reads bare, pre-training and CTC checkpoints alike (keys with a prefix, old weight-norm names).

        Args:
            name_or_path: Hub name or folder, such as `"facebook/wav2vec2-base"`.
            encoder_config: values of the encoder's own configuration to override, such as `{"layerdrop": 0.0}`.
            config_overrides: fields of [`SERAlignConfig`], such as `num_labels` or `id2label`.

        Raises:
            ValueError: the encoder is of an unsupported kind, or weights of it are missing in the checkpoint.
        """
        pretrained_config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **(encoder_config or {}))
        refuse_attention_code({"attn_implementation": pretrained_config._attn_implementation})
        # Old configurations carry this switch, which would turn checkpointing on for good: it belongs to the Trainer.
        vars(pretrained_config).pop("gradient_checkpointing", None)
        config = SERAlignConfig(encoder_config=pretrained_config, **config_overrides)
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # the unused heads of the checkpoint are no news; missing keys are checked below
        try:
            encoder, info = AutoModel.from_pretrained(
                name_or_path,
                config=pretrained_config,
                dtype=torch.float32,
                output_loading_info=True,
                trust_remote_code=False,
                weights_only=True,  # published encoders may be pickles
            )
        finally:
            logging.set_verbosity(verbosity)
        # SpecAugment's mask vector is absent from some published checkpoints and then starts new.
        missing = sorted(set(info["missing_keys"]) - {"masked_spec_embed"})
        if missing:
            raise ValueError(f"{name_or_path} lacks {len(missing)} weights of its encoder, among them {missing[0]}")
        return cls(config, encoder=encoder)

    def freeze_feature_encoder(self) -> None:
        """Stop training the convolutional feature encoder (stated by the paper for both stages).

        A log-mel encoder has none: nothing happens.
        """
        if not self.config.takes_log_mel:
            self.encoder.feature_extractor._freeze_parameters()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CLSPooling):
            init.normal_(module.cls_token, mean=0.0, std=self.config.cls_init_std)

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        input_features: Tensor | None = None,
    ) -> SERAlignOutput:
        """Score utterances and their frames.

        Args:
            input_values: (batch, samples), 16 kHz waveform, each utterance normalised on its own; or
                (batch, frames, channels), what [`~SERAlignForAudioClassification.extract_features`] made of it.
            attention_mask: (batch, samples or frames, as the input), 1 on the utterance, 0 on the padding to its
                right; None means that nothing is padded.
            labels: (batch,) class indices, or (batch, classes) label distributions.
            input_features: (batch, frames, features), log-mel frames, for Wav2Vec2-BERT instead of `input_values`.

        Raises:
            ValueError: no input, the other kind of input, an utterance too short for one frame, or padding
                on the left.
        """
        inputs = self._checked_inputs(input_values, input_features)
        frame_mask = self._frame_mask(inputs, attention_mask)
        frames = self._encode(inputs, attention_mask, frame_mask)
        pooled = self.pooling(frames, frame_mask)
        logits = self.classifier(pooled.embedding) / self.config.calibration_temperature
        frame_logits = (self.frame_classifier or self.classifier)(pooled.frames) / self.config.calibration_temperature
        losses = {} if labels is None else self._losses(pooled, logits, frame_logits, frame_mask, labels)
        return SERAlignOutput(
            logits=logits,
            frame_logits=frame_logits,
            frame_weights=pooled.log_frame_weights.exp(),
            frame_mask=frame_mask,
            embedding=pooled.embedding,
            **losses,
        )

    def _checked_inputs(self, input_values: Tensor | None, input_features: Tensor | None) -> Tensor:
        given, other = (input_features, input_values) if self.config.takes_log_mel else (input_values, input_features)
        if given is None or other is not None:
            model_type = self.config.encoder_config.model_type
            raise ValueError(f"a {model_type} encoder takes {self.main_input_name} and nothing else as audio")
        return given.to(self.dtype)

    def _frame_mask(self, inputs: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(batch, frames) mask of the encoder's frames; checks the lengths on the way."""
        if attention_mask is None:
            lengths = torch.full((inputs.shape[0],), inputs.shape[1], device=inputs.device)
        else:
            lengths = attention_mask.sum(dim=-1).long()
        if not torch.compiler.is_compiling():
            self._check_lengths(lengths, attention_mask, 1 if inputs.ndim == 3 else self.config.receptive_field)
        if inputs.ndim == 3:  # log-mel frames, or what the convolutions have made
            return length_mask(lengths, inputs.shape[1])
        kernels, strides = self.config.encoder_config.conv_kernel, self.config.encoder_config.conv_stride
        num_frames = num_output_frames(inputs.shape[1], kernels, strides)
        return length_mask(num_output_frames(lengths, kernels, strides), num_frames)

    def _check_lengths(self, lengths: Tensor, attention_mask: Tensor | None, needed: int) -> None:
        if lengths.numel() == 0:
            raise ValueError("the batch holds no utterance; give at least one")
        shortest, index = (value.item() for value in lengths.min(dim=0))
        if shortest < needed:
            kind = "log-mel frames" if self.config.takes_log_mel else "frames"
            given = f"{shortest} {kind}; at least {needed} is needed"
            if needed > 1:
                given = (
                    f"{shortest} samples ({shortest / SAMPLING_RATE:.4f} s at 16 kHz); one frame needs at least "
                    f"{needed} ({needed / SAMPLING_RATE:.4f} s)"
                )
            raise ValueError(f"utterance {index} of the batch has {given}: leave it out or pad it")
        if attention_mask is not None and not bool(attention_mask[:, 0].all()):
            raise ValueError("attention_mask is 0 at the first position: pad on the right (padding_side='right')")

    def _encode(self, inputs: Tensor, attention_mask: Tensor | None, frame_mask: Tensor) -> Tensor:
        """(batch, samples) or (batch, frames, features) to frames (batch, frames, hidden), zero at padding."""
        if inputs.ndim == 3 and not self.config.takes_log_mel:
            inputs = inputs.transpose(1, 2)
            attention_mask = None if attention_mask is None else self._sample_mask(attention_mask.sum(dim=-1))
        arguments: dict[str, Tensor] = {self.main_input_name: inputs}
        if attention_mask is not None:
            arguments["attention_mask"] = attention_mask.long()  # a float mask breaks SpecAugment of Wav2Vec2-BERT
        encoder_config = self.config.encoder_config
        if (
            self.training
            and encoder_config.mask_time_prob > 0
            and frame_mask.shape[1] < encoder_config.mask_time_length
        ):
            # SpecAugment refuses batches shorter than one of its spans: mask no time step there.
            arguments["mask_time_indices"] = torch.zeros_like(frame_mask)
        frames = self.encoder(**arguments).last_hidden_state
        return frames.masked_fill(~frame_mask.unsqueeze(-1), 0.0)

    def _sample_mask(self, frames: Tensor) -> Tensor:
        """(batch,) frames to the (batch, samples) mask of a waveform that gives so many, which the encoder asks for."""
        samples = self.config.receptive_field + (frames - 1) * math.prod(self.config.encoder_config.conv_stride)
        return length_mask(samples, int(samples.max()))

    @torch.no_grad()
    def extract_features(self, input_values: Tensor) -> Tensor:
        """What the convolutional feature encoder makes of one utterance: (1, samples) to (1, frames, channels).

        It stays as it is while that encoder is frozen, so that training can keep it.
        """
        _set_valid_steps(self.encoder, (), {})  # nothing is padded, whatever the batch before was
        return self.encoder.feature_extractor(input_values.to(self.dtype)).transpose(1, 2)

    def _losses(
        self, pooled: Pooled, logits: Tensor, frame_logits: Tensor, frame_mask: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """The parts that are switched on, and `loss`, their weighted sum."""
        config = self.config
        ce_loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
        losses = {"loss": ce_loss, "ce_loss": ce_loss}
        if pooled.cls_output is not None and config.eal_weight > 0:
            eal_loss = emotional_attention_loss(pooled.cls_output, pooled.frames, frame_mask, config.eal_margin)
            losses |= {"loss": losses["loss"] + config.eal_weight * eal_loss, "eal_loss": eal_loss}
        if pooled.cls_output is not None and config.fual_weight > 0:
            fual_loss = frame_to_utterance_alignment_loss(
                logits, frame_logits, pooled.log_frame_weights, config.fual_direction, config.fual_gradient
            )
            losses |= {"loss": losses["loss"] + config.fual_weight * fual_loss, "fual_loss": fual_loss}
        return losses


SERAlignForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
