"""SER-Align: speech emotion recognition that aligns the frames of an utterance with the utterance.

A speech encoder outputs frames. A pooling layer turns them into an utterance vector and one weight per
frame. One classifier labels both the utterance and each frame, and two losses align the frames with the
utterance (Byun and Lee, Future Internet 2025, 17(11), 509). Padding never changes a score: an utterance
gets the same logits alone and in a batch, for every supported encoder.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

import copy
import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple, logging

try:
    from .checks_ser_align import check_inputs, check_labels, check_mask, name_damaged_weights, refuse_other_shapes
    from .configuration_ser_align import SERAlignConfig, refuse_attention_code
    from .encoders_ser_align import FAMILIES, make_length_mask
    from .fields_ser_align import SAMPLING_RATE
    from .heads_ser_align import POOLINGS, CLSPooling, Pooled
    from .losses_ser_align import emotional_attention_loss, frame_to_utterance_alignment_loss, weighted_cross_entropy
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from checks_ser_align import check_inputs, check_labels, check_mask, name_damaged_weights, refuse_other_shapes
    from configuration_ser_align import SERAlignConfig, refuse_attention_code
    from encoders_ser_align import FAMILIES, make_length_mask
    from fields_ser_align import SAMPLING_RATE
    from heads_ser_align import POOLINGS, CLSPooling, Pooled
    from losses_ser_align import emotional_attention_loss, frame_to_utterance_alignment_loss, weighted_cross_entropy


@dataclass
class SERAlignOutput(ModelOutput):
    """Output of [`SERAlignForAudioClassification`]. B utterances, T frames, D hidden size, C classes.

    Args:
        loss: scalar, CE + eal_weight * EAL + fual_weight * FUAL; None without labels.
        logits: (B, C), utterance scores before the softmax.
        frame_logits: (B, T, C), frame scores before the softmax; meaningless where `frame_mask` is False.
        frame_weights: (B, T), pooling weights, which sum to 1 over the frames of an utterance; 0 at padding.
        frame_mask: (B, T), True for frames of the utterance, which are `config.frame_seconds` apart.
        embedding: (B, D), or (B, 2D) with `cls_in_embedding="concat"`: the input of the classifier.
        ce_loss: scalar, cross-entropy; None without labels.
        eal_loss: scalar, emotional attention loss before weighting; None if disabled.
        fual_loss: scalar, frame-to-utterance alignment loss before weighting; None if disabled.
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


class SERAlignForAudioClassification(PreTrainedModel):
    """Speech emotion recognition by frame and utterance alignment, on top of any supported speech encoder.

    Args:
        config: the configuration.
        encoder: a speech encoder with its weights loaded; None builds a new one from `config.encoder_config`.
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
            # SERAlignConfig resets the attention implementation of an encoder's configuration. Without one,
            # transformers silently ignores the padding mask.
            encoder.set_attn_implementation("sdpa" if encoder._supports_sdpa else "eager")
        self.encoder = encoder
        self.main_input_name = config.family.input_name
        config.family.prepare(encoder)
        if config.takes_log_mel and not config.log_mel_layer_norm:
            encoder.feature_projection.layer_norm = nn.Identity()
        hidden_size = config.encoder_config.hidden_size
        embedding_size = hidden_size * (2 if config.pooling == "cls" and config.cls_in_embedding == "concat" else 1)
        self.pooling = POOLINGS[config.pooling](config)
        self.classifier = nn.Linear(embedding_size, config.num_labels)
        # Only FUAL trains a separate frame classifier, and FUAL needs the CLS output.
        separate = config.pooling == "cls" and config.frame_classifier == "separate"
        self.frame_classifier = nn.Linear(hidden_size, config.num_labels) if separate else None
        # One class serves AutoModel and AutoModelForAudioClassification; registration can set only one of them.
        auto_map = getattr(config, "auto_map", None) or {}
        config.auto_map = {**auto_map, "AutoModel": "modeling_ser_align.SERAlignForAudioClassification"}
        self.post_init()
        if config.freeze_feature_encoder:
            self.freeze_feature_encoder()

    @classmethod
    def from_pretrained(
        cls, *args: Any, output_loading_info: bool = False, ignore_mismatched_sizes: bool = False, **kwargs: Any
    ) -> Any:
        """As in transformers, of safetensors alone; freezes the feature encoder again, which loading undoes.

        Raises:
            ValueError: weights have other shapes than the configuration says.
            OSError: a file of weights is damaged.
        """
        kwargs |= {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
        with name_damaged_weights():
            loaded: Any = super().from_pretrained(*args, **kwargs)
        model, info = loaded
        if not ignore_mismatched_sizes:
            refuse_other_shapes(info)
        if model.config.freeze_feature_encoder:
            model.freeze_feature_encoder()
        return (model, info) if output_loading_info else model

    @classmethod
    def from_pretrained_encoder(
        cls, name_or_path: str, encoder_config: dict[str, Any] | None = None, **config_overrides: Any
    ) -> "SERAlignForAudioClassification":
        """Add a new pooling layer and classifier to a pretrained speech encoder.

        Reads bare, pre-training and CTC checkpoints, including prefixed keys and old weight-norm names.

        Args:
            name_or_path: name on the Hub, such as `"facebook/wav2vec2-base"`, or folder.
            encoder_config: values that override the encoder's own configuration, such as `{"layerdrop": 0.0}`.
            config_overrides: fields of [`SERAlignConfig`], such as `num_labels` or `id2label`.

        Raises:
            ValueError: the encoder is not supported, or its weights are missing or do not have the shapes that its
                configuration says.
            OSError: there is no such encoder, or a file of weights is damaged.
        """
        for name in config_overrides:
            if name not in {"num_labels", *(field.name for field in fields(SERAlignConfig))}:
                raise TypeError(f"{name} is not a field of SERAlignConfig, such as num_labels, id2label or pooling")
        try:
            pretrained_config = AutoConfig.from_pretrained(
                name_or_path, trust_remote_code=False, **(encoder_config or {})
            )
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            raise ValueError(
                f"{name_or_path} needs custom code, which is never run here; an encoder is one of {', '.join(FAMILIES)}"
            ) from error
        refuse_attention_code({"attn_implementation": pretrained_config._attn_implementation})
        # Old configurations contain this switch, which would enable checkpointing permanently; the Trainer controls it.
        vars(pretrained_config).pop("gradient_checkpointing", None)
        config = SERAlignConfig(encoder_config=pretrained_config, **config_overrides)
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # unused heads in the checkpoint are expected; missing keys are checked below
        try:
            with name_damaged_weights():
                encoder, info = AutoModel.from_pretrained(
                    name_or_path,
                    config=pretrained_config,
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,
                    trust_remote_code=False,
                    weights_only=True,  # published encoders may be pickles
                )
        finally:
            logging.set_verbosity(verbosity)
        refuse_other_shapes(info)
        # Some published checkpoints lack SpecAugment's mask vector, which is then newly initialised.
        missing = sorted(set(info["missing_keys"]) - {"masked_spec_embed"})
        if missing:
            raise ValueError(f"{name_or_path} is missing {len(missing)} encoder weights, for example {missing[0]}")
        return cls(config, encoder=encoder)

    def __reduce__(self) -> tuple:
        """Pickle the configuration and the weights: torch cannot pickle the weight norm of the encoders."""
        trained = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        return rebuild, (type(self), copy.deepcopy(self.config), self.state_dict(), trained, self.training)

    def __deepcopy__(self, memo: dict[int, Any]) -> "SERAlignForAudioClassification":
        """Copy like any module. Without this method, copying would use pickling and lose hooks and adapters."""
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def freeze_feature_encoder(self) -> None:
        """Freeze the convolutional feature encoder, as the paper does in both stages.

        Does nothing for log-mel encoders, which have none.
        """
        self.config.family.freeze_feature_encoder(self.encoder)

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
            input_values: (batch, samples), 16 kHz waveforms, each utterance normalised separately; or
                (batch, frames, channels), the output of [`~SERAlignForAudioClassification.extract_features`].
            attention_mask: (batch, samples) or (batch, frames), as the input; 1 for the utterance, 0 for the padding
                on its right. None means that nothing is padded.
            labels: (batch,) class indices, or (batch, classes) label distributions.
            input_features: (batch, frames, features), log-mel frames, for Wav2Vec2-BERT instead of `input_values`.

        Raises:
            ValueError: the input is missing or of the wrong kind, an utterance is too short for one frame, the batch is
                not padded on the right, or labels are neither class indices nor distributions.
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
            raise ValueError(
                f"a {model_type} encoder takes only {self.main_input_name} as audio input: compute it with the model's "
                "own feature extractor, and call model(**inputs)"
            )
        check_inputs(
            self.main_input_name,
            given,
            None if self.config.takes_log_mel else self.config.encoder_config.conv_dim[-1],
        )
        return given.to(self.dtype)

    def _frame_mask(self, inputs: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Check the lengths and compute the (batch, frames) mask of the encoder's frames."""
        if attention_mask is None:
            lengths = torch.full((inputs.shape[0],), inputs.shape[1], device=inputs.device)
        else:
            check_mask(attention_mask, inputs)
            lengths = attention_mask.sum(dim=-1).long()
        if not (torch.compiler.is_compiling() or lengths.is_meta):
            self._check_lengths(lengths, 1 if inputs.ndim == 3 else self.config.receptive_field)
        if inputs.ndim == 3:  # log-mel frames, or the output of the convolutions
            return make_length_mask(lengths, inputs.shape[1])
        family, encoder_config = self.config.family, self.config.encoder_config
        num_frames = family.count_frames(encoder_config, inputs.shape[1])
        return make_length_mask(family.count_frames(encoder_config, lengths), num_frames)

    def _check_lengths(self, lengths: Tensor, needed: int) -> None:
        if lengths.numel() == 0:
            raise ValueError("the batch is empty; it needs at least one utterance")
        shortest, index = (value.item() for value in lengths.min(dim=0))
        if shortest < needed:
            given = f"{shortest} {self.config.family.frame_unit}; at least {needed} is needed"
            if needed > 1:
                given = (
                    f"{shortest} samples ({shortest / SAMPLING_RATE:.4f} s at 16 kHz); one frame needs at least "
                    f"{needed} ({needed / SAMPLING_RATE:.4f} s)"
                )
            raise ValueError(f"utterance {index} of the batch has {given}: remove it or pad it")

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
            # SpecAugment fails on batches shorter than one of its spans: mask no time steps in them.
            arguments["mask_time_indices"] = torch.zeros_like(frame_mask)
        frames = self.encoder(**arguments).last_hidden_state
        return frames.masked_fill(~frame_mask.unsqueeze(-1), 0.0)

    def _sample_mask(self, frames: Tensor) -> Tensor:
        """(batch,) frames to the (batch, samples) mask of a waveform that gives so many, which the encoder asks for."""
        samples = self.config.receptive_field + (frames - 1) * math.prod(self.config.encoder_config.conv_stride)
        return make_length_mask(samples, int(samples.max()))

    @torch.no_grad()
    def extract_features(self, input_values: Tensor) -> Tensor:
        """Run the convolutional feature encoder on one utterance: (1, samples) to (1, frames, channels).

        The output does not change while that encoder is frozen, so training can cache it.
        """
        return self.encoder.feature_extractor(input_values.to(self.dtype)).transpose(1, 2)

    def _losses(
        self, pooled: Pooled, logits: Tensor, frame_logits: Tensor, frame_mask: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Compute the enabled losses, and `loss`, their weighted sum."""
        config, labels = self.config, check_labels(labels, *logits.shape)
        ce = weighted_cross_entropy(logits, labels, config.class_weights, config.label_smoothing)
        weighted = {"ce_loss": (1.0, ce)}
        if pooled.cls_output is not None and config.eal_weight > 0:
            eal = emotional_attention_loss(pooled.cls_output, pooled.frames, frame_mask, config.eal_margin)
            weighted["eal_loss"] = (config.eal_weight, eal)
        if pooled.cls_output is not None and config.fual_weight > 0:
            fual = frame_to_utterance_alignment_loss(
                logits, frame_logits, pooled.log_frame_weights, config.fual_direction, config.fual_gradient
            )
            weighted["fual_loss"] = (config.fual_weight, fual)
        total: Tensor = sum(weight * loss for weight, loss in weighted.values())  # type: ignore[assignment]
        return {"loss": total, **{name: loss for name, (_, loss) in weighted.items()}}


def rebuild(
    cls: type[SERAlignForAudioClassification],
    config: SERAlignConfig,
    weights: dict[str, Tensor],
    trained: list[str],
    training: bool,
) -> SERAlignForAudioClassification:
    """Rebuild a pickled model."""
    with torch.random.fork_rng():  # its initial weights are replaced, so they must not advance the random state
        model = cls(config)
    model.load_state_dict(weights, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return model.train(training)


SERAlignForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
