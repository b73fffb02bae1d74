"""Train the shipped model and write it to models/ser-align-mini with its model card.

    python -m models.ship --data_dir RAVDESS

Trains both stages of run_configs/ravdess/mini.yaml on twenty actors, with two more for validation and two for test, in
about twenty minutes on one CPU core. The weights are reproducible on the same machine. The card also gives the six-fold
scores of the recipe, from docs/results/ravdess-table3; a robustness test fills in those on degraded speech
(run_configs/robustness.yaml, then `python -m docs.build.make --robustness`). All other options are passed to train.py.
"""

import argparse
import csv
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from scipy.signal import sawtooth
from transformers import pipeline

from core.audio import read_audio
from core.errors import InputError, error_line
from core.json_files import read_json, write_json
from core.loading import load_pipeline
from core.shipped import MINI_MODEL, ROOT
from docs.build.blocks import run_snippet
from docs.build.make import write_block
from docs.build.robustness import EMPTY_SECTION
from inference.figure import draw, save
from recipe.arguments import parse_arguments
from recipe.model_card import write_model_card
from recipe.run import run
from recording_ser_align import SAMPLING_RATE
from speech_ser_align import trim

PREDICTIONS = ROOT / "models" / "predictions.json"
OUTPUT = "outputs/ser-align-mini"
SCORES = ROOT / "docs" / "results" / "ravdess-table3" / "scores.csv"
PROPOSED = "CLS pooling + EAL + FUAL (proposed)"
# Twelve parts with one woman and one man each: one for test, one for validation, ten for training.
SPLIT = ["--protocol", "speaker_folds", "--num_folds", "12", "--num_validation_speakers", "2"]
CODE = tuple(sorted(path.name for path in ROOT.glob("*_ser_align.py")))
FILES = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "results.json",
    "predictions.jsonl",
    "README.md",
)
ATTRIBUTION = """## Attribution

Trained on The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS), Steven R.
Livingstone and Frank A. Russo, 2018, https://doi.org/10.5281/zenodo.1188976. Changes: resampled, trimmed, augmented,
and used for training. The weights are under the same licence, CC BY-NC-SA 4.0: not for commercial use.
"""
# Emotion and intensity in RAVDESS file names, for the README's figure. Neutral has normal intensity only.
SIX = (
    ("01", "01", "neutral"),
    ("05", "02", "angry"),
    ("04", "02", "sad"),
    ("03", "02", "happy"),
    ("02", "02", "calm"),
    ("06", "02", "fearful"),
)
WHAT_IT_LEARNED = """## Limitations

The training data are studio recordings of twenty actors with one accent, who spoke two sentences ("Kids are talking by
the door", "Dogs are sitting by the door") with instructed emotions. The model learns how acted emotion sounds: pitch,
tempo, voice quality and loudness contour. It has not been trained on spontaneous emotion, other words or languages,
children, older people, music, telephone speech or overlapping speakers. Acted emotion is also more exaggerated than
emotion in everyday speech.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data_dir", required=True, metavar="RAVDESS", help="directory that contains Actor_01 to Actor_24"
    )
    own, rest = parser.parse_known_args()
    torch.set_num_threads(1)  # more threads change the order of summation, and so the last digits of the weights
    config = ["--config", str(ROOT / "run_configs" / "ravdess" / "mini.yaml"), "--use_cpu"]
    options = [*config, *SPLIT, "--data_dir", own.data_dir, "--output_dir", OUTPUT, *rest]
    arguments = parse_arguments(options, description="")
    run(arguments)
    stage_dir = Path(arguments[2].trainer.output_dir) / "stage2"
    write_model_card(
        stage_dir, read_json(stage_dir / "results.json"), arguments[2], "models/ser-align-mini", build_notes()
    )
    copy_model(stage_dir)
    write_json(PREDICTIONS, predict_buzzes(MINI_MODEL))
    write_block("shipped", build_shipped_block())
    draw_timeline(own.data_dir)
    print(f"The model is in {MINI_MODEL.relative_to(ROOT)}.")


def build_notes() -> str:
    """Write the sections of the model card beyond the scores on this split."""
    rows = read_score_rows()
    lines = [
        "## Evaluation on six folds",
        "",
        "The most reliable estimate is the score of the same recipe on six folds, which test each actor once. The "
        "folds were trained on utterances trimmed 30 dB below their peak; these weights use the newer speech "
        "detection, which also follows the noise floor:",
        "",
        "| six speaker-disjoint folds | UA, selected epoch | UA, last epoch |",
        "|---|---|---|",
    ]
    for name in ("stage 1: attentive pooling", PROPOSED):
        cells = [
            f"{100 * float(rows[name][f'{weights}_pooled_ua']):.1f} % "
            f"[{100 * float(rows[name][f'{weights}_pooled_ua_low']):.1f}, "
            f"{100 * float(rows[name][f'{weights}_pooled_ua_high']):.1f}]"
            for weights in ("best", "last")
        ]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    lines += [
        "",
        "Brackets give the 95 % bootstrap interval over speakers. Computed by `experiment.py`, see docs/RESULTS.md.",
        "",
    ]
    return "\n".join([*lines, *EMPTY_SECTION, ""]) + "\n" + WHAT_IT_LEARNED + ATTRIBUTION


def read_score_rows() -> dict[str, dict[str, str]]:
    """Read the six-fold scores by system."""
    return {row["system"]: row for row in csv.DictReader(SCORES.open(encoding="utf-8"))}


def copy_model(stage_dir: Path) -> None:
    """Copy the files that a user needs, and the predictions behind the scores."""
    shutil.rmtree(MINI_MODEL, ignore_errors=True)
    MINI_MODEL.mkdir(parents=True)
    for path in [*(stage_dir / name for name in FILES), *(ROOT / name for name in CODE)]:
        shutil.copyfile(path, MINI_MODEL / path.name)


SNIPPET = """from transformers import pipeline

recognize = pipeline("speech-emotion-recognition", "models/ser-align-mini", trust_remote_code=True)
answer = recognize("examples/speech.flac", return_timeline=True)
for segment in answer["timeline"]:
    print(f"{segment['start']:.2f} - {segment['end']:.2f} s  {segment['label']:9} {segment['score']:.2f}")"""
CAPTION = """The actor, who is not in the training data, plays calm and then surprised. The model classifies one of the
two correctly, close to its average ([how this file was made](examples/README.md))."""


def build_shipped_block() -> list[str]:
    """Build the README's first prediction, with the real output of predict.py and of the pipeline."""
    command = "python predict.py examples/speech.flac"
    answer = subprocess.run(
        [sys.executable, *command.split()[1:]], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = ["```bash", command, "```", "", "```text", *answer.stdout.splitlines(), "```", "", CAPTION, ""]
    return [*lines, "```python", SNIPPET, *(f"# {line}" for line in run_snippet(SNIPPET)), "```"]


def draw_timeline(data_dir: str) -> None:
    """Write docs/timeline.png: six emotions of an unseen actor, with about as many correct as the UA suggests."""
    ids = choose_typical_six(float(read_score_rows()[PROPOSED]["best_pooled_ua"]))
    with tempfile.TemporaryDirectory() as folder:
        conversation, truth = concatenate_six(Path(data_dir), ids, Path(folder) / "six.wav")
        draw_six(conversation, truth, ROOT / "docs" / "timeline.png")


def choose_typical_six(ua: float) -> list[str]:
    """Choose six emotions of one test actor, sentence and repetition, with about as many correct as the UA suggests."""
    predictions = (MINI_MODEL / "predictions.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in predictions.splitlines()]
    right = {line["id"]: line["label"] == line["prediction"] for line in lines if line["split"] == "test"}
    actors = sorted({name[-2:] for name in right})
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
    recognize = load_pipeline(str(MINI_MODEL))
    found = recognize(str(recording), return_timeline=True)
    labels = list(recognize.model.config.id2label.values())
    figure = draw(str(recording), {**found, "channel": None}, labels)
    ribbon = figure.axes[1]
    for start, end, label in truth:
        ribbon.annotate(label, ((start + end) / 2, 1.08), ha="center", va="bottom", fontsize=8, annotation_clip=False)
    save(figure, target)


def generate_buzzes() -> dict[str, np.ndarray]:
    """Generate three 16 kHz buzzes with the pitch and syllable rate of a voice: reproducible everywhere, not speech."""
    times = np.arange(2 * 16000) / 16000
    return {
        f"{pitch} Hz": (
            0.2 * sawtooth(2 * np.pi * pitch * times * (1 + 0.1 * times)) * np.sin(2 * np.pi * tempo * times) ** 2
        ).astype(np.float32)
        for pitch, tempo in ((110, 1.5), (180, 2.5), (260, 3.5))
    }


def predict_buzzes(folder: Path) -> dict[str, dict[str, float]]:
    """Compute the probabilities for the generated audio, which a test compares."""
    classify = pipeline("audio-classification", str(folder), trust_remote_code=True)
    return {
        name: {answer["label"]: round(answer["score"], 6) for answer in classify(waveform, top_k=None)}
        for name, waveform in generate_buzzes().items()
    }


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(error_line(error))
