"""Distillation: a trained model teaches another one with its answers (Hinton et al. 2015) and its frames (Romero et al.
2015).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import DatasetDict
from torch import Tensor
from transformers import SequenceFeatureExtractor

from core.audio import SAMPLING_RATE
from core.errors import InputError
from core.loading import load_model
from core.shipped import find_model
from modeling_ser_align import SERAlignForAudioClassification
from recipe.distributions import Target, encode_target
from recipe.options import Arguments
from recipe.results import read_results


class Teacher:
    """A trained model whose answers soften the labels of the training utterances.

    Each process that prepares audio loads it once; it is pickled without its weights.

    Args:
        folder: written by train.py.
        labels: classes of the student, in its order.
        weight: of the teacher's probabilities in the label, from 0 to 1.
        gives_frames: whether the student compares its frames with those of the teacher.
    """

    def __init__(self, folder: str, labels: list[str], weight: float, gives_frames: bool = False):
        self.folder, self.labels, self.weight, self.gives_frames = folder, labels, weight, gives_frames
        self._loaded: Any = None

    def load(self) -> tuple[SERAlignForAudioClassification, SequenceFeatureExtractor]:
        """The model and its feature extractor, loaded on first use. Raises InputError."""
        if self._loaded is None:
            self._loaded = load_model(self.folder, option="--teacher ")
        return self._loaded

    @torch.no_grad()
    def extract(self, waveform: np.ndarray) -> Tensor:
        """Run the fixed part of the teacher's encoder: (samples,) at 16 kHz to (1, frames, features)."""
        model, extractor = self.load()
        inputs = extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt", is_trimmed=True)
        return model.extract_features(inputs[model.main_input_name])

    @torch.no_grad()
    def soften(self, features: Tensor, label: Target) -> Tensor:
        """The label of an utterance, (classes,).

        Args:
            features: `extract` of the utterance, trimmed and augmented, as the student hears it.
            label: index of the true class, or the distribution of the votes.
        """
        model, _ = self.load()
        order = [model.config.label2id[name] for name in self.labels]
        probabilities = model(extracted_features=features).logits[0, order].softmax(dim=-1)
        return torch.lerp(encode_target(label, len(self.labels)), probabilities, self.weight)

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """The frames of an utterance, (frames, features), float16, which is exact enough for a target."""
        frames, _ = self.load()[0].encode(extracted_features=features)
        return frames[0].half()

    def __reduce__(self) -> tuple:
        return Teacher, (self.folder, self.labels, self.weight, self.gives_frames)


def read_teacher_size(args: Arguments) -> int | None:
    """The number of features of the teacher's frames, if the student compares with them. Raises InputError."""
    if args.trainer.teacher is None or args.model.frame_distillation_weight == 0:
        return None
    model, _ = load_model(find_model(args.trainer.teacher), option="--teacher ")
    return model.config.encoder_config.hidden_size


def find_teacher(args: Arguments, split: DatasetDict) -> Teacher | None:
    """The teacher of a run, if it has one.

    Raises:
        InputError: it cannot be loaded, lacks a class, or has heard speakers who are not in the training set: the
            student would learn from them.
    """
    if args.trainer.teacher is None:
        return None
    gives_frames = args.model.frame_distillation_weight > 0
    if gives_frames and args.data.mix_probability > 0:
        raise InputError(
            "--frame_distillation_weight needs the frames of the teacher, who does not hear mixtures: set "
            "--mix_probability 0"
        )
    if args.trainer.teacher_weight > 1:
        raise InputError(f"--teacher_weight {args.trainer.teacher_weight:g} is not a weight: give a number from 0 to 1")
    folder, labels = find_model(args.trainer.teacher), split["train"].features["label"].names
    teacher = Teacher(folder, labels, args.trainer.teacher_weight, gives_frames)
    model, _ = teacher.load()
    if model.config.reads_text and "utterance" in model.config.text_levels:
        raise InputError(
            f"--teacher {folder} hears the level 'utterance', which a student does not measure: take another"
        )
    missing = [label for label in labels if label not in model.config.label2id]
    if missing:
        raise InputError(
            f"--teacher {folder} knows {', '.join(model.config.label2id)}, but not {', '.join(missing)}: choose a "
            "teacher with the labels of this run, or match them with --label_map"
        )
    results = read_results(Path(folder))
    if results is None:
        raise InputError(
            f"--teacher {folder} has no results.json, which names the speakers that it has heard: give a folder that "
            "train.py wrote, or a complete download of one"
        )
    strange = sorted(set(results["speakers"]["train"]) - set(split["train"]["speaker"][:]))
    if strange:
        raise InputError(
            f"--teacher {folder} was trained on {len(strange)} speakers who do not train this run, such as "
            f"{strange[0]!r}: train the teacher on the same split"
        )
    return teacher
