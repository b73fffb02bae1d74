"""Words beside the voice: a text encoder, and the fusion of what it reads with the frames.

A row without words has a learned state in their place, so that one model serves recordings with and without them.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

try:
    from .checks_ser_align import refuse_attention_code
    from .configuration_ser_align import SERAlignConfig
    from .encoders_ser_align import load_weights
    from .fields_ser_align import SAMPLING_RATE
    from .heads_ser_align import Pooled, SelfAttention, make_classifier, weighted_sum
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from checks_ser_align import refuse_attention_code
    from configuration_ser_align import SERAlignConfig
    from encoders_ser_align import load_weights
    from fields_ser_align import SAMPLING_RATE
    from heads_ser_align import Pooled, SelfAttention, make_classifier, weighted_sum

LONGEST_TEXT = 512  # tokens; later ones are cut


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
    """Project the states of the words, and classify them alone and together with the voice, as `text_fusion` says."""

    def __init__(self, config: SERAlignConfig, voice_size: int):
        super().__init__()
        size = config.encoder_config.hidden_size
        self.config = config
        self.projection = nn.Linear(config.text_encoder_config.hidden_size, size)
        self.missing = nn.Parameter(torch.empty(size))
        self.text_classifier = make_classifier(config, size)
        kind = config.text_fusion
        self.gated = GatedUnit(voice_size, size) if kind == "gated" else None
        self.crossed = CrossAttention(config) if kind == "cross_attention" else None
        self.size = {"gated": size, "cross_attention": 2 * size}.get(kind, voice_size + size)
        self.classifier = None if kind == "late" else make_classifier(config, self.size)
        self.shares = nn.Parameter(torch.empty(2)) if kind == "late" else None

    def forward(
        self, pooled: Pooled, frame_mask: Tensor, voice_logits: Tensor, states: Tensor, text_mask: Tensor
    ) -> Fused:
        """Fuse utterances with their words.

        Args:
            pooled: of the voice.
            frame_mask: (batch, frames).
            voice_logits: (batch, classes), of the voice alone.
            states: (batch, tokens, size), of the text encoder.
            text_mask: (batch, tokens), True for tokens; nowhere in a row without words.
        """
        has_text = text_mask.any(dim=1)
        if self.training and self.config.text_dropout > 0:
            kept = torch.rand(has_text.shape, device=has_text.device) >= self.config.text_dropout
            has_text = has_text & kept
        words = torch.where(has_text[:, None, None], self.projection(states), self.missing.to(states.dtype))
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


def tokenize(tokenizer: Any, text: str | None) -> Tensor:
    """The tokens of a text, (tokens,); none of a text that is missing or blank."""
    if text is None or not text.strip():
        return torch.zeros(0, dtype=torch.long)
    longest = min(tokenizer.model_max_length, LONGEST_TEXT)
    return torch.tensor(tokenizer(text, truncation=True, max_length=longest)["input_ids"])


def collate_words(texts: Sequence[Tensor]) -> dict[str, Tensor]:
    """Pad several texts on the right: `text_ids`, or `text_states`, and `text_mask`, (texts, tokens).

    Args:
        texts: the tokens of each, (tokens,), or their states, (tokens, size).
    """
    lengths = torch.tensor([len(each) for each in texts])
    longest = max(int(lengths.max()), 1)
    filler = texts[0].new_zeros(longest, *texts[0].shape[1:])
    padded = pad_sequence([*texts, filler], batch_first=True)[:-1]
    mask = (torch.arange(longest) < lengths.unsqueeze(1)).long()
    return {"text_ids" if padded.ndim == 2 else "text_states": padded, "text_mask": mask}


def take_words(recording: Any) -> tuple[Any, Any]:
    """The audio and the text of a dict that has both; any other recording has no words."""
    if isinstance(recording, dict) and "audio" in recording:
        return recording["audio"], recording.get("text")
    return recording, None


def check_words(words: Any, can_read: bool, is_utterance: bool) -> None:
    """Check the words of a recording.

    Args:
        can_read: whether the model reads words.
        is_utterance: whether the recording is short enough to be one utterance.

    Raises:
        ValueError: the model reads no words, they are neither a text nor a list of words with their times, or they have
            no times and the recording is more than one utterance.
    """
    if not words:
        return
    if not can_read:
        raise ValueError("this model reads no words: leave out text, or use a model with a text encoder")
    if isinstance(words, str):
        if not is_utterance:
            raise ValueError(
                "a text without times is for one utterance, and this recording is longer: give the words with their "
                "times, as a list of dicts of word, start and end in seconds"
            )
    elif not all(isinstance(word, dict) and {"word", "start", "end"} <= word.keys() for word in words):
        raise ValueError("text is neither a string nor a list of dicts of word, start and end in seconds")


def choose_words(words: str | Sequence[dict[str, Any]] | None, piece: dict[str, Any]) -> str | None:
    """The words of a piece of a recording: all of the whole; of a phrase those whose middle is in it.

    Args:
        words: the text, which is that of the whole alone, or dicts of `word`, `start` and `end` (seconds).
        piece: `start` and `end` in samples, and its `phrase`, -1 for the whole.
    """
    is_whole = piece["phrase"] < 0
    if words is None or isinstance(words, str):
        return words if is_whole else None
    start, end = (piece[name] / SAMPLING_RATE for name in ("start", "end"))
    inside = (word for word in words if is_whole or start <= (word["start"] + word["end"]) / 2 < end)
    return " ".join(word["word"].strip() for word in inside)


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
