"""Words on their way to the model: their tokens, their prosody, and which part of a recording has which words.

Part of the model code on the Hugging Face Hub; requires only torch.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

try:
    from .fields_ser_align import SAMPLING_RATE
    from .prosody_ser_align import WORD_VALUES, describe_utterance, describe_words, measure_frames
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from fields_ser_align import SAMPLING_RATE
    from prosody_ser_align import WORD_VALUES, describe_utterance, describe_words, measure_frames

LONGEST_TEXT = 512  # tokens; later ones are cut
PROSODY = ("word_prosody", "utterance_prosody")  # inputs of a model with the levels word and utterance


def tokenize(tokenizer: Any, text: str | None) -> Tensor:
    """The tokens of a text, (tokens,); none of a text that is missing or blank."""
    if text is None or not text.strip():
        return torch.zeros(0, dtype=torch.long)
    longest = min(tokenizer.model_max_length, LONGEST_TEXT)
    return torch.tensor(tokenizer(text, truncation=True, max_length=longest)["input_ids"])


def join_words(words: Sequence[dict[str, Any]]) -> str:
    """The text of words with times."""
    return " ".join(word["word"].strip() for word in words)


def locate_words(tokenizer: Any, words: Sequence[dict[str, Any]]) -> np.ndarray:
    """The index of the word that each token of the joined words is part of, (tokens,); -1 for none.

    Raises:
        ValueError: the tokenizer does not say which letters a token is made of.
    """
    text = join_words(words)
    if not text.strip():
        return np.zeros(0, int)
    if not tokenizer.is_fast:
        raise ValueError("the level 'word' needs a fast tokenizer, which says which letters a token is made of")
    longest = min(tokenizer.model_max_length, LONGEST_TEXT)
    spans = tokenizer(text, truncation=True, max_length=longest, return_offsets_mapping=True)["offset_mapping"]
    ends = list(accumulate(len(word["word"].strip()) + 1 for word in words))  # each with the space after it
    # The last letter decides: some tokenizers count the space before a word as part of it.
    places = np.searchsorted(ends, [end - 1 for _, end in spans], side="right")
    return np.where([end > start for start, end in spans], places, -1)


def read_prosody(
    tokenizer: Any,
    levels: Sequence[str],
    waveform: np.ndarray,
    words: Sequence[dict[str, Any]] | None = None,
) -> dict[str, Tensor]:
    """The prosody that a model with these levels takes of an utterance, beside its words.

    Args:
        levels: `config.text_levels`.
        waveform: (samples,), at 16 kHz.
        words: dicts of `word`, and `start` and `end` in seconds of the waveform; None if their times are unknown.

    Returns:
        `word_prosody`, (tokens, values + 1), whose last column is 1 for a token with known times, and empty without
        such; and `utterance_prosody`, (values,).
    """
    if set(levels) == {"embedding"}:
        return {}
    frames, found = measure_frames(waveform), {}
    if "word" in levels:
        place = locate_words(tokenizer, words or [])
        table = np.vstack([describe_words(frames, words or []), np.zeros((1, len(WORD_VALUES) + 1), np.float32)])
        found["word_prosody"] = torch.from_numpy(table[place])
    if "utterance" in levels:
        found["utterance_prosody"] = torch.from_numpy(describe_utterance(frames))
    return found


def collate_words(texts: Sequence[Tensor], prosody: Sequence[dict[str, Tensor]] = ()) -> dict[str, Tensor]:
    """Pad several texts on the right: `text_ids`, or `text_states`, and `text_mask`, (texts, tokens); with their
    prosody.

    Args:
        texts: the tokens of each, (tokens,), or their states, (tokens, size).
        prosody: of each, as [`read_prosody`] gives it.
    """
    lengths = torch.tensor([len(each) for each in texts])
    longest = max(int(lengths.max()), 1)
    filler = texts[0].new_zeros(longest, *texts[0].shape[1:])
    padded = pad_sequence([*texts, filler], batch_first=True)[:-1]
    mask = (torch.arange(longest) < lengths.unsqueeze(1)).long()
    words = {"text_ids" if padded.ndim == 2 else "text_states": padded, "text_mask": mask}
    there = [name for name in PROSODY if prosody and name in prosody[0]]
    return words | {name: _pad_prosody([each[name] for each in prosody], longest) for name in there}


def _pad_prosody(rows: Sequence[Tensor], tokens: int) -> Tensor:
    """Zero-pad values of tokens, each (n, values), to a number of tokens; stack those of utterances, each (values,)."""
    if rows[0].ndim == 1:
        return torch.stack(list(rows))
    return torch.stack([nn.functional.pad(each, (0, 0, 0, tokens - len(each))) for each in rows])


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


def choose_words(
    words: str | Sequence[dict[str, Any]] | None, piece: dict[str, Any]
) -> tuple[str | None, list[dict[str, Any]] | None]:
    """The words of a piece of a recording: all of the whole; of a phrase those whose middle is in it.

    Args:
        words: the text, which is that of the whole alone, or dicts of `word`, `start` and `end` (seconds).
        piece: `start` and `end` in samples, and its `phrase`, -1 for the whole.

    Returns:
        their text, and if their times are known the words, in seconds of the piece.
    """
    is_whole = piece["phrase"] < 0
    if words is None or isinstance(words, str):
        return (words if is_whole else None), None
    start, end = (piece[name] / SAMPLING_RATE for name in ("start", "end"))
    inside = [word for word in words if is_whole or start <= (word["start"] + word["end"]) / 2 < end]
    return join_words(inside), shift_words(inside, -start)


def shift_words(words: Sequence[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """Words with times, later by this many seconds."""
    return [{**word, "start": word["start"] + seconds, "end": word["end"] + seconds} for word in words]
