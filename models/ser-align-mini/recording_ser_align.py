"""Reads recordings, for both training and inference.

Any format and sampling rate becomes 16 kHz mono float32, block by block, so memory use does not grow with the length.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
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
# Ours, for arrays, whose second axis may be anything: more are a batch or features. Surround sound has 8 channels.
MOST_CHANNELS, STEREO = 8, 2
ACCEPTED = (
    "give a path, bytes, an open file, a waveform (samples,) or (samples, channels), a pair of waveform and rate, or a "
    "dict with array and sampling_rate; and several recordings as a list or generator"
)

PEAK_SAMPLES = SAMPLING_RATE // 100  # one point of the outline


def name_recording(recording: Any, number: int | None, channel: int | None) -> str:
    """The name of a recording in warnings: its path, or its place among several; and the channel that was chosen."""
    name = describe_recording(recording)
    if name == "the recording" and number is not None:
        name = f"recordings[{number}]"
    return name if channel is None else f"{name} (channel {channel})"


def read_blocks(
    recording: Any, channel: int | None = None, quality: RecordingQuality | None = None, allow_urls: bool = False
) -> Iterator[np.ndarray]:
    """Read a recording as 16 kHz mono blocks of 30 seconds; the last one is shorter.

    Args:
        recording: one of
            - the path of an audio file, its bytes, or an open binary file, which is read from its beginning. Files
              that soundfile cannot read go through ffmpeg if it is installed. With `allow_urls`, also an http or https
              address.
            - a waveform at 16 kHz: NumPy array, torch tensor or list, (samples,), (samples, channels) or (channels,
              samples). The longer axis is time; if both are equal, the first one. (3, samples) without a rate may be
              a batch, and is refused.
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
    blocks, rate, _, quality.lost, may_be_batch = read_samples(recording, allow_urls)
    quality.may_be_batch = may_be_batch and channel is None
    if channel is not None:
        blocks = choose_channel(blocks, channel, name)
    yield from quality.watch_waveform(resample(mix_down(quality.watch_samples(blocks, rate)), rate))


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
    samples = _read_array(recording) if source is None else decode_file(source)
    check_rate(samples.rate, name)
    return samples._replace(blocks=_check_samples(samples.blocks, name))


def count_channels(recording: Any) -> int:
    """Count the channels of a recording. Raises ValueError."""
    samples = read_samples(recording)
    next(samples.blocks, None)  # start the generator, because ffmpeg ends with it
    return samples.channels


def choose_channel(blocks: Iterable[np.ndarray], channel: int, name: str) -> Iterator[np.ndarray]:
    """Take one channel of each block: (samples, channels) to (samples, 1).

    Raises:
        ValueError: the recording, called `name`, has no such channel.
    """
    for block in blocks:
        if channel >= block.shape[1]:
            count = f"{block.shape[1]} channel{'s' if block.shape[1] > 1 else ''}"
            raise ValueError(f"{name} has {count}; channel {channel} does not exist (channels start at 0)")
        yield np.ascontiguousarray(block[:, channel, None])


def mix_down(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Average the channels of each block: (samples, channels) to (samples,)."""
    for block in blocks:
        yield block.mean(axis=1)


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

    Unsigned 8-bit samples are centred on 128, as in WAV files.

    Raises:
        ValueError: for wider unsigned integers, whose centre is unknown, and for 64-bit integers, which no format has.
    """
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "u" or samples.dtype.itemsize > 4:
        raise ValueError(f"samples of type {samples.dtype} have an unknown range; convert them to int16 or float32")
    return samples.astype(np.float32) / np.float32(2 ** (8 * samples.dtype.itemsize - 1))


def narrow_integers(samples: np.ndarray) -> np.ndarray:
    """Convert a whole recording of 32 or 64-bit integers that holds 16-bit samples to these, and 64 bits to 32.

    Samples of 16 bits are often held in wider integers. As 32-bit samples, they would be below -90 dB, which is
    silence. So is the noise of 24 bits in 32, whose samples are multiples of 256.
    """
    bits = 8 * samples.dtype.itemsize
    if samples.dtype.kind != "i" or bits < 32 or samples.size == 0:
        return samples
    lowest, highest = int(samples.min()), int(samples.max())
    if lowest >= -(2**15) and highest < 2**15 and (bits == 64 or (samples % 256).any()):
        return samples.astype(np.int16)
    return samples.astype(np.int32) if lowest >= -(2**31) and highest < 2**31 else samples


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
    if np.ma.is_masked(array):
        raise ValueError("a masked array is not a recording: fill in its masked samples, array.filled(0)")
    is_nested = isinstance(array, tuple) and any(map(np.ndim, array))
    try:  # other containers might decode a whole corpus
        is_known = hasattr(array, "__array__") or (isinstance(array, Sequence) and not is_nested)
        samples = np.asarray(array) if is_known else np.zeros(0, object)
    except ValueError:  # a list of unequal lists
        samples = np.zeros(0, object)
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise ValueError(_describe_refusal(recording, array))
    is_time_last = samples.ndim == 2 and samples.shape[0] < samples.shape[1]
    may_be_batch = is_time_last and rate is None and samples.shape[0] > 1
    if may_be_batch and samples.shape[0] > STEREO:
        raise ValueError(
            f"a waveform of shape {samples.shape} may be a batch or one recording of {samples.shape[0]} channels: give "
            "a batch as a list of waveforms, and channels with their sampling rate, (waveform, rate)"
        )
    samples = samples[:, None] if samples.ndim == 1 else samples.T if is_time_last else samples
    if samples.shape[1] > MOST_CHANNELS:
        raise ValueError(
            f"a waveform with {samples.shape[1]} channels is not a recording, which has at most {MOST_CHANNELS}: give "
            "a batch as a list of waveforms, or choose channels"
        )
    samples = scale_samples(narrow_integers(samples))
    rate = SAMPLING_RATE if rate is None else _check_whole(rate)
    size = max(1, int(BLOCK_SECONDS * rate))
    blocks = (samples[start : start + size] for start in range(0, len(samples), size))
    return Samples(blocks, rate, samples.shape[1], may_be_batch=may_be_batch)


def _describe_refusal(recording: Any, array: Any) -> str:
    """Say that an object, in which `array` was found, is not a recording, and what is."""
    what = f" of shape {array.shape}" if hasattr(array, "shape") else ""
    if isinstance(recording, Real):
        return (
            f"the number {recording} is not a recording: give a waveform as an array, and a waveform with its sampling "
            "rate as a tuple, (waveform, rate)"
        )
    return f"an object of type {type(recording).__name__}{what} is not a recording: {ACCEPTED}"


def _find_waveform(recording: Any) -> tuple[Any, Any]:
    """Return the waveform and the sampling rate that a recording is or contains; the rate is None if none is given."""
    if hasattr(recording, "get_all_samples"):  # torchcodec's decoder, which datasets gives
        decoded = recording.get_all_samples()
        return decoded.data, decoded.sample_rate
    if isinstance(recording, dict):
        array, rate = recording.get("array", recording.get("raw")), recording.get("sampling_rate")
        if array is None or rate is None:
            keys = ", ".join(map(str, recording)) or "no keys"
            advice = '; of a row of a dataset, give row["audio"]' if "audio" in recording else ""
            raise ValueError(
                f"a dict with {keys} is not a recording: it needs array (or raw) and sampling_rate in Hz, "
                f"or bytes or path{advice}"
            )
        return array, rate
    if isinstance(recording, tuple) and len(recording) == 2:
        first, second = recording
        if np.ndim(first) == 0 and np.ndim(second) > 0:  # Gradio's order
            return second, first
        if np.ndim(second) == 0 and np.ndim(first) > 0:  # librosa's
            return first, second
    return recording, None


def _check_whole(rate: Any) -> int:
    """Return a sampling rate as an int, whatever its type."""
    is_number = np.ndim(rate) == 0 and not isinstance(rate, bool | str | bytes)
    try:
        if is_number and float(rate) == int(rate):
            return int(rate)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"a sampling rate of {rate!r} is not a whole number of Hz, such as 16000")


def collect_peaks(blocks: Iterator[np.ndarray], peaks: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass blocks through and append the largest magnitude of every 10 ms to `peaks`."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        magnitudes = np.concatenate([rest, np.abs(block)])
        full = len(magnitudes) // PEAK_SAMPLES * PEAK_SAMPLES
        peaks.append(magnitudes[:full].reshape(-1, PEAK_SAMPLES).max(axis=1))
        rest = magnitudes[full:]
        yield block
    if len(rest):
        peaks.append(rest.max(keepdims=True))
