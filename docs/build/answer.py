"""The answer to the paper's question, do EAL and FUAL help?, in five sentences from the report of a table 3."""

import math
import textwrap
from pathlib import Path

from experiments.cells import Cell, Experiment
from experiments.tables import read_csv

SYSTEMS = ("cls", "cls_eal", "cls_fual", "cls_eal_fual", "cls_eal_fual_statistics")
REPORTS = {"steps": "system", "comparisons": "system", "loss_gradients": "trained as", "alignment": "system"}
SIGNIFICANT = 0.05


def build_answer(experiment: Experiment, report: Path) -> list[str]:
    """The answer in Markdown; empty if the experiment or its report lacks what it needs.

    Args:
        report: folder with steps.csv, comparisons.csv, loss_gradients.csv and alignment.csv of the experiment.
    """
    names = {variant.key: variant.name for variant in experiment.variants}
    paths = [report / f"{name}.csv" for name in REPORTS]
    if not set(SYSTEMS) <= names.keys() or not all(path.is_file() for path in paths):
        return []
    steps, comparisons, gradients, alignment = (
        {row[column]: row for row in read_csv(path)} for column, path in zip(REPORTS.values(), paths)
    )
    both, eal, fual, statistics = (steps[names[key]] for key in ("cls_eal_fual", "cls_eal", "cls_fual", SYSTEMS[-1]))
    pooling, plain = comparisons[names["cls"]], gradients[names["cls"]]
    without, with_both = alignment[names["cls"]], alignment[names["cls_eal_fual"]]
    reach = max(abs(100 * float(both[end])) for end in ("low", "high"))
    sentences = (
        f"In {experiment.title[0].lower()}{experiment.title[1:]} ({both['runs']} runs of each system, {both['speakers']} "
        f"test speakers), adding EAL and FUAL to CLS pooling changes the UA by {describe_difference(both)}: "
        f"{judge(both)}.",
        f"EAL alone changes it by {describe_difference(eal)}, FUAL alone by {describe_difference(fual)}, and CLS "
        f"pooling in place of self-attention pooling by {describe_difference(pooling)}.",
        f"A true effect of both losses of more than {reach:.1f} points is unlikely{describe_setting(experiment)}.",
        "The explanation that can be measured: in a model trained without them, the gradient of FUAL in the pooling "
        f"layer is {share(plain, 'FUAL / CE pooling')} of that of the cross-entropy at the paper's weight, and that of "
        f"EAL {share(plain, 'EAL / CE pooling')}; on test utterances, both losses change the cosine of frames to their "
        f"own CLS output from {float(without['cls_cosine']):.2f} to {float(with_both['cls_cosine']):.2f}, to those of "
        f"other utterances from {float(without['other_cosine']):.2f} to {float(with_both['other_cosine']):.2f}, and the "
        f"share of frames with the predicted class from {share(without, 'agreement')} to "
        f"{share(with_both, 'agreement')}.",
        "For comparison, a logistic regression on statistics of the frozen layers, added to the proposed model, changes "
        f"the UA by {describe_difference(statistics)}: {judge(statistics)}.",
    )
    return ["## Do EAL and FUAL help?", "", *textwrap.wrap(" ".join(sentences), 120, break_on_hyphens=False), ""]


def describe_setting(experiment: Experiment) -> str:
    """What limits the answer: whether the encoder is fixed in stage 2, where the losses are."""
    options = experiment.parse_cell(Cell(experiment.folds[0], experiment.seeds[0], experiment.variants[0]))[2].model
    if options.freeze_encoder_layers < options.encoder_config.get("num_hidden_layers", math.inf):
        return ""
    return " in this setting, where stage 2 trains the pooling and the classifiers on a fixed encoder"


def describe_difference(row: dict[str, str]) -> str:
    difference, low, high = (100 * float(row[name]) for name in ("difference_ua", "low", "high"))
    return f"{difference:+.1f} points (95 % interval {low:.1f} to {high:.1f}, p = {float(row['p_holm']):.2f})"


def judge(row: dict[str, str]) -> str:
    return "a difference" if float(row["p_holm"]) < SIGNIFICANT else "within the noise"


def share(row: dict[str, str], name: str) -> str:
    return f"{100 * float(row[name]):.2g} %"
