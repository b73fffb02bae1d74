"""The results.json of a stage folder: what it holds, and its scores as shown in the terminal."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from core.escaping import printable
from core.json_files import read_json, write_json
from core.shipped import find_model
from modeling_ser_align import SERAlignForAudioClassification
from recipe.converted import list_copies
from recipe.corpora.rows import count_classes, speakers_known
from recipe.dimension_scores import score_constant
from recipe.dimension_tables import format_lines
from recipe.dimensions import ALONE, find_source, learns_dimensions
from recipe.distribution_scores import GUESSES, MEASURES, score_guesses
from recipe.entries import name_run
from recipe.joining import select_corpora
from recipe.options import SHARED, Arguments
from recipe.records import checkpoint_name

VERSIONS = ("torch", "transformers", "datasets", "accelerate")


def write_results(stage_dir: Path, results: dict[str, Any]) -> None:
    """Write results.json, which marks the stage as finished."""
    write_json(stage_dir / "results.json", results)


def read_results(stage_dir: Path) -> dict[str, Any] | None:
    path = stage_dir / "results.json"
    return read_json(path) if path.is_file() else None


def library_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


def describe_data(args: Arguments, split: DatasetDict, num_broken: int) -> dict[str, Any]:
    """The entries of results.json on the data and the options."""
    return {
        "corpus": name_run(args.data) if args.data.corpora else args.data.corpus,
        "test_corpus": args.data.test_corpus,
        "corpora": describe_corpora(split),
        "protocol": args.data.protocol,
        "fold": None if args.data.test_corpus or "split" in split["train"].column_names else args.data.fold,
        "speakers": {name: sorted(set(part["speaker"][:])) for name, part in split.items()},
        "class_counts": {name: count_classes(part) for name, part in split.items()},
        "broken_files": num_broken,
        "converted_copies": len(list_copies(split["train"])),
        "hours": {name: sum(part["duration"][:]) / 3600 for name, part in split.items()},
        "arguments": args.without_paths(),
        "teacher": args.trainer.teacher and Path(find_model(args.trainer.teacher)).resolve().name,
        **({"guesses": score_guesses(split)} if args.data.targets == "distribution" else {}),
        **({"dimensions": describe_dimensions(args, split)} if learns_dimensions(args.data) else {}),
    }


def describe_dimensions(args: Arguments, split: DatasetDict) -> dict[str, Any]:
    """The scales of the dimensions, where their values come from, and the scores of always predicting the mean."""
    return {
        "scales": args.data.dimensions,
        "source": find_source(args.data),
        "constant": score_constant(split, list(args.data.dimensions)),
    }


def describe_corpora(split: DatasetDict) -> dict[str, Any]:
    """Of each of several corpora, the speakers, hours and utterances of each class in each set."""
    corpora: dict[str, Any] = {}
    for name, part in split.items():
        for corpus, rows in select_corpora(part).items():
            corpora.setdefault(corpus, {})[name] = {
                "speakers": len(set(rows["speaker"][:])),
                "hours": sum(rows["duration"][:]) / 3600,
                "class_counts": count_classes(rows),
            }
    return dict(sorted(corpora.items()))


def describe_model(stage: int, model: SERAlignForAudioClassification) -> dict[str, Any]:
    """The entries of results.json on the model."""
    return {
        "stage": stage,
        "labels": list(model.config.id2label.values()),
        "class_weights": model.config.class_weights,
        "frame_seconds": model.config.frame_seconds,
        "bandwidth": model.config.bandwidth,
        "num_parameters": model.num_parameters(),
        "versions": library_versions(),
    }


def score_lines(results: dict[str, Any]) -> list[str]:
    """Format the scores of a stage for the terminal."""
    what = "regions" if results["arguments"].get("targets") == ALONE else ""
    lines = [f"  {what:22}{'validation UA':>15}{'WA':>8}{'test UA':>12}{'WA':>8}"]
    for name in ("best", "last"):
        validation, test = results["scores"][name]["validation"], results["scores"][name]["test"]
        lines.append(
            f"  {checkpoint_name(results, name):22}{validation['ua']:>15.3f}{validation['wa']:>8.3f}"
            f"{test['ua']:>12.3f}{test['wa']:>8.3f}"
        )
    lines += _corpus_lines(results["scores"]["best"]) + _distribution_lines(results)
    return lines + format_lines(results)


def _distribution_lines(results: dict[str, Any]) -> list[str]:
    """The measures of the test distributions, with those of the guesses; none for targets that are labels."""
    rows = list_measures(results, "test")
    if not rows:
        return []
    lines = ["  " + f"{'test distributions':22}" + "".join(f"{name:>13}" for name in MEASURES)]
    for name, measures in rows.items():
        cells = "".join(f"{measures[measure]:>13.4f}" for measure in MEASURES)
        lines.append(f"  {checkpoint_name(results, name) if name in results['epochs'] else name:22}{cells}")
    return lines


def list_measures(results: dict[str, Any], part: str) -> dict[str, dict[str, float]]:
    """The measures of best, last, constant and uniform on the validation or test set; empty for labels as targets."""
    if "guesses" not in results:
        return {}
    models = {name: results["scores"][name][part]["distribution"] for name in ("best", "last")}
    return models | {name: results["guesses"][name][part] for name in GUESSES}


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


def describe_fold(results: dict[str, Any]) -> str:
    """`, fold 2`, with the protocol if it is not the published one; empty if the corpus defines the split."""
    if results["fold"] is None:
        return ""
    protocol = "" if results["protocol"] == "published" else f" of {results['protocol']}"
    return f", fold {results['fold']}{protocol}"


def explain_use(stage_dir: Path) -> str:
    return f"""
The model is in {stage_dir}. To use it:

  python predict.py speech.wav --model {stage_dir}

or

  from transformers import pipeline
  recognize = pipeline("speech-emotion-recognition", "{stage_dir}", trust_remote_code=True)
  print(recognize("speech.wav", return_timeline=True))
"""
