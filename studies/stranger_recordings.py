"""Recordings as strangers give them, made from one recording of speech. Part of studies/strangers.py."""

import io
import shutil
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from fields_ser_align import SAMPLING_RATE
from studies.disturbances import resample_through

# What a stranger may expect: the answer of the intact recording; a refusal; a warning or a refusal, since this is not
# the speech of one adult, though a corpus may hold it.
SAME, NONE, NO_VOICE = "the same answer", "a refusal", "a word of warning"
Write = Callable[[Path, np.ndarray], object]


class Recording(NamedTuple):
    """What a stranger gives: the file's name, what may be expected of the answer, and what writes the file."""

    file: str
    expected: str
    write: Write


def save(change: Callable[[np.ndarray], np.ndarray], rate: int = SAMPLING_RATE, **form: str) -> Write:
    """Write the changed speech as an audio file."""
    return lambda path, speech: soundfile.write(path, change(speech), rate, **form)


def keep(speech: np.ndarray) -> np.ndarray:
    return speech


def resample_to(rate: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda speech: soxr.resample(speech, SAMPLING_RATE, rate)


def place(channel: int, channels: int, sign: float = 0.0) -> Callable[[np.ndarray], np.ndarray]:
    """The speech in one of several channels; the others hold it times `sign`."""

    def put(speech: np.ndarray) -> np.ndarray:
        values = np.repeat(sign * speech[:, None], channels, axis=1)
        values[:, channel] = speech
        return values

    return put


def put_nan(speech: np.ndarray) -> np.ndarray:
    values = speech.copy()
    values[1000] = np.nan
    return values


def play_music(speech: np.ndarray) -> np.ndarray:
    """Eight bars of piano-like chords and a beat."""
    rng, pieces = np.random.default_rng(0), []
    times = np.arange(SAMPLING_RATE // 2) / SAMPLING_RATE
    for root in (220.0, 174.6, 261.6, 196.0) * 4:
        tones = [np.sin(2 * np.pi * root * ratio * times * n) / n for ratio in (1, 1.25, 1.5) for n in (1, 2, 3)]
        beat = rng.normal(size=len(times)) * np.exp(-60 * times)
        pieces.append(0.08 * np.sum(tones, axis=0) * np.exp(-3 * times) + 0.1 * beat)
    return np.concatenate(pieces)


def make_noise(speech: np.ndarray) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(len(speech))


def beep(speech: np.ndarray) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(speech)) / SAMPLING_RATE)


def make_quiet_noise(speech: np.ndarray) -> np.ndarray:
    """What a microphone records in an empty room: noise that falls by 3 dB per octave, at -60 dBFS."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(len(speech)))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise = np.fft.irfft(spectrum, len(speech))
    return 0.001 * noise / noise.std()


def bury(speech: np.ndarray) -> np.ndarray:
    """The speech in white noise of the same power."""
    return speech + speech.std() * np.random.default_rng(0).standard_normal(len(speech))


def interpolate(speech: np.ndarray) -> np.ndarray:
    """A telephone's 8 kHz, brought to 16 kHz by linear interpolation."""
    narrow = soxr.resample(speech, SAMPLING_RATE, 8000)
    return np.interp(np.arange(2 * len(narrow)) / 2, np.arange(len(narrow)), narrow)


def wail(speech: np.ndarray) -> np.ndarray:
    """A siren that rises and falls."""
    pitch = 600 + 300 * np.sin(np.pi * np.arange(len(speech)) / SAMPLING_RATE)
    return 0.2 * np.sign(np.sin(2 * np.pi * np.cumsum(pitch) / SAMPLING_RATE))


def hum(speech: np.ndarray) -> np.ndarray:
    return speech + 0.02 * np.sin(2 * np.pi * 50 * np.arange(len(speech)) / SAMPLING_RATE)


def sing(speech: np.ndarray) -> np.ndarray:
    """A vowel on a melody."""
    pitch = np.repeat([220.0, 247.0, 262.0, 294.0, 330.0, 294.0, 262.0, 220.0], SAMPLING_RATE // 2)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLING_RATE
    weights = {n: 1 / (1 + ((n * 250 - 700) / 300) ** 2) for n in range(1, 13)}
    return 0.1 * np.sum([weight * np.sin(n * phase) for n, weight in weights.items()], axis=0)


def overlap(speech: np.ndarray) -> np.ndarray:
    """The two utterances of the recording at once."""
    middle = len(speech) // 2
    return speech[:middle] + speech[-middle:]


def write_with_cover(path: Path, speech: np.ndarray) -> None:
    """An MP3 file behind an ID3 tag with a picture of 200 kB."""
    audio = io.BytesIO()
    soundfile.write(audio, speech, SAMPLING_RATE, format="MP3")
    picture = b"\0image/jpeg\0\3\0" + b"\xff\xd8\xff\xe0" + np.random.default_rng(0).bytes(200_000)
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\3\0\0" + size + frame + audio.getvalue())


def state_size(size: bytes) -> Callable[[Path, np.ndarray], None]:
    """A WAV file whose header states this size of the file and the samples, in four bytes."""

    def write(path: Path, speech: np.ndarray) -> None:
        save(keep)(path, speech)
        content = bytearray(path.read_bytes())
        content[4:8] = content[40:44] = size
        path.write_bytes(content)

    return write


def write_cut(path: Path, speech: np.ndarray) -> None:
    """The first half of a WAV file, as a download leaves it."""
    save(keep)(path, speech)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_zip(path: Path, speech: np.ndarray) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.wav", (speech * 32767).astype("<i2").tobytes())


def write_as(form: str) -> Write:
    """The recording in a format that its name does not say."""
    return lambda path, speech: (
        soundfile.write(str(path.with_suffix(f".{form}")), speech, SAMPLING_RATE)
        or (shutil.move(path.with_suffix(f".{form}"), path))
    )


VIDEO = b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41\0\0\0\x08free" + bytes(4000)

RECORDINGS = {
    "the recording itself": Recording("speech.wav", SAME, save(keep)),
    "silence": Recording("silence.wav", NO_VOICE, save(lambda speech: 0 * speech)),
    "no sample": Recording("empty.wav", NONE, save(lambda speech: speech[:0])),
    "one sample": Recording("sample.wav", NONE, save(lambda speech: speech[8000:8001])),
    "30 ms": Recording("click.wav", NONE, save(lambda speech: speech[16000:16480])),
    "a file of 0 bytes": Recording("nothing.wav", NONE, lambda path, _: path.write_bytes(b"")),
    "a minute of silence first": Recording(
        "late.flac", SAME, save(lambda speech: np.concatenate([np.zeros(60 * SAMPLING_RATE), speech]))
    ),
    "more than a minute": Recording("long.flac", SAME, save(lambda speech: np.tile(speech, 14))),
    "stereo, one channel dead": Recording("dead.wav", SAME, save(place(0, 2))),
    "stereo, opposite phases, which cancel in the mean": Recording("phase.wav", SAME, save(place(0, 2, -1.0))),
    "stereo, nearly opposite phases": Recording("phase2.wav", SAME, save(place(0, 2, -0.97))),
    "six channels, speech in the centre": Recording("surround.wav", SAME, save(place(2, 6))),
    "upside down": Recording("inverted.wav", SAME, save(lambda speech: -speech)),
    "NaN in a float file": Recording("nan.wav", NONE, save(put_nan, subtype="FLOAT")),
    "DC offset of 0.3": Recording("dc.wav", SAME, save(lambda speech: 0.3 + speech)),
    "a constant": Recording("constant.wav", NO_VOICE, save(lambda speech: 0.2 + 0 * speech)),
    "8 bits": Recording("8bit.wav", SAME, save(lambda speech: speech / np.abs(speech).max(), subtype="PCM_U8")),
    "8 bits at a tenth of full scale": Recording(
        "8bit-low.wav", SAME, save(lambda speech: 0.1 * speech / np.abs(speech).max(), subtype="PCM_U8")
    ),
    "24 bits": Recording("24bit.wav", SAME, save(keep, subtype="PCM_24")),
    "64-bit floats": Recording("double.wav", SAME, save(keep, subtype="DOUBLE")),
    "floats of the range of 16-bit integers": Recording(
        "scaled.wav", SAME, save(lambda speech: 32768 * speech, subtype="FLOAT")
    ),
    "mu-law": Recording("ulaw.wav", SAME, save(keep, subtype="ULAW")),
    "192 kHz": Recording("192k.wav", SAME, save(resample_to(192000), 192000)),
    "44.1 kHz": Recording("44k.wav", SAME, save(resample_to(44100), 44100)),
    "a telephone's 8 kHz": Recording("8k.wav", SAME, save(resample_to(8000), 8000)),
    "a telephone's band at 16 kHz": Recording("phone.wav", SAME, save(partial(resample_through, rate=8000))),
    "a telephone's 8 kHz, interpolated": Recording("linear.wav", SAME, save(interpolate)),
    "MP3 with a cover picture": Recording("cover.mp3", SAME, write_with_cover),
    "FLAC called .wav": Recording("flac.wav", SAME, write_as("flac")),
    "MP3 called .wav": Recording("mp3.wav", SAME, write_as("mp3")),
    "WAV called .mp3": Recording("wav.mp3", SAME, write_as("wav")),
    "WAV of unknown length, from a pipe": Recording("pipe.wav", SAME, state_size(b"\xff\xff\xff\xff")),
    "WAV of a recorder that was interrupted": Recording("stopped.wav", SAME, state_size(bytes(4))),
    "half of a download": Recording("half.wav", NONE, write_cut),
    "a video": Recording("film.mp4", NONE, lambda path, _: path.write_bytes(VIDEO)),
    "a text called .wav": Recording("text.wav", NONE, lambda path, _: path.write_bytes(b"Dear Sir,\n" * 50)),
    "a ZIP archive called .wav": Recording("zip.wav", NONE, write_zip),
    "samples without a header": Recording(
        "bare.raw", NONE, lambda path, speech: path.write_bytes((32767 * speech).astype("<i2").tobytes())
    ),
    "a folder called .wav": Recording("folder.wav", NONE, lambda path, _: path.mkdir()),
    "a name with a line break and an emoji": Recording("a \n\U0001f642 b.wav", SAME, save(keep)),
    "a name with a pattern in it": Recording("take [1]*.wav", SAME, save(keep)),
    "60 dB too quiet": Recording("quiet.wav", SAME, save(lambda speech: speech / 1000, subtype="FLOAT")),
    "four times too loud, clipped": Recording("clipped.wav", SAME, save(lambda speech: 8 * speech)),
    "mains hum": Recording("hum.wav", SAME, save(hum)),
    "music": Recording("music.wav", NO_VOICE, save(play_music)),
    "singing": Recording("song.wav", NO_VOICE, save(sing)),
    "white noise": Recording("noise.wav", NO_VOICE, save(make_noise)),
    "an empty room": Recording("room.wav", NO_VOICE, save(make_quiet_noise)),
    "speech buried in noise, 0 dB": Recording("buried.wav", NO_VOICE, save(bury)),
    "a siren": Recording("siren.wav", NO_VOICE, save(wail)),
    "a tone": Recording("tone.wav", NO_VOICE, save(beep)),
    "a child's pitch": Recording("child.wav", NO_VOICE, save(lambda s: soxr.resample(s, 3, 2))),
    "two people at once": Recording("both.wav", NO_VOICE, save(overlap)),
}


def write_recordings(folder: Path, speech: np.ndarray) -> dict[str, Path]:
    """Write all of them into a new folder; returns their paths by description."""
    folder.mkdir(parents=True)
    paths = {}
    for description, recording in RECORDINGS.items():
        paths[description] = folder / recording.file
        recording.write(paths[description], speech)
    return paths
