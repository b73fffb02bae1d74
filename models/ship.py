"""Train a shipped model and write it to models/ser-align-mini or models/ser-align-base with its model card.

    python -m models.ship mini --data_dir RAVDESS
    python -m models.ship base --data_dir CORPORA

Trains both stages on one CPU core: mini in about twenty minutes, base in about two hours. A finished run in outputs/ is
not trained again. The weights are reproducible on the same machine. The card also gives the six-fold scores of the
recipe on RAVDESS; a robustness test fills in those on degraded speech (run_configs/robustness.yaml, then
`python -m docs.build.make --robustness`). `python -m docs.build.first_screen` writes the README's first screen with the
default model. All other options are passed to train.py.
"""

import argparse
import csv
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.signal import sawtooth
from transformers import pipeline

from core.errors import InputError, error_line
from core.json_files import read_json, write_json
from core.shipped import ROOT
from docs.build.robustness import EMPTY_SECTION
from recipe.arguments import parse_arguments
from recipe.model_card import write_model_card
from recipe.run import run


class Recipe(NamedTuple):
    """How a model is trained.

    Attributes:
        config: YAML file in run_configs.
        split: further options of train.py.
        report: the report in docs/results with the six-fold scores of the recipe on RAVDESS.
        systems: the systems of the report that the card quotes.
        remark: what distinguishes these weights from those of the report.
    """

    config: str
    split: tuple[str, ...]
    report: str
    systems: tuple[str, ...]
    remark: str


RECIPES = {
    # Twelve parts with one woman and one man each: one for test, one for validation, ten for training.
    "mini": Recipe(
        "ravdess/mini.yaml",
        ("--protocol", "speaker_folds", "--num_folds", "12", "--num_validation_speakers", "2"),
        "ravdess-table3",
        ("stage 1: attentive pooling", "CLS pooling + EAL + FUAL (proposed)"),
        "The most reliable estimate is the score of the same recipe on six folds, which test each actor once. The "
        "folds were trained on utterances trimmed 30 dB below their peak; these weights use the newer speech "
        "detection, which also follows the noise floor:",
    ),
    "base": Recipe(
        "cross_corpus/whisper.yaml",
        (),
        "ravdess-whisper_table3",
        ("stage 1: attentive pooling", "proposed + statistics of the frozen layers"),
        "The most reliable estimate for studio speech is the score of the same network on six folds of RAVDESS, which "
        "test each actor once. It was trained on RAVDESS alone, with its eight labels and without degraded speech:",
    ),
}
PREDICTIONS = ROOT / "models" / "predictions.json"
CODE = tuple(sorted(path.name for path in ROOT.glob("*_ser_align.py")))
FILES = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "results.json",
    "predictions.jsonl",
    "README.md",
)
LICENCE = "cc-by-nc-sa-4.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=tuple(RECIPES), help="the model to train")
    parser.add_argument(
        "--data_dir",
        required=True,
        metavar="DIR",
        help="directory of Actor_01 to Actor_24 for mini, and of the folders ravdess, emodb and nemo for base",
    )
    own, rest = parser.parse_known_args()
    torch.set_num_threads(1)  # more threads change the order of summation, and so the last digits of the weights
    folder, recipe = ROOT / "models" / f"ser-align-{own.model}", RECIPES[own.model]
    options = [
        "--config",
        str(ROOT / "run_configs" / recipe.config),
        *recipe.split,
        "--use_cpu",
        "--data_dir",
        own.data_dir,
        "--output_dir",
        f"outputs/{folder.name}",
        *rest,
    ]
    arguments = parse_arguments(options, description="")
    run(arguments)
    stage_dir = Path(arguments[2].trainer.output_dir) / "stage2"
    where, results = folder.relative_to(ROOT).as_posix(), read_json(stage_dir / "results.json")
    write_model_card(stage_dir, results, arguments[2], where, build_notes(own.model), licence=LICENCE)
    copy_model(stage_dir, folder)
    stored = read_json(PREDICTIONS) if PREDICTIONS.exists() else {}
    write_json(PREDICTIONS, {**stored, folder.name: predict_buzzes(folder)})
    print(f"The model is in {where}.")


def build_notes(model: str) -> str:
    """Write the sections of the model card beyond the scores on this split."""
    recipe = RECIPES[model]
    rows = read_score_rows(recipe.report)
    lines = [
        "## Evaluation on six folds",
        "",
        recipe.remark,
        "",
        "| six speaker-disjoint folds | UA, selected epoch | UA, last epoch |",
        "|---|---|---|",
    ]
    for name in recipe.systems:
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
    about = (ROOT / "models" / "about" / f"{model}.md").read_text(encoding="utf-8")
    return "\n".join([*lines, *EMPTY_SECTION, ""]) + "\n" + about


def read_score_rows(report: str) -> dict[str, dict[str, str]]:
    """Read the six-fold scores of a report in docs/results, by system."""
    scores = ROOT / "docs" / "results" / report / "scores.csv"
    return {row["system"]: row for row in csv.DictReader(scores.open(encoding="utf-8"))}


def copy_model(stage_dir: Path, folder: Path) -> None:
    """Copy the files that a user needs, and the predictions behind the scores."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in [*(stage_dir / name for name in FILES), *(ROOT / name for name in CODE)]:
        shutil.copyfile(path, folder / path.name)


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
