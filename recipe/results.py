"""The results.json of a stage folder, and its scores as shown in the terminal."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.escaping import printable
from core.json_files import read_json, write_json
from recipe.corpora.rows import speakers_known
from recipe.options import SHARED

VERSIONS = ("torch", "transformers", "datasets", "accelerate")


def write_results(stage_dir: Path, results: dict[str, Any]) -> None:
    """Write results.json, which marks the stage as finished."""
    write_json(stage_dir / "results.json", results)


def read_results(stage_dir: Path) -> dict[str, Any] | None:
    path = stage_dir / "results.json"
    return read_json(path) if path.is_file() else None


def library_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


def score_lines(results: dict[str, Any]) -> list[str]:
    """Format the scores of a stage for the terminal."""
    lines = [f"  {'':22}{'validation UA':>15}{'WA':>8}{'test UA':>12}{'WA':>8}"]
    for name in ("best", "last"):
        validation, test = results["scores"][name]["validation"], results["scores"][name]["test"]
        lines.append(
            f"  {checkpoint_name(results, name):22}{validation['ua']:>15.3f}{validation['wa']:>8.3f}"
            f"{test['ua']:>12.3f}{test['wa']:>8.3f}"
        )
    return lines + _corpus_lines(results["scores"]["best"])


def _corpus_lines(scores: dict[str, Any]) -> list[str]:
    """The scores of the best weights on each of several corpora; `-` for a set that has none of it."""
    parts = [scores[name].get("corpora", {}) for name in ("validation", "test")]
    lines = []
    for corpus in sorted({corpus for part in parts for corpus in part}):
        cells = [f"{part[corpus][name]:.3f}" if corpus in part else "-" for part in parts for name in ("ua", "wa")]
        lines.append("  {:22}{:>15}{:>8}{:>12}{:>8}".format(f"  best on {corpus}", *cells))
    if lines:
        means = [f"{scores[name]['mean_ua']:.3f}" for name in ("validation", "test")]
        lines.append("  {:22}{:>15}{:>8}{:>12}".format("  mean of the corpora", means[0], "", means[1]))
    return lines


def class_lines(results: dict[str, Any]) -> list[str]:
    """Format the weight and the test recalls (best, last) of each class, if the loss weighted the classes."""
    if results.get("class_weights") is None:
        return []
    lines = [f"  {'':22}{'class weight':>15}{'recall, best':>20}{'last':>8}"]
    recalls = [_recalls(results["scores"][name]["test"]["confusion_matrix"]) for name in ("best", "last")]
    for label, weight, *cells in zip(results["labels"], results["class_weights"], *recalls):
        lines.append(f"  {printable(label):22}{weight:>15.3f}{cells[0]:>20}{cells[1]:>8}")
    return lines


def _recalls(confusion_matrix: list[list[int]]) -> list[str]:
    return [f"{row[index] / sum(row):.3f}" if sum(row) else "-" for index, row in enumerate(confusion_matrix)]


def describe_unseen(results: dict[str, Any]) -> str:
    """Describe whose utterances were scored, as far as the corpus names speakers."""
    if results["protocol"] == SHARED:
        return "held-out utterances of the training speakers: they say nothing about other voices"
    if not speakers_known(results["speakers"]["test"]):
        return "validation and test utterances (the corpus names no speakers)"
    if not speakers_known(results["speakers"]["train"]):
        return "validation and test speakers (some training utterances have no speaker)"
    return "unseen speakers"


def find_pooling(results: dict[str, Any]) -> str:
    """The pooling of a finished stage."""
    arguments = results["arguments"]
    return arguments.get("stage1_pooling", "attentive") if results["stage"] == 1 else arguments["pooling"]


def checkpoint_name(results: dict[str, Any], name: str) -> str:
    return f"{name} (epoch {results['epochs'][name]:.3g})"


def describe_fold(results: dict[str, Any]) -> str:
    """`, fold 2`, with the protocol if it is not the published one; empty if the corpus defines the split."""
    if results["fold"] is None:
        return ""
    protocol = "" if results["protocol"] == "published" else f" of {results['protocol']}"
    return f", fold {results['fold']}{protocol}"
