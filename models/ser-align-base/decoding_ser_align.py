"""Decodes audio files block by block, with soundfile where possible and with ffmpeg otherwise.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

import io
import os
import re
import shutil
import struct
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

try:  # where transformers looks for no requirement: the model alone loads without it
    import soundfile
except ImportError as error:
    raise ImportError(f"recordings are read with soundfile and soxr ({error}): pip install soundfile soxr") from error

try:
    from .fields_ser_align import BLOCK_SECONDS, printable
except ImportError:
    if __package__:
        raise
    from fields_ser_align import BLOCK_SECONDS, printable

BLOCK_VALUES = 2**24  # samples of all channels in one block, whatever the header says: 64 MB
LARGEST_DOWNLOAD = 2**31  # bytes
UNKNOWN_SIZE = 2**31 - 2**16  # bytes: headers with this size or more come from a pipe
FOLLOWING_CHUNKS = (b"LIST", b"PEAK", b"bext", b"cue ", b"fact", b"iXML", b"id3 ", b"JUNK", b"smpl")  # in WAV files
HEADER_BYTES = 4096  # in which a WAV file states the size of its samples
# Suffixes that folders are searched for. A file given by name can have any suffix.
SOUNDFILE_SUFFIXES = (
    *(".wav", ".wave", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".voc"),
)
FFMPEG_SUFFIXES = (
    *(".m4a", ".m4b", ".aac", ".wma", ".amr", ".awb", ".webm", ".weba", ".mka", ".3gp", ".3g2"),
    *(".ac3", ".eac3", ".ape", ".wv", ".tta"),
)
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".flv", ".wmv", ".asf", ".mpg", ".mpeg")  # through ffmpeg
# Formats that ffmpeg may open: containers with their own audio, but no playlists, which refer to other files.
FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,tta,w64,wav,webm,wv"
)
# ffmpeg leaves out what a track lacks, such as the first seconds of a late track, so all times would shift. With this
# filter, gaps of more than 50 ms are silence; delays of encoders are shorter.
KEEP_CLOCK = "aresample=async=1:first_pts=0:min_comp=0.05"


class Samples(NamedTuple):
    """A recording at its own sampling rate, with all of its channels, decoded on demand."""

    blocks: Iterator[np.ndarray]  # float32 (samples, channels)
    rate: int  # Hz
    channels: int
    lost: float = 0.0  # share of the samples that the header promises and the file does not hold
    may_be_batch: bool = False  # an array of several rows, each of which may be a recording of its own


def describe_recording(recording: Any) -> str:
    """The name of a recording in messages: its path on one line, or `the recording`."""
    if isinstance(recording, dict):
        recording = recording.get("path")
    return printable(str(recording)) if isinstance(recording, str | Path) else "the recording"


def decode_file(recording: Any) -> Samples:
    """Decode an audio file, given as a path, bytes or a binary file.

    Blocks have at most 30 seconds. They are shorter if many channels at a high rate would need more than 64 MB.

    Raises:
        ValueError: the file is missing, or neither soundfile nor ffmpeg can read it. While the blocks are read: the
            file is damaged. The message is one line.
    """
    name = describe_recording(recording)
    source = _open_source(recording, name)
    try:
        file = _open_sound(source)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless audio, such as a.raw
        reason = error.error_string if isinstance(error, soundfile.LibsndfileError) else str(error)
        if shutil.which("ffmpeg"):
            return _decode_with_ffmpeg(source, name)
        raise ValueError(
            f"{name} cannot be read as audio ({_describe_reason(reason)}); convert it to WAV, FLAC, OGG or MP3, or "
            "install ffmpeg"
        ) from None
    return Samples(_read_with_soundfile(file, name), file.samplerate, file.channels, _find_lost_share(file))


def _open_sound(source: Any) -> soundfile.SoundFile:
    """Open a file; a WAV file whose header states no samples is read to its end."""
    file = soundfile.SoundFile(source)
    if file.frames > 0 or file.format not in ("WAV", "WAVEX"):
        return file
    file.close()
    if isinstance(source, str | bytes):
        content = Path(os.fsdecode(source)).read_bytes()
    else:
        source.seek(0)
        content = source.read()
    return soundfile.SoundFile(io.BytesIO(fill_in_size(content[:HEADER_BYTES]) + content[HEADER_BYTES:]))


def fill_in_size(start: bytes) -> bytes:
    """The start of a WAV file, with the largest size of the samples in place of 0.

    Recorders state 0 that write to a pipe or were interrupted. In a file that is really empty, other chunks may follow.
    """
    place = 12  # of the first chunk, after RIFF, size and WAVE
    while place + 8 <= len(start):
        name, size = struct.unpack_from("<4sI", start, place)
        if name == b"data":
            is_known = size > 0 or start[place + 8 : place + 12] in FOLLOWING_CHUNKS
            return start if is_known else start[: place + 4] + b"\xff" * 4 + start[place + 8 :]
        place += 8 + size + size % 2
    return start


def _find_lost_share(file: soundfile.SoundFile) -> float:
    """The share of the samples that an interrupted copy or download has lost; soundfile reads the rest in silence.

    Recorders that write to a pipe do not know the size and put the largest number.
    """
    sizes = re.search(r"(?:data|SSND|Data Size|riff)\s*:\s*(\d+) \(should be (\d+)\)", file.extra_info)
    promised, found = (int(sizes[1]), int(sizes[2])) if sizes else (0, 0)
    return 1 - found / promised if found < promised < UNKNOWN_SIZE else 0.0


def read_header(path: str | Path) -> tuple[int, int] | None:
    """Read the number of samples and the sampling rate; None if soundfile cannot read the file. Raises ValueError."""
    source = _open_source(path, describe_recording(path))
    try:
        with _open_sound(source) as file:
            return file.frames, file.samplerate
    except (soundfile.LibsndfileError, TypeError):
        return None


def measure_lost_share(path: str | Path) -> float:
    """Measure the share of its samples that a file has lost; 0 if soundfile cannot read it. Raises ValueError."""
    source = _open_source(path, describe_recording(path))
    try:
        with _open_sound(source) as file:
            return _find_lost_share(file)
    except (soundfile.LibsndfileError, TypeError):
        return 0.0


def download(url: str) -> IO[bytes]:
    """Download from an http or https address to a temporary file. Raises ValueError."""
    name = describe_recording(url)
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"{name} is not an http or https URL: download it first")
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- deleted with the last reference to it
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            while data := response.read(2**20):
                file.write(data)
                if file.tell() > LARGEST_DOWNLOAD:
                    raise ValueError(f"{name} is larger than {LARGEST_DOWNLOAD // 2**30} GiB: download it first")
    except (OSError, urllib.error.URLError) as error:
        raise ValueError(f"{name} cannot be downloaded ({_describe_reason(str(error))})") from None
    file.seek(0)
    return file


def encode_path(path: str | Path) -> str | bytes:
    """A path in the form that soundfile opens, even if its name is not valid UTF-8."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def _open_source(recording: Any, name: str) -> Any:
    """Return what soundfile can open: the path of a file, or a seekable binary file. Raises ValueError."""
    if isinstance(recording, bytes | bytearray | memoryview):
        return _check_size(io.BytesIO(recording))
    if hasattr(recording, "read"):
        if isinstance(recording, io.TextIOBase):
            raise ValueError('the recording is a file opened in text mode: open it with mode "rb"')
        can_seek = all(hasattr(recording, method) for method in ("seek", "tell", "seekable")) and recording.seekable()
        return _check_size(recording if can_seek else io.BytesIO(recording.read()))
    if not os.path.isfile(recording):  # reading a pipe might never end
        raise ValueError(f"{name} is not a file" if os.path.exists(recording) else f"{name}: no such audio file")
    if not os.access(recording, os.R_OK):
        raise ValueError(f"{name} is not readable: change its permissions")
    return encode_path(recording)


def _check_size(file: IO[bytes]) -> IO[bytes]:
    """Return an open file at its beginning, wherever others have left it. Raises ValueError if there is nothing."""
    if file.seek(0, os.SEEK_END) == 0:
        raise ValueError("the recording holds no bytes: it is empty, or a stream that was read to its end before")
    file.seek(0)
    return file


def _describe_reason(message: str) -> str:
    """Format a library's message as part of ours."""
    return printable(" ".join(message.split()).rstrip("."))


def _read_with_soundfile(file: soundfile.SoundFile, name: str) -> Iterator[np.ndarray]:
    size = min(int(BLOCK_SECONDS * file.samplerate), BLOCK_VALUES // file.channels)
    with file:
        while True:
            try:
                block = file.read(size, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                reason = _describe_reason(error.error_string)
                raise ValueError(f"{name} is damaged ({reason}); export it again") from None
            if len(block) == 0:
                return
            yield block


def _decode_with_ffmpeg(source: Any, name: str) -> Samples:
    """Decode with ffmpeg to an AU stream, whose header states the sampling rate and the channels."""
    copy = None
    if not isinstance(source, str | bytes):  # ffmpeg cannot read many containers from a pipe
        copy = tempfile.NamedTemporaryFile()  # noqa: SIM115 -- deleted with the last reference to it
        source.seek(0)
        shutil.copyfileobj(source, copy)
        copy.flush()
    path = os.fsencode(source if copy is None else copy.name)
    limits = ["-protocol_whitelist", "file,pipe", "-format_whitelist", FFMPEG_FORMATS]
    given: list[str | bytes] = ["ffmpeg", "-nostdin", "-v", "error", *limits, "-i", b"file:" + path]
    command = [*given, "-map", "a:0", "-af", KEEP_CLOCK, "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    # Messages go to a file: on a damaged recording, ffmpeg writes more than a pipe can hold and would block forever.
    messages = tempfile.TemporaryFile()  # noqa: SIM115 -- deleted with the last reference to it
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages)
    assert process.stdout is not None
    header = process.stdout.read(24)
    if len(header) < 24:
        process.communicate()
        raise ValueError(_describe_failure(messages, name))
    _, offset, _, _, rate, channels = struct.unpack(">4s5I", header)
    process.stdout.read(offset - len(header))
    return Samples(_read_from_ffmpeg(process, rate, channels, messages, name, copy), rate, channels)


def _read_from_ffmpeg(
    process: subprocess.Popen, rate: int, channels: int, messages: IO[bytes], name: str, copy: Any
) -> Iterator[np.ndarray]:
    """Yield the blocks of its output. `copy` is the temporary file that it reads, if any; it exists until the end."""
    assert process.stdout is not None
    size = 4 * channels * min(int(BLOCK_SECONDS * rate), BLOCK_VALUES // channels)
    with process:
        while data := process.stdout.read(size):
            whole = len(data) // (4 * channels) * 4 * channels
            yield np.frombuffer(data[:whole], ">f4").astype(np.float32).reshape(-1, channels)
        if process.wait():
            raise ValueError(_describe_failure(messages, name))


def _describe_failure(messages: IO[bytes], name: str) -> str:
    messages.seek(0)
    lines = messages.read().decode(errors="replace").strip().splitlines()
    reason = re.sub(r"\[[^]]*\]\s*", "", lines[-1]) if lines else "ffmpeg failed"
    return f"{name} cannot be read as audio ({_describe_reason(reason)})"
