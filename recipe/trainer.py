"""SERAlignTrainer: the Trainer with separate learning rates, loss parts by name and batches by duration."""

import math
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import Sampler
from tqdm.auto import tqdm
from transformers import EvalPrediction, ProgressCallback, Trainer, TrainingArguments

from recipe.batching import DurationSampler
from recipe.errors import InputError
from recipe.scoring import load_metric

LOSS_PARTS = ("ce_loss", "eal_loss", "fual_loss")


class SERAlignTrainer(Trainer):
    """Trains SER-Align.

    Args:
        durations, duration_pool: seconds of each training utterance, and how strictly batches follow them
            (`DurationSampler`).
        pooling_learning_rate, classifier_learning_rate: of the new parts; `args.learning_rate` is the
            encoder's. The paper trains the three with separate rates.
        kwargs: as for `transformers.Trainer`.

    Logs each part of the loss (`ce_loss`, `eal_loss`, `fual_loss`) beside `loss`, averaged over
    everything since the last log: batches, accumulation steps and processes.
    """

    # The model's loss is a batch mean: without this the Trainer would skip the division by the accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        *,
        durations: list[float],
        duration_pool: int,
        pooling_learning_rate: float,
        classifier_learning_rate: float,
        **kwargs: Any,
    ):
        super().__init__(compute_metrics=compute_metrics, **kwargs)
        self.durations = durations
        self.duration_pool = duration_pool
        self.pooling_learning_rate = pooling_learning_rate
        self.classifier_learning_rate = classifier_learning_rate
        self._part_sums = torch.zeros(len(LOSS_PARTS), dtype=torch.float64)
        self._part_counts = torch.zeros(len(LOSS_PARTS), dtype=torch.float64)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over encoder, pooling and classifier, each with and without weight decay."""
        if self.optimizer is None:
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args)
            groups = self._parameter_groups(model or self.model)  # type: ignore[arg-type]
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def _parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        rates = {
            "encoder": self.args.learning_rate,
            "pooling": self.pooling_learning_rate,
            "classifier": self.classifier_learning_rate,
            "frame_classifier": self.classifier_learning_rate,
        }
        decayed = set(self.get_decay_parameter_names(model)) - {"pooling.cls_token"}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                rate = rates[name.split(".")[0]]
                decay = self.args.weight_decay if name in decayed else 0.0
                groups.setdefault((rate, decay), []).append(parameter)
        return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **kwargs: Any):
        """The model's own loss; remembers its parts while training."""
        outputs = model(**inputs)
        if model.training:
            for index, name in enumerate(LOSS_PARTS):
                if outputs.get(name) is not None:
                    self._part_sums[index] += outputs[name].detach().double().cpu()
                    self._part_counts[index] += 1
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            totals = torch.stack([self._part_sums, self._part_counts]).to(self.args.device, torch.float32)
            sums, counts = self.accelerator.reduce(totals, reduction="sum").tolist()
            logs |= {name: s / n for name, s, n in zip(LOSS_PARTS, sums, counts) if n}
            self._part_sums.zero_()
            self._part_counts.zero_()
            if not math.isfinite(logs["loss"]):
                raise InputError(
                    f"the training loss is {logs['loss']} at update {self.state.global_step}: lower "
                    "--learning_rate, or train without --bf16; the last checkpoint is kept"
                )
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        return DurationSampler(self.durations, self.args.train_batch_size, self.duration_pool, self.args.seed)


def compute_metrics(evaluation: EvalPrediction) -> dict[str, float]:
    """UA and WA of the validation set, after each epoch."""
    logits = np.asarray(evaluation.predictions)
    scores = load_metric().compute(
        predictions=np.argmax(logits, axis=-1), references=evaluation.label_ids, num_classes=logits.shape[-1]
    )
    return {name: scores[name] for name in ("ua", "wa", "macro_f1")}


class EpochLines(ProgressCallback):
    """The Trainer's progress bars, with one readable line an epoch instead of a dict a log."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[str, float] = {}

    def on_log(self, args: TrainingArguments, state: Any, control: Any, logs: dict | None = None, **kwargs: Any):
        logs = logs or {}
        if "loss" in logs:
            self.parts = {name: logs[name] for name in ("loss", *LOSS_PARTS) if name in logs}
            if self.training_bar is not None:
                self.training_bar.set_postfix_str(f"loss {logs['loss']:.3f}")
        if "eval_ua" in logs and state.is_world_process_zero:
            losses = "  ".join(
                f"{name.removesuffix('_loss').upper()} {value:.3f}" for name, value in self.parts.items()
            )
            best = "  best so far" if logs["eval_ua"] > (state.best_metric or -1) else ""
            tqdm.write(
                f"  epoch {logs['epoch']:3.0f}   {losses}   validation UA {logs['eval_ua']:.3f}  "
                f"WA {logs['eval_wa']:.3f}{best}"
            )
