"""Measure how often full-band and narrowed speech triggers a warning about its bandwidth.

    python -m studies.bandwidth --corpora CORPORA

CORPORA contains ravdess/, emodb/ and nemo/, at 16 kHz. No file should trigger a warning as it is. Every fourth file is
then narrowed and saved at 44.1 kHz, and should trigger one. UA by bandwidth is that of ser-align-mini on its test
actors.
"""

import argparse
import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy.signal import butter, sosfilt
from sklearn.metrics import balanced_accuracy_score
from tqdm import tqdm

from core.loading import load_pipeline
from core.shipped import MINI_MODEL
from fields_ser_align import SAMPLING_RATE
from quality_ser_align import RecordingQuality
from recording_ser_align import read_blocks
from studies.disturbances import resample_through
from studies.limits import read_utterances
from studies.reporting import RELIABILITY, write_study

CORPORA = {"RAVDESS": "ravdess/*/*.flac", "EmoDB": "emodb/wav/*.flac", "nEMO": "nemo/samples/*.ogg"}
SAVED_RATE = 44_100
STEP = 4  # every fourth file is narrowed
RATES = (16_000, 14_000, 13_000, 12_000, 11_025, 8_000)


def encode_telephone(waveform: np.ndarray, form: str, subtype: str, band: bool = False) -> np.ndarray:
    """Encode a waveform at 8 kHz, decode it and resample it to 44.1 kHz; `band` filters it to 300 to 3400 Hz first."""
    narrow = soxr.resample(waveform, SAMPLING_RATE, 8000)
    if band:
        narrow = sosfilt(butter(6, (300, 3400), "band", fs=8000, output="sos"), narrow)
    content = io.BytesIO()
    soundfile.write(content, narrow, 8000, format=form, subtype=subtype)
    content.seek(0)
    decoded, rate = soundfile.read(content, dtype="float32")
    return soxr.resample(decoded, rate, SAVED_RATE)


def low_pass(waveform: np.ndarray) -> np.ndarray:
    wide = soxr.resample(waveform, SAMPLING_RATE, SAVED_RATE)
    return sosfilt(butter(10, 5000, fs=SAVED_RATE, output="sos"), wide)


def add_hiss(waveform: np.ndarray) -> np.ndarray:
    """Resample a waveform to 8 kHz and then to 44.1 kHz, and add white noise 30 dB below it up to 22 kHz."""
    narrow = resample_through(waveform, 8000, SAVED_RATE)
    hiss = np.random.default_rng(0).standard_normal(len(narrow), dtype=np.float32)
    return narrow + hiss * np.sqrt(np.mean(narrow**2)) * 10 ** (-30 / 20)


NARROWED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "at 8 kHz": lambda waveform: resample_through(waveform, 8000, SAVED_RATE),
    "at 11.025 kHz": lambda waveform: resample_through(waveform, 11_025, SAVED_RATE),
    "at 12 kHz": lambda waveform: resample_through(waveform, 12_000, SAVED_RATE),
    "low-pass at 5 kHz": low_pass,
    "µ-law at 8 kHz": lambda waveform: encode_telephone(waveform, "WAV", "ULAW"),
    "telephone band, 300 to 3400 Hz, A-law": lambda waveform: encode_telephone(waveform, "WAV", "ALAW", band=True),
    "MP3 at 8 kHz": lambda waveform: encode_telephone(waveform, "MP3", "MPEG_LAYER_III"),
    "Opus at 8 kHz": lambda waveform: encode_telephone(waveform, "OGG", "OPUS"),
    "at 8 kHz, with white noise at -30 dB": add_hiss,
}


def triggers_warning(recording: bytes | Path) -> bool:
    quality = RecordingQuality()
    for _ in read_blocks(recording, quality=quality):
        pass
    return "bandwidth" in quality.find_problems("", None)


def save(waveform: np.ndarray) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, waveform, SAVED_RATE, format="WAV", subtype="PCM_16")
    return content.getvalue()


def count_warned(files: list[Path], change: Callable[[np.ndarray], np.ndarray] | None) -> dict[str, int]:
    """Count the files, and those that trigger a warning, as they are or after a change."""
    warned = 0
    for path in tqdm(files, leave=False):
        recording = path if change is None else save(change(np.concatenate(list(read_blocks(path)))))
        warned += triggers_warning(recording)
    return {"files": len(files), "warned": warned}


def measure_ua(folder: Path, rate: int) -> float:
    """Measure the UA of ser-align-mini on its test actors, with their speech resampled to this rate and back."""
    recognize = load_pipeline(str(MINI_MODEL))
    recordings, labels, _ = read_utterances(folder / "ravdess", "test")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [recognize(save(resample_through(recording, rate, SAVED_RATE))) for recording in recordings]
    return float(balanced_accuracy_score(labels, [scores[0]["label"] for scores in found]))


def describe_share(count: dict[str, int]) -> str:
    return f"{count['warned']} of {count['files']} ({100 * count['warned'] / count['files']:.1f} %)"


def measure(folder: Path) -> None:
    files = {name: sorted(folder.glob(pattern)) for name, pattern in CORPORA.items()}
    if not all(files.values()):
        sys.exit(f"error: {folder} does not contain ravdess/, emodb/ and nemo/; give the folder of the three corpora")
    full = {name: count_warned(paths, None) for name, paths in files.items()}
    some = [path for paths in files.values() for path in paths[::STEP]]
    narrowed = {name: count_warned(some, change) for name, change in NARROWED.items()}
    ua = {rate: measure_ua(folder, rate) for rate in RATES}
    rows = [{"what": f"{name}, full band: warnings", "measured": describe_share(count)} for name, count in full.items()]
    rows += [
        {"what": f"{name}, saved at 44.1 kHz: warnings", "measured": describe_share(count)}
        for name, count in narrowed.items()
    ]
    rows += [
        {"what": f"UA of ser-align-mini on speech up to {rate / 2000:.3g} kHz", "measured": f"{100 * value:.1f} %"}
        for rate, value in ua.items()
    ]
    notes = (
        "The first three rows should be 0 %, the others 100 %. A recording triggers a warning if its speech ends below "
        "85 % of the bandwidth of the training data; here, 8 kHz. nEMO is Ogg Vorbis at 45 kb/s. Speech of 8 kHz that "
        "was upsampled by linear interpolation, which leaves images above the band, is detected (see Not speech, and "
        "noise); the images of other rates are not told from speech."
    )
    command = "python -m studies.bandwidth --corpora CORPORA"
    write_study(RELIABILITY / "bandwidth.json", "Bandwidth", command, rows, notes, full=full, narrowed=narrowed, ua=ua)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpora", required=True, type=Path, metavar="CORPORA", help="folder that contains ravdess, emodb and nemo"
    )
    measure(parser.parse_args().corpora)


if __name__ == "__main__":
    main()
