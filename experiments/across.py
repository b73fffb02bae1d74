"""Scores of each corpus that a model is tested on, by the corpora that it is trained on."""

from typing import Any, NamedTuple

import numpy as np

from experiments.systems import System
from recipe.scoring import group_by_corpus
from recipe.statistics import (
    compute_scores,
    difference_interval,
    mean_difference_interval,
    speaker_confusions,
    speaker_interval,
)

Lines = list[dict[str, Any]]


def collect_lines(system: System, weights: str) -> dict[tuple[str, str], list[Lines]]:
    """The predictions of each run of a system, by training corpora and test corpus; empty if there is one corpus."""
    found: dict[tuple[str, str], list[Lines]] = {}
    for run in system.runs:
        corpora = run.results.get("corpora") or {}
        trained = " + ".join(name for name, parts in corpora.items() if "train" in parts)
        for corpus, lines in group_by_corpus(run.lines[weights]).items():
            found.setdefault((trained, corpus), []).append(lines)
    return found


def build_corpus_table(systems: list[System], weights: str) -> list[dict[str, Any]]:
    """One row per system, training corpora and test corpus, pooled over runs; empty if there is one corpus.

    A model is scored on the labels that the test corpus has: its prediction is the most probable of them.
    """
    rows = []
    for system in systems:
        for (trained, corpus), runs in collect_lines(system, weights).items():
            known = find_labels(runs, system)
            pooled = pool_speakers(runs, known)
            of_speakers = np.array(list(pooled.values()))
            low, high = speaker_interval(of_speakers, "ua") or (None, None)
            scores = {name: float(score) for name, score in compute_scores(of_speakers.sum(axis=0)).items()}
            rows.append(
                {"system": system.name, "trained_on": trained, "tested_on": corpus, **scores}
                | {"ua_low": low, "ua_high": high, "speakers": len(pooled), "utterances": int(of_speakers.sum())}
                | {"labels": " ".join(known)}
            )
    return rows


def find_labels(runs: list[Lines], system: System) -> list[str]:
    """The labels that occur in these runs, in order."""
    there = {line["label"] for lines in runs for line in lines}
    return [label for label in system.runs[0].labels if label in there]


def pool_speakers(runs: list[Lines], labels: list[str]) -> dict[str, np.ndarray]:
    """Confusion matrix of each speaker, summed over runs; the prediction is the most probable of these labels."""
    pooled: dict[str, np.ndarray] = {}
    for lines in runs:
        for speaker, confusion in speaker_confusions(choose_among(lines, labels), labels).items():
            pooled[speaker] = pooled.get(speaker, 0) + confusion
    return pooled


def choose_among(lines: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """Predictions with the most probable of these labels in place of the most probable of all."""
    return [{**line, "prediction": max(labels, key=line["probabilities"].__getitem__)} for line in lines]


class Transfer(NamedTuple):
    """Two models that are tested on the same speakers of a corpus: trained on others of it, and on other corpora."""

    tested_on: str
    trained_on: str
    labels: list[str]  # that both know and that are tested
    within: np.ndarray  # (speakers, labels, labels)
    across: np.ndarray  # the same


def find_transfers(system: System, weights: str) -> list[Transfer]:
    """Every corpus and training corpora of which there are both; empty unless models train on one corpus alone."""
    found = collect_lines(system, weights)
    transfers = []
    for (trained, corpus), runs in sorted(found.items()):
        own = found.get((corpus, corpus), [])
        if not own or trained == corpus:
            continue
        both = own[0][0]["probabilities"].keys() & runs[0][0]["probabilities"].keys()
        labels = [label for label in find_labels(own, system) if label in both]
        of_own, of_other = (
            pool_speakers([[line for line in lines if line["label"] in labels] for lines in each], labels)
            for each in (own, runs)
        )
        speakers = sorted(of_own.keys() & of_other.keys())
        within, across = (np.array([each[speaker] for speaker in speakers]) for each in (of_own, of_other))
        transfers.append(Transfer(corpus, trained, labels, within, across))
    return transfers


def build_transfer_table(systems: list[System], weights: str) -> list[dict[str, Any]]:
    """How much higher the UA within a corpus is than that across corpora, by system, test and training corpora."""
    rows = []
    for system in systems:
        for transfer in find_transfers(system, weights):
            within, across = (
                float(compute_scores(each.sum(axis=0))["ua"]) for each in (transfer.within, transfer.across)
            )
            low, high = difference_interval(transfer.within, transfer.across, "ua") or (None, None)
            rows.append(
                {"system": system.name, "tested_on": transfer.tested_on, "trained_on": transfer.trained_on}
                | {"within": within, "across": across, "gap": within - across, "low": low, "high": high}
                | {"labels": " ".join(transfer.labels), "speakers": len(transfer.within)}
            )
    return rows


def summarize_transfer(systems: list[System], weights: str) -> list[dict[str, Any]]:
    """The mean gap of each system over pairs of one training and one test corpus."""
    rows = []
    for system in systems:
        pairs = [transfer for transfer in find_transfers(system, weights) if " + " not in transfer.trained_on]
        groups = [
            [(transfer.within, transfer.across) for transfer in pairs if transfer.tested_on == corpus]
            for corpus in dict.fromkeys(transfer.tested_on for transfer in pairs)
        ]
        if pairs:
            scores = [
                [compute_scores(side.sum(axis=0))["ua"] for side in (transfer.within, transfer.across)]
                for transfer in pairs
            ]
            low, high = mean_difference_interval(groups, "ua") or (None, None)
            gap = float(np.mean([within - across for within, across in scores]))
            rows.append({"system": system.name, "gap": gap, "low": low, "high": high, "pairs": len(pairs)})
    return rows


def arrange_matrices(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Matrices for the report, one per system: a row per training corpora, a column per test corpus."""
    matrices = []
    tested = sorted({row["tested_on"] for row in rows})
    for system in dict.fromkeys(row["system"] for row in rows):
        cells = {(row["trained_on"], row["tested_on"]): row for row in rows if row["system"] == system}
        lines = {trained: [cells.get((trained, corpus)) for corpus in tested] for trained, _ in cells}
        matrices.append({"system": system, "tested": tested, "lines": lines})
    return matrices
