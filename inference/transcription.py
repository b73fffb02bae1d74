"""What is said in a recording: given, from a file beside it, or transcribed by Whisper, with the times of the words."""

import argparse
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import pipeline

from core.errors import InputError, warn
from core.model_files import LOAD_ERRORS, explain_failure
from decoding_ser_align import describe_recording
from recording_ser_align import SAMPLING_RATE, read_blocks

CHUNK_SECONDS = 30.0  # what Whisper hears at once
MOST_COMPRESSED = 2.4  # of a text that does not repeat itself (Radford et al. 2023, section 4.5)
Word = dict[str, Any]  # word, start and end in seconds
Listener = Callable[[Any, int | None], str | list[Word] | None]


def make_listener(options: argparse.Namespace, reads_text: bool, device: Any = None) -> Listener | None:
    """What says the words of a recording and a channel; None without an option that asks for words.

    Args:
        reads_text: whether the model reads words.

    Raises:
        InputError: the model reads no words that are given, or there is no such Whisper model.
    """
    given = "--text" if options.text is not None else "--texts" if options.texts else None
    if given and not reads_text:
        raise InputError(
            f"{given} is for a model that reads words, and {options.model} hears the voice alone: remove it"
        )
    if options.text is not None:
        return lambda recording, channel: options.text
    if options.texts:
        return lambda recording, channel: read_text_beside(recording)
    return None if options.transcribe is None else Transcriber(options.transcribe, device)


def read_text_beside(recording: Any) -> str | None:
    """The content of the text file beside a recording, in one line; None if there is none."""
    if not isinstance(recording, str):  # from standard input
        return None
    path = Path(recording).with_suffix(".txt")
    return " ".join(path.read_text(encoding="utf-8-sig", errors="replace").split()) if path.is_file() else None


class Transcriber:
    """Transcribes recordings with a Whisper model; the times of the words are from its alignment heads.

    Raises:
        InputError: there is no such model, it has no decoder, or its alignment heads are unknown.
    """

    def __init__(self, name_or_path: str, device: Any = None):
        try:
            self.recognize = pipeline("automatic-speech-recognition", name_or_path, device=device, dtype=torch.float32)
        except LOAD_ERRORS as error:
            reason = explain_failure(name_or_path, error) or f"cannot be loaded: {' '.join(str(error).split())}"
            raise InputError(f"--transcribe {name_or_path} {reason}") from error
        heads = getattr(self.recognize.model.generation_config, "alignment_heads", None)
        if self.recognize.model.config.model_type != "whisper" or not heads:
            raise InputError(
                f"--transcribe {name_or_path} is no Whisper model with alignment heads, which give the times of words: "
                "choose one such as openai/whisper-base"
            )
        # Without its task, a model that detects the language gets no token for it, and repeats itself.
        is_multilingual = getattr(self.recognize.model.generation_config, "is_multilingual", False)
        self.task = {"task": "transcribe"} if is_multilingual else {}

    def __call__(self, recording: Any, channel: int | None = None) -> list[Word]:
        """The words of a recording, in order, with their times in seconds."""
        waveform = np.concatenate([*read_blocks(recording, channel), np.zeros(0, np.float32)])
        if len(waveform) == 0:
            return []
        heard = {"raw": waveform, "sampling_rate": SAMPLING_RATE}
        found: Any = self.recognize(
            heard,
            return_timestamps="word",
            chunk_length_s=CHUNK_SECONDS,
            ignore_warning=True,
            generate_kwargs=self.task,
        )
        if measure_compression(found["text"]) > MOST_COMPRESSED:
            warn(f"{describe_recording(recording)}: the transcript repeats itself, so it is probably not what was said")
        return [_place_word(chunk, len(waveform) / SAMPLING_RATE) for chunk in found["chunks"]]


def measure_compression(text: str) -> float:
    """How many times shorter a text is when it is compressed; more for one that repeats itself."""
    content = text.encode()
    return len(content) / len(zlib.compress(content))


def _place_word(chunk: dict[str, Any], duration: float) -> Word:
    """A word within the recording; Whisper leaves out the end of one that is cut off."""
    start, end = chunk["timestamp"]
    start = min(start or 0.0, duration)
    end = duration if end is None else min(max(end, start), duration)
    return {"word": chunk["text"].strip(), "start": round(float(start), 3), "end": round(float(end), 3)}
