"""Several models as one: the mean of their probabilities, and whether they agree."""

from collections import Counter
from typing import Any

import numpy as np
import torch

from core.ensembles import Rule, combine
from core.errors import InputError
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from timeline_ser_align import average_pieces


class Ensemble(SpeechEmotionRecognitionPipeline):
    """Scores each piece of a recording with every member, and joins their probabilities; dimensions are plain means.

    A recording is cut as for the first member, trimmed as little as for any. The answer has `members`, the `scores` of
    each alone, and where their best labels differ `disagreement`, a phrase that says so.

    Args:
        members: pipelines, by the names of their models.
        rule: how their probabilities are joined.

    Raises:
        InputError: the members do not fit together.
    """

    def __init__(self, members: dict[str, SpeechEmotionRecognitionPipeline], rule: Rule):
        self.members, self.rule = members, rule
        first = next(iter(members.values()))
        refuse_other_members(members)
        readers = [member.tokenizer for member in members.values() if member.tokenizer is not None]
        super().__init__(
            model=first.model,
            feature_extractor=first.feature_extractor,
            tokenizer=readers[0] if readers else None,
            device=first.device,
            batch_size=first._batch_size,
        )
        # Ours: of calibrated members, an ensemble is about as sure as they are on average.
        configs = [member.model.config for member in members.values()]
        self.model.config.unsure_below = float(np.mean([config.unsure_below for config in configs]))
        self.model.config.mixed_above = _average([config.mixed_above for config in configs])
        self.model.config.bandwidth = max((config.bandwidth for config in configs if config.bandwidth), default=None)

    @property
    def trim_db(self) -> float | None:
        """The largest of the members: what one cuts, another may need."""
        given = [member.trim_db for member in self.members.values()]
        return None if None in given else max(each for each in given if each is not None)

    def extract_features(self, waveform: np.ndarray, *words: Any) -> dict[str, Any]:
        """The inputs of each member."""
        return {name: member.extract_features(waveform, *words) for name, member in self.members.items()}

    def score_waveforms(self, waveforms: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Not of an ensemble, which has no frames."""
        raise NotImplementedError("an ensemble has no frames: score the waveforms with one of its members")

    def _score_pieces(self, pool: list[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
        """Add `probabilities` and those of the `members`, (members, classes), to each piece."""
        labels = list(self.model.config.id2label.values())
        pieces = [piece for piece in pool if "inputs" in piece]
        alone = [{**piece, "has_words": False} for piece in pieces]
        copies = [[{**piece, "inputs": piece["inputs"][name]} for piece in alone] for name in self.members]
        for member, own in zip(self.members.values(), copies):
            member._score_pieces(own, batch_size)
        orders = [[member.model.config.label2id[label] for label in labels] for member in self.members.values()]
        for piece, *answers in zip(pieces, *copies):
            del piece["inputs"]
            piece["members"] = np.stack([each["probabilities"][order] for each, order in zip(answers, orders)])
            piece["probabilities"], piece["has_words"] = combine(piece["members"], self.rule), False
            if "dimensions" in answers[0]:
                piece["dimensions"] = np.mean([each["dimensions"] for each in answers], axis=0)
            if "waveform" in piece:
                piece["frame_weights"] = answers[0]["frame_weights"]
        return pool

    def postprocess(self, outputs: list[dict[str, Any]], **options: Any) -> Any:  # type: ignore[override]
        """As in a pipeline, with `members` and `disagreement`."""
        answer = super().postprocess(outputs, **options)
        if isinstance(answer, list):
            return answer
        starts, ends, phrase = (np.array([output[name] for output in outputs]) for name in ("start", "end", "phrase"))
        given = np.stack([output["members"] for output in outputs])
        means = average_pieces(starts, ends, phrase, given.reshape(len(outputs), -1)).reshape(given.shape[1:])
        labels = list(self.model.config.id2label.values())
        answer["members"] = {name: dict(zip(labels, row.tolist())) for name, row in zip(self.members, means)}
        best = [labels[index] for index in means.argmax(axis=1)]
        return answer if len(set(best)) == 1 else {**answer, "disagreement": describe_disagreement(best)}


def describe_disagreement(labels: list[str]) -> str:
    """The labels of members that differ: `the 3 models disagree: 2 say sad, 1 says calm`."""
    said = [f"{count} say{'s' if count == 1 else ''} {label}" for label, count in Counter(labels).most_common()]
    return f"the {len(labels)} models disagree: {', '.join(said)}"


def refuse_other_members(members: dict[str, SpeechEmotionRecognitionPipeline]) -> None:
    """Raise InputError if members have other labels or dimensions than the first, or hear less at once."""
    (name, first), *others = members.items()
    config: Any = first.model.config
    for other, member in others:
        own: Any = member.model.config
        labels, known = (set(each.id2label.values()) for each in (own, config))
        if labels != known:
            raise InputError(
                f"--model {other} has the labels {', '.join(sorted(labels))}, and {name} has "
                f"{', '.join(sorted(known))}: give models with the same labels"
            )
        if own.dimension_names != config.dimension_names or own.dimension_scales != config.dimension_scales:
            raise InputError(f"--model {other} has other dimensions than {name}: give models with the same")
        if (own.longest_seconds or np.inf) < (config.longest_seconds or np.inf):
            raise InputError(
                f"--model {other} hears at most {own.longest_seconds:g} s at once, less than {name}: give it first"
            )


def _average(values: list[float | None]) -> float | None:
    """The mean, of values that are all known."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
