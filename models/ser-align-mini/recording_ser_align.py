"""Reads recordings, for both training and inference.

Any format and sampling rate becomes 16 kHz mono float32, block by block, so memory use does not grow with the length.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

try:  # where transformers looks for no requirement: the model alone loads without it
    import soxr
except ImportError as error:
    raise ImportError(f"recordings are read with soundfile and soxr ({error}): pip install soundfile soxr") from error

try:
    from .decoding_ser_align import Samples, decode_file, describe_recording, download
    from .fields_ser_align import BLOCK_SECONDS, SAMPLING_RATE
    from .quality_ser_align import RecordingQuality
except ImportError:
    if __package__:
        raise
    from decoding_ser_align import Samples, decode_file, describe_recording, download
    from fields_ser_align import BLOCK_SECONDS, SAMPLING_RATE
    from quality_ser_align import RecordingQuality

# Ours. A rate outside these limits indicates a damaged header. Some files store 32-bit integers as floats; larger
# samples indicate damage.
LOWEST_RATE, HIGHEST_RATE = 4_000, 400_000
LARGEST_SAMPLE = 2.0**31
MOST_CHANNELS = 32  # ours, for arrays: more are features, not audio
ACCEPTED = (
    "give a path, bytes, an open file, a waveform (samples,) or (samples, channels), a pair of waveform and rate, or a "
    "dict with array and sampling_rate"
)


def read_blocks(
    recording: Any, channel: int | None = None, quality: RecordingQuality | None = None, allow_urls: bool = False
) -> Iterator[np.ndarray]:
    """Read a recording as 16 kHz mono blocks of 30 seconds; the last one is shorter.

    Args:
        recording: one of
            - the path of an audio file, its bytes, or an open binary file. Files that soundfile cannot read go
              through ffmpeg if it is installed. With `allow_urls`, also an http or https address.
            - a waveform at 16 kHz: NumPy array, torch tensor or list, (samples,), (samples, channels) or (channels,
              samples). The longer axis is time; if both are equal, the first one.
            - a pair of a waveform and its sampling rate in Hz, in either order.
            - a dict with `array` (or `raw`) and `sampling_rate`, or with `bytes` or `path`, as in rows of `datasets`.
            - a torchcodec decoder.
            Integers are scaled by the range of their type, see [`scale_samples`].
        channel: the channel to read, counted from 0; None averages all channels.
        quality: updated while the recording is read.
        allow_urls: whether to download from http and https addresses.

    Yields:
        float32 (samples,).

    Raises:
        ValueError: as in [`read_samples`], or there is no such channel. The message is one line.
    """
    name = describe_recording(recording)
    quality = RecordingQuality() if quality is None else quality
    blocks, rate, _, quality.lost = read_samples(recording, allow_urls)
    mono = mix_down(quality.watch_samples(blocks, rate, channel is None), channel, name)
    yield from quality.watch_waveform(resample(mono, rate))


def read_samples(recording: Any, allow_urls: bool = False) -> Samples:
    """Read the samples of a recording at its own sampling rate, with all of its channels.

    Args:
        recording, allow_urls: as for [`read_blocks`].

    Raises:
        ValueError: the file is missing, is not audio, or has an implausible sampling rate. While the blocks are read:
            the file is damaged, or contains samples that are not finite or far too large. The message is one line.
    """
    name = describe_recording(recording)
    source = _find_file(recording)
    if isinstance(source, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source):
        if not allow_urls:
            raise ValueError(
                f"{name} is a URL, and URLs are not downloaded by default: download it, or set allow_urls=True"
            )
        source = download(source)
    blocks, rate, channels, lost = _read_array(recording) if source is None else decode_file(source)
    check_rate(rate, name)
    return Samples(_check_samples(blocks, name), rate, channels, lost)


def count_channels(recording: Any) -> int:
    """Count the channels of a recording. Raises ValueError."""
    blocks, _, channels, _ = read_samples(recording)
    next(blocks, None)  # start the generator, because ffmpeg ends with it
    return channels


def mix_down(blocks: Iterable[np.ndarray], channel: int | None = None, name: str = "") -> Iterator[np.ndarray]:
    """Average the channels of each block, or take one of them: (samples, channels) to (samples,).

    Raises:
        ValueError: the recording, called `name`, has no such channel.
    """
    for block in blocks:
        if channel is not None and channel >= block.shape[1]:
            count = f"{block.shape[1]} channel{'s' if block.shape[1] > 1 else ''}"
            raise ValueError(f"{name} has {count}; channel {channel} does not exist (channels start at 0)")
        yield block.mean(axis=1) if channel is None else np.ascontiguousarray(block[:, channel])


def resample(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Resample the blocks of one recording, (samples,), from `rate` in Hz to 16 kHz; a block may come out empty."""
    if rate == SAMPLING_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLING_RATE, 1, quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def check_rate(rate: int, name: str) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(
            f"{name} has a sampling rate of {rate} Hz, outside the valid range of {LOWEST_RATE} to {HIGHEST_RATE} Hz; "
            "export it again"
        )


def scale_samples(samples: np.ndarray) -> np.ndarray:
    """Convert samples of any type to float32: integers are scaled by the range of their type, floats are not changed.

    Unsigned 8-bit samples are centred on 128, as in WAV files. No audio format has 64-bit integers: they are taken as
    16-bit samples if all of them fit, and as 32-bit samples otherwise.

    Raises:
        ValueError: for wider unsigned integers, whose centre is unknown, and for 64-bit integers beyond 32 bits.
    """
    kind, bits = samples.dtype.kind, 8 * samples.dtype.itemsize
    if kind == "f":
        return samples.astype(np.float32, copy=False)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if bits == 64 and kind == "i" and samples.size:
        lowest, highest = int(samples.min()), int(samples.max())
        bits = next((bits for bits in (16, 32) if -(2 ** (bits - 1)) <= lowest and highest < 2 ** (bits - 1)), 0)
    if kind == "u" or bits == 0:
        raise ValueError(f"samples of type {samples.dtype} have an unknown range; convert them to int16 or float32")
    return samples.astype(np.float32) / np.float32(2 ** (bits - 1))


def _check_samples(blocks: Iterator[np.ndarray], name: str) -> Iterator[np.ndarray]:
    for block in blocks:
        largest = np.abs(block).max(initial=0.0)
        if not np.isfinite(largest):
            raise ValueError(f"{name} contains samples that are not finite numbers; export it again")
        if largest > LARGEST_SAMPLE:
            raise ValueError(
                f"{name} contains a sample of {largest:.2g}, but samples must be from -1 to 1; export it again"
            )
        yield block


def _find_file(recording: Any) -> Any:
    """Return the path, bytes or open file that a recording is or contains; None for a waveform."""
    if isinstance(recording, dict) and recording.get("array", recording.get("raw")) is None:
        content, path = recording.get("bytes"), recording.get("path")
        recording = path if content is None else content
    if isinstance(recording, os.PathLike):
        recording = os.fspath(recording)
    is_file = isinstance(recording, str | bytes | bytearray | memoryview) or hasattr(recording, "read")
    return recording if is_file else None


def _read_array(recording: Any) -> Samples:
    array, rate = _find_waveform(recording)
    if hasattr(array, "detach"):  # a tensor, on any device
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    try:
        samples = np.asarray(array)
    except ValueError:  # a list of unequal lists
        samples = np.zeros(0, object)
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        what = f" of shape {samples.shape}" if hasattr(array, "shape") else ""
        raise ValueError(f"a {type(recording).__name__}{what} is not a recording: {ACCEPTED}")
    samples = samples[:, None] if samples.ndim == 1 else samples
    samples = samples.T if samples.shape[0] < samples.shape[1] else samples
    if samples.shape[1] > MOST_CHANNELS:
        raise ValueError(
            f"a {type(recording).__name__} with {samples.shape[1]} channels is not a recording: {ACCEPTED}"
        )
    samples = scale_samples(samples)
    rate = _check_whole(rate)
    size = max(1, int(BLOCK_SECONDS * rate))
    blocks = (samples[start : start + size] for start in range(0, len(samples), size))
    return Samples(blocks, rate, samples.shape[1])


def _find_waveform(recording: Any) -> tuple[Any, Any]:
    """Return the waveform and the sampling rate that a recording is or contains."""
    if hasattr(recording, "get_all_samples"):  # torchcodec's decoder, which datasets gives
        decoded = recording.get_all_samples()
        return decoded.data, decoded.sample_rate
    if isinstance(recording, dict):
        array, rate = recording.get("array", recording.get("raw")), recording.get("sampling_rate")
        if array is None or rate is None:
            keys = ", ".join(map(str, recording)) or "no keys"
            raise ValueError(
                f"a dict with {keys} is not a recording: it needs array (or raw) and sampling_rate in Hz, "
                "or bytes or path"
            )
        return array, rate
    if isinstance(recording, tuple) and len(recording) == 2:
        first, second = recording
        if np.ndim(first) == 0 and np.ndim(second) > 0:  # Gradio's order
            return second, first
        if np.ndim(second) == 0 and np.ndim(first) > 0:  # librosa's
            return first, second
    return recording, SAMPLING_RATE


def _check_whole(rate: Any) -> int:
    """Return a sampling rate as an int, whatever its type."""
    is_number = np.ndim(rate) == 0 and not isinstance(rate, bool | str | bytes)
    try:
        if is_number and float(rate) == int(rate):
            return int(rate)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"a sampling rate of {rate!r} is not a whole number of Hz, such as 16000")
