"""Scores of each corpus that a model is tested on, by the corpora that it is trained on."""

from typing import Any

import numpy as np

from experiments.systems import System
from recipe.scoring import group_by_corpus
from recipe.statistics import compute_scores, speaker_confusions, speaker_interval


def build_corpus_table(systems: list[System], weights: str) -> list[dict[str, Any]]:
    """One row per system, training corpora and test corpus, pooled over runs; empty if there is one corpus.

    A model is scored on the labels that the test corpus has: its prediction is the most probable of them.
    """
    rows = []
    for system in systems:
        confusions: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        labels: dict[tuple[str, str], list[str]] = {}
        for run in system.runs:
            corpora = run.results.get("corpora") or {}
            trained = " + ".join(name for name, parts in corpora.items() if "train" in parts)
            for corpus, lines in group_by_corpus(run.lines[weights]).items():
                place = trained, corpus
                labels[place] = [label for label in run.labels if any(line["label"] == label for line in lines)]
                pooled = confusions.setdefault(place, {})
                for speaker, confusion in speaker_confusions(choose_among(lines, labels[place]), labels[place]).items():
                    pooled[speaker] = pooled.get(speaker, 0) + confusion
        for (trained, corpus), pooled in confusions.items():
            of_speakers = np.array(list(pooled.values()))
            low, high = speaker_interval(of_speakers, "ua") or (None, None)
            scores = {name: float(score) for name, score in compute_scores(of_speakers.sum(axis=0)).items()}
            rows.append(
                {"system": system.name, "trained_on": trained, "tested_on": corpus, **scores}
                | {"ua_low": low, "ua_high": high, "speakers": len(pooled), "utterances": int(of_speakers.sum())}
                | {"labels": " ".join(labels[trained, corpus])}
            )
    return rows


def choose_among(lines: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """Predictions with the most probable of these labels in place of the most probable of all."""
    return [{**line, "prediction": max(labels, key=line["probabilities"].__getitem__)} for line in lines]


def arrange_matrices(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Matrices for the report, one per system: a row per training corpora, a column per test corpus."""
    matrices = []
    tested = sorted({row["tested_on"] for row in rows})
    for system in dict.fromkeys(row["system"] for row in rows):
        cells = {(row["trained_on"], row["tested_on"]): row for row in rows if row["system"] == system}
        lines = {trained: [cells.get((trained, corpus)) for corpus in tested] for trained, _ in cells}
        matrices.append({"system": system, "tested": tested, "lines": lines})
    return matrices
