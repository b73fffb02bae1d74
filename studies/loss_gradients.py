"""Gradient norms of CE, EAL and FUAL for each part of the model, and the spread of the frames of an utterance.

    python -m studies.loss_gradients --config run_configs/ravdess/table3.yaml --data_dir RAVDESS

For the first fold and seed of a finished experiment, computes the gradient norm of each loss, multiplied by its weight
in the paper (0.05 each), relative to the gradient norm of CE, on training utterances without dropout or augmentation.
Frozen parameters do not count.
Also computes the spread of the frame logits and of the utterance logits, and the share of frames that agree with their
utterance. Writes a table, as Markdown and CSV, to the experiment's report folder.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from datasets import Dataset
from transformers import set_seed

from core.errors import InputError
from core.loading import load_feature_extractor
from experiments.cells import Cell, Experiment, read_experiment
from experiments.tables import write_csv
from modeling_ser_align import SERAlignForAudioClassification, SERAlignOutput
from recipe.batching import Collator
from recipe.data import read_rows_alone, split_rows
from recipe.preparing import UtterancePreparer, prepare_rows
from recipe.results import read_results
from recipe.run import quiet_libraries
from recipe.stages import build_model

ROOT = Path(__file__).parent.parent
WEIGHT = 0.05  # of EAL and of FUAL, as in the paper
NUM_UTTERANCES, BATCH_SIZE = 128, 32
PARTS = ("encoder", "pooling")
HEADER = (
    *("trained as", "CE", "EAL", "FUAL", "EAL / CE encoder", "EAL / CE pooling", "FUAL / CE encoder"),
    *("FUAL / CE pooling", "spread of frame logits", "of utterance logits", "frames that agree"),
)


def run_study(experiment: Experiment) -> None:
    quiet_libraries()
    variants = [
        variant
        for variant in experiment.variants
        if not variant.classical and variant.options.get("pooling", "cls") == "cls"
    ]
    cells = [Cell(experiment.folds[0], experiment.seeds[0], variant) for variant in variants]
    cells = [cell for cell in cells if read_results(experiment.find_stage_folder(cell))]
    if not cells:
        raise InputError(f"no CLS variant of {experiment.path} is finished in {experiment.output_dir}: train one first")
    args = experiment.parse_cell(cells[0])[2]
    rows = split_rows(args.data, read_rows_alone(args.data))["train"]
    rows = rows.shuffle(seed=0).select(range(min(NUM_UTTERANCES, len(rows))))
    lines: list[dict[str, str]] = []
    for cell in (cells[-1], *cells):
        name = cell.variant.name if lines else "untrained"
        set_seed(0)
        folder = experiment.find_stage_folder(cell) / "last"
        model = SERAlignForAudioClassification.from_pretrained(folder) if lines else None
        if model is None:
            model = build_model(2, experiment.parse_cell(cell)[2], rows)
        feature_extractor = load_feature_extractor(str(experiment.find_stage_folder(cell)))
        preparer = UtterancePreparer(feature_extractor, model.config.shortest_samples, model.config.longest_seconds)
        measured = measure_model(model, prepare_rows(rows, preparer), preparer.input_name)
        lines.append(dict(zip(HEADER, (name, *measured))))
    rules = "|---" * len(HEADER) + "|"
    table = "\n".join([format_row(HEADER), rules, *(format_row(line.values()) for line in lines)])
    experiment.report_dir.mkdir(parents=True, exist_ok=True)
    text = f"Weights of the last epoch:\n\n{table}\n"
    (experiment.report_dir / "loss_gradients.md").write_text(text, encoding="utf-8")
    write_csv(experiment.report_dir / "loss_gradients.csv", lines)
    print(table)


def format_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def measure_model(model: SERAlignForAudioClassification, utterances: Dataset, input_name: str) -> list[str]:
    """Compute the cells of one table row, averaged over batches."""
    model.eval()
    model.config.calibration_temperature = 1.0
    model.config.eal_weight = model.config.fual_weight = WEIGHT  # so that both are computed
    if model.statistics_classifier is not None:  # it adds nothing while the losses train the rest
        torch.nn.init.zeros_(model.statistics_classifier.weight)
        torch.nn.init.zeros_(model.statistics_classifier.bias)
    collate = Collator(input_name)
    batches = [
        collate([utterances[index] for index in range(start, start + BATCH_SIZE)])
        for start in range(0, len(utterances) - BATCH_SIZE + 1, BATCH_SIZE)
    ]
    values = torch.tensor([_measure_batch(model, batch) for batch in batches]).mean(dim=0).tolist()
    return [f"{value:.3g}" for value in values]


def _measure_batch(model: SERAlignForAudioClassification, batch: dict[str, torch.Tensor]) -> list[float]:
    norms = {}
    output = model(**batch)
    for loss in ("ce_loss", "eal_loss", "fual_loss"):
        model.zero_grad()
        output[loss].backward(retain_graph=True)
        for part in PARTS:
            norms[loss, part] = compute_gradient_norm(getattr(model, part))
    shares = [
        WEIGHT * norms[loss, part] / norms["ce_loss", part] for loss in ("eal_loss", "fual_loss") for part in PARTS
    ]
    return [output[loss].item() for loss in ("ce_loss", "eal_loss", "fual_loss")] + shares + _measure_frames(output)


def compute_gradient_norm(module: torch.nn.Module) -> float:
    squares = [float(parameter.grad.square().sum()) for parameter in module.parameters() if parameter.grad is not None]
    return sum(squares) ** 0.5


@torch.no_grad()
def _measure_frames(output: SERAlignOutput) -> list[float]:
    """Compute the spread of logits over frames and over utterances, and the share of frames that agree."""
    weights = output.frame_weights.unsqueeze(-1)
    mean = (weights * output.frame_logits).sum(dim=1, keepdim=True)
    spread = (weights * (output.frame_logits - mean).square()).sum(dim=1).mean().sqrt()
    agree = (output.frame_logits.argmax(dim=-1) == output.logits.argmax(dim=-1, keepdim=True)) & output.frame_mask
    return [float(spread), float(output.logits.std(dim=0).mean()), float(agree.sum() / output.frame_mask.sum())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of a finished experiment")
    own, rest = parser.parse_known_args()
    try:
        run_study(read_experiment(own.config, rest))
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
