"""Write examples/speech.flac: two utterances of an actor who is not in the training data of the shipped models.

    python examples/make_speech.py RAVDESS

RAVDESS is the directory that contains Actor_01 to Actor_24. The utterances are resampled to 16 kHz mono, trimmed to the
speech plus 0.3 s on either side, and joined with 0.5 s of silence.
"""

import sys
from pathlib import Path

import librosa
import numpy as np
import soundfile

UTTERANCES = ("03-01-02-02-02-01-11", "03-01-08-02-02-01-11")  # acted: calm, then surprised
SAMPLING_RATE = 16000
MARGIN = 0.3  # seconds kept before and after the speech
PAUSE = 0.5  # seconds of silence between the two
TARGET = Path(__file__).with_name("speech.flac")


def main(ravdess: Path) -> None:
    first, second = (read_speech(find_utterance(ravdess, name)) for name in UTTERANCES)
    pause = np.zeros(int(PAUSE * SAMPLING_RATE), np.float32)
    soundfile.write(TARGET, np.concatenate([first, pause, second]), SAMPLING_RATE, subtype="PCM_16")
    print(f"{TARGET.name}: {soundfile.info(TARGET).duration:.1f} s")


def find_utterance(ravdess: Path, name: str) -> Path:
    path = next(ravdess.glob(f"Actor_{name[-2:]}/{name}.*"), None)
    if path is None:
        sys.exit(f"error: {ravdess} has no Actor_{name[-2:]}/{name}; give the directory of Actor_01 to Actor_24")
    return path


def read_speech(path: Path) -> np.ndarray:
    """Read the utterance without the silence around it, (samples,) float32 at 16 kHz."""
    waveform, _ = librosa.load(path, sr=SAMPLING_RATE)
    _, (start, end) = librosa.effects.trim(waveform, top_db=30)
    margin = int(MARGIN * SAMPLING_RATE)
    return waveform[max(0, start - margin) : end + margin]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("error: give the directory of RAVDESS: make_speech.py RAVDESS")
    main(Path(sys.argv[1]))
