"""How hard CE, EAL and FUAL pull at each part of the model, and how much the frames of an utterance differ.

    python studies/loss_gradients.py --config run_configs/ravdess/table3.yaml --data_dir RAVDESS

Of the first fold and seed of a finished experiment: the gradient norm of each loss, times the weight that the paper
gives it (0.05 each), as a share of the gradient norm of CE, on training utterances without dropout and augmentation.
Frames: spread of their logits beside that of the utterances', and how many agree with their utterance. Writes a
Markdown table into the experiment's report folder.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import torch
from datasets import Dataset
from transformers import AutoFeatureExtractor, set_seed

from core.errors import InputError
from experiments.cells import Cell, Experiment, read_experiment
from modeling_ser_align import SERAlignForAudioClassification, SERAlignOutput
from recipe.arguments import parse_arguments
from recipe.batching import Collator, UtterancePreparer, prepared, shortest_utterance
from recipe.data import read_rows_alone, split_rows
from recipe.results import read_results
from recipe.run import quiet_libraries
from recipe.stages import build_model

WEIGHT = 0.05  # of EAL and of FUAL, as in the paper
NUM_UTTERANCES, BATCH_SIZE = 128, 32
PARTS = ("encoder", "pooling")
HEADER = (
    *("trained as", "CE", "EAL", "FUAL", "EAL / CE encoder", "EAL / CE pooling", "FUAL / CE encoder"),
    *("FUAL / CE pooling", "spread of frame logits", "of utterance logits", "frames that agree"),
)


def main(experiment: Experiment) -> None:
    quiet_libraries()
    variants = [variant for variant in experiment.variants if variant.options.get("pooling", "cls") == "cls"]
    cells = [Cell(experiment.folds[0], experiment.seeds[0], variant) for variant in variants]
    cells = [cell for cell in cells if read_results(experiment.stage_dir(cell))]
    if not cells:
        raise InputError(f"no CLS variant of {experiment.path} is finished in {experiment.output_dir}: train it first")
    args = parse_arguments(experiment.command_line(cells[0]), description="")[2]
    rows = split_rows(args.data, read_rows_alone(args.data))["train"]
    rows = rows.shuffle(seed=0).select(range(min(NUM_UTTERANCES, len(rows))))
    lines: list[str] = []
    for cell in (cells[-1], *cells):
        name = cell.variant.name if lines else "not trained yet"
        set_seed(0)
        model = SERAlignForAudioClassification.from_pretrained(experiment.stage_dir(cell)) if lines else None
        if model is None:
            model = build_model(2, parse_arguments(experiment.command_line(cell), description="")[2], rows)
        feature_extractor = AutoFeatureExtractor.from_pretrained(experiment.stage_dir(cell))
        preparer = UtterancePreparer(feature_extractor, shortest_utterance(model.config), args.data.trim_db)
        lines.append(f"| {name} | {' | '.join(measured(model, prepared(rows, preparer), preparer.input_name))} |")
    table = "\n".join([f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|", *lines])
    experiment.report_dir.mkdir(parents=True, exist_ok=True)
    (experiment.report_dir / "loss_gradients.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def measured(model: SERAlignForAudioClassification, utterances: Dataset, input_name: str) -> list[str]:
    """The cells of one line of the table, mean over batches."""
    model.eval()
    model.config.calibration_temperature = 1.0
    model.config.eal_weight = model.config.fual_weight = WEIGHT  # so that both are computed
    collate = Collator(input_name)
    batches = [
        collate([utterances[index] for index in range(start, start + BATCH_SIZE)])
        for start in range(0, len(utterances) - BATCH_SIZE + 1, BATCH_SIZE)
    ]
    values = torch.tensor([_of_batch(model, batch) for batch in batches]).mean(dim=0).tolist()
    return [f"{value:.3g}" for value in values]


def _of_batch(model: SERAlignForAudioClassification, batch: dict[str, torch.Tensor]) -> list[float]:
    norms = {}
    output = model(**batch)
    for loss in ("ce_loss", "eal_loss", "fual_loss"):
        model.zero_grad()
        output[loss].backward(retain_graph=True)
        for part in PARTS:
            norms[loss, part] = gradient_norm(getattr(model, part))
    shares = [
        WEIGHT * norms[loss, part] / norms["ce_loss", part] for loss in ("eal_loss", "fual_loss") for part in PARTS
    ]
    return [output[loss].item() for loss in ("ce_loss", "eal_loss", "fual_loss")] + shares + _frames(output)


def gradient_norm(module: torch.nn.Module) -> float:
    squares = [float(parameter.grad.square().sum()) for parameter in module.parameters() if parameter.grad is not None]
    return sum(squares) ** 0.5


def _frames(output: SERAlignOutput) -> list[float]:
    """Standard deviation of the logits over an utterance's frames and over utterances; share of frames that agree."""
    weights = output.frame_weights.unsqueeze(-1)
    mean = (weights * output.frame_logits).sum(dim=1, keepdim=True)
    spread = (weights * (output.frame_logits - mean).square()).sum(dim=1).mean().sqrt()
    agree = (output.frame_logits.argmax(dim=-1) == output.logits.argmax(dim=-1, keepdim=True)) & output.frame_mask
    return [float(spread), float(output.logits.std(dim=0).mean()), float(agree.sum() / output.frame_mask.sum())]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="YAML file of a finished experiment")
    own, rest = parser.parse_known_args()
    try:
        main(read_experiment(own.config, rest))
    except InputError as error:
        sys.exit(f"error: {error}")
