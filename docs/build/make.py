"""Write docs/RESULTS.md, the README's quickstart output and its picture from finished runs.

    python docs/build/make.py outputs/quickstart run_configs/ravdess/table3.yaml run_configs/ravdess/timeline.yaml

First the output folder of the quickstart, whose output and picture stand in the README; then the experiments, whose
reports must have been made (`python experiment.py --config ... --report`) and are copied to docs/results. What the
timeline reaches stands in the README too.
"""

import argparse
import csv
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from core.json_files import read_json
from docs.build.measured import performance_lines, performance_page, reliability_page
from docs.build.readme import printed_by, replace_in_readme
from experiments.cells import Experiment, read_experiment
from recipe.corpora import PUBLISHED
from recipe.results import describe_fold, read_results, score_lines

# Two of Okabe and Ito's colours, told apart by the colour-blind; line styles tell them apart in black and white.
COLOURS = ("#D55E00", "#0072B2")


def main(quickstart: Path, experiments: list[str]) -> None:
    stages = finished_stages(quickstart)
    if len(stages) < 2:
        sys.exit(f"error: {quickstart} does not hold both stages; give the output folder of the quickstart")
    command = f"python docs/build/make.py {quickstart.as_posix()} {' '.join(experiments)}"
    read = [read_experiment(path, []) for path in experiments]
    parts = [experiment_part(experiment) for experiment in read]
    page = "\n".join([introduction(command), *parts, quickstart_part(stages)])
    (ROOT / "docs" / "RESULTS.md").write_text(page, encoding="utf-8")
    (ROOT / "docs" / "CORPORA.md").write_text(corpora_page(), encoding="utf-8")
    for experiment in read:
        if experiment.recordings:
            write_timeline_block(experiment)
    (ROOT / "docs" / "PERFORMANCE.md").write_text(performance_page(), encoding="utf-8")
    replace_in_readme("performance", performance_lines())
    (ROOT / "docs" / "RELIABILITY.md").write_text(reliability_page(), encoding="utf-8")
    write_onnx_block(read_json(ROOT / "docs" / "results" / "onnx.json"))
    write_quickstart_block(quickstart)
    draw_quickstart(quickstart, ROOT / "docs" / "quickstart.png")


def introduction(command: str) -> str:
    return f"""# Results

Generated from the predictions of finished runs; do not edit:

    {command}

Each experiment has a report of its own with folds, confusion matrices, embeddings, calibration, fairness, class counts
and every hyper-parameter.

No speaker stands in two parts of a split. *Selected* weights are those of the best validation UA, *last* those of the
last epoch; neither is chosen on test data. The small RAVDESS recipe was chosen on validation actors among the
training actors of fold 1. Those actors test other folds, so the choice knows a little of them; it knows nothing of the
test actors of fold 1 (an earlier, weaker recipe did).
"""


def experiment_part(experiment: Experiment) -> str:
    """Scores and comparisons of one experiment, with a link to its whole report, which is copied beside this page."""
    source = experiment.report_dir
    if not (source / "report.md").is_file():
        sys.exit(f"error: {source} holds no report: python experiment.py --config {experiment.path} --report")
    name = f"{experiment.path.parent.name}-{experiment.path.stem}"
    target = ROOT / "docs" / "results" / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix in (".md", ".png", ".csv"):
            shutil.copyfile(path, target / path.name)
    report = (source / "report.md").read_text(encoding="utf-8").replace("](", f"](results/{name}/")
    head, *rest = report.split("\n## ")
    sections = dict(section.split("\n", 1) for section in rest)
    state = head.splitlines()[2]  # how many runs are finished, and which are not
    lines = [f"## {experiment.title}", "", f"{state} [The whole report](results/{name}/report.md).", ""]
    if experiment.recordings:  # its scores are those of another table
        lines += [
            f"### {title}\n\n{sections[title].strip()}\n"
            for title in ("When", "Do the weights tell why?")
            if title in sections
        ]
        return "\n".join(lines)
    lines += [sections["Scores"].strip()]
    if "Does it help?" in sections:
        lines += ["", "### Does it help?", "", sections["Does it help?"].strip()]
    if (source / "loss_gradients.md").is_file():
        command = f"python studies/loss_gradients.py --config {experiment.path.as_posix()} --data_dir ..."
        lines += ["", "### How hard the losses pull", "", LOSS_GRADIENTS.format(command=command)]
        lines += [(source / "loss_gradients.md").read_text(encoding="utf-8")]
    return "\n".join(lines) + "\n"


def write_timeline_block(experiment: Experiment) -> None:
    """What the timeline and the weights are worth, in the README."""
    rows = read_rows(experiment.report_dir / "diarization.csv")
    cuts = {row["cut"]: row for row in read_rows(experiment.report_dir / "deletion.csv")}

    def told(condition: str) -> str:
        own = {row["method"]: row for row in rows if row["condition"] == condition}
        best = min((row for row in own.values() if "sliding" in row["method"]), key=lambda row: float(row["error"]))
        ours, theirs, whole = (100 * float(row["error"]) for row in (own["timeline"], best, own["whole_file"]))
        gain, low, high = (100 * float(best[name]) for name in ("advantage", "low", "high"))
        return (
            f"{ours:.0f} % against {theirs:.0f} % for the best of six sliding windows (difference {gain:.1f} points, "
            f"95 % interval {low:.1f} to {high:.1f}) and {whole:.0f} % for one label"
        )

    drop, other = (100 * float(cuts[cut]["drop"]) for cut in ("top", "random"))
    text = (
        f"Measured on test utterances of one actor in a row, emotion diarization error rate: {told('pauses')}. Where "
        f"utterances follow each other without any pause: {told('no_pauses')}. Cutting out the fifth of the frames "
        f"with the highest weights costs the predicted class {drop:.0f} points of probability, as many random frames "
        f"{other:.0f}. [Details](docs/RESULTS.md)."
    )
    replace_in_readme("timeline", [textwrap.fill(text, 120)])


def write_onnx_block(results: dict[str, Any]) -> None:
    """What exporting costs and brings, in the README, from docs/results/onnx.json."""
    folds, speed, size = results["ua"]["folds"], results["speed"], results["megabytes"]
    utterances = sum(fold["num_utterances"] for fold in folds)
    changed = {form: sum(fold["other_label"][form] for fold in folds) for form in ("fp32", "int8")}
    ua = {form: results["ua"]["all"]["ua"][form] for form in ("pytorch", "int8")}
    text = (
        f"On {utterances:,} utterances of RAVDESS, the test speakers of {len(folds)} folds, {changed['fp32']} labels "
        f"differ from PyTorch's; on one thread it is {speed['fp32_over_pytorch']:.1f} times as fast. `--int8` writes a "
        f"second file with 8-bit weights, {size['int8']:.1f} instead of {size['fp32']:.1f} MB for the small model: "
        f"{changed['int8']} labels differ, UA {ua['int8']:.1f} instead of {ua['pytorch']:.1f} %, and padding changes "
        "its scores a little. Measured by `benchmarks/onnx_export.py` ([results](docs/results/onnx.json))."
    )
    replace_in_readme("onnx", [textwrap.fill(text, 120)])


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8")))


def corpora_page() -> str:
    """The docstrings of the readers."""
    lines = [
        "# Corpora",
        "",
        "Generated from the readers in `recipe/corpora` by `python docs/build/make.py`; do not edit.",
        "",
    ]
    for name, module in PUBLISHED.items():
        title, _, text = (module.__doc__ or "").partition(":")
        lines += [f"## {title}", "", f"`--corpus {name}`. {text.strip()}", ""]
    return "\n".join(lines)


LOSS_GRADIENTS = """Gradient norms on training utterances of the first fold and seed, EAL and FUAL times 0.05, the
weight that the paper gives them, as a share of the gradient norm of CE. Made by `{command}`.
Spread: standard deviation of the logits over the frames of an utterance, and over utterances.

Where the CLS output stays out of the embedding, utterance logits are the weighted mean of the frame logits, as one
linear classifier serves both: so FUAL is the gap between the softmax of a mean and the mean of softmaxes, and vanishes
with the square of the frames' spread. The last column is the share of frames whose class is that of their utterance.
"""


def finished_stages(folder: Path) -> list[dict[str, Any]]:
    return [results for stage in (1, 2) if (results := read_results(folder / f"stage{stage}"))]


def pooling_of(results: dict[str, Any]) -> str:
    return "attentive" if results["stage"] == 1 else results["arguments"]["pooling"]


def quickstart_part(stages: list[dict[str, Any]]) -> str:
    lines = [
        "## Quickstart, synthetic speech",
        "",
        "| corpus | stage | pooling | parameters | weights | validation UA | WA | test UA | WA | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [results_line(results, name) for results in stages for name in ("best", "last")]) + "\n"


def results_line(results: dict[str, Any], name: str) -> str:
    scores = [results["scores"][name][split][metric] for split in ("validation", "test") for metric in ("ua", "wa")]
    cells = [
        f"{results['corpus']}{describe_fold(results)}",
        str(results["stage"]),
        pooling_of(results),
        f"{results['num_parameters']:,}",
        f"{name} (epoch {results['epochs'][name]:.3g})",
        *(f"{score:.3f}" for score in scores),
        f"{results['seconds']:.0f}" if name == "best" else "",
    ]
    return f"| {' | '.join(cells)} |"


def write_quickstart_block(folder: Path) -> None:
    """Scores and snippet of the README, with what they really print."""
    lines = ["```text"]
    for results in finished_stages(folder):
        lines += [
            f"Stage {results['stage']}. Scores on speakers that it has not heard in training:",
            *score_lines(results),
        ]
    speaker = finished_stages(folder)[-1]["speakers"]["test"][0]
    snippet = f"""from transformers import pipeline

recognize = pipeline("speech-emotion-recognition", "{folder.as_posix()}/stage2", trust_remote_code=True)
for answer in recognize("data/demo/{speaker}/sad_1.wav"):
    print(f"{{answer['label']:8}} {{answer['score']:.3f}}")"""
    lines += ["```", "", "Use what it trained, or any other checkpoint of this project, here or on the Hub:", ""]
    lines += ["```python", snippet, *(f"# {line}" for line in printed_by(snippet)), "```"]
    replace_in_readme("quickstart", lines)


def draw_quickstart(folder: Path, target: Path) -> None:
    """Validation UA through both stages, and where stage 2 is right and wrong on unseen speakers."""
    stages = finished_stages(folder)
    labels, test = stages[-1]["labels"], stages[-1]["scores"]["best"]["test"]
    figure, (curve, matrix) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1.7, 1))
    offset = 0.0
    for results, colour, style in zip(stages, COLOURS, ("--", "-")):
        epochs = [offset + line["epoch"] for line in results["history"]]
        name = f"stage {results['stage']}: {pooling_of(results)} pooling"
        curve.plot(epochs, [line["ua"] for line in results["history"]], style, color=colour, label=name, marker="o")
        best = results["epochs"]["best"]
        curve.plot(offset + best, results["scores"]["best"]["validation"]["ua"], "*", color="black", markersize=13)
        offset = epochs[-1]
    curve.axhline(1 / len(labels), color="0.5", linewidth=1, linestyle=":")
    curve.annotate("chance", (offset, 1 / len(labels)), ha="right", va="bottom", color="0.35")
    curve.set(ylim=(0, 1), xlabel="epoch", ylabel="validation UA", title="the epoch that is kept is starred")
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quickstart", type=Path, help="output folder of the quickstart")
    parser.add_argument("experiments", nargs="*", help="YAML files of experiments")
    given = parser.parse_args()
    main(given.quickstart, given.experiments)
