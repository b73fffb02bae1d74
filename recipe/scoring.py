"""Scoring: model and rows -> predictions.jsonl -> UA, WA, macro-F1. All scores come from that file."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import evaluate
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from core.errors import InputError
from core.json_files import read_lines
from recipe.batching import TARGETS, Collator
from recipe.dimension_scores import TRUE, has_dimensions
from recipe.dimension_scores import score_lines as score_dimensions
from recipe.dimensions import COLUMN as DIMENSIONS
from recipe.distribution_scores import has_distributions, measure
from recipe.distribution_scores import read_lines as read_distributions
from recipe.distributions import COLUMN
from recipe.fairness import check_groups, count_groups, read_groups, score_gaps
from recipe.preparing import UtterancePreparer, prepare_rows

METRIC = Path(__file__).parent.parent / "metrics" / "ser_scores"


@functools.cache
def load_metric() -> evaluate.EvaluationModule:
    return evaluate.load(str(METRIC))


@torch.inference_mode()
def predict(
    model: PreTrainedModel, rows: Dataset, preparer: UtterancePreparer, batch_size: int, gap_columns: Sequence[str] = ()
) -> list[dict]:
    """Predict each row: id, speaker, gender, groups in `gap_columns` if any, corpus if there are several, label,
    prediction and all probabilities; with distributions as targets, also that of the votes; with dimensions, also the
    predicted and the true ones.

    Runs in float32 without autocast; the batch size does not affect scores. Several processes share the work, and
    each returns all predictions.

    Raises:
        InputError: the rows do not have the model's labels in the same order or lack a column, or a prediction is not
            finite.
    """
    check_groups(gap_columns, rows.column_names)
    names = rows.features["label"].names
    known = list(model.config.id2label.values())
    if known != names:
        raise InputError(
            f"the model's labels are {', '.join(known)}, in this order, but those of the utterances are "
            f"{', '.join(names)}: match them with label_map"
        )
    state = PartialState()
    collate = Collator(preparer.input_name)
    model.eval()
    share = rows.select(range(state.process_index, len(rows), state.num_processes))
    batches = in_batches(share, preparer, batch_size)
    num_batches = -(-len(share) // batch_size)
    predictions = []
    bar = tqdm(batches, total=num_batches, desc="scoring", leave=False, disable=not state.is_main_process)
    for utterances in bar:
        inputs = {name: tensor.to(model.device) for name, tensor in collate(utterances).items() if name not in TARGETS}
        output = model(**inputs)
        probabilities = output.logits.float().softmax(dim=-1).cpu()
        values = probabilities[:, :0] if output.dimensions is None else output.dimensions.cpu()
        for utterance, *found in zip(utterances, probabilities, values):
            if not torch.cat(found).isfinite().all():
                raise InputError(f"the model's output for {utterance['id']} is not finite: train the model again")
            predictions.append((utterance["id"], [each.tolist() for each in found]))
    everything = dict(gather_object(predictions))
    probabilities, values = ({name: pair[part] for name, pair in everything.items()} for part in range(2))
    return build_lines(rows, probabilities, values, model.config.dimension_names or (), gap_columns)


def build_lines(
    rows: Dataset,
    probabilities: dict[str, list[float]],
    values: dict[str, list[float]] | None = None,
    dimensions: Sequence[str] = (),
    gap_columns: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The lines of predictions.jsonl, without their split.

    Args:
        probabilities: of the classes, by the id of each row.
        values: of the dimensions, by the id of each row.
        dimensions: their names, if the model has any.
        gap_columns: columns whose groups are in the lines.
    """
    names = rows.features["label"].names
    return [
        {
            "id": row["id"],
            "speaker": row["speaker"],
            "gender": row["gender"],
            **({"groups": read_groups(row, gap_columns)} if gap_columns else {}),
            **({"corpus": row["corpus"]} if "corpus" in row else {}),
            "label": names[row["label"]],
            **({COLUMN: dict(zip(names, row[COLUMN]))} if COLUMN in row else {}),
            "prediction": names[max(range(len(names)), key=probabilities[row["id"]].__getitem__)],
            "probabilities": dict(zip(names, probabilities[row["id"]])),
            **({TRUE: dict(zip(dimensions, row[DIMENSIONS]))} if DIMENSIONS in row else {}),
            **({DIMENSIONS: dict(zip(dimensions, values[row["id"]]))} if values and dimensions else {}),
        }
        for row in rows
    ]


def in_batches(rows: Dataset, preparer: UtterancePreparer, batch_size: int) -> Iterator[list[dict[str, Any]]]:
    """Yield prepared utterances in the order of the rows, in batches for a `Collator`."""
    dataset = prepare_rows(rows, preparer)
    for start in range(0, len(rows), batch_size):
        yield [dataset[index] for index in range(start, min(start + batch_size, len(rows)))]


def score_file(path: Path) -> dict[str, dict[str, Any]]:
    """Compute the scores of each split in a predictions.jsonl.

    Returns:
        for each split ua, wa, macro_f1, confusion_matrix, num_utterances, labels and `gaps`, those between the groups
        of each column; with distributions as targets, also `distribution`, the six measures; with dimensions, also
        `dimensions`, the measures of each, and `mean_ccc`; of several corpora, also `corpora`, with the
        same of each by name, and `mean_ua`, the mean of their ua.
    """
    lines = read_lines(path)
    scores = {}
    for split in dict.fromkeys(line["split"] for line in lines):
        part = [line for line in lines if line["split"] == split]
        scores[split] = score_lines(part)
        if "corpus" in part[0]:
            of_each = {corpus: score_lines(of_one) for corpus, of_one in group_by_corpus(part).items()}
            mean = sum(score["ua"] for score in of_each.values()) / len(of_each)
            scores[split] |= {"corpora": of_each, "mean_ua": mean}
    return scores


def score_lines(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Compute the scores of some predictions."""
    labels = list(lines[0]["probabilities"])
    result = load_metric().compute(
        predictions=[labels.index(line["prediction"]) for line in lines],
        references=[labels.index(line["label"]) for line in lines],
        num_classes=len(labels),
    )
    measures = {"distribution": measure(*read_distributions(lines))} if has_distributions(lines) else {}
    if has_dimensions(lines):
        measures |= score_dimensions(lines)
    gaps = {column: score_gaps(confusions) for column, (_, confusions) in count_groups(lines, labels).items()}
    return {**result, **measures, "gaps": gaps, "num_utterances": len(lines), "labels": labels}


def group_by_corpus(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Predictions by corpus, in the order of their names; empty if all are of one corpus."""
    names = sorted({line["corpus"] for line in lines if "corpus" in line})
    return {name: [line for line in lines if line["corpus"] == name] for name in names}


def never_predicted(scores: dict[str, Any]) -> list[str]:
    """Find the classes of one split that have utterances but no predictions."""
    matrix = scores["confusion_matrix"]
    return [label for label, row, column in zip(scores["labels"], matrix, zip(*matrix)) if any(row) and not any(column)]
