"""The report of a robustness test: scores by condition, as JSON, Markdown and a figure."""

import itertools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from core.escaping import markdown_text
from experiments.figures import COLOURS, MARKERS, save_figure
from experiments.tables import write_csv
from recipe.calibration import expected_calibration_error
from recipe.scoring import group_by_corpus
from recipe.statistics import (
    ENOUGH_SPEAKERS,
    compute_scores,
    difference_interval,
    holm,
    paired_p_value,
    speaker_confusions,
    speaker_interval,
)

NO_ANSWER = "no speech found"
ALL = "all"
OVERALL = "degraded"  # all conditions but the first

Lines = list[dict[str, Any]]


def build_rows(lines: list[dict[str, Any]], conditions: list[str]) -> list[dict[str, Any]]:
    """A row per model, corpus and condition: UA with its interval, ratio to the first condition, ECE.

    Args:
        lines: predictions; one without an answer counts as wrong, but not in the ECE.
        conditions: in order. Of several corpora, each has its own rows beside those of `all`.
    """
    rows = []
    for model in dict.fromkeys(line["model"] for line in lines):
        own = [line for line in lines if line["model"] == model]
        for corpus, part in {ALL: own, **group_by_corpus(own)}.items():
            first = None
            for condition in conditions:
                row = score_condition([line for line in part if line["condition"] == condition])
                first = first or row["ua"]
                ratio = row["ua"] / first if first else None
                rows.append({"model": model, "corpus": corpus, "condition": condition, **row, "ratio": ratio})
    return rows


def score_condition(lines: list[dict[str, Any]]) -> dict[str, Any]:
    answered = [line for line in lines if line["prediction"] is not None]
    labels = [*sorted({name for line in lines for name in (line["label"], *line["probabilities"])}), NO_ANSWER]
    of_speakers = np.array(list(speaker_confusions(list(map(fill_answer, lines)), labels).values()))
    low, high = speaker_interval(of_speakers, "ua") or (None, None)
    confidences = np.array([max(line["probabilities"].values()) for line in answered])
    correct = np.array([line["prediction"] == line["label"] for line in answered])
    return {
        "ua": float(compute_scores(of_speakers.sum(axis=0))["ua"]),
        "ua_low": low,
        "ua_high": high,
        "ece": expected_calibration_error(confidences, correct) if answered else None,
        "confidence": float(confidences.mean()) if answered else None,
        "unanswered": len(lines) - len(answered),
    }


def compare_systems(lines: list[dict[str, Any]], conditions: list[str]) -> list[dict[str, Any]]:
    """The difference in UA of each pair of models that are tested on the same utterances.

    A row for each condition, and one for `OVERALL`: all but the first, as recorded, together. That one has a p-value,
    with Holm's correction over the pairs.
    """
    rows = []
    models = {
        model: [line for line in lines if line["model"] == model]
        for model in dict.fromkeys(line["model"] for line in lines)
    }
    for first, second in itertools.combinations(models, 2):
        if len({frozenset((line["speaker"], line["id"]) for line in models[name]) for name in (first, second)}) > 1:
            continue
        for name, among in {OVERALL: conditions[1:], **{each: [each] for each in conditions}}.items():
            row = compare_pair(models[first], models[second], among) if among else {}
            rows.append({"system": first, "other": second, "condition": name, **row})
    overall = [row for row in rows if row["condition"] == OVERALL and "p" in row]
    for row, adjusted in zip(overall, holm([row["p"] for row in overall]) if overall else ()):
        row["p_holm"] = adjusted
    return rows


def compare_pair(first: Lines, second: Lines, conditions: list[str]) -> dict[str, Any]:
    """The difference in UA of two models in these conditions, with its interval over speakers; of several, its p."""
    sides = [[fill_answer(line) for line in lines if line["condition"] in conditions] for lines in (first, second)]
    labels = [*sorted({line[key] for lines in sides for line in lines for key in ("label", "prediction")})]
    counted = [speaker_confusions(lines, labels) for lines in sides]
    ours, theirs = (np.array([confusions[speaker] for speaker in counted[0]]) for confusions in counted)
    low, high = difference_interval(ours, theirs, "ua") or (None, None)
    scores = [float(compute_scores(side.sum(axis=0))["ua"]) for side in (ours, theirs)]
    row = {"difference_ua": scores[0] - scores[1], "low": low, "high": high, "speakers": len(ours)}
    return row | ({"p": paired_p_value(ours, theirs, "ua")} if len(conditions) > 1 else {})


def fill_answer(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "prediction": line["prediction"] or NO_ANSWER}


def write_report(folder: Path, content: dict[str, Any]) -> Path:
    """Write report.md, scores.csv and the figure; return the path of report.md."""
    write_csv(folder / "scores.csv", content["rows"])
    if content.get("comparisons"):
        write_csv(folder / "comparisons.csv", content["comparisons"])
    draw_robustness(content, folder / "robustness")
    report = folder / "report.md"
    text = [f"# {content['title']}", "", *describe_test(content), "", *build_table(content), ""]
    text += build_comparison_table(content)
    text += ["![UA by condition](robustness.png)", "", *build_corpus_table(content)]
    report.write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    return report


def describe_test(content: dict[str, Any]) -> list[str]:
    """What was tested, in Markdown."""
    lines = [f"`{content['command']}`", ""]
    for model in content["models"]:
        few = ", so its intervals are too narrow" if model["speakers"] < ENOUGH_SPEAKERS else ""
        pooled = f"{model['folds']} folds; " if model.get("folds", 1) > 1 else ""
        name, corpus, chance = markdown_text(model["name"]), markdown_text(model["corpus"]), 100 / model["labels"]
        lines.append(
            f"- **{name}**: {model['utterances']} utterances of {model['speakers']} test speakers of {corpus}{few}; "
            f"{pooled}{model['labels']} labels, chance {chance:.1f} %."
        )
    lines += [
        "",
        "Each recording is degraded as it is, with the silence around the speech, and given to the pipeline, which "
        "trims it. The level of noise is relative to the speech without its pauses. Noise, voices and rooms are "
        "the same for every model and not those of training: they have seeds of their own, and babble is made of six "
        "utterances of other validation and test speakers. UA is in percent with the 95 % bootstrap interval over "
        "speakers, *ratio* is relative to the first row, and ECE is the expected calibration error (15 bins).",
    ]
    return lines


def build_table(content: dict[str, Any]) -> list[str]:
    """A row per condition, three columns per model, in Markdown."""
    models = [model["name"] for model in content["models"]]
    cells = {(row["model"], row["condition"]): row for row in content["rows"] if row["corpus"] == ALL}
    heads = [f"{markdown_text(name)}: UA | ratio | ECE" if len(models) > 1 else "UA | ratio | ECE" for name in models]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|---|---|" * len(models)]
    for condition in dict.fromkeys(row["condition"] for row in content["rows"]):
        found = [format_row(cells[name, condition]) for name in models]
        lines.append(f"| {markdown_text(condition)} | {' | '.join(found)} |")
    unanswered = [row for row in cells.values() if row["unanswered"]]
    notes = [
        f"- {markdown_text(row['model'])}, {markdown_text(row['condition'])}: no speech was found in "
        f"{row['unanswered']} recordings; they count as wrong."
        for row in unanswered
    ]
    return [*lines, *([""] if notes else []), *notes]


def format_row(row: dict[str, Any]) -> str:
    interval = "" if row["ua_low"] is None else f" [{100 * row['ua_low']:.1f}, {100 * row['ua_high']:.1f}]"
    ratio, ece = ("-" if row[name] is None else f"{row[name]:.2f}" for name in ("ratio", "ece"))
    return f"{100 * row['ua']:.1f}{interval} | {ratio} | {ece}"


def build_corpus_table(content: dict[str, Any]) -> list[str]:
    """UA and ratio of each corpus of a model that is tested on several, in Markdown; empty if there is none."""
    pairs = list(dict.fromkeys((row["model"], row["corpus"]) for row in content["rows"] if row["corpus"] != ALL))
    if not pairs:
        return []
    cells = {(row["model"], row["corpus"], row["condition"]): row for row in content["rows"]}
    lines = ["## UA and ratio by corpus", "", f"| | {' | '.join(markdown_text(': '.join(pair)) for pair in pairs)} |"]
    lines.append("|---|" + "---|" * len(pairs))
    for condition in dict.fromkeys(row["condition"] for row in content["rows"]):
        found = [cells[model, corpus, condition] for model, corpus in pairs]
        shown = [f"{100 * row['ua']:.1f} ({row['ratio']:.2f})" for row in found]
        lines.append(f"| {markdown_text(condition)} | {' | '.join(shown)} |")
    return [*lines, ""]


def build_comparison_table(content: dict[str, Any]) -> list[str]:
    """The difference of each pair of systems over all degraded conditions, in Markdown; empty if none can be paired."""
    rows = [row for row in content.get("comparisons", []) if row["condition"] == OVERALL and "p" in row]
    if not rows:
        return []
    tests = f"{len(rows)} test{'s' if len(rows) > 1 else ''}"
    lines = ["## Differences between systems", ""]
    lines += [
        "In UA over all conditions but the first, each with the same weight, on the same utterances, with a 95 % "
        "bootstrap interval over speakers. The p-values come from a two-sided permutation test that swaps two systems "
        f"speaker by speaker, with Holm's correction for {tests}. comparisons.csv has every condition.",
        "",
        "| | minus | difference in UA | 95 % | p | p (Holm) | speakers |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        interval = "-" if row["low"] is None else f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        lines.append(
            f"| {markdown_text(row['system'])} | {markdown_text(row['other'])} | {100 * row['difference_ua']:+.1f} | "
            f"{interval} | {row['p']:.3f} | {row['p_holm']:.3f} | {row['speakers']} |"
        )
    return [*lines, ""]


def draw_robustness(content: dict[str, Any], target: Path) -> None:
    """UA of each model by condition, with its interval; chance as a dotted line for each number of labels."""
    conditions = list(dict.fromkeys(row["condition"] for row in content["rows"]))
    figure, axes = plt.subplots(figsize=(7.5, 1.2 + 0.32 * len(conditions)))
    models = content["models"]
    for number, model in enumerate(models):
        offset = 0.5 * (number - (len(models) - 1) / 2) / max(len(models), 2)
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        rows = [row for row in content["rows"] if row["model"] == model["name"] and row["corpus"] == ALL]
        places = np.arange(len(rows))[::-1] - offset
        for place, row in zip(places, rows):
            if row["ua_low"] is not None:
                ends = [100 * row["ua_low"], 100 * row["ua_high"]]
                axes.plot(ends, [place, place], color=colour, linewidth=1.5, alpha=0.6)
        shares = [100 * row["ua"] for row in rows]
        axes.plot(shares, places, linestyle="none", marker=marker, color=colour, label=model["name"])
    for labels in {model["labels"] for model in models}:
        axes.axvline(100 / labels, color="0.5", linestyle=":", linewidth=1)
    axes.set_yticks(range(len(conditions)), conditions[::-1])
    axes.set(xlabel="UA in %, 95 % interval over test speakers; dotted: chance", xlim=(0, 100))
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, target)
