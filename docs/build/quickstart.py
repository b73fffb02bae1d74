"""Builds the quickstart's scores, snippet and figure from its output folder."""

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from core.errors import InputError
from docs.build.blocks import run_snippet
from recipe.results import describe_fold, describe_unseen, find_pooling, read_results, score_lines

matplotlib.use("Agg")
# Two Okabe-Ito colours; line styles distinguish the curves in black and white.
COLOURS = ("#D55E00", "#0072B2")


def read_stages(folder: Path) -> list[dict[str, Any]]:
    """Read the results.json of both stages.

    Raises:
        InputError: the folder does not contain both stages.
    """
    stages = [results for stage in (1, 2) if (results := read_results(folder / f"stage{stage}"))]
    if len(stages) < 2:
        raise InputError(f"{folder} does not contain both stages: give the output folder of the quickstart")
    return stages


def describe_quickstart(stages: list[dict[str, Any]]) -> str:
    lines = [
        "## Quickstart, synthetic speech",
        "",
        "| corpus | stage | pooling | parameters | weights | validation UA | WA | test UA | WA | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [format_row(results, name) for results in stages for name in ("best", "last")]) + "\n"


def format_row(results: dict[str, Any], name: str) -> str:
    scores = [results["scores"][name][split][metric] for split in ("validation", "test") for metric in ("ua", "wa")]
    cells = [
        f"{results['corpus']}{describe_fold(results)}",
        str(results["stage"]),
        find_pooling(results),
        f"{results['num_parameters']:,}",
        f"{name} (epoch {results['epochs'][name]:.3g})",
        *(f"{score:.3f}" for score in scores),
        f"{results['seconds']:.0f}" if name == "best" else "",
    ]
    return f"| {' | '.join(cells)} |"


def build_quickstart_block(folder: Path) -> list[str]:
    """Scores and a snippet with its real output, for docs/TRAINING.md."""
    stages = read_stages(folder)
    lines = ["```text"]
    for results in stages:
        lines += [
            f"Stage {results['stage']}. Scores on {describe_unseen(results)}:",
            *score_lines(results),
        ]
    speaker = stages[-1]["speakers"]["test"][0]
    snippet = f"""from transformers import pipeline

recognize = pipeline("speech-emotion-recognition", "{folder.as_posix()}/stage2", trust_remote_code=True)
for answer in recognize("data/demo/{speaker}/sad_1.wav"):
    print(f"{{answer['label']:8}} {{answer['score']:.3f}}")"""
    lines += [
        "```",
        "",
        "The pipeline loads the result, like any other checkpoint of this project, here or on the Hub:",
        "",
    ]
    return [*lines, "```python", snippet, *(f"# {line}" for line in run_snippet(snippet)), "```"]


def draw_quickstart(folder: Path, target: Path) -> None:
    """Validation UA through both stages, and the confusion matrix of stage 2 on unseen speakers."""
    stages = read_stages(folder)
    labels, test = stages[-1]["labels"], stages[-1]["scores"]["best"]["test"]
    figure, (curve, matrix) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1.7, 1))
    offset = 0.0
    for results, colour, style in zip(stages, COLOURS, ("--", "-")):
        epochs = [offset + line["epoch"] for line in results["history"]]
        name = f"stage {results['stage']}: {find_pooling(results)} pooling"
        curve.plot(epochs, [line["ua"] for line in results["history"]], style, color=colour, label=name, marker="o")
        best = results["epochs"]["best"]
        curve.plot(offset + best, results["scores"]["best"]["validation"]["ua"], "*", color="black", markersize=13)
        offset = epochs[-1]
    curve.axhline(1 / len(labels), color="0.5", linewidth=1, linestyle=":")
    curve.annotate("chance", (offset, 1 / len(labels)), ha="right", va="bottom", color="0.35")
    curve.set(ylim=(0, 1), xlabel="epoch", ylabel="validation UA", title="the selected epoch is starred")
    curve.legend(loc="lower center", frameon=False)
    curve.spines[["top", "right"]].set_visible(False)
    percent = 100 * np.array(test["confusion_matrix"]) / np.sum(test["confusion_matrix"], axis=1, keepdims=True)
    matrix.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(percent.shape):
        shade = "white" if percent[row, column] > 50 else "black"
        matrix.text(column, row, f"{percent[row, column]:.0f}", ha="center", va="center", color=shade)
    matrix.set_xticks(range(len(labels)), labels)
    matrix.set_yticks(range(len(labels)), labels)
    matrix.set(xlabel="predicted", ylabel="true", title=f"unseen speakers, %: UA {test['ua']:.2f}")
    figure.tight_layout()
    figure.savefig(target, dpi=150)
