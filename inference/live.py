"""Scores live audio from a pipe, once per second."""

import io
import warnings
import wave
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from core.errors import InputError
from decoding_ser_align import HEADER_BYTES, fill_in_size
from inference.values import round_dimensions
from pipeline_ser_align import WINDOW, SpeechEmotionRecognitionPipeline
from quality_ser_align import RecordingQuality
from recording_ser_align import SAMPLING_RATE, check_rate, mix_down, resample, scale_samples
from speech_ser_align import SHORTEST_PHRASE, find_last_phrase
from timeline_ser_align import choose_mixed

FIRST_VERDICT = 3  # seconds before which nobody may have spoken yet
MEMORY = 30  # seconds that are kept, to separate speech from pauses
# First bytes of files that are read as a whole; an MP4 file has its own after four bytes of length.
FILE_SIGNATURES = (
    *(b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"caff", b"RF64", b"RIFX", b"riff"),
    *(b"\x1aE\xdf\xa3", b"#!AMR", b"wvpk", b"MAC ", b"NIST", b"\x30\x26\xb2\x75"),
)
LONGEST_SIGNATURE = 8  # bytes


def open_stream(stream: IO[bytes], quality: RecordingQuality) -> tuple[bytes | None, Iterator[np.ndarray]]:
    """Read standard input: the bytes of a whole compressed file, or seconds of 16 kHz mono audio.

    A WAV header gives the format; without one, the bytes are 16-bit little-endian samples, mono, at 16 kHz.
    `quality` is updated while the stream is read.

    Raises:
        InputError: the input is empty, or a WAV stream other than 8, 16, 24 or 32 bit PCM.
    """
    first = stream.read(LONGEST_SIGNATURE)
    if not first:
        raise InputError(
            "standard input is empty; pipe audio into it: ffmpeg -i call.mp3 -f wav - | python predict.py -"
        )
    if first.startswith(FILE_SIGNATURES) or first[4:8] == b"ftyp" or _is_mpeg_frame(first):
        return first + stream.read(), iter(())
    if first.startswith(b"RIFF"):
        first = name_format(fill_in_size(first + stream.read(HEADER_BYTES - len(first))))
    whole = io.BufferedReader(_PeekedStream(first, stream))
    if not first.startswith(b"RIFF"):
        return None, _read_seconds(lambda count: whole.read(2 * count), SAMPLING_RATE, 1, 2, quality)
    try:
        file = wave.open(whole)  # noqa: SIM115 -- read to the end of the stream
    except (wave.Error, EOFError) as error:
        raise InputError(
            f"standard input is not a PCM WAV stream ({error}); pass -acodec pcm_s16le to ffmpeg"
        ) from None
    rate, width = file.getframerate(), file.getsampwidth()
    if width > 4:
        raise InputError(
            f"standard input has {8 * width}-bit samples; only 8 to 32 are supported; pass -acodec pcm_s16le to ffmpeg"
        )
    try:
        check_rate(rate, "standard input")
    except ValueError as error:
        raise InputError(str(error)) from None
    return None, _read_seconds(file.readframes, rate, file.getnchannels(), width, quality)


def name_format(start: bytes) -> bytes:
    """The start of a WAV file, with the format itself in place of WAVE_FORMAT_EXTENSIBLE, which names it further on.

    ffmpeg writes the latter for more than two channels, 48 kHz or 16 bits; the wave module cannot read it.
    """
    place = start.find(b"fmt ") + 8
    if place < 8 or start[place : place + 2] != b"\xfe\xff":
        return start
    return start[:place] + start[place + 24 : place + 26] + start[place + 2 :]


def _is_mpeg_frame(first: bytes) -> bool:
    """Whether these bytes start with a frame header of MPEG audio (MP2, MP3, AAC in ADTS), ISO 11172-3 and 13818-7.

    Not that of layer I, which nobody uses: raw samples of -1 look like it.
    """
    if len(first) < 4 or first[0] != 0xFF or first[1] & 0xE0 != 0xE0:
        return False
    if first[1] & 0xF6 == 0xF0:  # ADTS
        return (first[2] >> 2) & 0xF < 13
    has_version, has_layer = first[1] & 0x18 != 0x08, first[1] & 0x06 in (0x02, 0x04)
    return has_version and has_layer and first[2] >> 4 not in (0, 15) and (first[2] >> 2) & 3 != 3


class _PeekedStream(io.RawIOBase):
    """A stream from its beginning, although its first bytes have already been read."""

    def __init__(self, first: bytes, rest: IO[bytes]):
        self.first, self.rest = first, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.first[: len(buffer)] or self.rest.read1(len(buffer))  # type: ignore[attr-defined]
        self.first = self.first[len(data) :]
        buffer[: len(data)] = data
        return len(data)


def _read_seconds(read: Any, rate: int, channels: int, width: int, quality: RecordingQuality) -> Iterator[np.ndarray]:
    blocks = quality.watch_samples(_read_blocks(read, rate, channels, width), rate)
    return quality.watch_waveform(resample(mix_down(blocks), rate))


def _read_blocks(read: Any, rate: int, channels: int, width: int) -> Iterator[np.ndarray]:
    """Yield the seconds of a stream at its own sampling rate, (samples, channels)."""
    while data := read(rate):
        data = data[: len(data) // (channels * width) * channels * width]
        yield scale_samples(_decode_samples(data, width)).reshape(-1, channels)


def _decode_samples(data: bytes, width: int) -> np.ndarray:
    """PCM bytes, 1 to 4 per sample, to integers; 8-bit samples are unsigned, the others signed."""
    if width == 3:  # NumPy has no 24-bit type: use the upper three bytes of 32-bit integers
        whole = np.zeros((len(data) // 3, 4), np.uint8)
        whole[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, width = whole.tobytes(), 4
    return np.frombuffer(data, np.uint8 if width == 1 else f"<i{width}")


def answer_live(
    recognize: SpeechEmotionRecognitionPipeline, seconds: Iterator[np.ndarray], quality: RecordingQuality
) -> Iterator[dict[str, Any]]:
    """Score the current phrase once per second; `label` is None during a pause.

    Only the last two seconds of a longer phrase are scored. Each kind of problem triggers one warning.

    Args:
        seconds: 16 kHz mono, each (samples,).
        quality: measures of the stream so far.

    Yields:
        dicts with `start`, `end` (seconds), `label`, `score`, `unsure` (whether the score is too low to tell), `scores`
        (label: probability), `mixed` and `dimensions` (as in a record, if it has any) and `warnings` (reasons why
        the scores may be unreliable).
    """
    warned: set[str] = set()
    mixed_above = recognize.model.config.mixed_above
    memory, end = np.zeros(0, np.float32), 0
    for second in filter(len, seconds):
        memory = np.concatenate([memory, second])[-MEMORY * SAMPLING_RATE :]
        start, end = end, end + len(second)
        spoken = _find_spoken(memory, len(second))
        answer: dict[str, Any] = {"label": None, "score": None, "unsure": None, "scores": {}}
        if spoken is not None:
            with warnings.catch_warnings():  # about this phrase alone
                warnings.simplefilter("ignore")
                answered: Any = recognize(spoken, return_dimensions=True)
            found = answered["scores"]
            scores = {entry["label"]: round(entry["score"], 6) for entry in found}
            label = next(iter(scores))
            is_unsure = found[0]["score"] < recognize.model.config.unsure_below
            answer = {"label": label, "score": scores[label], "unsure": is_unsure, "scores": scores}
            if mixed_above is not None:
                chosen = choose_mixed(np.array([entry["score"] for entry in found]), mixed_above)
                answer["mixed"] = dict(list(scores.items())[: len(chosen)])  # both are best first
            answer |= round_dimensions(answered)
        problems = quality.find_problems("the stream", recognize.model.config.bandwidth)
        if end < FIRST_VERDICT * SAMPLING_RATE:
            problems = {kind: problem for kind, problem in problems.items() if kind not in ("voice", "noise", "hum")}
        for kind in problems.keys() - warned:
            warnings.warn(problems[kind], stacklevel=2)
        warned |= problems.keys()
        times = {"start": round(start / SAMPLING_RATE, 3), "end": round(end / SAMPLING_RATE, 3)}
        yield {**times, **answer, "warnings": list(problems.values())}


def _find_spoken(memory: np.ndarray, new: int) -> np.ndarray | None:
    """The last phrase in memory, if at least 0.1 s of it is within the last `new` samples."""
    start, end = find_last_phrase(memory)
    if end - max(start, len(memory) - new) < SHORTEST_PHRASE * SAMPLING_RATE:
        return None
    return memory[max(start, end - int(WINDOW * SAMPLING_RATE)) : end]
