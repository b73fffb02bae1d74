"""The tables of an experiment's report, as lists of rows; scores are shares between 0 and 1."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from core.escaping import csv_cell
from experiments.systems import Run, System
from recipe.calibration import expected_calibration_error, read_log_probabilities, undo_temperature
from recipe.corpora.rows import speakers_known
from recipe.dimension_scores import MEASURES as DIMENSION_MEASURES
from recipe.dimension_scores import TRUE, compare_ccc, compute_measures, find_intervals, has_dimensions, sum_moments
from recipe.dimension_tables import Scores, list_scores
from recipe.distribution_scores import GUESSES, MEASURES
from recipe.model_card import MOST_NAMES
from recipe.options import FREE_TO_CHANGE, option_help, option_source
from recipe.records import use_current_names
from recipe.results import list_measures
from recipe.statistics import (
    METRICS,
    chance_confusion,
    compute_scores,
    difference_interval,
    holm,
    majority_confusion,
    paired_p_value,
    score_genders,
    smallest_p_value,
    speaker_interval,
)


def build_score_table(systems: list[System]) -> list[dict[str, Any]]:
    """One row each for chance, the majority class and every system."""
    rows = [_build_chance_row(name, systems[0]) for name in ("chance", "majority class")]
    for system in systems:
        row: dict[str, Any] = {
            "system": system.name,
            "paper_ua": system.paper.get("ua"),
            "paper_wa": system.paper.get("wa"),
        }
        for weights in ("best", "last"):
            scores = [run.compute_scores(weights) for run in system.runs]
            for metric in METRICS:
                values = [score[metric] for score in scores]
                row[f"{weights}_{metric}"] = float(np.mean(values))
                row[f"{weights}_{metric}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
            confusions = np.array(list(system.pool_confusions(weights).values()))
            row[f"{weights}_pooled_ua"] = float(compute_scores(confusions.sum(axis=0))["ua"])
            row[f"{weights}_pooled_ua_low"], row[f"{weights}_pooled_ua_high"] = speaker_interval(confusions, "ua") or (
                None,
                None,
            )
        watched = [[line["test_ua"] for line in run.results["history"] if "test_ua" in line] for run in system.runs]
        row["picked_on_test_ua"] = float(np.mean([max(values) for values in watched])) if all(watched) else None
        row["runs"] = len(system.runs)
        rows.append(row)
    return rows


def _build_chance_row(name: str, system: System) -> dict[str, Any]:
    """Scores of guessing, or of always predicting the most frequent training class, on the same utterances."""
    by_run = []
    for run in system.runs:
        counts = np.array(list(run.results["class_counts"][run.scored_on].values()), dtype=float)
        training = list(run.results["class_counts"]["train"].values())
        majority = majority_confusion(counts, int(np.argmax(training)))
        by_run.append(compute_scores(chance_confusion(counts) if name == "chance" else majority))
    scores = {metric: float(np.mean([run[metric] for run in by_run])) for metric in METRICS}
    return {"system": name, **{f"{w}_{metric}": scores[metric] for w in ("best", "last") for metric in METRICS}}


def build_distribution_table(systems: list[System]) -> list[dict[str, Any]]:
    """The six measures of label distributions, as means over runs, with the guesses; empty for targets that are labels.

    The guesses are those on the runs of the first system.
    """
    found = {system.name: [list_measures(run.results, run.scored_on) for run in system.runs] for system in systems}
    if not all(measures for runs in found.values() for measures in runs):
        return []
    named = [(guess, guess, next(iter(found.values()))) for guess in GUESSES]
    named += [(f"{name}, {w}", w, runs) for name, runs in found.items() for w in ("best", "last")]
    return [
        {"system": name, **{measure: float(np.mean([run[key][measure] for run in runs])) for measure in MEASURES}}
        for name, key, runs in named
    ]


def build_dimension_table(systems: list[System]) -> list[dict[str, Any]]:
    """CCC, Pearson's correlation and RMSE of each dimension, as means over runs; empty for runs without dimensions.

    Below them is the CCC of all predictions of a system together, with its interval over speakers; of a constant, the
    mean of the training targets of each run, there is none.
    """
    found = {system.key: [list_scores(run.results, run.scored_on) for run in system.runs] for system in systems}
    if not all(scores for runs in found.values() for scores in runs):
        return []
    rows = []
    for dimension in found[systems[0].key][0]["constant"]:
        rows.append(
            {"dimension": dimension, "system": "constant", **_average(found[systems[0].key], "constant", dimension)}
        )
        for system in systems:
            for weights in ("best", "last"):
                lines = system.collect_lines(weights)
                pooled = compute_measures(np.sum(list(sum_moments(lines).values()), axis=0))
                index = list(lines[0][TRUE]).index(dimension)
                low, high = find_intervals(lines)[dimension]["ccc"] or (None, None)
                rows.append(
                    {
                        "dimension": dimension,
                        "system": f"{system.name}, {weights}",
                        **_average(found[system.key], weights, dimension),
                        **{"pooled_ccc": float(pooled["ccc"][index]), "low": low, "high": high},
                    }
                )
    return rows


def build_ccc_comparison_table(
    systems: list[System], pairs: list[tuple[str, str]], weights: str
) -> list[dict[str, Any]]:
    """The difference in mean CCC of pairs of systems, given by their keys, on the runs that both have finished."""
    by_key = {system.key: system for system in systems}
    rows = []
    for system, base in ((by_key[one], by_key[other]) for one, other in pairs if {one, other} <= by_key.keys()):
        common = system.places & base.places
        first, second = (
            [line for run in each.runs if (run.cell.fold, run.cell.seed) in common for line in run.lines[weights]]
            for each in (system, base)
        )
        if system is base or not common or not (has_dimensions(first) and has_dimensions(second)):
            continue
        if {line["speaker"] for line in first} != {line["speaker"] for line in second}:  # split otherwise: no pairs
            continue
        difference, interval = compare_ccc(first, second)
        low, high = interval or (None, None)
        found = {"difference": difference, "low": low, "high": high}
        rows.append({"system": system.name, "baseline": base.name, **found, "runs": len(common)})
    return rows


def _average(runs: list[Scores], weights: str, dimension: str) -> dict[str, Any]:
    """The mean of each measure over runs, and the standard deviation of the CCC; None where it is undefined."""
    each = [scores[weights][dimension] for scores in runs]
    values = {name: [of_one[name] for of_one in each] for name in DIMENSION_MEASURES}
    means = {name: None if None in of_all else float(np.mean(of_all)) for name, of_all in values.items()}  # type: ignore[arg-type]
    spread = float(np.std(values["ccc"], ddof=1)) if len(each) > 1 else None  # type: ignore[arg-type]
    return {**means, "ccc_sd": spread, "pooled_ccc": None, "low": None, "high": None}


def build_comparison_table(systems: list[System], pairs: list[tuple[str, str]], weights: str) -> list[dict[str, Any]]:
    """Compare pairs of systems, given by their keys, on the folds and seeds that both have finished."""
    by_key = {system.key: system for system in systems}
    rows: list[dict[str, Any]] = []
    for system, base in ((by_key[one], by_key[other]) for one, other in pairs if {one, other} <= by_key.keys()):
        common = system.places & base.places
        if system is base or not common:
            continue
        ours, theirs = system.pool_confusions(weights, common), base.pool_confusions(weights, common)
        if ours.keys() != theirs.keys():  # with and without shared speakers: there are no pairs
            continue
        first, second = (np.array([side[speaker] for speaker in sorted(ours)]) for side in (ours, theirs))
        ua = [float(compute_scores(side.sum(axis=0))["ua"]) for side in (first, second)]
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


def build_fold_table(systems: list[System], weights: str) -> list[dict[str, Any]]:
    """UA by fold, averaged over seeds, one column per system."""
    rows = []
    for fold in sorted({run.cell.fold for system in systems for run in system.runs}):
        row: dict[str, Any] = {"fold": fold}
        for system in systems:
            values = [run.compute_scores(weights)["ua"] for run in system.runs if run.cell.fold == fold]
            row[system.name] = float(np.mean(values)) if values else None
            run = next((run for run in system.runs if run.cell.fold == fold), None)
            if run is not None:
                names = run.results["speakers"][run.scored_on]
                row["speakers"] = " ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} speakers"
        rows.append(row)
    return rows


def build_calibration_table(systems: list[System]) -> list[dict[str, Any]]:
    """Expected calibration error before and after scaling with the temperature fitted on validation data."""
    rows = []
    for system in systems:
        before, after, correct = collect_confidences(system)
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


def collect_confidences(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence of every prediction without and with its temperature, and whether it is correct, (utterances,)."""
    before, after, correct = [], [], []
    for run in system.runs:
        log_probabilities, labels = read_log_probabilities(run.lines["best"])
        calibrated = np.exp(log_probabilities)
        raw = undo_temperature(calibrated, run.results["scores"]["best"]["temperature"])
        before.append(raw.max(axis=1))
        after.append(calibrated.max(axis=1))
        correct.append(calibrated.argmax(axis=1) == labels)
    return np.concatenate(before), np.concatenate(after), np.concatenate(correct)


def build_fairness_table(systems: list[System]) -> list[dict[str, Any]]:
    """UA of women, men, and the speakers with the lowest and highest UA, for the best weights."""
    rows = []
    for system in systems:
        genders = {line["speaker"]: line["gender"] for line in system.collect_lines("best")}
        pooled = system.pool_confusions("best")
        row: dict[str, Any] = {"system": system.name}
        found = score_genders(pooled, genders)
        for gender in ("female", "male"):
            scores = found.get(gender, {"ua": None, "speakers": 0, "interval": None})
            row |= {gender: scores["ua"], f"{gender}_speakers": scores["speakers"]}
            row[f"{gender}_low"], row[f"{gender}_high"] = scores["interval"] or (None, None)
        both = row["female"] is not None and row["male"] is not None
        row["gap"] = row["female"] - row["male"] if both else None
        by_speaker = score_speakers(system)
        order = sorted(by_speaker, key=lambda speaker: by_speaker[speaker])
        for name, speaker in (("worst", order[0]), ("best", order[-1])) if order else ():
            row |= {f"{name}_speaker": speaker, name: by_speaker[speaker]}
        rows.append(row)
    return rows


def score_speakers(system: System) -> dict[str, float]:
    """UA of each speaker that the corpus names, for the best weights."""
    pooled = {speaker: part for speaker, part in system.pool_confusions("best").items() if speakers_known([speaker])}
    return {speaker: float(compute_scores(confusion)["ua"]) for speaker, confusion in pooled.items()}


def build_class_table(systems: list[System]) -> list[dict[str, Any]]:
    """Utterances per class in the corpus and in each part of every fold (table 1 of the paper)."""
    seen: dict[int, Run] = {}
    for run in (run for system in systems for run in system.runs):
        seen.setdefault(run.cell.fold, run)
    rows: list[dict[str, Any]] = []
    for fold, run in sorted(seen.items()):
        counts = run.results["class_counts"]
        if not rows:
            whole = {label: sum(part.get(label, 0) for part in counts.values()) for label in run.labels}
            hours = sum(run.results["hours"].values())
            speakers = sum(count_named_speakers(part) for part in run.results["speakers"].values())
            rows.append({"part": "all", "speakers": speakers, "hours": hours, **whole, "total": sum(whole.values())})
        for name, part in counts.items():
            speakers = count_named_speakers(run.results["speakers"][name])
            row = {"part": f"fold {fold}, {name}", "speakers": speakers, "hours": run.results["hours"][name]}
            rows.append({**row, **{label: part.get(label, 0) for label in run.labels}, "total": sum(part.values())})
    return rows


def count_named_speakers(speakers: list[str]) -> int:
    """Count the speakers that the corpus identifies."""
    return sum(speakers_known([speaker]) for speaker in speakers)


def build_run_table(systems: list[System]) -> list[dict[str, Any]]:
    """Every run with the scores of its best and last weights: the source of all other tables."""
    return [
        {
            "system": system.key,
            "fold": run.cell.fold,
            "seed": run.cell.seed,
            "weights": weights,
            "epoch": run.results["epochs"][weights],
            "validation_ua": run.results["scores"][weights]["validation"]["ua"],
            **run.compute_scores(weights),
            "temperature": run.results["scores"][weights]["temperature"],
            **{name: value for name, value in run.results["history"][-1].items() if name.endswith("_loss")},
            "seconds": run.results["seconds"],
        }
        for system in systems
        for run in system.runs
        for weights in ("best", "last")
    ]


def build_classical_table(systems: list[System]) -> list[dict[str, Any]]:
    """What each classical model is, and which C, components and weights of the reversed gradient it chose in how many
    runs."""
    rows = []
    for system in (each for each in systems if each.is_classical):
        model = system.runs[0].results["classical"]
        history = system.runs[0].results["history"]
        values = [name for name in history[0] if name != "validation_ua"]
        chosen = Counter(tuple(run.results["classical"][name] for name in values) for run in system.runs)
        rows.append(
            {
                "system": system.name,
                "features": model["features"],
                "number": model["num_features"],
                "classifier": model["classifier"],
                "tried": "; ".join(
                    " ".join(f"{value:g}" for value in sorted({line[name] for line in history})) for name in values
                ),
                "chosen": ", ".join(
                    f"{'; '.join(f'{value:g}' for value in each)} ({count})" for each, count in sorted(chosen.items())
                ),
            }
        )
    return rows


def build_option_table(systems: list[System]) -> list[dict[str, Any]]:
    """The options of both stages of networks that affect the result, with their values (table 2 of the paper).

    Empty if all models are classical.
    """
    systems = [system for system in systems if not system.is_classical]
    if not systems:
        return []
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


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV; a column that only some rows have is empty in the others."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(csv_cell, columns))
        writer.writerows([csv_cell(row.get(name)) for name in columns] for row in rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read what `write_csv` wrote, as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
