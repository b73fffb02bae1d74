"""Write the README's first prediction and docs/timeline.png with the default model.

    python -m docs.build.first_screen --data_dir RAVDESS

The example recording is in the repository; the figure needs RAVDESS.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from core.audio import read_audio
from core.errors import InputError, error_line
from core.json_files import read_json
from core.loading import load_pipeline
from core.shipped import DEFAULT_MODEL, ROOT, SHIPPED_MODELS
from docs.build.blocks import run_snippet
from docs.build.make import write_block
from inference.figure import draw, save
from recording_ser_align import SAMPLING_RATE
from speech_ser_align import trim

MODEL = SHIPPED_MODELS[DEFAULT_MODEL]
# Emotion and intensity in RAVDESS file names, for the README's figure. Neutral has normal intensity only.
SIX = (
    ("01", "01", "neutral"),
    ("05", "02", "angry"),
    ("04", "02", "sad"),
    ("03", "02", "happy"),
    ("08", "02", "surprised"),
    ("06", "02", "fearful"),
)
SNIPPET = f"""from transformers import pipeline

recognize = pipeline("speech-emotion-recognition", "models/{MODEL.name}", trust_remote_code=True)
answer = recognize("examples/speech.flac", return_timeline=True)
for segment in answer["timeline"]:
    print(f"{{segment['start']:.2f}} - {{segment['end']:.2f}} s  {{segment['label']:9}} {{segment['score']:.2f}}")"""
CAPTION = """The actor, who is not in the training data, plays calm, which counts as neutral, and then surprised. The model is
right about both, as it is about four in five of such utterances ([how this file was made](examples/README.md))."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, metavar="RAVDESS", help="directory of Actor_01 to Actor_24")
    write_block("shipped", build_shipped_block())
    draw_timeline(Path(parser.parse_args().data_dir))


def build_shipped_block() -> list[str]:
    """Build the README's first prediction, with the real output of predict.py and of the pipeline."""
    command = "python predict.py examples/speech.flac"
    answer = subprocess.run(
        [sys.executable, *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = ["```bash", command, "```", "", "```text", *answer.stdout.splitlines(), "```", "", CAPTION, ""]
    return [*lines, "```python", SNIPPET, *(f"# {line}" for line in run_snippet(SNIPPET)), "```"]


def draw_timeline(data_dir: Path) -> None:
    """Write docs/timeline.png: six emotions of an unseen actor, with about as many correct as the UA suggests."""
    ids = choose_typical_six()
    with tempfile.TemporaryDirectory() as folder:
        conversation, truth = concatenate_six(data_dir, ids, Path(folder) / "six.wav")
        draw_six(conversation, truth, ROOT / "docs" / "timeline.png")


def choose_typical_six() -> list[str]:
    """Choose six emotions of one test actor, sentence and repetition, with about as many correct as the UA suggests."""
    lines = [json.loads(line) for line in (MODEL / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    ua = read_json(MODEL / "results.json")["scores"]["best"]["test"]["ua"]
    right = {line["id"].rpartition("/")[2]: line["label"] == line["prediction"] for line in lines}
    tested = {line["id"].rpartition("/")[2] for line in lines if line["split"] == "test"}
    actors = sorted({name[-2:] for name in tested if name.startswith("03-01-")})
    sets = [
        [f"03-01-{emotion}-{intensity}-{sentence}-{repetition}-{actor}" for emotion, intensity, _ in SIX]
        for actor, sentence, repetition in itertools.product(actors, ("01", "02"), ("01", "02"))
    ]
    return min(sets, key=lambda ids: abs(sum(right[name] for name in ids) - 6 * ua))


def concatenate_six(data_dir: Path, ids: list[str], target: Path) -> tuple[Path, list[tuple[float, float, str]]]:
    """Write a recording of these utterances; return its path, and start, end (seconds) and label of each utterance."""
    pieces, truth, position = [], [], 0.0
    for name, (_, _, label) in zip(ids, SIX):
        (path,) = data_dir.glob(f"Actor_{name[-2:]}/{name}.*")
        waveform = read_audio(path)
        start, speech = trim(waveform, 30)
        truth.append((position + start / SAMPLING_RATE, position + (start + len(speech)) / SAMPLING_RATE, label))
        position += len(waveform) / SAMPLING_RATE
        pieces.append(waveform)
    soundfile.write(target, np.concatenate(pieces), SAMPLING_RATE)
    return target, truth


def draw_six(recording: Path, truth: list[tuple[float, float, str]], target: Path) -> None:
    recognize = load_pipeline(str(MODEL))
    found = recognize(str(recording), return_timeline=True)
    labels = list(recognize.model.config.id2label.values())
    figure = draw(str(recording), {**found, "channel": None}, labels)
    ribbon = figure.axes[1]
    for start, end, label in truth:
        ribbon.annotate(label, ((start + end) / 2, 1.08), ha="center", va="bottom", fontsize=8, annotation_clip=False)
    save(figure, target)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(error_line(error))
