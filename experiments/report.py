"""Tables and figures of an experiment, computed from the predictions.jsonl of its cells."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from core.errors import InputError
from core.escaping import csv_cell, markdown_text
from core.json_files import read_json, read_lines
from experiments import figures
from experiments.cells import Cell, Experiment
from recipe.calibration import expected_calibration_error, read_log_probabilities, reliability, undo_temperature
from recipe.corpora.rows import speakers_known
from recipe.model_card import MOST_NAMES
from recipe.options import FREE_TO_CHANGE, RECORDED, first_difference, option_help, option_source, use_current_names
from recipe.results import read_results
from recipe.statistics import (
    METRICS,
    chance_confusion,
    difference_interval,
    gender_scores,
    holm,
    majority_confusion,
    paired_p_value,
    scores_of,
    smallest_p_value,
    speaker_confusions,
    speaker_interval,
)

TEMPLATE = Path(__file__).parent / "report_template.md"
# In which the runs of one system may differ.
OF_A_CELL = ("fold", "seed", *RECORDED)
NUM_BINS = 10  # of the reliability plot; the error itself is over 15


@dataclass
class Run:
    """A finished cell: its results.json, and its scored predictions for the best and the last weights."""

    cell: Cell
    results: dict[str, Any]
    lines: dict[str, list[dict[str, Any]]]
    scored_on: str

    def confusions(self, weights: str) -> dict[str, np.ndarray]:
        return speaker_confusions(self.lines[weights], self.results["labels"])

    def scores(self, weights: str) -> dict[str, float]:
        return {
            name: float(value)
            for name, value in scores_of(np.sum(list(self.confusions(weights).values()), axis=0)).items()
        }


@dataclass
class System:
    """A row of the table: a variant, or stage 1, with its finished runs."""

    key: str
    name: str
    paper: dict[str, float]
    runs: list[Run]

    def pooled(self, weights: str, among: set[tuple[int, int]] | None = None) -> dict[str, np.ndarray]:
        """Confusion matrix of each speaker over all runs, or over those of some (fold, seed)."""
        total: dict[str, np.ndarray] = {}
        for run in self.runs:
            if among is None or (run.cell.fold, run.cell.seed) in among:
                for speaker, confusion in run.confusions(weights).items():
                    total[speaker] = total.get(speaker, 0) + confusion
        return total

    @property
    def places(self) -> set[tuple[int, int]]:
        return {(run.cell.fold, run.cell.seed) for run in self.runs}

    def lines(self, weights: str) -> list[dict[str, Any]]:
        return [line for run in self.runs for line in run.lines[weights]]


def write_report(experiment: Experiment, embeddings: dict[str, dict[str, np.ndarray]] | None = None) -> Path:
    """report.md with its tables as CSV and its figures as PNG and SVG; returns the path of report.md.

    Args:
        embeddings: for the variants of `experiment.projected`, what `figures.tsne` draws; None draws nothing.

    Raises:
        InputError: nothing is finished yet, or a file of a finished cell is damaged.
    """
    systems = read_systems(experiment)
    # The best epoch was chosen by validation scores, which are therefore too high for it.
    weights = "best" if experiment.scored_on == "test" else "last"
    target = experiment.report_dir
    target.mkdir(parents=True, exist_ok=True)
    tables = {
        "scores": score_table(systems),
        "comparisons": comparison_table(systems, experiment.baseline, weights),
        "folds": fold_table(systems, weights),
        "calibration": calibration_table(systems),
        "fairness": fairness_table(systems),
        "classes": class_table(systems),
        "runs": run_table(systems),
    }
    for name, rows in tables.items():
        write_csv(target / f"{name}.csv", rows)
    for path in [*target.glob("*.png"), *target.glob("*.svg")]:  # those of an earlier report may show other runs
        path.unlink()
    draw_figures(systems, tables["scores"], experiment, target, embeddings)
    text = render(experiment, systems, tables, drawn={path.stem for path in target.glob("*.png")})
    (target / "report.md").write_text(text, encoding="utf-8")
    return target / "report.md"


def read_systems(experiment: Experiment) -> list[System]:
    """Stage 1 and every variant, each with the cells that are finished; those without any are left out."""
    runs = [run for cell in experiment.cells() if (run := read_run(experiment, cell))]
    if not runs:
        raise InputError(f"no cell of {experiment.path} is finished in {experiment.output_dir}: train it first")
    _check_one_recipe(experiment, [run.cell for run in runs])
    stage1 = System("stage1", "stage 1: attentive pooling", {}, [run for run in runs if run.cell.variant is None])
    variants = [
        System(variant.key, variant.name, variant.paper, [run for run in runs if run.cell.variant == variant])
        for variant in experiment.variants
    ]
    return [system for system in (stage1, *variants) if system.runs]


def _check_one_recipe(experiment: Experiment, cells: list[Cell]) -> None:
    """Raise InputError if two runs of a system had other options, or two of a fold other rows or another stage 1.

    Their mean, or their difference, would mean nothing.
    """
    first: dict[tuple, tuple[Cell, dict[str, Any]]] = {}
    for cell in cells:
        record = read_json(experiment.stage_dir(cell) / "arguments.json")
        place = (cell.fold, cell.seed)
        compared = {
            ("options", cell.variant.key if cell.variant else None): {
                name: value for name, value in record.items() if name not in OF_A_CELL
            },
            ("rows", *place): {"rows": record["rows"]},
        }
        if experiment.starts_from(cell) is not None:
            compared["stage1", *place] = {"stage1": record["stage1"]}
        for what, part in compared.items():
            reference, expected = first.setdefault(what, (cell, part))
            difference = first_difference(expected, part)
            if difference is not None:
                raise InputError(
                    f"{experiment.stage_dir(reference)} was trained with {difference} in {experiment.stage_dir(cell)}: "
                    "remove one of them and run the experiment again"
                )


def read_run(experiment: Experiment, cell: Cell) -> Run | None:
    """A finished cell, or None. Raises InputError if its predictions are not what its results count."""
    stage_dir, part = experiment.stage_dir(cell), experiment.scored_on
    results = read_results(stage_dir)
    if results is None:
        return None
    lines = {}
    for weights, folder in (("best", stage_dir), ("last", stage_dir / "last")):
        path = folder / "predictions.jsonl"
        lines[weights] = [line for line in read_lines(path) if line["split"] == part]
        expected = results["scores"][weights][part]["num_utterances"]
        unique = len({line["id"] for line in lines[weights]})
        if not unique == len(lines[weights]) == expected:
            raise InputError(
                f"{path} holds {len(lines[weights])} {part} lines for {unique} utterances, where {expected} were "
                f"scored: remove {stage_dir} and run the experiment again, which trains this cell alone"
            )
    return Run(cell, results, lines, part)


def score_table(systems: list[System]) -> list[dict[str, Any]]:
    """One row for chance, the majority class and each system; scores are shares, not percent."""
    rows = [_row_without_training(name, systems[0]) for name in ("chance", "majority class")]
    for system in systems:
        row: dict[str, Any] = {
            "system": system.name,
            "paper_ua": system.paper.get("ua"),
            "paper_wa": system.paper.get("wa"),
        }
        for weights in ("best", "last"):
            scores = [run.scores(weights) for run in system.runs]
            for metric in METRICS:
                values = [score[metric] for score in scores]
                row[f"{weights}_{metric}"] = float(np.mean(values))
                row[f"{weights}_{metric}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
            confusions = np.array(list(system.pooled(weights).values()))
            row[f"{weights}_pooled_ua"] = float(scores_of(confusions.sum(axis=0))["ua"])
            row[f"{weights}_pooled_ua_low"], row[f"{weights}_pooled_ua_high"] = speaker_interval(confusions, "ua") or (
                None,
                None,
            )
        watched = [[line["test_ua"] for line in run.results["history"] if "test_ua" in line] for run in system.runs]
        row["picked_on_test_ua"] = float(np.mean([max(values) for values in watched])) if all(watched) else None
        row["runs"] = len(system.runs)
        rows.append(row)
    return rows


def _row_without_training(name: str, system: System) -> dict[str, Any]:
    """What guessing, or the most frequent class of each fold's training data, scores on the same test data."""
    of_runs = []
    for run in system.runs:
        counts = np.array(list(run.results["class_counts"][run.scored_on].values()), dtype=float)
        training = list(run.results["class_counts"]["train"].values())
        majority = majority_confusion(counts, int(np.argmax(training)))
        of_runs.append(scores_of(chance_confusion(counts) if name == "chance" else majority))
    scores = {metric: float(np.mean([run[metric] for run in of_runs])) for metric in METRICS}
    return {"system": name, **{f"{w}_{metric}": scores[metric] for w in ("best", "last") for metric in METRICS}}


def comparison_table(systems: list[System], baseline: str, weights: str) -> list[dict[str, Any]]:
    """Each system against the baseline, on the folds and seeds that both have."""
    base = next((system for system in systems if system.key == baseline), None)
    if base is None:
        return []
    rows: list[dict[str, Any]] = []
    for system in systems:
        common = system.places & base.places
        if system is base or not common:
            continue
        ours, theirs = system.pooled(weights, common), base.pooled(weights, common)
        first, second = (np.array([side[speaker] for speaker in sorted(ours)]) for side in (ours, theirs))
        ua = [float(scores_of(side.sum(axis=0))["ua"]) for side in (first, second)]
        interval = difference_interval(first, second, "ua") or (None, None)
        rows.append(
            {
                "system": system.name,
                "baseline": base.name,
                "difference_ua": ua[0] - ua[1],
                "low": interval[0],
                "high": interval[1],
                "p": paired_p_value(first, second, "ua"),
                "runs": len(common),
                "speakers": len(ours),
                "smallest_p": smallest_p_value(len(ours)),
            }
        )
    for row, adjusted in zip(rows, holm([row["p"] for row in rows])):
        row["p_holm"] = adjusted
    return rows


def fold_table(systems: list[System], weights: str) -> list[dict[str, Any]]:
    """UA by fold, mean over seeds, one column a system."""
    rows = []
    for fold in sorted({run.cell.fold for system in systems for run in system.runs}):
        row: dict[str, Any] = {"fold": fold}
        for system in systems:
            values = [run.scores(weights)["ua"] for run in system.runs if run.cell.fold == fold]
            row[system.name] = float(np.mean(values)) if values else None
            run = next((run for run in system.runs if run.cell.fold == fold), None)
            if run is not None:
                names = run.results["speakers"][run.scored_on]
                row["speakers"] = " ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} speakers"
        rows.append(row)
    return rows


def calibration_table(systems: list[System]) -> list[dict[str, Any]]:
    """Expected calibration error on test data before and after the temperature that validation data gave."""
    rows = []
    for system in systems:
        before, after, correct = _confidences(system)
        rows.append(
            {
                "system": system.name,
                "temperature": float(np.mean([run.results["scores"]["best"]["temperature"] for run in system.runs])),
                "ece_before": expected_calibration_error(before, correct),
                "ece_after": expected_calibration_error(after, correct),
                "confidence_before": float(before.mean()),
                "confidence_after": float(after.mean()),
                "wa": float(correct.mean()),
            }
        )
    return rows


def _confidences(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence of every test answer without and with its temperature, and whether it is right."""
    before, after, correct = [], [], []
    for run in system.runs:
        log_probabilities, labels = read_log_probabilities(run.lines["best"])
        calibrated = np.exp(log_probabilities)
        raw = undo_temperature(calibrated, run.results["scores"]["best"]["temperature"])
        before.append(raw.max(axis=1))
        after.append(calibrated.max(axis=1))
        correct.append(calibrated.argmax(axis=1) == labels)
    return np.concatenate(before), np.concatenate(after), np.concatenate(correct)


def fairness_table(systems: list[System]) -> list[dict[str, Any]]:
    """UA of women and men and of the speakers who are understood worst and best, for the best weights."""
    rows = []
    for system in systems:
        genders = {line["speaker"]: line["gender"] for line in system.lines("best")}
        pooled = system.pooled("best")
        row: dict[str, Any] = {"system": system.name}
        found = gender_scores(pooled, genders)
        for gender in ("female", "male"):
            scores = found.get(gender, {"ua": None, "speakers": 0, "interval": None})
            row |= {gender: scores["ua"], f"{gender}_speakers": scores["speakers"]}
            row[f"{gender}_low"], row[f"{gender}_high"] = scores["interval"] or (None, None)
        both = row["female"] is not None and row["male"] is not None
        row["gap"] = row["female"] - row["male"] if both else None
        by_speaker = speaker_scores(system)
        order = sorted(by_speaker, key=lambda speaker: by_speaker[speaker])
        for name, speaker in (("worst", order[0]), ("best", order[-1])) if order else ():
            row |= {f"{name}_speaker": speaker, name: by_speaker[speaker]}
        rows.append(row)
    return rows


def speaker_scores(system: System) -> dict[str, float]:
    """UA of each speaker whom the corpus names, for the best weights."""
    pooled = {speaker: part for speaker, part in system.pooled("best").items() if speakers_known([speaker])}
    return {speaker: float(scores_of(confusion)["ua"]) for speaker, confusion in pooled.items()}


def class_table(systems: list[System]) -> list[dict[str, Any]]:
    """Utterances of each class in the corpus, and in the parts of each fold (table 1 of the paper)."""
    seen: dict[int, Run] = {}
    for run in (run for system in systems for run in system.runs):
        seen.setdefault(run.cell.fold, run)
    rows: list[dict[str, Any]] = []
    for fold, run in sorted(seen.items()):
        counts = run.results["class_counts"]
        if not rows:
            whole = {label: sum(part[label] for part in counts.values()) for label in run.results["labels"]}
            hours = sum(run.results["hours"].values())
            speakers = sum(number_of_speakers(part) for part in run.results["speakers"].values())
            rows.append({"part": "all", "speakers": speakers, "hours": hours, **whole, "total": sum(whole.values())})
        for name, part in counts.items():
            speakers = number_of_speakers(run.results["speakers"][name])
            row = {"part": f"fold {fold}, {name}", "speakers": speakers, "hours": run.results["hours"][name]}
            rows.append({**row, **part, "total": sum(part.values())})
    return rows


def number_of_speakers(speakers: list[str]) -> int:
    """How many speakers the corpus names."""
    return sum(speakers_known([speaker]) for speaker in speakers)


def run_table(systems: list[System]) -> list[dict[str, Any]]:
    """Every run with the scores of its best and last weights: what all other tables are made of."""
    return [
        {
            "system": system.key,
            "fold": run.cell.fold,
            "seed": run.cell.seed,
            "weights": weights,
            "epoch": run.results["epochs"][weights],
            "validation_ua": run.results["scores"][weights]["validation"]["ua"],
            **run.scores(weights),
            "temperature": run.results["scores"][weights]["temperature"],
            **{name: value for name, value in run.results["history"][-1].items() if name.endswith("_loss")},
            "seconds": run.results["seconds"],
        }
        for system in systems
        for run in system.runs
        for weights in ("best", "last")
    ]


def option_table(systems: list[System]) -> list[dict[str, Any]]:
    """Options of both stages that decide the outcome, with what they are (table 2 of the paper)."""
    first = use_current_names(systems[0].runs[0].results["arguments"])
    second = use_current_names(systems[-1].runs[0].results["arguments"])
    free = {"fold", "seed", *FREE_TO_CHANGE}
    return [
        {
            "option": name,
            "stage1": first[name],
            "stage2": second[name],
            "what": option_help(name),
            "source": option_source(name, [first[name], second[name]]),
        }
        for name in first
        if name not in free and name in second
    ]


def draw_figures(
    systems: list[System],
    score_rows: list[dict[str, Any]],
    experiment: Experiment,
    target: Path,
    embeddings: dict[str, dict[str, np.ndarray]] | None,
) -> None:
    last = systems[-1]
    labels = last.runs[0].results["labels"]
    figures.scores(score_rows, target / "scores")
    for system in systems:
        if system.key in (experiment.baseline, last.key):
            confusion = np.sum(list(system.pooled("best").values()), axis=0)
            figures.confusion(confusion, labels, system.name, target / f"confusion-{system.key}")
    before, after, correct = _confidences(last)
    curves = {"as trained": before, "calibrated": after}
    binned = {name: reliability(confidences, correct, NUM_BINS) for name, confidences in curves.items()}
    figures.reliability(binned, last.name, target / "reliability")
    genders = {line["speaker"]: line["gender"] for line in last.lines("best")}
    if by_speaker := speaker_scores(last):
        figures.speakers(by_speaker, genders, 1 / len(labels), last.name, target / "speakers")
    if embeddings:
        names = {system.key: system.name for system in systems}
        figures.tsne({names[key]: arrays for key, arrays in embeddings.items()}, labels, target / "tsne")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as CSV; a column that only some rows have is empty in the others."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(csv_cell, columns))
        writer.writerows([csv_cell(row.get(name)) for name in columns] for row in rows)


def report_environment() -> jinja2.Environment:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"percent": percent, "number": number, "cell": cell_text}
    environment.filters["text"] = markdown_text
    return environment


def render(experiment: Experiment, systems: list[System], tables: dict[str, Any], drawn: set[str]) -> str:
    cells = experiment.cells()
    trained = [run.cell for system in systems for run in system.runs]
    results = systems[-1].runs[0].results
    return (
        report_environment()
        .from_string(TEMPLATE.read_text(encoding="utf-8"))
        .render(
            experiment=experiment,
            labels=results["labels"],
            finished=len(trained),
            missing=[str(cell) for cell in cells if cell not in trained],
            systems=systems,
            proposed=systems[-1],
            options=option_table(systems),
            drawn=drawn,
            speakers_named=all(
                speakers_known(run.results["speakers"][part])
                for system in systems
                for run in system.runs
                for part in ("train", experiment.scored_on)
            ),
            cites_paper=any(system.paper for system in systems),
            picked_on_test=any(row.get("picked_on_test_ua") is not None for row in tables["scores"]),
            parameters=results["num_parameters"],
            hours=sum(run.results["seconds"] for system in systems for run in system.runs) / 3600,
            **tables,
        )
    )


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def cell_text(value: Any) -> str:
    """A value in a cell of a Markdown table, whose columns are cut at |."""
    text = value if isinstance(value, str) else "none" if value is None else json.dumps(value)
    return text.replace("|", "\\|")
