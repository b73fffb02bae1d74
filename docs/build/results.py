"""Builds docs/RESULTS.md and the scores of the timeline from the reports of finished experiments."""

import shutil
import textwrap
from pathlib import Path

from core.errors import InputError
from docs.build.answer import build_answer
from docs.build.blocks import ROOT
from experiments.cells import Experiment
from experiments.conditions import RobustnessTest
from experiments.tables import read_csv

# Sections of report.md that the page includes. The scores in a report on the timeline are already in another report.
SCORE_SECTIONS = ("Scores", "Comparison with the baseline", "Step by step")
TIMELINE_SECTIONS = ("Emotion diarization", "Deletion test")


def build_results_page(
    command: str, experiments: list[Experiment], tests: list[RobustnessTest], quickstart_section: str
) -> str:
    answers = [line for experiment in experiments for line in build_answer(experiment, update_report(experiment))]
    sections = [*map(describe_experiment, experiments), *map(describe_robustness_test, tests)]
    return "\n".join([INTRODUCTION.format(command=command), *answers, *sections, quickstart_section])


INTRODUCTION = """# Results

Generated from the predictions of finished runs; do not edit:

    {command}

Each experiment has a full report with folds, confusion matrices, embeddings, calibration, fairness, class counts and
hyper-parameters.

The parts of a split share no speakers. *Selected* weights are those with the best validation UA, *last* weights those
of the last epoch; neither is chosen on test data. The hyper-parameters of the RAVDESS recipes were chosen on
validation actors, taken from the training actors of fold 1, and of fold 3 with whisper-base. Those actors are test
actors in other folds, so the choice is not entirely independent of them. It is independent of the test actors of
fold 1, although that of an earlier, weaker recipe of the small model was not.

The runs of the small model on RAVDESS trimmed each utterance 30 dB below its peak. Speech detection now also follows the
noise floor; the shipped models and the runs with whisper-base were trained with it.
"""


def describe_experiment(experiment: Experiment) -> str:
    """The scores and comparisons of one experiment, with a link to its report in docs/results. Raises InputError."""
    source = update_report(experiment)
    name = source.name
    report = (source / "report.md").read_text(encoding="utf-8").replace("](", f"](results/{name}/")
    head, *rest = report.split("\n## ")
    sections = dict(section.split("\n", 1) for section in rest)
    state = head.splitlines()[2]  # how many runs are finished, and which are missing
    lines = [f"## {experiment.title}", "", f"{state} [Full report](results/{name}/report.md).", ""]
    for title in TIMELINE_SECTIONS if experiment.timeline else SCORE_SECTIONS:
        if title in sections:
            lines += [f"### {title}", "", sections[title].strip(), ""]
    if (source / "loss_gradients.md").is_file():
        command = f"python -m studies.loss_gradients --config {experiment.path.as_posix()} --data_dir ..."
        table = (source / "loss_gradients.md").read_text(encoding="utf-8")
        lines += ["### Gradients of the losses", "", LOSS_GRADIENTS.format(command=command), table]
    return "\n".join(lines)


def describe_robustness_test(test: RobustnessTest) -> str:
    """The table of a robustness test and the differences between its systems, with a link to its report."""
    source = copy_report(test.output_dir, test.path)
    report = (source / "report.md").read_text(encoding="utf-8").replace("](", f"](results/{source.name}/")
    head, *rest = report.split("\n![", 1)[0].split("\n## ")
    text = head.split("\n", 1)[1].strip()  # without its title
    lines = [f"## {test.title}", "", f"[Full report](results/{source.name}/report.md).", "", text, ""]
    return "\n".join([*lines, *(f"### {section.strip()}\n" for section in rest)])


def update_report(experiment: Experiment) -> Path:
    """Copy the report of an experiment to docs/results, as `copy_report` does."""
    return copy_report(experiment.report_dir, experiment.path)


def copy_report(source: Path, path: Path) -> Path:
    """Copy the report of a YAML file to docs/results; keep the copy there if it was run elsewhere or deleted.

    Raises:
        InputError: there is neither a report nor a copy.
    """
    target = ROOT / "docs" / "results" / f"{path.parent.name}-{path.stem}"
    if (source / "report.md").is_file():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in source.iterdir():
            if file.suffix in (".md", ".png", ".csv"):
                shutil.copyfile(file, target / file.name)
    elif not (target / "report.md").is_file():
        raise InputError(f"{source} has no report: run python experiment.py --config {path} --report")
    return target


LOSS_GRADIENTS = """Gradient norms on training utterances of the first fold and seed, relative to the gradient norm of
CE; EAL and FUAL are multiplied by 0.05, their weight in the paper. Generated by
`{command}`.
*Spread* is the standard deviation of the logits over the frames of an utterance, and over utterances. The last column
is the share of frames whose predicted class is that of their utterance.

When the CLS output is not part of the embedding, frames and utterances share one linear classifier, so the utterance
logits are the weighted mean of the frame logits. FUAL is then the gap between the softmax of a mean and the mean of
softmaxes, which vanishes with the square of the frames' spread.
"""


def build_timeline_block(experiment: Experiment) -> list[str]:
    """The scores of the timeline and of the deletion test, for docs/INFERENCE.md."""
    source = update_report(experiment)
    rows = read_csv(source / "diarization.csv")
    cuts = {row["cut"]: row for row in read_csv(source / "deletion.csv")}

    def compare(condition: str) -> str:
        own = {row["method"]: row for row in rows if row["condition"] == condition}
        windows = [row for row in own.values() if "sliding" in row["method"]]
        best = min(windows, key=lambda row: float(row["error"]))
        ours, theirs, whole = (100 * float(row["error"]) for row in (own["timeline"], best, own["whole_file"]))
        gain, low, high = (100 * float(best[name]) for name in ("advantage", "low", "high"))
        return (
            f"{ours:.0f} %, compared with {theirs:.0f} % for the best of {len(windows)} sliding windows (difference "
            f"{gain:.1f} points, 95 % interval {low:.1f} to {high:.1f}) and {whole:.0f} % for one label per file"
        )

    drop, other = (100 * float(cuts[cut]["drop"]) for cut in ("top", "random"))
    text = (
        "Without a tracker, models that were trained on RAVDESS from scratch have an emotion diarization error rate of "
        f"{compare('pauses')} on concatenated test utterances of one actor. "
        f"Without any pauses between utterances, it is {compare('no_pauses')}. Removing the 20 % of frames with "
        f"the highest weights lowers the probability of the predicted class by {drop:.0f} points; removing as many "
        f"random frames lowers it by {other:.0f} points. [Details](RESULTS.md)."
    )
    return textwrap.wrap(text, 120, break_on_hyphens=False)
