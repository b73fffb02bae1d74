"""Measure how often speech, and what is not speech, triggers the warning that a recording sounds unlike speech.

    python -m studies.voice --corpora CORPORA
    python -m studies.voice --corpora CORPORA --silero silero_vad.onnx

CORPORA contains ravdess/, emodb/ and nemo/, at 16 kHz. Speech should not trigger the warning; the sounds of
studies/sounds.py, which are generated, should. Both are also scored by Silero VAD if its ONNX file is given (from the
package silero-vad, MIT licence).
"""

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter
from tqdm import tqdm

from core.loading import load_pipeline
from core.shipped import MINI_MODEL, ROOT
from fields_ser_align import SAMPLING_RATE
from quality_ser_align import RecordingQuality, measure_quality
from recording_ser_align import read_blocks
from studies.bandwidth import CORPORA
from studies.disturbances import resample_through
from studies.reporting import RELIABILITY, write_study
from studies.sounds import SOUNDS
from voice_ser_align import FEWEST_FRAMES

SPEAKER = {"RAVDESS": r"-(\d\d)$", "EmoDB": r"^(\d\d)", "nEMO": r"^([A-Z0-9]+)_"}  # in the name of a file
STEP = 16  # every 16th file for whispers and for Silero VAD
ORDER, FRAME, HOP = 18, 512, 256  # of the linear prediction that makes whispers, and samples
SILERO_THRESHOLD = 0.5  # its default


def add_noise(waveform: np.ndarray, snr_db: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(waveform), dtype=np.float32)
    return waveform + noise * waveform.std() * np.float32(10 ** (-snr_db / 20))


def interpolate(waveform: np.ndarray) -> np.ndarray:
    """Bring a waveform from 16 kHz to 8 kHz, and back by linear interpolation, as 16-bit samples."""
    narrow = soxr.resample(waveform, SAMPLING_RATE, 8000)
    wide = np.interp(np.arange(2 * len(narrow)) / 2, np.arange(len(narrow)), narrow)
    return (np.rint(wide * 32768) / 32768).astype(np.float32)


def whisper(waveform: np.ndarray) -> np.ndarray:
    """Speech whose voice is replaced by noise, as in a whisper: the noise passes the same vocal tract, in 32 ms frames.

    The vocal tract is a linear prediction, whose residual gives the level of the noise.
    """
    rng, window = np.random.default_rng(0), np.hanning(FRAME + 1)[:-1]
    padded = np.pad(waveform.astype(np.float64), (HOP, FRAME))
    whispered = np.zeros(len(padded))
    for start in range(0, len(padded) - FRAME, HOP):
        frame = padded[start : start + FRAME] * window
        correlations = np.correlate(frame, frame, "full")[FRAME - 1 : FRAME + ORDER] + 1e-9 * np.eye(1, ORDER + 1)[0]
        predictor = solve_toeplitz(correlations[:-1], correlations[1:])
        level = np.sqrt(max(0.0, correlations[0] - predictor @ correlations[1:]) / np.square(window).sum())
        noise = level * rng.standard_normal(2 * FRAME)  # the first half lets the filter settle
        whispered[start : start + FRAME] += window * lfilter([1], [1, *-predictor], noise)[FRAME:]
    return whispered[HOP : HOP + len(waveform)].astype(np.float32)


CHANGED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as recorded": lambda waveform: waveform,
    "through 8 kHz": lambda waveform: resample_through(waveform, 8000),
    "through 8 kHz, upsampled by linear interpolation": interpolate,
    "white noise, 20 dB SNR": lambda waveform: add_noise(waveform, 20),
    "white noise, 10 dB SNR": lambda waveform: add_noise(waveform, 10),
    "white noise, 0 dB SNR": lambda waveform: add_noise(waveform, 0),
    "raised by a fifth, as a child's voice": lambda waveform: soxr.resample(waveform, 3, 2),
}


def find_kinds(waveform: np.ndarray) -> list[str]:
    """The kinds of problems of a waveform."""
    return list(measure_quality(waveform).find_problems("", None))


def choose_first_half(corpus: str, files: list[Path]) -> list[bool]:
    """Whether each file is one of the first half of the speakers: two, then not the next two, and so on."""
    speakers = [re.search(SPEAKER[corpus], path.stem)[1] for path in files]  # type: ignore[index]
    order = {speaker: index for index, speaker in enumerate(sorted(set(speakers)))}
    return [order[speaker] // 2 % 2 == 0 for speaker in speakers]


def measure_speech(folder: Path) -> dict[str, Any]:
    """For each corpus and change: the problems of each file, and its shares of voiced and changing frames."""
    found: dict[str, Any] = {}
    for corpus, pattern in CORPORA.items():
        files = sorted(folder.glob(pattern))
        if not files:
            sys.exit(f"error: {folder} does not contain {corpus}; give the folder of the three corpora")
        entries: dict[str, list[Any]] = {change: [] for change in (*CHANGED, "two voices at once")}
        other = np.zeros(1, np.float32)
        for path in tqdm(files, corpus, leave=False):
            waveform = np.concatenate(list(read_blocks(path)))
            both = waveform + np.resize(other * waveform.std() / max(float(other.std()), 1e-9), len(waveform))
            versions = {name: change(waveform) for name, change in CHANGED.items()} | {"two voices at once": both}
            for name, version in versions.items():
                quality = measure_quality(version)
                voice = quality.voice
                shares = voice.measure_voiced_share(), voice.measure_changing_share(), voice.frames
                entries[name].append((list(quality.find_problems("", None)), *shares))
            other = waveform
        found[corpus] = {"first_half": choose_first_half(corpus, files), "entries": entries}
    return found


def describe_share(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / total:.1f} %)"


def describe_speech(found: dict[str, Any]) -> list[dict[str, str]]:
    """Rows: warnings by corpus and change; then how far the first half of the speakers and the other are from them."""
    rows = []
    for name in next(iter(found.values()))["entries"]:
        for corpus, each in found.items():
            kinds = [entry[0] for entry in each["entries"][name]]
            other = [kind for kind, is_first in zip(kinds, each["first_half"]) if not is_first]
            counts = [describe_share(sum("voice" in kind for kind in part), len(part)) for part in (kinds, other)]
            rest = [
                f"{kind} {describe_share(sum(kind in k for k in kinds), len(kinds))}"
                for kind in ("noise", "hum", "bandwidth")
            ]
            measured = f"not speech {counts[0]}; of the other half of the speakers {counts[1]}; {'; '.join(rest)}"
            rows.append({"what": f"{corpus}, {name}: warnings", "measured": measured})
    for is_first, half in ((True, "the first half of the speakers"), (False, "the other half")):
        entries = [
            entry
            for each in found.values()
            for entry, first in zip(each["entries"]["as recorded"], each["first_half"])
            if first == is_first and entry[3] >= FEWEST_FRAMES
        ]
        lowest = [min(entry[index] for entry in entries) for index in (1, 2)]
        measured = f"{lowest[0]:.2f} voiced frames, {lowest[1]:.2f} changing pairs"
        rows.append({"what": f"lowest shares, {half}, as recorded", "measured": measured})
    return rows


def describe_whispers(folder: Path) -> dict[str, str]:
    """A row: how many of every 16th file trigger the warning as a whisper."""
    files = [path for pattern in CORPORA.values() for path in sorted(folder.glob(pattern))[::STEP]]
    kinds = [find_kinds(whisper(np.concatenate(list(read_blocks(path))))) for path in tqdm(files, leave=False)]
    measured = f"not speech {describe_share(sum('voice' in kind for kind in kinds), len(files))}"
    return {"what": "whispers, which are speech with noise in place of the voice: warnings", "measured": measured}


def describe_sounds() -> list[dict[str, str]]:
    """A row for each group of sounds: how many trigger the warning, and what is said of the others."""
    rows = []
    for group, sounds in SOUNDS.items():
        kinds = {name: find_kinds(make()) for name, make in sounds.items()}
        missed = [
            f"{name}: {' and '.join(found) or 'nothing'}" for name, found in kinds.items() if "voice" not in found
        ]
        measured = f"not speech {describe_share(len(kinds) - len(missed), len(kinds))}"
        rows.append({"what": f"{group}: warnings", "measured": "; ".join([measured, *missed])})
    return rows


def measure_cost() -> str:
    """The time that the voice measures take, in percent of the pipeline's, on a minute of speech."""
    recognize = load_pipeline(str(MINI_MODEL), device="cpu")
    speech = np.concatenate(list(read_blocks(ROOT / "examples" / "speech.flac")))
    minute = np.resize(speech, 60 * SAMPLING_RATE)
    quality, own, whole = RecordingQuality(), [], []
    power = np.ones((len(minute) // 512, 513), np.float32)
    for _ in range(5):
        start = time.perf_counter()
        quality.voice.add(power, np.ones(len(power), bool))
        own.append(time.perf_counter() - start)
        start = time.perf_counter()
        recognize(minute)
        whole.append(time.perf_counter() - start)
    return f"{1000 * min(own):.0f} ms, {100 * min(own) / min(whole):.0f} % of the time of ser-align-mini on a CPU"


# ------------------------------------------------------------------------------------------- Silero VAD


def load_silero(path: Path) -> Callable[[np.ndarray], bool]:
    """Return whether Silero VAD finds a tenth of a waveform to be speech."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def is_speech(waveform: np.ndarray) -> bool:
        padded = np.concatenate([np.zeros(64), waveform]).astype(np.float32)
        state, found = np.zeros((2, 1, 128), np.float32), []
        for start in range(0, len(padded) - 576 + 1, 512):
            inputs = {"input": padded[None, start : start + 576], "state": state, "sr": np.array(SAMPLING_RATE)}
            probability, state = session.run(None, inputs)
            found.append(float(probability[0, 0]) >= SILERO_THRESHOLD)
        return bool(found) and float(np.mean(found)) >= 0.1

    return is_speech


def compare_with_silero(path: Path, folder: Path) -> list[dict[str, str]]:
    is_speech = load_silero(path)
    files = [path for pattern in CORPORA.values() for path in sorted(folder.glob(pattern))[::STEP]]
    waveforms = [np.concatenate(list(read_blocks(path))) for path in files]
    rows = []
    for name in ("as recorded", "through 8 kHz", "white noise, 10 dB SNR", "white noise, 0 dB SNR"):
        missed = sum(not is_speech(CHANGED[name](waveform)) for waveform in tqdm(waveforms, name, leave=False))
        rows.append({"what": f"Silero VAD, speech, {name}: not speech", "measured": describe_share(missed, len(files))})
    for group, sounds in SOUNDS.items():
        right = sum(not is_speech(make()) for make in sounds.values())
        rows.append({"what": f"Silero VAD, {group}: not speech", "measured": describe_share(right, len(sounds))})
    start = time.perf_counter()
    is_speech(np.resize(waveforms[0], 60 * SAMPLING_RATE))
    rows.append({"what": "Silero VAD on a minute", "measured": f"{1000 * (time.perf_counter() - start):.0f} ms"})
    return rows


NOTES = (
    "A recording is said to sound unlike speech if less than a tenth of its frames is voiced, or if pitch and "
    "loudness change in less than a quarter of the pairs of voiced frames. Both limits are below what the first "
    "half of the speakers has as recorded. Noise is warned of if the speech rises less than 36 dB above the "
    "quietest tenth of its frames, and of hum if a band below 1 kHz stays within 3 dB of its quietest tenth for "
    "half of the frames. Recordings of less than half a second are said to be too short; of less than a second, "
    "the voice is not judged. Two voices at once and a child's voice are speech to these measures, and no honest limit "
    "separates them from one adult. Singing and real whispers were not measured; the table has simulated whispers and "
    "held vowels. Speech under music that is nearly as loud is warned of, rightly: its scores are unreliable (see "
    "Telephone speech, silence and noise). A long recording is judged by most of what sounds in it, so a song may hide "
    "a sentence, and a talk a song. The music is generated."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpora", required=True, type=Path, metavar="CORPORA", help="folder that contains ravdess, emodb and nemo"
    )
    parser.add_argument("--silero", type=Path, metavar="FILE", help="silero_vad.onnx, to compare with")
    options = parser.parse_args()
    found = measure_speech(options.corpora)
    rows = [
        *describe_speech(found),
        describe_whispers(options.corpora),
        *describe_sounds(),
        {"what": "voice measures, a minute", "measured": measure_cost()},
    ]
    if options.silero:
        rows += compare_with_silero(options.silero, options.corpora)
    command = f"python -m studies.voice --corpora CORPORA{' --silero silero_vad.onnx' if options.silero else ''}"
    write_study(RELIABILITY / "voice.json", "Not speech, and noise", command, rows, NOTES)


if __name__ == "__main__":
    main()
