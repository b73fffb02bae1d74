"""Voice conversion: the speech of one speaker with the pitch and the vocal tract of another, by WORLD or a command.

WORLD (Morise et al. 2016) separates speech into F0, spectral envelope and aperiodicity. The conversion maps what is
typical of the source speaker to what is typical of the target, and keeps what an utterance does besides: its melody and
its dynamics relative to its speaker, its timing and its words. So speakers are described by several utterances: the F0
of a single one would carry its emotion.
"""

import shlex
import subprocess
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from core.audio import SAMPLING_RATE, read_audio
from core.errors import InputError

REQUIREMENTS = "requirements-conversion.txt"
PLACES = ("{source}", "{reference}", "{output}")
FASTEST, SLOWEST = 800.0, 60.0  # Hz: the range of F0
WARPS = np.linspace(0.84, 1.2, 37)  # ratios of the vocal tract lengths of adults that are tried
WARPED_BAND = (300.0, 5000.0)  # Hz: where the formants are that a ratio is judged by
SCALES = (0.5, 2.0)  # of the range of F0: a monotonous utterance is not made wild
LARGEST_GAIN = 20.0  # dB of a band of the spectral envelope
FRAME_SECONDS = 0.005
FLOOR = 1e-12  # of the power of a band


class Analysis(NamedTuple):
    """What WORLD makes of an utterance."""

    f0: np.ndarray  # (frames,) in Hz, 0 where there is no voice
    times: np.ndarray  # (frames,) in seconds
    envelope: np.ndarray  # (frames, bands): power


class Voice(NamedTuple):
    """What is typical of a speaker."""

    pitch: float  # median of log F0
    range: float  # interquartile range of log F0; errors of the F0, often by an octave, hardly move either
    envelope: np.ndarray  # (bands,): mean log power of voiced frames, whose own mean is 0


def check_world() -> None:
    """Raise InputError if pyworld is not installed."""
    if find_spec("pyworld") is None:
        raise InputError(
            f"--convert needs pyworld, which is not installed: pip install -r {REQUIREMENTS}, or give another "
            "converter as --convert_command"
        )


def check_command(command: str) -> None:
    """Raise InputError if a command cannot be split into words or lacks one of `PLACES`."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--convert_command {command!r} cannot be split into words ({error})") from None
    missing = [place for place in PLACES if not any(place in word for word in words)]
    if missing:
        raise InputError(
            f"--convert_command {command!r} lacks {', '.join(missing)}: write it as 'python convert.py {{source}} "
            "{reference} {output}'"
        )


def analyse(waveform: np.ndarray) -> Analysis:
    """Analyse (samples,) at 16 kHz."""
    import pyworld  # only conversion needs it

    samples = waveform.astype(np.float64)
    coarse, times = pyworld.dio(
        samples, SAMPLING_RATE, f0_floor=SLOWEST, f0_ceil=FASTEST, frame_period=1000 * FRAME_SECONDS
    )
    f0 = pyworld.stonemask(samples, coarse, times, SAMPLING_RATE)
    return Analysis(f0, times, pyworld.cheaptrick(samples, f0, times, SAMPLING_RATE, f0_floor=SLOWEST))


def describe_voice(waveforms: Iterable[np.ndarray]) -> Voice | None:
    """Describe the speaker of some utterances, each (samples,) at 16 kHz; None if none of them has a voiced frame."""
    pitches, envelopes = [], []
    for waveform in waveforms:
        analysis = analyse(waveform)
        voiced = analysis.f0 > 0
        pitches.append(np.log(analysis.f0[voiced]))
        envelopes.append(_take_log(analysis.envelope[voiced]))
    pitch = np.concatenate([np.zeros(0), *pitches])
    if len(pitch) == 0:
        return None
    low, median, high = np.percentile(pitch, [25, 50, 75]).tolist()
    envelope = np.concatenate(envelopes).mean(axis=0)
    return Voice(median, high - low, envelope - envelope.mean())


def convert(waveform: np.ndarray, source: Voice, target: Voice) -> np.ndarray:
    """Convert an utterance of the source to the voice of the target: (samples,) to (samples,), float32 at 16 kHz.

    Log F0 is mapped linearly, so that median and range of the source become those of the target (the range to within a
    factor of `SCALES`). The spectral envelope
    is stretched by the ratio of the vocal tracts, and then shifted by what is left of the difference between the means.
    Length and level are kept.
    """
    import pyworld

    analysis = analyse(waveform)
    samples = waveform.astype(np.float64)
    aperiodicity = pyworld.d4c(samples, analysis.f0, analysis.times, SAMPLING_RATE)
    f0 = map_pitch(analysis.f0, source, target)
    warp = find_warp(source.envelope, target.envelope)
    gain = target.envelope - _stretch(source.envelope, warp)
    limit = LARGEST_GAIN * np.log(10) / 10
    envelope = np.exp(_stretch(_take_log(analysis.envelope), warp) + np.clip(gain - gain.mean(), -limit, limit))
    converted = pyworld.synthesize(
        f0, np.ascontiguousarray(envelope), aperiodicity, SAMPLING_RATE, 1000 * FRAME_SECONDS
    )
    converted = np.resize(np.pad(converted, (0, max(0, len(samples) - len(converted)))), len(samples))
    level, now = (np.sqrt(np.mean(np.square(signal))) for signal in (samples, converted))
    return (converted * min(level / max(now, FLOOR), 1 / max(np.abs(converted).max(), FLOOR))).astype(np.float32)


def map_pitch(f0: np.ndarray, source: Voice, target: Voice) -> np.ndarray:
    """Map F0 in Hz, (frames,), from one voice to another; frames without a voice stay 0."""
    voiced = f0 > 0
    scale = np.clip(target.range / source.range, *SCALES) if source.range > 0 else 1.0
    mapped = np.zeros_like(f0)
    mapped[voiced] = np.exp(target.pitch + scale * (np.log(f0[voiced]) - source.pitch))
    return np.where(voiced, np.clip(mapped, SLOWEST, FASTEST), 0.0)


def find_warp(source: np.ndarray, target: np.ndarray) -> float:
    """The factor by which the frequencies of the source are stretched to be most like those of the target.

    Args:
        source, target: mean log envelopes, (bands,).
    """
    low, high = (int(edge / (SAMPLING_RATE / 2) * (len(source) - 1)) for edge in WARPED_BAND)

    def distance(warp: float) -> float:
        return float(np.var((_stretch(source, warp) - target)[low:high]))

    return float(min(WARPS, key=distance))


def _stretch(envelope: np.ndarray, warp: float) -> np.ndarray:
    """An envelope, (..., bands), whose formants are higher by a factor; the last band is repeated above it."""
    bands = np.arange(envelope.shape[-1])
    places = np.minimum(bands / warp, bands[-1])
    below = np.minimum(places.astype(int), bands[-1] - 1)
    share = places - below
    return envelope[..., below] * (1 - share) + envelope[..., below + 1] * share


def _take_log(envelope: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(envelope, FLOOR))


def run_command(command: str, waveform: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Convert an utterance by a command, which is given two WAV files and writes a third: (samples,) at 16 kHz.

    No shell interprets the command.

    Args:
        command: with `PLACES` for the paths.
        reference: (samples,) of the target speaker.

    Raises:
        InputError: the command fails, or writes no audio.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = dict(zip(PLACES, (Path(folder, f"{place.strip('{}')}.wav") for place in PLACES)))
        for place, samples in zip(PLACES, (waveform, reference)):
            soundfile.write(paths[place], samples, SAMPLING_RATE, subtype="FLOAT")
        words = [_fill_in(word, paths) for word in shlex.split(command)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise InputError(f"--convert_command {words[0]} cannot be started ({error.strerror}): install it") from None
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
            raise InputError(f"--convert_command failed with status {done.returncode} ({last}): {shlex.join(words)}")
        if not paths["{output}"].is_file():
            raise InputError(f"--convert_command wrote no file {{output}}: {shlex.join(words)}")
        return read_audio(paths["{output}"])


def _fill_in(word: str, paths: dict[str, Path]) -> str:
    for place, path in paths.items():
        word = word.replace(place, str(path))
    return word
