"""The model card of a stage folder, filled with the measured scores."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from sklearn.metrics import precision_recall_fscore_support

from core.escaping import markdown_text
from core.json_files import read_lines
from recipe.calibration import read_confidences
from recipe.corpora import DESCRIPTIONS, LICENSES
from recipe.corpora.rows import speakers_known
from recipe.dimension_scores import find_intervals, has_dimensions
from recipe.dimension_tables import describe_scales, make_rows
from recipe.dimensions import ALONE, describe_source, learns_dimensions
from recipe.distribution_scores import MEASURES
from recipe.entries import is_joint, list_entries
from recipe.fairness import count_groups, score_gaps
from recipe.options import FREE_TO_CHANGE, SHARED, Arguments, DataArguments, ModelArguments
from recipe.results import checkpoint_name, describe_fold, find_pooling, list_measures
from recipe.scoring import group_by_corpus
from recipe.statistics import ENOUGH_SPEAKERS, GAPS, METRICS, score_genders, speaker_confusions, speaker_interval

TEMPLATE = Path(__file__).parent / "model_card_template.md"
# Test speakers that a model card lists by name.
MOST_NAMES = 24
METRIC_NAMES = {"ua": "UA", "wa": "WA", "macro_f1": "macro-F1"}
# The oldest versions that a model folder runs on without this project, tested by studies/oldest_versions.py.
OLDEST = {"transformers": "5.20.0", "torch": "2.6.0", "numpy": "1.26.4"}

SHARES = (0.25, 0.5, 0.75, 1.0)  # of the test utterances, whose accuracy the card gives

# Lower and upper end, or None if it cannot be computed.
Interval = tuple[float, float] | None


def write_model_card(
    stage_dir: Path,
    results: dict[str, Any],
    args: Arguments,
    where: str,
    notes: str = "",
    revision: str = "",
    licence: str = "",
) -> None:
    """README.md of a stage folder, from its results and its predictions.jsonl.

    Args:
        where: the model that the snippets load, a Hub name or a folder.
        notes: Markdown inserted between the sections on use and data.
        revision: commit on the Hub whose code the snippets run; empty for a folder.
        licence: of the weights, as the Hub names it; empty takes that of the corpora.
    """
    labels = results["labels"]
    lines = {"best": _test_lines(stage_dir), "last": _test_lines(stage_dir / "last")}
    intervals = {name: _intervals(lines[name], labels) for name in lines}
    changed, unchanged = hyper_parameters(args)
    best = results["scores"]["best"]
    unsure_below = best.get("unsure_below", 0.0)  # runs of earlier releases have none
    measure_rows = _measure_rows(results)
    card = ModelCard.from_template(
        _card_data(results, args, lines["best"], licence),
        template_path=str(TEMPLATE),
        title=f"SER-Align on {results['corpus']}, stage {results['stage']}",
        stage=results["stage"],
        pooling=find_pooling(results),
        losses=_list_losses(args.model, args.data),
        labels=[markdown_text(label) for label in labels],
        frame_ms=f"{1000 * results['frame_seconds']:g}",
        arguments=args.without_paths(),
        weights=[checkpoint_name(results, name) for name in lines],
        score_rows=_score_rows(results, intervals),
        unsure_below=f"{unsure_below:.3g}",
        sure_percent=f"{100 * args.trainer.sure_accuracy:g}",
        coverage_rows=_coverage_rows(lines["best"], None if measure_rows else unsure_below),
        measures=[name.replace("kl", "KL") for name in MEASURES],
        measure_rows=measure_rows,
        dimension_rows=make_rows(results, lines["best"]),
        dimension_source=describe_source(results.get("dimensions", {}).get("source", "")),
        dimension_scales=describe_scales(results),
        is_alone=args.data.targets == ALONE,
        mixed_above=f"{best.get('mixed_above', 1.0):.3g}",
        chance=f"{1 / len(labels):.3f}",
        interval_sentence=_interval_sentence(results["speakers"]["test"]),
        split_sentence=_split_sentence(results),
        where=where,
        revision=revision,
        pinned=f'revision="{revision}", ' if revision else "",
        oldest=", ".join(f"{name} {number}" for name, number in OLDEST.items()),
        notes=notes,
        trim_db=args.data.trim_db and f"{args.data.trim_db:g}",
        bandwidth=results.get("bandwidth") and f"{results['bandwidth'] / 1000:.2g}",
        data_sentence=_data_sentence(args.data),
        licenses=list_licenses(args.data),
        several_validate=len(best["validation"].get("corpora", {})) > 1,
        corpus_rows=_corpus_rows(results, lines["best"]),
        class_rows=_class_rows(lines["best"], labels),
        class_weights=[f"{weight:.3f}" for weight in results.get("class_weights") or ()],
        gender_rows=_gender_rows(lines["best"], labels),
        gap_rows=_gap_rows(lines["best"], labels),
        confusions={
            name: _confusion_rows(scores["confusion_matrix"], labels)
            for name, scores in {"": best["test"], **best["test"].get("corpora", {})}.items()
        },
        num_parameters=f"{results['num_parameters']:,}",
        seconds=f"{results['seconds']:.0f} s"
        + (", not counting the time before training was resumed" if results["resumed"] else ""),
        device=results["device"],
        converted_copies=results.get("converted_copies", 0),
        teacher=results.get("teacher"),
        teacher_percent=f"{100 * args.trainer.teacher_weight:g}",
        changed=_yaml(changed),
        unchanged=_yaml(unchanged),
        epochs=[_epoch_row(line, results) for line in results["history"]],
        versions=", ".join(f"{name} {number}" for name, number in results["versions"].items()),
    )
    card.save(stage_dir / "README.md")


def list_licenses(data: DataArguments) -> dict[str, str]:
    """The licence (Hub identifier) of each corpus that the model is trained on, by name."""
    if not is_joint(data):
        return {data.corpus: LICENSES[data.corpus]}
    return {entry.name: LICENSES[entry.data.corpus] for entry in list_entries(data) if entry.use != "test"}


def _list_losses(model: ModelArguments, data: DataArguments) -> list[str]:
    """The losses and their weights, besides EAL and FUAL; empty for the cross-entropy alone with weight 1."""
    weights = {
        "cross-entropy": model.ce_weight,
        "KL to the label": model.kl_weight,
        "cosine distance to the label": model.cosine_weight,
        "focal": model.focal_weight,
        "center": model.center_weight,
        "supervised contrastive": model.contrastive_weight,
        "distance of the frames from those of the teacher": model.frame_distillation_weight,
    }
    if learns_dimensions(data):
        weights |= {"(1 - CCC) of each dimension": model.ccc_weight, "cross-entropy of regions": model.region_weight}
    losses = [f"{weight:g} × {name}" for name, weight in weights.items() if weight > 0]
    return [] if losses == ["1 × cross-entropy"] else losses


def _data_sentence(data: DataArguments) -> str:
    """Describe the corpora that the model is trained on, and name those that only test."""
    if not is_joint(data):
        return DESCRIPTIONS[data.corpus]
    entries = list_entries(data)
    trained = dict.fromkeys(DESCRIPTIONS[entry.data.corpus] for entry in entries if entry.use != "test")
    tested = [entry.name for entry in entries if entry.use == "test"]
    return " ".join(trained) + (f" Tested on {', '.join(tested)}." if tested else "")


def _card_data(results: dict[str, Any], args: Arguments, lines: list[dict[str, Any]], licence: str) -> ModelCardData:
    """Metadata for the Hub: licence, base model, and the test scores of the best weights with their intervals.

    Several corpora have their own scores.
    """
    encoder, licenses = args.model.encoder, set(list_licenses(args.data).values())
    scores = results["scores"]["best"]["test"]
    of_each = scores.get("corpora") or {args.data.corpus: scores}
    lines_of_each = group_by_corpus(lines) or {args.data.corpus: lines}
    return ModelCardData(
        license=licence or (licenses.pop() if len(licenses) == 1 else "other"),
        library_name="transformers",
        pipeline_tag="audio-classification",
        base_model=encoder if encoder is not None and not Path(encoder).is_dir() else None,
        tags=["speech-emotion-recognition", "ser_align", "custom_code"],
        model_name=f"ser-align-{results['corpus'].replace(' + ', '-')}",
        eval_results=[
            result
            for corpus in of_each
            for result in _eval_results(corpus, results, of_each[corpus], lines_of_each[corpus])
        ],
    )


def _eval_results(
    corpus: str, results: dict[str, Any], scores: dict[str, Any], lines: list[dict[str, Any]]
) -> list[EvalResult]:
    """The test scores on one corpus, with their intervals."""
    speakers = {line["speaker"] for line in lines}
    units = "speakers" if speakers_known(speakers) else "utterances"
    tested = "training speakers" if results["protocol"] == SHARED else "test speakers"
    found = {
        (metric, METRIC_NAMES[metric]): (scores[metric], interval)
        for metric, interval in _intervals(lines, results["labels"]).items()
        if results["arguments"].get("targets") != ALONE
    }
    for dimension, intervals in (find_intervals(lines) if has_dimensions(lines) else {}).items():
        found["ccc", f"CCC of {dimension}"] = (scores["dimensions"][dimension]["ccc"], intervals["ccc"])
    return [
        EvalResult(
            task_type="audio-classification",
            dataset_type=corpus,
            dataset_name=f"{corpus}{describe_fold(results)}, {tested}",
            dataset_split="test",
            metric_type=metric,
            metric_name=name,
            metric_value=round(score, 4),
            metric_args=interval
            and {
                "interval_95": [round(end, 4) for end in interval],
                "resampled": units,
                "number": len(speakers),
            },
        )
        for (metric, name), (score, interval) in found.items()
    ]


def _corpus_rows(results: dict[str, Any], lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The test scores of the best weights on each of several corpora, with the number of training utterances."""
    rows = []
    for corpus, of_one in group_by_corpus(lines).items():
        scores = results["scores"]["best"]["test"]["corpora"][corpus]
        trained = results["corpora"][corpus].get("train", {"class_counts": {}})["class_counts"]
        interval = _intervals(of_one, results["labels"])["ua"]
        counts = [sum(trained.values()), len(of_one), len({line["speaker"] for line in of_one})]
        rows.append(
            {"name": markdown_text(corpus), "cells": [*counts, *(f"{scores[metric]:.3f}" for metric in METRICS)]}
            | {"interval": _interval(interval)}
        )
    return rows


def _confusion_rows(confusion_matrix: list[list[int]], labels: list[str]) -> list[dict[str, Any]]:
    """A row for each label that has utterances, in percent of them."""
    return [
        {"label": markdown_text(label), "percent": [f"{100 * count / max(1, sum(row)):.0f}" for count in row]}
        for label, row in zip(labels, confusion_matrix)
        if any(row)
    ]


def _test_lines(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_lines(folder / "predictions.jsonl") if line["split"] == "test"]


def _intervals(lines: list[dict[str, Any]], labels: list[str]) -> dict[str, Interval]:
    """95 % interval of each score over the speakers of these predictions."""
    confusions = np.array(list(speaker_confusions(lines, labels).values()))
    return {metric: speaker_interval(confusions, metric) for metric in METRICS}


def _score_rows(results: dict[str, Any], intervals: dict[str, dict[str, Interval]]) -> list[dict[str, Any]]:
    """A row for each score, with a cell for score and interval of the best and of the last weights."""
    rows = []
    for part in ("test", "validation"):
        for metric in METRICS:
            cells = []
            for name, of_metric in intervals.items():
                interval = of_metric[metric] if part == "test" else None  # validation chose the epoch
                cells += [f"{results['scores'][name][part][metric]:.3f}", _interval(interval)]
            rows.append({"name": f"{part} {METRIC_NAMES[metric]}", "cells": cells})
    return rows


def _coverage_rows(lines: list[dict[str, Any]], unsure_below: float | None) -> list[dict[str, str]]:
    """How many predictions are right: of the sure and the unsure ones, if any, and of those with the highest scores."""
    confidences, correct = read_confidences(lines)
    chosen = {}
    if unsure_below is not None:
        chosen = {"sure": confidences >= unsure_below, "unsure": confidences < unsure_below}
    order = np.argsort(-confidences, kind="stable")
    for share in SHARES:
        best = np.zeros(len(lines), bool)
        best[order[: max(1, round(share * len(lines)))]] = True
        chosen[f"the {100 * share:.0f} % with the highest scores"] = best
    return [
        {
            "name": name,
            "share": f"{100 * part.mean():.0f}",
            "right": f"{100 * correct[part].mean():.0f} %" if part.any() else "-",
        }
        for name, part in chosen.items()
    ]


def _measure_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The measures of the test distributions, of both weights and of the guesses; none for targets that are labels."""
    return [
        {"name": checkpoint_name(results, name) if name in results["epochs"] else name}
        | {"cells": [f"{measures[measure]:.4f}" for measure in MEASURES]}
        for name, measures in list_measures(results, "test").items()
    ]


def _interval(interval: Interval) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _interval_sentence(speakers: list[str]) -> str:
    """Say what the intervals are computed over, and warn if there are few speakers."""
    if not speakers_known(speakers):
        return (
            "Intervals are 95 % bootstrap intervals over utterances, since the corpus does not name every speaker: "
            "utterances of one speaker are not independent, so the intervals are too narrow."
        )
    if len(speakers) == 1:
        return "There is one test speaker, so there is no interval: how much scores vary between speakers is unknown."
    sentence = f"Intervals are 95 % bootstrap intervals over the {len(speakers)} test speakers"
    if len(speakers) < ENOUGH_SPEAKERS:
        return f"{sentence}, which is too few, so the intervals are too narrow."
    return f"{sentence}."


def _class_rows(lines: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """Recall, precision, F1 and number of utterances of each class; `-` where it is undefined."""
    columns = precision_recall_fscore_support(
        [line["label"] for line in lines], [line["prediction"] for line in lines], labels=labels, zero_division=np.nan
    )
    return [
        {"label": markdown_text(label), "shares": [_share(recall), _share(precision), _share(f1)], "utterances": count}
        for label, precision, recall, f1, count in zip(labels, *columns)
    ]


def _share(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _gender_rows(lines: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """Scores of women and men, if the corpus gives the gender."""
    genders = {line["speaker"]: line["gender"] for line in lines}
    rows = score_genders(speaker_confusions(lines, labels), genders)
    # Utterances without a speaker are units of their own, not speakers.
    known = speakers_known(genders)
    return [
        {
            "name": {"female": "women", "male": "men"}[gender],
            "speakers": row["speakers"] if known else "-",
            "utterances": row["utterances"],
            "ua": f"{row['ua']:.3f}",
            "interval": _interval(row["interval"]),
            "wa": f"{row['wa']:.3f}",
        }
        for gender, row in rows.items()
    ]


def _gap_rows(lines: list[dict[str, Any]], labels: list[str]) -> list[dict[str, Any]]:
    """The gaps between the groups of each column, with their intervals."""
    rows = []
    for column, (groups, confusions) in count_groups(lines, labels).items():
        stacked, gaps = np.array(list(confusions.values())), score_gaps(confusions)
        cells = [cell for gap in GAPS for cell in (f"{gaps[gap]:.3f}", _interval(speaker_interval(stacked, gap)))]
        rows.append({"name": markdown_text(f"{column} ({len(groups)} groups)"), "cells": cells})
    return rows


def _split_sentence(results: dict[str, Any]) -> str:
    parts = results["speakers"]
    if results["protocol"] == SHARED:
        return (
            "**The sets share speakers**: utterances were drawn, not speakers, as in some published systems. These "
            "scores are those of voices that the model has heard, and say nothing about others."
        )
    if not speakers_known(parts["test"]):
        return "The corpus names no speakers: training and test data may share speakers."
    known = {name: [s for s in speakers if speakers_known([s])] for name, speakers in parts.items()}
    unknown = len(parts["train"]) - len(known["train"])
    counts = {name: results["scores"]["best"][name]["num_utterances"] for name in ("validation", "test")}
    names = (
        markdown_text(", ".join(parts["test"]))
        if len(parts["test"]) <= MOST_NAMES
        else f"{len(parts['test'])} speakers"
    )
    return (
        f"No speaker is in two sets: {len(known['train'])} for training, {len(known['validation'])} for validation "
        f"({counts['validation']} utterances), {len(parts['test'])} for test ({counts['test']} utterances: {names})."
        + (f" The speakers of {unknown} training utterances are unknown." if unknown else "")
    )


def _epoch_row(line: dict[str, float], results: dict[str, Any]) -> dict[str, str]:
    row = {"epoch": f"{line['epoch']:.3g}", "loss": f"{line['loss']:.3f}"}
    row |= {name: f"{line[name]:.3f}" for name in ("ua", "wa", "kl", "ccc") if name in line}
    is_best = line["epoch"] == results["epochs"]["best"]
    return {name: f"**{value}**" if is_best else value for name, value in row.items()}


def hyper_parameters(args: Arguments) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that affect the result: those that differ from the defaults, and the others."""
    defaults = Arguments().flat()
    values = {name: value for name, value in args.without_paths().items() if name not in FREE_TO_CHANGE}
    if args.data.corpora:
        del values["corpus"]
    changed = {name: value for name, value in values.items() if value != defaults[name]}
    return changed, {name: value for name, value in values.items() if name not in changed}


def _yaml(values: dict[str, Any]) -> str:
    """Lines of a run configuration; lists and mappings of plain values stay on one line."""
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=110) if values else ""
