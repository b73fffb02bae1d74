"""Words: the columns `text` and `words` -> what the text encoder takes or, of a frozen one, gives; and prosody."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.loading import load_tokenizer
from modeling_ser_align import SERAlignForAudioClassification
from recipe.options import Arguments
from words_ser_align import read_prosody, tokenize

MOST_BYTES = 250 * 10**6  # of the states that are kept in memory


class Reader:
    """Turn a text into its tokens, (tokens,), or the states of a frozen text encoder, (tokens, size); empty if missing.

    Args:
        tokenizer: of the text encoder.
        states: of every text; None gives tokens.
        levels: `config.text_levels`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        states: dict[str, Tensor] | None = None,
        levels: Sequence[str] = ("embedding",),
    ):
        self.tokenizer = tokenizer
        self.states = states
        self.levels = list(levels)

    @property
    def hears(self) -> bool:
        """Whether there is prosody to read."""
        return self.levels != ["embedding"]

    def __call__(self, text: str | None) -> Tensor:
        return tokenize(self.tokenizer, text) if self.states is None else self.states[text or ""]

    def read_prosody(self, waveform: np.ndarray, words: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The prosody of an utterance, (samples,), and of its words, in seconds of it; empty for unknown times."""
        return read_prosody(self.tokenizer, self.levels, waveform, words)


def make_reader(model: SERAlignForAudioClassification, args: Arguments, split: DatasetDict) -> Reader | None:
    """The reader of a model; None if it reads no words. A frozen text encoder reads each text once, here."""
    if args.model.text_encoder is None:
        return None
    tokenizer = load_tokenizer(args.model.text_encoder)
    levels = model.config.text_levels
    if not model.config.freeze_text_encoder:
        return Reader(tokenizer, levels=levels)
    texts = {text or "" for part in split.values() for text in part["text"][:]}
    tokens = {text: tokenize(tokenizer, text) for text in sorted(texts)}
    size = model.config.text_encoder_config.hidden_size
    if 4 * size * sum(map(len, tokens.values())) > MOST_BYTES:
        return Reader(tokenizer, levels=levels)
    return Reader(tokenizer, {text: read_states(model, ids) for text, ids in tokens.items()}, levels)


@torch.no_grad()
def read_states(model: SERAlignForAudioClassification, ids: Tensor) -> Tensor:
    """The states of one text, (tokens, size), on the CPU."""
    encoder: Any = model.text_encoder
    if len(ids) == 0:
        return torch.zeros(0, encoder.config.hidden_size)
    return encoder(input_ids=ids[None].to(model.device)).last_hidden_state[0].float().cpu()
