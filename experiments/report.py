"""The report of an experiment: tables, figures and report.md, computed from the predictions.jsonl of its cells."""

import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from core.escaping import markdown_text
from experiments import figures
from experiments.across import arrange_matrices, build_corpus_table, build_transfer_table, summarize_transfer
from experiments.alignment import build_alignment_table
from experiments.cells import Experiment
from experiments.ensembles import build_ensembles, list_pairs
from experiments.gaps import build_gap_table
from experiments.systems import System, read_systems
from experiments.tables import (
    build_calibration_table,
    build_ccc_comparison_table,
    build_class_table,
    build_classical_table,
    build_comparison_table,
    build_dimension_table,
    build_distribution_table,
    build_fairness_table,
    build_fold_table,
    build_option_table,
    build_run_table,
    build_score_table,
    collect_confidences,
    score_speakers,
    write_csv,
)
from recipe.calibration import reliability
from recipe.corpora.rows import speakers_known
from recipe.dimensions import ALONE, describe_source
from recipe.options import SHARED

TEMPLATE = Path(__file__).parent / "report_template.md"
# Tables that are left out if they have no rows.
OPTIONAL = (
    *("steps", "corpora", "transfer", "classical", "distributions", "dimensions", "ccc_comparisons", "alignment"),
    "gaps",
)
NUM_BINS = 10  # of the reliability diagram; the calibration error itself uses 15


def write_report(
    experiment: Experiment,
    embeddings: dict[str, dict[str, np.ndarray]] | None = None,
    alignment: dict[str, list[dict[str, Any]]] | None = None,
) -> Path:
    """Write report.md, its tables as CSV and its figures as PNG and SVG; returns the path of report.md.

    Args:
        embeddings: by variant of `experiment.tsne`, the arrays that `figures.draw_tsne` takes; None draws no t-SNE.
        alignment: by system, what `alignment.measure_model` returns for each fold; None writes no such table.

    Raises:
        InputError: nothing is finished yet, runs cannot be compared, or a file of a finished cell is damaged.
    """
    systems = read_systems(experiment)
    ensembles = build_ensembles(experiment, systems)
    compared = [*systems, *ensembles]
    # The best epoch is selected by its validation score, which is therefore too high.
    weights = "best" if experiment.scored_on == "test" else "last"
    target = experiment.report_dir
    target.mkdir(parents=True, exist_ok=True)
    pairs = [(system.key, experiment.baseline) for system in compared]
    steps = [(each.key, each.compare_with) for each in experiment.variants if each.compare_with]
    steps += list_pairs(experiment)
    tables = {
        "scores": build_score_table(compared),
        "comparisons": build_comparison_table(compared, pairs, weights),
        "steps": build_comparison_table(compared, steps, weights),
        "folds": build_fold_table(compared, weights),
        "corpora": build_corpus_table(systems, weights),
        "transfer": build_transfer_table(systems, weights),
        "classical": build_classical_table(systems),
        "distributions": build_distribution_table(systems),
        "dimensions": build_dimension_table(systems),
        "ccc_comparisons": build_ccc_comparison_table(compared, list(dict.fromkeys((*pairs, *steps))), weights),
        "alignment": build_alignment_table(systems, alignment or {}),
        "calibration": build_calibration_table(systems),
        "fairness": build_fairness_table(compared),
        "gaps": build_gap_table(systems, experiment.baseline, weights),
        "classes": build_class_table(systems),
        "runs": build_run_table(systems),
    }
    for name, rows in tables.items():
        if rows or name not in OPTIONAL:
            write_csv(target / f"{name}.csv", rows)
    for path in [*target.glob("*.png"), *target.glob("*.svg")]:  # from an earlier report, possibly of other runs
        path.unlink()
    draw_figures(systems, tables["scores"], experiment, target, embeddings)
    drawn = {path.stem for path in target.glob("*.png")}
    text = render(experiment, systems, ensembles, tables, summarize_transfer(systems, weights), drawn)
    (target / "report.md").write_text(text, encoding="utf-8")
    return target / "report.md"


def draw_figures(
    systems: list[System],
    score_rows: list[dict[str, Any]],
    experiment: Experiment,
    target: Path,
    embeddings: dict[str, dict[str, np.ndarray]] | None,
) -> None:
    last = systems[-1]
    labels = last.runs[0].labels
    figures.draw_scores(score_rows, target / "scores")
    for system in systems:
        if system.key in (experiment.baseline, last.key):
            confusion = np.sum(list(system.pool_confusions("best").values()), axis=0)
            figures.draw_confusion(confusion, labels, system.name, target / f"confusion-{system.key}")
    before, after, correct = collect_confidences(last)
    curves = {"uncalibrated": before, "calibrated": after}
    binned = {name: reliability(confidences, correct, NUM_BINS) for name, confidences in curves.items()}
    figures.draw_reliability(binned, last.name, target / "reliability")
    genders = {line["speaker"]: line["gender"] for line in last.collect_lines("best")}
    if by_speaker := score_speakers(last):
        figures.draw_speakers(by_speaker, genders, 1 / len(labels), last.name, target / "speakers")
    if embeddings:
        names = {system.key: system.name for system in systems}
        figures.draw_tsne({names[key]: arrays for key, arrays in embeddings.items()}, labels, target / "tsne")


def make_environment() -> jinja2.Environment:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"percent": format_percent, "number": format_number, "cell": format_cell}
    environment.filters["text"] = markdown_text
    return environment


def render(
    experiment: Experiment,
    systems: list[System],
    ensembles: list[System],
    tables: dict[str, Any],
    mean_transfer: list[dict[str, Any]],
    drawn: set[str],
) -> str:
    cells = experiment.list_cells()
    trained = [run.cell for system in systems for run in system.runs]
    networks = [system for system in systems if not system.is_classical]
    results = (networks or systems)[-1].runs[0].results
    return (
        make_environment()
        .from_string(TEMPLATE.read_text(encoding="utf-8"))
        .render(
            experiment=experiment,
            labels=systems[-1].runs[0].labels,
            dimension_source=describe_source(results.get("dimensions", {}).get("source", "")),
            are_regions=results["arguments"].get("targets") == ALONE,
            matrices=arrange_matrices(tables["corpora"]),
            mean_transfer=mean_transfer,
            finished=len(trained),
            missing=[str(cell) for cell in cells if cell not in trained],
            systems=[*systems, *ensembles],
            ensembles=ensembles,
            proposed=systems[-1],
            options=build_option_table(systems),
            drawn=drawn,
            shares_speakers=any(run.results["protocol"] == SHARED for system in systems for run in system.runs),
            speakers_named=all(
                speakers_known(run.results["speakers"][part])
                for system in systems
                for run in system.runs
                for part in ("train", experiment.scored_on)
            ),
            cites_paper=any(system.paper for system in systems),
            picked_on_test=any(row.get("picked_on_test_ua") is not None for row in tables["scores"]),
            parameters=results["num_parameters"],
            has_networks=bool(networks),
            hours=sum(run.results["seconds"] for system in systems for run in system.runs) / 3600,
            **tables,
        )
    )


def format_percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def format_number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def format_cell(value: Any) -> str:
    """A value in a cell of a Markdown table, with | escaped."""
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value)
    return text.replace("|", "\\|")
