"""SER-Align: speech emotion recognition that aligns the frames of an utterance with the utterance.

A speech encoder outputs frames. A pooling layer turns them into an utterance vector and one weight per frame. One
classifier labels both the utterance and each frame, and two losses align the frames with the utterance (Byun and Lee,
Future Internet 2025, 17(11), 509). Padding never changes a score: an utterance gets the same logits alone and in a
batch, for every supported encoder.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

import copy
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import can_return_tuple

try:
    from .checks_ser_align import name_damaged_weights, refuse_hidden_outputs, refuse_other_shapes
    from .configuration_ser_align import SERAlignConfig
    from .copying_ser_align import rebuild
    from .encoders_ser_align import load_encoder, read_pretrained_config
    from .exact_ser_align import average_neighbours, draw_frames, make_length_mask, take_frames, zero_padding
    from .heads_ser_align import POOLINGS, CLSPooling, DimensionHead, LayerMix, StatisticsClassifier, make_classifier
    from .inputs_ser_align import count_lengths, select_input
    from .objective_ser_align import Objective
    from .output_ser_align import SERAlignOutput
    from .text_ser_align import TextFusion, build_text_encoder, load_text_encoder, read_text_config, read_words
    from .tracker_ser_align import EmotionTracker
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from checks_ser_align import name_damaged_weights, refuse_hidden_outputs, refuse_other_shapes
    from configuration_ser_align import SERAlignConfig
    from copying_ser_align import rebuild
    from encoders_ser_align import load_encoder, read_pretrained_config
    from exact_ser_align import average_neighbours, draw_frames, make_length_mask, take_frames, zero_padding
    from heads_ser_align import POOLINGS, CLSPooling, DimensionHead, LayerMix, StatisticsClassifier, make_classifier
    from inputs_ser_align import count_lengths, select_input
    from objective_ser_align import Objective
    from output_ser_align import SERAlignOutput
    from text_ser_align import TextFusion, build_text_encoder, load_text_encoder, read_text_config, read_words
    from tracker_ser_align import EmotionTracker


class SERAlignForAudioClassification(PreTrainedModel):
    """Speech emotion recognition by frame and utterance alignment, on top of any supported speech encoder.

    Args:
        config: the configuration.
        encoder: a speech encoder with its weights loaded; None builds a new one from `config.encoder_config`.
        text_encoder: likewise, of a model that reads words.
    """

    config: SERAlignConfig
    config_class = SERAlignConfig
    base_model_prefix = "encoder"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over the batch: the Trainer must scale it itself
    _supports_sdpa = _supports_flash_attn = True

    def __init__(
        self,
        config: SERAlignConfig,
        encoder: PreTrainedModel | None = None,
        text_encoder: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        config.validate()
        for given in filter(None, (encoder, text_encoder)):
            if given.config._attn_implementation is None:
                # SERAlignConfig resets it; without one, transformers silently ignores the padding mask.
                given.set_attn_implementation("sdpa" if given._supports_sdpa else "eager")
        self.encoder = encoder = encoder or config.family.build(config.encoder_config)
        self.main_input_name = config.family.input_name
        config.family.prepare(encoder)
        if config.encoder_config.model_type == "wav2vec2-bert" and not config.log_mel_layer_norm:
            encoder.feature_projection.layer_norm = nn.Identity()
        self.layer_mix = None if config.layer_mix == "last" else LayerMix(config)
        hidden_size = config.encoder_config.hidden_size
        embedding_size = hidden_size * (2 if config.pooling == "cls" and config.cls_in_embedding == "concat" else 1)
        self.pooling = POOLINGS[config.pooling](config)
        self.text_encoder, self.fusion, vector_size = None, None, embedding_size
        if config.reads_text:
            self.text_encoder = text_encoder or build_text_encoder(config.text_encoder_config)
            self.fusion = TextFusion(config, embedding_size)
            vector_size = self.fusion.size
        self.dimension_head = None if config.dimensions is None else DimensionHead(config, vector_size)
        self.classifier = None if config.classes_are_regions else make_classifier(config, embedding_size)
        # Only FUAL trains a separate frame classifier, and FUAL needs the CLS output.
        separate = config.pooling == "cls" and config.frame_classifier == "separate"
        self.frame_classifier = make_classifier(config, hidden_size) if separate else None
        self.statistics_classifier = StatisticsClassifier(config) if config.statistics_layers > 0 else None
        self.objective = Objective(config, vector_size)
        # This class serves AutoModel, too, which registration cannot set.
        auto_map = getattr(config, "auto_map", None) or {}
        config.auto_map = {**auto_map, "AutoModel": "modeling_ser_align.SERAlignForAudioClassification"}
        self.post_init()
        with torch.random.fork_rng():  # the rest is trained as without it
            self.tracker = EmotionTracker(config) if config.tracker_size > 0 else None
        self.freeze()

    @classmethod
    def from_pretrained(
        cls, *args: Any, output_loading_info: bool = False, ignore_mismatched_sizes: bool = False, **kwargs: Any
    ) -> Any:
        """Same as in transformers, but reads only safetensors; freezes the fixed part, which loading unfreezes.

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
        model.freeze()
        return (model, info) if output_loading_info else model

    @classmethod
    def from_pretrained_encoder(
        cls,
        name_or_path: str,
        encoder_config: dict[str, Any] | None = None,
        text_encoder: str | None = None,
        **config_overrides: Any,
    ) -> "SERAlignForAudioClassification":
        """Add a new pooling layer and classifier to a pretrained speech encoder.

        Reads bare, pre-training, CTC and speech recognition checkpoints, including prefixed keys, old weight-norm names
        and 16-bit weights. A decoder is not loaded.

        Args:
            name_or_path: name on the Hub, such as `"facebook/wav2vec2-base"` or `"openai/whisper-base"`, or folder.
            encoder_config: values that override the encoder's own configuration, such as `{"layerdrop": 0.0}`;
                `{"num_hidden_layers": 4}` keeps the first four layers.
            text_encoder: name or folder of a text encoder, such as `"sentence-transformers/all-MiniLM-L6-v2"`, for a
                model that also reads words.
            config_overrides: fields of [`SERAlignConfig`], such as `num_labels` or `id2label`.

        Raises:
            ValueError: the encoder is not supported, or its weights are missing or do not have the shapes that its
                configuration says.
            OSError: there is no such encoder, or a file of weights is damaged.
        """
        for name in config_overrides:
            if name not in {"num_labels", *(field.name for field in fields(SERAlignConfig))}:
                raise TypeError(f"{name} is not a field of SERAlignConfig, such as num_labels, id2label or pooling")
        settings, _ = PreTrainedConfig.get_config_dict(name_or_path)
        pretrained_config = read_pretrained_config(name_or_path, settings, encoder_config or {})
        text_config = None if text_encoder is None else read_text_config(text_encoder)
        config = SERAlignConfig(encoder_config=pretrained_config, text_encoder_config=text_config, **config_overrides)
        words = None if text_encoder is None else load_text_encoder(text_encoder, config.text_encoder_config)
        return cls(config, encoder=load_encoder(name_or_path, pretrained_config), text_encoder=words)

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

    def freeze(self) -> None:
        """Freeze the parts that the configuration keeps fixed: `freeze_feature_encoder`, `freeze_encoder_layers`."""
        trained = {id(p) for module in self.list_trained_parts() for p in module.parameters()}
        if self.config.freeze_encoder_layers > 0:
            for parameter in self.encoder.parameters():
                parameter.requires_grad_(parameter.requires_grad and id(parameter) in trained)
        elif self.config.freeze_feature_encoder:
            self.freeze_feature_encoder()
        for fitted in filter(None, (self.statistics_classifier, self.tracker)):  # apart from the rest
            fitted.requires_grad_(False)
        if self.text_encoder is not None and self.config.freeze_text_encoder:
            self.text_encoder.requires_grad_(False)
        self.train(self.training)

    def freeze_feature_encoder(self) -> None:
        """Freeze the convolutional feature encoder, as the paper does in both stages; Wav2Vec2-BERT has none."""
        for module in self.config.family.list_convolutions(self.encoder):
            module.requires_grad_(False)

    def list_trained_parts(self) -> list[nn.Module]:
        """List the parts of the encoder after its fixed layers."""
        family = self.config.family
        layers = family.list_layers(self.encoder)[self.config.freeze_encoder_layers :]
        return [*layers, *family.list_after_layers(self.encoder)]

    def train(self, mode: bool = True) -> "SERAlignForAudioClassification":
        """Set the training mode; fixed layers and what precedes them stay in evaluation mode, without dropout."""
        super().train(mode)
        if self.config.freeze_encoder_layers > 0:
            self.encoder.eval()
            for module in self.list_trained_parts():
                module.train(mode)
        if self.text_encoder is not None and self.config.freeze_text_encoder:
            self.text_encoder.eval()
        return self

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, CLSPooling):
            init.normal_(module.cls_token, mean=0.0, std=self.config.cls_init_std)
        elif isinstance(module, LayerMix | StatisticsClassifier):
            for weight in module.parameters():
                init.zeros_(weight)
        elif isinstance(module, TextFusion):
            module.initialize()
        elif isinstance(module, Objective) and module.centers is not None:
            init.normal_(module.centers, mean=0.0, std=1.0)

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        input_features: Tensor | None = None,
        extracted_features: Tensor | None = None,
        dimensions: Tensor | None = None,
        teacher_frames: Tensor | None = None,
        text_ids: Tensor | None = None,
        text_mask: Tensor | None = None,
        text_states: Tensor | None = None,
        word_prosody: Tensor | None = None,
        utterance_prosody: Tensor | None = None,
    ) -> SERAlignOutput:
        """Score utterances and their frames.

        Args:
            input_values: (batch, samples), 16 kHz waveforms, each utterance normalised separately.
            attention_mask: (batch, length of the input), 0 at the padding on the right, else 1; None for no padding.
            labels: (batch,) class indices, or (batch, classes) label distributions.
            input_features: (batch, log-mel frames, features), for Wav2Vec2-BERT and Whisper instead of `input_values`.
            extracted_features: (batch, frames, features), instead of either: the output of `extract_features`.
            dimensions: (batch, dimensions), true values on their own scales; with labels, of a model that has any.
            teacher_frames: (batch, frames, features), zero-padded, that `frame_distillation_weight` compares with.
            text_ids, text_mask, text_states, word_prosody, utterance_prosody: as [`collate_words`] gives them.

        Raises:
            ValueError: the input is missing or of the wrong kind, an utterance is too short for one frame or too long
                for the encoder, the batch is not padded on the right, or labels are neither class indices nor
                distributions; or `config.output_hidden_states` or `config.output_attentions` is set.
        """
        refuse_hidden_outputs(self.config)
        states, frames, frame_mask = self._encode(input_values, attention_mask, input_features, extracted_features)
        pooled, fused = self.pooling(frames, frame_mask), None
        if self.fusion is not None:
            words = read_words(self.text_encoder, len(frames), text_ids, text_mask, text_states)
            prosody = word_prosody, utterance_prosody
            fused = self.fusion(pooled, frame_mask, self._classify(pooled.embedding), *words, *prosody)
            pooled = pooled._replace(embedding=fused.embedding)
        elif any(each is not None for each in (text_ids, text_states, word_prosody, utterance_prosody)):
            raise ValueError("this model has no text encoder and reads no words: leave out text_ids, text_states, ...")
        values = None if self.dimension_head is None else self.dimension_head(pooled.embedding)
        logits = self._classify(pooled.embedding, values=values) if fused is None else fused.logits
        if self.statistics_classifier is not None:
            logits = logits + self.statistics_classifier(states, frame_mask)
        logits = logits / self.config.calibration_temperature
        frame_logits = self._classify(pooled.frames, self.frame_classifier) / self.config.calibration_temperature
        losses = {}
        if labels is not None:
            targets = labels, values, dimensions, fused, frames, teacher_frames
            losses = self.objective(pooled, logits, frame_logits, frame_mask, *targets)
        return SERAlignOutput(
            logits=logits,
            frame_logits=frame_logits,
            frame_weights=pooled.log_frame_weights.exp(),
            frame_mask=frame_mask,
            tracker_logits=None if self.tracker is None or self.training else self.tracker(frames, frame_mask),
            embedding=pooled.embedding,
            dimensions=values,
            voice_logits=fused and fused.voice_logits / self.config.calibration_temperature,
            text_logits=fused and fused.text_logits / self.config.calibration_temperature,
            **losses,
        )

    def _classify(self, vectors: Tensor, classifier: nn.Module | None = None, values: Tensor | None = None) -> Tensor:
        """Logits of vectors, (..., hidden) to (..., classes), or of the regions of their values."""
        classifier = classifier or self.classifier
        if classifier is not None:
            return classifier(vectors)
        assert self.dimension_head is not None
        return self.dimension_head.score_regions(self.dimension_head(vectors) if values is None else values)

    def encode(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        extracted_features: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the encoder alone. Returns frames (batch, frames, hidden), zero at the padding, and their mask.

        Takes the same inputs as the model. Unlike `model.encoder(...)`, it is exact in a padded batch.
        """
        return self._encode(input_values, attention_mask, input_features, extracted_features)[1:]

    def compute_statistics(self, **inputs: Tensor) -> Tensor:
        """Compute the input of the statistics classifier, (batch, features), from the same inputs as the model."""
        assert self.statistics_classifier is not None
        states, mask, _ = self._encode_fixed(**inputs)
        return self.statistics_classifier.describe([self._read_frames(state) for state in states], mask)

    def _encode(self, *inputs: Tensor | None) -> tuple[list[Tensor], Tensor, Tensor]:
        """Returns the input of the first layer and the output of each fixed one; frames; and the mask of them all."""
        states, mask, is_padded = self._encode_fixed(*inputs)
        if self.training and self.config.patchout_frames > 0:
            kept, mask = draw_frames(mask, self.config.patchout_frames)
            states, is_padded = [take_frames(state, kept) for state in states], True
        if self.training and self.config.patchout_rows > 0:
            states = self.config.family.drop_rows(self.encoder, states, self.config.patchout_rows)
        frames = self._run_trained_layers(states, mask if is_padded else None)
        return [self._read_frames(state) for state in states], zero_padding(frames, mask), mask

    def _encode_fixed(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        extracted_features: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor, bool]:
        """Run the fixed layers, or none with `extracted_features`. Also returns the mask and whether it is needed."""
        is_extracted = extracted_features is not None
        inputs = select_input(self.config, input_values, input_features, extracted_features).to(self.dtype)
        lengths = count_lengths(self.config, inputs, attention_mask, is_extracted)
        num_frames, longest = lengths, inputs.shape[1]
        if not is_extracted:
            num_frames, longest = (
                self.config.family.count_frames(self.config.encoder_config, length) for length in (lengths, longest)
            )
        mask = make_length_mask(num_frames, longest)
        is_padded = attention_mask is not None
        if is_extracted and self.config.freeze_encoder_layers > 0:
            size = self.config.family.get_state_size(self.config.encoder_config)
            return list(inputs.split(size, dim=-1)), mask, is_padded
        features = inputs if is_extracted else self._convolve(inputs, lengths if is_padded else None)
        return *self._run_fixed_layers(features, mask, is_padded), is_padded

    def _convolve(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        return self.config.family.convolve(self.encoder, inputs, lengths)

    def _run_fixed_layers(self, features: Tensor, mask: Tensor, is_padded: bool) -> tuple[list[Tensor], Tensor]:
        """Run what precedes the trained layers, from the output of the convolutions.

        Returns:
            The input of the first layer and the output of each fixed one, (batch, frames, hidden), at the rate of the
            frames that the model outputs, and their mask.
        """
        family, config = self.config.family, self.config
        known = mask if is_padded else None
        hidden = family.embed(self.encoder, features, known)
        states = family.run_layers(self.encoder, hidden, known, last=config.averaging_layer)
        averaged = [average_neighbours(state, mask, config.average_frames) for state in (hidden, *states)]
        states, mask = [state for state, _ in averaged], averaged[0][1]
        known, last = mask if is_padded else None, config.freeze_encoder_layers
        return [*states, *family.run_layers(self.encoder, states[-1], known, config.averaging_layer, last)], mask

    def _run_trained_layers(self, states: list[Tensor], mask: Tensor | None) -> Tensor:
        """Run the layers after the fixed ones and combine their outputs to frames, (batch, frames, hidden)."""
        family = self.config.family
        fixed = self.config.freeze_encoder_layers
        states = [*states, *family.run_layers(self.encoder, states[-1], mask, first=fixed)]
        frames = family.finish(self.encoder, states[-1])
        if self.layer_mix is None:
            return frames
        return self.layer_mix([*(self._read_frames(state) for state in states[:-1]), frames])

    def _read_frames(self, state: Tensor) -> Tensor:
        return self.config.family.read_frames(self.config.encoder_config, state)

    @torch.no_grad()
    def extract_features(self, inputs: Tensor) -> Tensor:
        """Run the fixed part of the encoder on one utterance: (1, length, ...) to (1, frames, features).

        This is the convolutional feature encoder or, with `freeze_encoder_layers`, also the fixed layers; with
        `layer_mix` or `statistics_layers` the outputs of all of them are concatenated. The output does not change, so
        training can cache it.
        """
        features = self._convolve(inputs.to(self.dtype), None)
        if self.config.freeze_encoder_layers == 0:
            return features
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        states, _ = self._run_fixed_layers(features, mask, is_padded=False)
        return torch.cat(states if self.config.extracts_all_layers else states[-1:], dim=-1)


SERAlignForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
