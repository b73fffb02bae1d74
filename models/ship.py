"""Train the model that ships and put it into models/ser-align-mini with its card.

    python -m models.ship --data_dir RAVDESS

Both stages of run_configs/ravdess/mini.yaml on twenty actors, two more for validation and two for test, in about
twenty minutes on one CPU core; on the same machine the same weights again. The card also gives the six-fold score
of the recipe, from docs/results/ravdess-table3. Any other option goes to train.py.
"""

import argparse
import csv
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
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
from docs.build.readme import replace_in_readme
from inference.figure import draw, save
from recipe.arguments import parse_arguments
from recipe.model_card import write_model_card
from recipe.run import run
from recording_ser_align import SAMPLING_RATE, trimmed

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "ser-align-mini"
PREDICTIONS = ROOT / "models" / "predictions.json"
OUTPUT = "outputs/ser-align-mini"
SCORES = ROOT / "docs" / "results" / "ravdess-table3" / "scores.csv"
PROPOSED = "CLS pooling + EAL + FUAL (proposed)"
# Twelve parts of a woman and a man each: one tests, one validates, ten train.
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
Livingstone and Frank A. Russo, 2018, https://doi.org/10.5281/zenodo.1188976; changed here: resampled, trimmed, varied,
and learned from. Its licence, CC BY-NC-SA 4.0, holds for the weights: not for commercial use.
"""
# Emotion and intensity in RAVDESS's file names: the README's recording. Neutral is spoken at normal intensity only.
SIX = (
    ("01", "01", "neutral"),
    ("05", "02", "angry"),
    ("04", "02", "sad"),
    ("03", "02", "happy"),
    ("02", "02", "calm"),
    ("06", "02", "fearful"),
)
WHAT_IT_LEARNED = """## What this model knows and what it does not

Twenty actors of one accent spoke two sentences ("Kids are talking by the door", "Dogs are sitting by the door") in a
studio and were asked to show an emotion. From that a model learns how acted emotion sounds: pitch, tempo, voice
quality, the course of loudness. It has never heard spontaneous feeling, other words or languages, children or old
people, music, telephones, or two people at once; and actors overdo what people hide.

"""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data_dir", required=True, metavar="RAVDESS", help="directory that holds Actor_01 to Actor_24"
    )
    own, rest = parser.parse_known_args(argv)
    torch.set_num_threads(1)  # with more, sums are taken in another order and the weights differ in the last digits
    config = ["--config", str(ROOT / "run_configs" / "ravdess" / "mini.yaml"), "--use_cpu"]
    options = [*config, *SPLIT, "--data_dir", own.data_dir, "--output_dir", OUTPUT, *rest]
    arguments = parse_arguments(options, description="")
    run(arguments)
    stage_dir = Path(arguments[2].trainer.output_dir) / "stage2"
    write_model_card(stage_dir, read_json(stage_dir / "results.json"), arguments[2], "models/ser-align-mini", notes())
    ship(stage_dir)
    write_json(PREDICTIONS, predictions(MODEL))
    write_readme(own.data_dir)
    print(f"The model is in {MODEL.relative_to(ROOT)}.")


def notes() -> str:
    """What its card says beyond the scores of this one split."""
    rows = score_rows()
    lines = [
        "## How good the recipe is",
        "",
        "The score to go by is that of the same recipe on six folds, which test each actor once:",
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
        "In brackets the 95 % bootstrap interval over speakers. Made by `experiment.py`, see docs/RESULTS.md.",
        "",
    ]
    return "\n".join(lines) + "\n" + WHAT_IT_LEARNED + ATTRIBUTION


def score_rows() -> dict[str, dict[str, str]]:
    """The six-fold scores, by system."""
    return {row["system"]: row for row in csv.DictReader(SCORES.open(encoding="utf-8"))}


def ship(stage_dir: Path) -> None:
    """Copy what a user needs, and the predictions that the scores were computed from."""
    shutil.rmtree(MODEL, ignore_errors=True)
    MODEL.mkdir(parents=True)
    for path in [*(stage_dir / name for name in FILES), *(ROOT / name for name in CODE)]:
        shutil.copyfile(path, MODEL / path.name)


def write_readme(data_dir: str) -> None:
    """The README's first lines: what predict.py really prints for an unseen actor, and a picture."""
    results = read_json(MODEL / "results.json")
    row = score_rows()[PROPOSED]
    ids = typical_six(float(row["best_pooled_ua"]))
    actor = ids[0][-2:]
    with tempfile.TemporaryDirectory() as folder:
        conversation, truth = six_utterances(Path(data_dir), ids, Path(folder) / "six.wav")
        printed = printed_by_predict(conversation)
        draw_six(conversation, truth, ROOT / "docs" / "timeline.png")
    millions = results["num_parameters"] / 1e6
    megabytes = (MODEL / "model.safetensors").stat().st_size / 1e6
    ua, low, high = (f"{100 * float(row[f'best_pooled_ua{end}']):.0f}" for end in ("", "_low", "_high"))
    caption = (
        f"Six utterances of actor {actor} of RAVDESS, whom the model has not heard, in a row: the ribbon is what it "
        "makes of them, above it what was acted. Chosen so that about as many are right as in general. RAVDESS is no "
        "part of this project: give a recording of your own in place of six.wav."
    )
    introduction = (
        f"A small model ships with the project: {millions:.1f} M parameters, {megabytes:.1f} MB, trained from scratch "
        f"by this recipe on RAVDESS. On actors whom it has not heard the recipe reaches {ua} % UA on eight classes "
        f"(95 % interval {low} to {high}, six folds, chance 12.5). [Its card](models/ser-align-mini/README.md) says "
        "what it does not know. Its weights are for non-commercial use, as the recordings are (CC BY-NC-SA 4.0)."
    )
    lines = [
        "```bash",
        "pip install -r requirements.txt",
        "python predict.py six.wav",
        "```",
        "",
        "```text",
        *printed,
        "```",
        "",
        "![Waveform of six utterances, the emotions that the model sees and those that were acted](docs/timeline.png)",
        "",
        textwrap.fill(caption, 120),
        "",
        "```python",
        "from transformers import pipeline",
        "",
        'recognize = pipeline("speech-emotion-recognition", "models/ser-align-mini", trust_remote_code=True)',
        'recognize("six.wav")  # [{"label": ..., "score": ...}, ...], best first',
        'recognize("six.wav", return_timeline=True)["timeline"]  # [{"start": ..., "end": ..., "label": ...}, ...]',
        "```",
        "",
        textwrap.fill(introduction, 120),
    ]
    replace_in_readme("shipped", lines)


def typical_six(ua: float) -> list[str]:
    """Ids of a test actor's six emotions, one sentence and repetition, of which about UA times six are recognised."""
    lines = [json.loads(line) for line in (MODEL / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    right = {line["id"]: line["label"] == line["prediction"] for line in lines if line["split"] == "test"}
    actors = sorted({name[-2:] for name in right})
    sets = [
        [f"03-01-{emotion}-{intensity}-{sentence}-{repetition}-{actor}" for emotion, intensity, _ in SIX]
        for actor, sentence, repetition in itertools.product(actors, ("01", "02"), ("01", "02"))
    ]
    return min(sets, key=lambda ids: abs(sum(right[name] for name in ids) - 6 * ua))


def six_utterances(data_dir: Path, ids: list[str], target: Path) -> tuple[Path, list[tuple[float, float, str]]]:
    """A recording of these utterances, one after the other; also where each is spoken, in seconds."""
    pieces, truth, position = [], [], 0.0
    for name, (_, _, label) in zip(ids, SIX):
        (path,) = data_dir.glob(f"Actor_{name[-2:]}/{name}.*")
        waveform = read_audio(path)
        start, speech = trimmed(waveform, 30)
        truth.append((position + start / SAMPLING_RATE, position + (start + len(speech)) / SAMPLING_RATE, label))
        position += len(waveform) / SAMPLING_RATE
        pieces.append(waveform)
    soundfile.write(target, np.concatenate(pieces), SAMPLING_RATE)
    return target, truth


def printed_by_predict(recording: Path) -> list[str]:
    command = [sys.executable, str(ROOT / "predict.py"), recording.name, "--model", str(MODEL)]
    run = subprocess.run(command, cwd=recording.parent, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


def draw_six(recording: Path, truth: list[tuple[float, float, str]], target: Path) -> None:
    recognize = load_pipeline(str(MODEL))
    found = recognize(str(recording), return_timeline=True)
    labels = list(recognize.model.config.id2label.values())
    figure = draw(str(recording), {**found, "channel": None}, labels)
    ribbon = figure.axes[1]
    for start, end, label in truth:
        ribbon.annotate(label, ((start + end) / 2, 1.08), ha="center", va="bottom", fontsize=8, annotation_clip=False)
    save(figure, target)


def generated_audio() -> dict[str, np.ndarray]:
    """Three buzzes with a voice's pitch and syllables, 16 kHz: no speech, but the same everywhere."""
    times = np.arange(2 * 16000) / 16000
    return {
        f"{pitch} Hz": (
            0.2 * sawtooth(2 * np.pi * pitch * times * (1 + 0.1 * times)) * np.sin(2 * np.pi * tempo * times) ** 2
        ).astype(np.float32)
        for pitch, tempo in ((110, 1.5), (180, 2.5), (260, 3.5))
    }


def predictions(folder: Path) -> dict[str, dict[str, float]]:
    """Probabilities of the generated audio, which a test compares."""
    classify = pipeline("audio-classification", str(folder), trust_remote_code=True)
    return {
        name: {answer["label"]: round(answer["score"], 6) for answer in classify(waveform, top_k=None)}
        for name, waveform in generated_audio().items()
    }


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(error_line(error))
