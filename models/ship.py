"""Train the model that ships and put it into models/ser-align-mini with its card.

    python models/ship.py --data_dir RAVDESS

Both stages of run_configs/ravdess/mini.yaml on twenty actors, two more for validation and two for test, in about
twenty minutes on one CPU core; on the same machine the same weights again. The card also gives the six-fold score
of the recipe, from docs/results/ravdess-table3. Any other option goes to train.py.
"""

import argparse
import csv
import shutil
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
from scipy.signal import sawtooth
from transformers import pipeline

import train
from recipe.arguments import parse_arguments
from recipe.errors import InputError
from recipe.readme import printed_by, replace_in_readme
from recipe.reporting import read_json, write_json, write_model_card

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
    train.main(arguments)
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
    """The README's first snippet, with what it really prints for an actor whom the model has not heard."""
    results = read_json(MODEL / "results.json")
    actor = results["speakers"]["test"][0]
    recording = f"Actor_{actor}/03-01-05-02-01-01-{actor}"  # strongly angry
    (path,) = Path(data_dir).glob(f"{recording}.*")
    snippet = f"""import librosa
from transformers import pipeline

waveform, _ = librosa.load("RAVDESS/{recording}.wav", sr=16000)  # any file: resampled to 16 kHz mono
waveform, _ = librosa.effects.trim(waveform, top_db=30)  # as in training
classify = pipeline("audio-classification", "models/ser-align-mini", trust_remote_code=True)
for answer in classify(waveform):
    print(f"{{answer['label']:9}} {{answer['score']:.3f}}")"""
    printed = printed_by(snippet.replace(f"RAVDESS/{recording}.wav", path.resolve().as_posix()))
    millions = results["num_parameters"] / 1e6
    megabytes = (MODEL / "model.safetensors").stat().st_size / 1e6
    row = score_rows()[PROPOSED]
    ua, low, high = (f"{100 * float(row[f'best_pooled_ua{end}']):.0f}" for end in ("", "_low", "_high"))
    introduction = (
        f"A small model ships with the project: {millions:.1f} M parameters, {megabytes:.1f} MB, trained from scratch "
        f"by this recipe on RAVDESS. On actors whom it has not heard the recipe reaches {ua} % UA on eight classes "
        f"(95 % interval {low} to {high}, six folds, chance 12.5). [Its card](models/ser-align-mini/README.md) says "
        "what it does not know. Its weights are for non-commercial use, as the recordings are (CC BY-NC-SA 4.0). "
        "After `pip install -r requirements.txt`:"
    )
    lines = ["", "```python", snippet, *(f"# {line}" for line in printed), "```"]
    replace_in_readme("shipped", [textwrap.fill(introduction, 120), *lines])


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
        sys.exit(f"error: {error}")
