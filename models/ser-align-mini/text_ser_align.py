"""Words beside the voice: a text encoder, and the fusion of what it reads with the frames.

A row without words has a learned state in their place, so that one model serves recordings with and without them.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

try:
    from .checks_ser_align import refuse_attention_code
    from .configuration_ser_align import SERAlignConfig
    from .encoders_ser_align import load_weights
    from .heads_ser_align import Pooled, SelfAttention, make_classifier, weighted_sum
    from .prosody_ser_align import UTTERANCE_VALUES, WORD_VALUES
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from checks_ser_align import refuse_attention_code
    from configuration_ser_align import SERAlignConfig
    from encoders_ser_align import load_weights
    from heads_ser_align import Pooled, SelfAttention, make_classifier, weighted_sum
    from prosody_ser_align import UTTERANCE_VALUES, WORD_VALUES


class Fused(NamedTuple):
    """What the fusion gives: vector and logits of voice and words, and the logits of each alone."""

    embedding: Tensor  # (batch, size)
    logits: Tensor  # (batch, classes)
    voice_logits: Tensor  # (batch, classes)
    text_logits: Tensor  # (batch, classes)
    has_text: Tensor  # (batch,)


class GatedUnit(nn.Module):
    """Gated multimodal unit (Arevalo et al. 2017): z tanh(V voice) + (1 - z) tanh(W words), z = sigmoid(U [both])."""

    def __init__(self, voice_size: int, size: int):
        super().__init__()
        self.voice = nn.Linear(voice_size, size)
        self.words = nn.Linear(size, size)
        self.gate = nn.Linear(voice_size + size, size)

    def forward(self, voice: Tensor, words: Tensor) -> Tensor:
        gate = self.gate(torch.cat([voice, words], dim=-1)).sigmoid()
        return torch.lerp(self.words(words).tanh(), self.voice(voice).tanh(), gate)


class CrossAttention(nn.Module):
    """Frames attend to words and words to frames (Tsai et al. 2019), each added and normalised, then pooled.

    The frames are pooled with the weights of the pooling layer, the words with their mean: (batch, 2 hidden).
    """

    def __init__(self, config: SERAlignConfig):
        super().__init__()
        size = config.encoder_config.hidden_size
        self.frames_to_words, self.words_to_frames = SelfAttention(config), SelfAttention(config)
        self.frame_norm, self.word_norm = nn.LayerNorm(size), nn.LayerNorm(size)

    def forward(self, pooled: Pooled, frame_mask: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        frames = self.frame_norm(self.frames_to_words.read(pooled.frames, words, word_mask))
        words = self.word_norm(self.words_to_frames.read(words, pooled.frames, frame_mask))
        return torch.cat([weighted_sum(pooled.log_frame_weights, frames), average_words(words, word_mask)], dim=-1)


class TextFusion(nn.Module):
    """Project the states of the words, and classify them alone and together with the voice, as `text_fusion` says.

    Each of `text_levels` adds to the words: their states; the prosody of the word that each token is of, or a learned
    state where its times are unknown, and an activation; and the prosody of the utterance, also of one without words.
    """

    def __init__(self, config: SERAlignConfig, voice_size: int):
        super().__init__()
        size = config.encoder_config.hidden_size
        self.config = config
        levels = config.text_levels
        self.projection = nn.Linear(config.text_encoder_config.hidden_size, size) if "embedding" in levels else None
        self.word_prosody = nn.Linear(len(WORD_VALUES), size) if "word" in levels else None
        self.no_times = nn.Parameter(torch.empty(size)) if "word" in levels else None
        self.utterance_prosody = nn.Linear(len(UTTERANCE_VALUES), size) if "utterance" in levels else None
        self.missing = nn.Parameter(torch.empty(size))
        self.text_classifier = make_classifier(config, size)
        kind = config.text_fusion
        self.gated = GatedUnit(voice_size, size) if kind == "gated" else None
        self.crossed = CrossAttention(config) if kind == "cross_attention" else None
        self.size = {"gated": size, "cross_attention": 2 * size}.get(kind, voice_size + size)
        self.classifier = None if kind == "late" else make_classifier(config, self.size)
        self.shares = nn.Parameter(torch.empty(2)) if kind == "late" else None

    def initialize(self) -> None:
        """Draw the learned states."""
        for state in (self.missing, self.no_times):
            if state is not None:
                init.normal_(state, mean=0.0, std=self.config.cls_init_std)
        if self.shares is not None:
            init.ones_(self.shares)

    def forward(
        self,
        pooled: Pooled,
        frame_mask: Tensor,
        voice_logits: Tensor,
        states: Tensor,
        text_mask: Tensor,
        word_prosody: Tensor | None = None,
        utterance_prosody: Tensor | None = None,
    ) -> Fused:
        """Fuse utterances with their words.

        Args:
            pooled: of the voice.
            frame_mask: (batch, frames).
            voice_logits: (batch, classes), of the voice alone.
            states: (batch, tokens, size), of the text encoder.
            text_mask: (batch, tokens), True for tokens; nowhere in a row without words.
            word_prosody: (batch, tokens, values + 1), as [`read_prosody`] gives it; None if no times are known.
            utterance_prosody: (batch, values), likewise.

        Raises:
            ValueError: prosody is given without its level, or missing, or its shape does not fit.
        """
        has_text = text_mask.any(dim=1)
        if self.training and self.config.text_dropout > 0:
            kept = torch.rand(has_text.shape, device=has_text.device) >= self.config.text_dropout
            has_text = has_text & kept
        words = self._describe_words(states, word_prosody)
        words = torch.where(has_text[:, None, None], words, self.missing.to(words.dtype))
        words = words + self._describe_utterance(words, utterance_prosody)
        is_first = torch.arange(text_mask.shape[1], device=text_mask.device) == 0
        word_mask = torch.where(has_text[:, None], text_mask, is_first)
        vector = average_words(words, word_mask)
        text_logits = self.text_classifier(vector)
        voice = pooled.embedding
        if self.gated is not None:
            embedding = self.gated(voice, vector)
        elif self.crossed is not None:
            embedding = self.crossed(pooled, frame_mask, words, word_mask)
        else:
            embedding = torch.cat([voice, vector], dim=-1)
        if self.classifier is not None:
            logits = self.classifier(embedding)
        else:
            assert self.shares is not None
            logits = self.shares[0] * voice_logits + self.shares[1] * text_logits
        return Fused(embedding, logits, voice_logits, text_logits, has_text)

    def _describe_words(self, states: Tensor, prosody: Tensor | None) -> Tensor:
        """What the tokens are: (batch, tokens, size)."""
        size = len(self.missing)
        words = states.new_zeros(*states.shape[:2], size) if self.projection is None else self.projection(states)
        expected = (*states.shape[:2], len(WORD_VALUES) + 1)
        if self.word_prosody is None or self.no_times is None:
            _check_prosody("word", prosody, None)
            return words
        if prosody is None:
            prosody = states.new_zeros(expected)
        _check_prosody("word", prosody, expected)
        prosody = prosody.to(words.dtype)
        known = self.word_prosody(prosody[..., :-1])
        # Without the activation, the mean over words would not say which word is high or loud.
        return gelu(words + torch.where(prosody[..., -1:] > 0, known, self.no_times.to(words.dtype)))

    def _describe_utterance(self, words: Tensor, prosody: Tensor | None) -> Tensor | float:
        """What is added to each word of an utterance, and so to their mean: (batch, 1, size)."""
        expected = None if self.utterance_prosody is None else (len(words), len(UTTERANCE_VALUES))
        _check_prosody("utterance", prosody, expected)
        if self.utterance_prosody is None or prosody is None:
            return 0.0
        return self.utterance_prosody(prosody.to(words.dtype))[:, None]


def _check_prosody(level: str, prosody: Tensor | None, expected: tuple[int, ...] | None) -> None:
    """Raise ValueError if prosody is there without its level, or does not have the expected shape."""
    if (None if prosody is None else tuple(prosody.shape)) != expected:
        what = "missing" if prosody is None else f"of the shape {list(prosody.shape)}"
        needs = f"must have the shape {list(expected)}" if expected else f"is for a model with the level {level!r}"
        raise ValueError(f"{level}_prosody is {what}, but {needs}: create the inputs with read_prosody")


def average_words(words: Tensor, word_mask: Tensor) -> Tensor:
    """Mean over the words of each row: (batch, tokens, size) to (batch, size)."""
    mask = word_mask.unsqueeze(-1).to(words.dtype)
    return (words * mask).sum(dim=1) / mask.sum(dim=1)


def read_words(
    encoder: PreTrainedModel,
    batch: int,
    text_ids: Tensor | None = None,
    text_mask: Tensor | None = None,
    text_states: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the text encoder.

    Args:
        batch: number of utterances.
        text_ids: (batch, tokens), of the encoder's tokenizer, padded on the right; None if no utterance has words.
        text_mask: (batch, tokens), 1 for tokens and 0 for padding; all 0 for an utterance without words. None means
            that nothing is padded.
        text_states: (batch, tokens, size), instead of `text_ids`: what the encoder gave before.

    Returns:
        states, (batch, tokens, size), and mask, (batch, tokens), bool.

    Raises:
        ValueError: the shapes do not fit.
    """
    given = text_ids if text_states is None else text_states
    if given is None:
        states = torch.zeros(batch, 1, encoder.config.hidden_size, dtype=encoder.dtype, device=encoder.device)
        return states, torch.zeros(batch, 1, dtype=torch.bool, device=encoder.device)
    mask = torch.ones(given.shape[:2], dtype=torch.long, device=given.device) if text_mask is None else text_mask
    if given.ndim != (2 if text_states is None else 3) or len(given) != batch or mask.shape != given.shape[:2]:
        raise ValueError(
            f"the words have the shape {list(given.shape)} and text_mask {list(mask.shape)}, which must begin with "
            f"({batch}, tokens): create them with collate_words"
        )
    if text_states is not None:
        return text_states.to(encoder.dtype), mask.bool()
    attended = mask.clone()
    attended[:, 0] = 1  # a row without words must attend to something; what it gets is not used
    return encoder(input_ids=text_ids, attention_mask=attended).last_hidden_state, mask.bool()


def read_text_config(name_or_path: str) -> PreTrainedConfig:
    """Read the configuration of a text encoder, or that of the encoder of a model that also has a decoder.

    Raises:
        ValueError: it or its attention needs custom code, or it is no text encoder.
        OSError: there is no such encoder.
    """
    config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
    refuse_attention_code({"attn_implementation": config._attn_implementation})
    with torch.device("meta"):  # speech encoders may have a vocabulary, too, so only their input tells them apart
        input_name = AutoModel.from_config(config).main_input_name
    if input_name != "input_ids" or not hasattr(config, "vocab_size") or not hasattr(config, "hidden_size"):
        raise ValueError(
            f"{name_or_path} has model_type {config.model_type!r}, which is no text encoder: choose one such as "
            "sentence-transformers/all-MiniLM-L6-v2"
        )
    return config


def build_text_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a text encoder with new weights."""
    return take_encoder(AutoModel.from_config(config))


def load_text_encoder(name_or_path: str, config: PreTrainedConfig) -> PreTrainedModel:
    """Load a pretrained text encoder in float32.

    Raises:
        ValueError: weights are missing or do not have the shapes that the configuration says.
        OSError: there is no such encoder, or a file of weights is damaged.
    """
    load = partial(AutoModel.from_pretrained, output_loading_info=True)
    model, info = load_weights(load, name_or_path, config)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ValueError(f"{name_or_path} is missing {len(missing)} weights of its text encoder, such as {missing[0]}")
    return take_encoder(model)


def take_encoder(model: Any) -> PreTrainedModel:
    """The part of a text model that is used: without decoder, and without the pooler of BERT, which was trained to
    tell whether sentences follow each other."""
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder
