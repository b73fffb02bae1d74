"""Reporting: results.json and the model card of a stage folder, filled from what was measured."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from recipe.arguments import Arguments
from recipe.corpora import DESCRIPTIONS, LICENSES
from recipe.corpora.rows import speakers_known
from recipe.errors import InputError

TEMPLATE = Path(__file__).parent / "model_card_template.md"
# Test speakers that a model card lists by name.
MOST_NAMES = 24
VERSIONS = ("torch", "transformers", "datasets", "accelerate")


def write_results(stage_dir: Path, results: dict[str, Any]) -> None:
    """results.json: where it exists, the stage is finished."""
    write_json(stage_dir / "results.json", results)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON file, written in one step: a kill leaves the old one or the new one."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a stage folder. Raises InputError if it is cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path} is cut short or no JSON: remove {path.parent} and train it again") from None


def read_results(stage_dir: Path) -> dict[str, Any] | None:
    path = stage_dir / "results.json"
    return read_json(path) if path.is_file() else None


def library_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}


def score_lines(results: dict[str, Any]) -> list[str]:
    """The scores of a stage for the terminal."""
    lines = [f"  {'':22}{'validation UA':>15}{'WA':>8}{'test UA':>12}{'WA':>8}"]
    for name in ("best", "last"):
        validation, test = results["scores"][name]["validation"], results["scores"][name]["test"]
        lines.append(
            f"  {_checkpoint_name(results, name):22}{validation['ua']:>15.3f}{validation['wa']:>8.3f}"
            f"{test['ua']:>12.3f}{test['wa']:>8.3f}"
        )
    return lines


def unseen(results: dict[str, Any]) -> str:
    """Whose scores these are, as far as the corpus lets one know."""
    if not speakers_known(results["speakers"]["test"]):
        return "utterances of validation and test (the corpus names no speakers)"
    if not speakers_known(results["speakers"]["train"]):
        return "speakers of validation and test (some utterances of training name no speaker)"
    return "speakers that it has not heard in training"


def _checkpoint_name(results: dict[str, Any], name: str) -> str:
    return f"{name} (epoch {results['epochs'][name]:.3g})"


def fold_of(results: dict[str, Any]) -> str:
    """`, fold 2`, with the protocol where it is not the published one; nothing where the corpus has its own split."""
    if results["fold"] is None:
        return ""
    protocol = "" if results["protocol"] == "published" else f" of {results['protocol']}"
    return f", fold {results['fold']}{protocol}"


def write_model_card(stage_dir: Path, results: dict[str, Any], args: Arguments, where: str, notes: str = "") -> None:
    """README.md of a stage folder.

    Args:
        where: the name that its snippet loads, a Hub name or the folder.
        notes: Markdown that stands between the use and the data.
    """
    scores, labels = results["scores"], results["labels"]
    corpus = args.data.corpus
    tested = args.data.test_corpus or corpus
    test = scores["best"]["test"]
    card_data = ModelCardData(
        license=LICENSES[corpus],
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "ser_align", "custom_code"],
        model_name=f"ser-align-{corpus}",
        eval_results=[
            EvalResult(
                task_type="audio-classification",
                dataset_type=tested,
                dataset_name=f"{tested}{fold_of(results)}, test speakers",
                metric_type=metric,
                metric_name=metric.upper(),
                metric_value=round(test[metric], 4),
            )
            for metric in ("ua", "wa")
        ],
    )
    card = ModelCard.from_template(
        card_data,
        template_path=str(TEMPLATE),
        title=f"SER-Align on {corpus}, stage {results['stage']}",
        stage=results["stage"],
        labels=labels,
        score_rows=[
            {
                "name": _checkpoint_name(results, name),
                **{
                    f"{split}_{metric}": f"{scores[name][split][metric]:.3f}"
                    for split in ("validation", "test")
                    for metric in ("ua", "wa")
                },
            }
            for name in ("best", "last")
        ],
        chance=f"{1 / len(labels):.3f}",
        split_sentence=_split_sentence(results),
        where=where,
        notes=notes,
        trim_db=args.data.trim_db and f"{args.data.trim_db:g}",
        data_sentence=DESCRIPTIONS[corpus] + (f" Tested on {tested}." if tested != corpus else ""),
        frame_ms=f"{1000 * results['frame_seconds']:g}",
        confusion_rows=[
            {"label": label, "percent": [f"{100 * count / max(1, sum(row)):.0f}" for count in row]}
            for label, row in zip(labels, scores["best"]["test"]["confusion_matrix"])
        ],
        num_parameters=f"{results['num_parameters']:,}",
        seconds=f"{results['seconds']:.0f} s" + (" since it was resumed" if results["resumed"] else ""),
        device=results["device"],
        arguments=yaml.safe_dump(changed_arguments(args), sort_keys=False),
        epochs=[_epoch_row(line, results) for line in results["history"]],
        versions=", ".join(f"{name} {number}" for name, number in results["versions"].items()),
    )
    card.save(stage_dir / "README.md")


def _split_sentence(results: dict[str, Any]) -> str:
    parts = results["speakers"]
    if not speakers_known(parts["test"]):
        return "The corpus names no speakers: voices may be shared between training and test data."
    known = {name: [s for s in speakers if speakers_known([s])] for name, speakers in parts.items()}
    unknown = len(parts["train"]) - len(known["train"])
    counts = {name: results["scores"]["best"][name]["num_utterances"] for name in ("validation", "test")}
    names = ", ".join(parts["test"]) if len(parts["test"]) <= MOST_NAMES else f"{len(parts['test'])} speakers"
    return (
        f"No speaker is shared: {len(known['train'])} train, {len(known['validation'])} validate "
        f"({counts['validation']} utterances), {len(parts['test'])} test ({counts['test']} utterances: {names})."
        + (f" Of {unknown} training utterances the corpus does not say who speaks." if unknown else "")
    )


def _epoch_row(line: dict[str, float], results: dict[str, Any]) -> dict[str, str]:
    row = {"epoch": f"{line['epoch']:.3g}", "loss": f"{line['loss']:.3f}"}
    row |= {"ua": f"{line['ua']:.3f}", "wa": f"{line['wa']:.3f}"}
    is_best = line["epoch"] == results["epochs"]["best"]
    return {name: f"**{value}**" if is_best else value for name, value in row.items()}


def changed_arguments(args: Arguments) -> dict[str, Any]:
    """Arguments whose values are not the defaults."""
    defaults = Arguments().flat()
    return {name: value for name, value in args.without_paths().items() if value != defaults[name]}
