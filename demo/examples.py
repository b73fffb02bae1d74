"""Example recordings for visitors without a microphone: synthetic voices, not speech."""

from pathlib import Path

import numpy as np
import soundfile

from core.synthesis import EMOTIONS, make_speaker, synthesise
from recording_ser_align import SAMPLING_RATE

EXAMPLES = {  # speaker and manner of each utterance, in order
    "Low and loud": [(4, "angry")],
    "High and lively": [(3, "happy")],
    "Slow and soft": [(0, "sad")],
    "Two voices, in turn": [(2, "angry"), (5, "neutral"), (2, "happy"), (3, "angry"), (2, "neutral"), (3, "happy")],
}


def write_examples(folder: Path) -> dict[str, Path]:
    """Write the examples as WAV files to a new folder; return their paths by name."""
    folder.mkdir(parents=True)
    paths = {}
    for number, (name, utterances) in enumerate(EXAMPLES.items()):
        paths[name] = folder / f"{name.lower().replace(',', '').replace(' ', '-')}.wav"
        soundfile.write(paths[name], synthesise_turns(utterances, np.random.default_rng(number)), SAMPLING_RATE)
    return paths


def synthesise_turns(utterances: list[tuple[int, str]], rng: np.random.Generator) -> np.ndarray:
    """Synthesise utterances half a second apart: (samples,) at 16 kHz."""
    pieces = []
    for speaker, manner in utterances:
        pause = 0.002 * rng.normal(size=SAMPLING_RATE // 2)  # with the background noise of the voices
        pieces += [pause, synthesise(make_speaker(speaker), EMOTIONS[manner], rng)]
    return np.concatenate(pieces[1:])
