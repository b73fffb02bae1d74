"""SERAlignTrainer: a Trainer with separate learning rates, logged loss terms and bucket batches."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import SAFE_WEIGHTS_NAME, gather_object
from datasets import Dataset
from safetensors.torch import load_file
from scipy.special import softmax
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Sampler
from tqdm.auto import tqdm
from transformers import EvalPrediction, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from core.errors import InputError, writing
from losses_ser_align import LOSS_NAMES
from recipe import dimension_scores
from recipe.batching import BucketSampler, SeededSampler
from recipe.checkpoints import delete_older, folder_at, mark_complete
from recipe.corpora.shares import find_majority
from recipe.dimension_scores import average_ccc
from recipe.distribution_scores import measure
from recipe.preparing import TrainingSet
from recipe.scoring import load_metric

AVERAGED = "averaged"  # subfolder of a checkpoint
CENTERS = "objective.centers"
# Scores of an epoch that select it in place of UA, and their names.
SELECTING = {"kl": "KL", "cosine": "cosine", "ccc": "CCC"}
NOT_DECAYED = {"pooling.cls_token", "layer_mix.weights", "fusion.missing", "fusion.no_times", "fusion.shares", CENTERS}


class SERAlignTrainer(Trainer):
    """Trains SER-Align.

    Args:
        watched_test: if given, scored as `test_ua` after each evaluation; never used to select checkpoints.
        durations: duration of each training utterance in seconds.
        corpora: corpus of each utterance of the `train`, `validation` and `test` sets, if they are of several; the
            scores of an epoch are then means over corpora, and those of each are logged, too.
        corpus_temperature: as in `BucketSampler`.
        bucket_batches: batches per bucket (see `BucketSampler`).
        ema_decay: decay of an exponential moving average of the weights, which is then evaluated and saved in
            `AVERAGED` in each checkpoint; 0 disables it.
        pooling_learning_rate, classifier_learning_rate: learning rates of the new modules; `args.learning_rate` is
            that of the encoder. The paper uses separate rates for the three.
        center_learning_rate: learning rate of the class centres of the center loss.
        kwargs: passed on to `transformers.Trainer`.

    Besides `loss`, logs each loss term (`ce_loss`, `eal_loss`, ...), averaged over all batches, accumulation
    steps and processes since the last log, and the learning rate of each module (`learning_rate/encoder`, ...).

    Raises:
        InputError: a loss or gradient since the last log is not finite; the message names the utterances.
    """

    # The model's loss is a batch mean; without this, the Trainer would not divide it by the accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        *,
        watched_test: Dataset | None = None,
        durations: list[float],
        bucket_batches: int,
        corpora: dict[str, list[str]] | None = None,
        corpus_temperature: float = 1.0,
        ema_decay: float,
        pooling_learning_rate: float,
        classifier_learning_rate: float,
        center_learning_rate: float,
        **kwargs: Any,
    ):
        super().__init__(compute_metrics=self.compute_scores, **kwargs)
        self.add_callback(StartEpoch())
        self.watched_test = watched_test
        self.corpora = corpora or {}
        self.corpus_temperature = corpus_temperature
        self._evaluated = "validation"
        self.durations = durations
        self.bucket_batches = bucket_batches
        self.pooling_learning_rate = pooling_learning_rate
        self.classifier_learning_rate = classifier_learning_rate
        self.center_learning_rate = center_learning_rate
        self.averaged = None
        if ema_decay > 0:
            model = self.accelerator.unwrap_model(self.model)
            self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay), use_buffers=True)
            self.add_callback(UpdateAverage(self.averaged))
        # Sum and count of each loss term since the last log; kept on the device, to avoid a sync in every batch.
        self._parts = torch.zeros(2, len(LOSS_NAMES), device=self.args.device)
        # Likewise, for each batch and each update: "loss" or "gradient", the ids of its utterances, and the value.
        self._seen: list[tuple[str, list[str], Tensor]] = []
        self._ids_of_update: list[str] = []
        self._learning_rates: dict[str, float] = {}
        self.data_collator = partial(with_ids, self.data_collator)

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
            "layer_mix": self.pooling_learning_rate,
            "pooling": self.pooling_learning_rate,
            "classifier": self.classifier_learning_rate,
            "frame_classifier": self.classifier_learning_rate,
            "dimension_head": self.classifier_learning_rate,
            "text_encoder": self.args.learning_rate,
            "fusion": self.classifier_learning_rate,
            "objective": self.classifier_learning_rate,
            "centers": self.center_learning_rate,
        }
        decayed = set(self.get_decay_parameter_names(model)) - NOT_DECAYED
        groups: dict[tuple[str, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                decay = self.args.weight_decay if name in decayed else 0.0
                part = "centers" if name == CENTERS else name.split(".")[0]
                groups.setdefault((part, decay), []).append(parameter)
        return [
            {"part": part, "params": params, "lr": rates[part], "weight_decay": decay}
            for (part, decay), params in groups.items()
        ]

    def _get_learning_rate(self) -> float:
        """The rate of the first group. Stores all rates for `log`, since this is called before the scheduler steps."""
        self._learning_rates = {f"learning_rate/{group['part']}": group["lr"] for group in self.optimizer.param_groups}
        return super()._get_learning_rate()

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | None = None) -> Tensor:
        """The norm before clipping, over all processes."""
        norm = super()._get_grad_norm(model, grad_norm)
        self._seen.append(("gradient", self._ids_of_update, norm))
        self._ids_of_update = []
        return norm

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any):
        """The model's own loss; during training, it and its terms are recorded."""
        ids = inputs.pop("id")
        outputs = model(**inputs)
        if model.training:
            self._seen.append(("loss", ids, outputs.loss.detach()))
            self._ids_of_update += ids
            for index, name in enumerate(LOSS_NAMES):
                if outputs.get(name) is not None:
                    self._parts[0, index] += outputs[name].detach()
                    self._parts[1, index] += 1
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            sums, counts = self.accelerator.reduce(self._parts, reduction="sum").tolist()
            logs |= {name: total / n for name, total, n in zip(LOSS_NAMES, sums, counts) if n}
            logs |= self._learning_rates
            del logs["learning_rate"]
            if not math.isfinite(logs["loss"]) or not math.isfinite(logs["grad_norm"]):
                raise InputError(
                    f"{self._first_not_finite()} (their audio is finite): lower --learning_rate, or train without "
                    "--bf16; the last checkpoint is kept"
                )
            self._parts.zero_()
            self._seen.clear()
        super().log(logs, start_time)

    def _first_not_finite(self) -> str:
        """Describe the first non-finite loss or gradient since the last log, over all processes."""
        seen = [(index, what, ids, float(value)) for index, (what, ids, value) in enumerate(self._seen)]
        broken = [entry for entry in gather_object(seen) if not math.isfinite(entry[-1])]
        first, what, _, value = min(broken)
        ids = ", ".join(name for index, _, names, _ in broken if index == first for name in names)
        updates = [kind for kind, _, _ in self._seen].count("gradient")
        before = [kind for kind, _, _ in self._seen[:first]].count("gradient")
        update = self.state.global_step - updates + before + 1
        return f"the training {what} is {value} at update {update}, for utterances {ids}"

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        with self._averaged_weights():
            metrics = super().evaluate(*args, **kwargs)
            if self.watched_test is not None:
                self._evaluated = "test"
                with torch.random.fork_rng():  # scoring the test set must not affect training
                    super().evaluate(self.watched_test, metric_key_prefix="test")
                self._evaluated = "validation"
        return metrics

    def compute_scores(self, evaluation: EvalPrediction) -> dict[str, float]:
        return compute_metrics(evaluation, self.corpora.get(self._evaluated, []))

    @contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Use the averaged weights, if there are any, within this block."""
        if self.averaged is None:
            yield
            return
        model = self.accelerator.unwrap_model(self.model)
        trained = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.averaged.module.state_dict())
        try:
            yield
        finally:
            model.load_state_dict(trained)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Also save the averaged weights, and mark the checkpoint complete once all processes have written it."""
        checkpoint = folder_at(Path(self._get_output_dir(trial)), self.state.global_step)
        with writing(checkpoint):
            if self.averaged is not None and self.args.should_save:
                self.averaged.module.save_pretrained(checkpoint / AVERAGED)
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_complete(checkpoint)
                delete_older(checkpoint.parent)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As in transformers, but of two epochs with the same KL, the one with the higher cosine is better."""
        history = epoch_history(self.state.log_history)
        best = next((line for line in history if line["step"] == self.state.best_global_step), None)
        if best is not None and "kl" in best and rank(history[-1]) > rank(best):
            self.state.best_metric = math.inf
        return super()._determine_best_metric(metrics, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.averaged is not None:
            self.averaged.module.load_state_dict(load_file(Path(resume_from_checkpoint) / AVERAGED / SAFE_WEIGHTS_NAME))
            self.averaged.n_averaged.fill_(1)  # at 0, the next update would copy the weights instead of averaging

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        batch_size = self.args.train_batch_size * self.args.world_size
        corpora = self.corpora.get("train", [])
        sampler = BucketSampler(
            self.durations, batch_size, self.bucket_batches, self.args.seed, corpora, self.corpus_temperature
        )
        return SeededSampler(sampler) if isinstance(self.train_dataset, TrainingSet) else sampler


class StartEpoch(TrainerCallback):
    """Tells the objective which epoch begins, also where a run resumes."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **kwargs: Any) -> None:
        getattr(model, "module", model).objective.start_epoch(round(state.epoch))


class UpdateAverage(TrainerCallback):
    """Updates the moving average of the weights after each update."""

    def __init__(self, averaged: AveragedModel):
        self.averaged = averaged

    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module, **kwargs: Any) -> None:
        self.averaged.update_parameters(model)


def with_ids(collate: Callable[[list[dict]], dict[str, Tensor]], utterances: list[dict]) -> dict[str, Any]:
    """Collate utterances and add their ids to the batch, so that a loss can be traced to them."""
    return {**collate(utterances), "id": [utterance["id"] for utterance in utterances]}


def find_weights(checkpoint: Path) -> Path:
    """Find the folder with the weights of a checkpoint to use: the averaged ones if there are any."""
    averaged = checkpoint / AVERAGED
    return averaged if averaged.is_dir() else checkpoint


def compute_metrics(evaluation: EvalPrediction, corpora: Sequence[str] = ()) -> dict[str, float]:
    """UA, WA and macro-F1 of the validation set, after each epoch; with other targets, also what selects the epoch.

    With distributions, these are KL and cosine; with dimensions, the mean CCC over them.

    Args:
        corpora: corpus of each utterance, if there are several; a score is then the mean over corpora, so that the
            largest does not select the epoch alone. `ua/emodb` is the UA of one.
    """
    (logits, *values), (labels, *targets) = map(_list_arrays, (evaluation.predictions, evaluation.label_ids))
    if not all(np.isfinite(each).all() for each in (logits, *values)):
        raise InputError("the model's logits on validation utterances are not finite: lower --learning_rate")
    names = np.asarray(corpora) if len(corpora) else np.zeros(len(labels))
    scores = {}
    for name in np.unique(names).tolist():
        part = names == name
        predictions, references = np.argmax(logits[part], axis=-1), labels[part]
        measures = {}
        if labels.ndim == 2:
            references = np.array([find_majority(shares) for shares in labels[part]])
            measures = measure(softmax(logits[part].astype(np.float64), axis=-1), labels[part])
        if values:
            measures |= measure_dimensions(values[0][part], targets[0][part])
        found = load_metric().compute(predictions=predictions, references=references, num_classes=logits.shape[-1])
        scores[name] = found | measures
    metrics = [name for name in ("ua", "wa", "macro_f1", *SELECTING) if name in found | measures]
    means = {metric: float(np.mean([score[metric] for score in scores.values()])) for metric in metrics}
    return means | ({f"ua/{name}": score["ua"] for name, score in scores.items()} if len(corpora) else {})


def _list_arrays(arrays: Any) -> list[np.ndarray]:
    """What the Trainer collects: one array, or several."""
    return list(arrays) if isinstance(arrays, tuple | list) else [np.asarray(arrays)]


def measure_dimensions(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """The mean CCC over dimensions, both (utterances, dimensions)."""
    numbers = [str(index) for index in range(values.shape[-1])]
    return {"ccc": average_ccc(dimension_scores.measure(values, targets, numbers))}


def epoch_history(log_history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Summarise the Trainer's log by epoch: epoch, step, validation ua and wa (with distributions, also kl and cosine),
    mean losses, watched test_ua."""
    history: list[dict[str, float]] = []
    logged: list[dict[str, float]] = []
    for line in log_history:
        if "loss" in line:
            logged.append(line)
        if "eval_ua" in line:
            first_step = history[-1]["step"] if history else 0
            scores = {"epoch": line["epoch"], "step": line["step"], "ua": line["eval_ua"], "wa": line["eval_wa"]}
            scores |= {name: line[f"eval_{name}"] for name in SELECTING if f"eval_{name}" in line}
            scores |= {name.removeprefix("eval_"): value for name, value in line.items() if name.startswith("eval_ua/")}
            history.append({**scores, **_mean_losses(logged, first_step)})
            logged = []
        if "test_ua" in line:
            history[-1]["test_ua"] = line["test_ua"]
    return history


def rank(line: dict[str, float]) -> tuple[float, ...]:
    """What the best epoch has the most of: UA; with distributions, minus KL, then cosine; with dimensions, CCC."""
    if "ccc" in line:
        return (line["ccc"],)
    return (-line["kl"], line["cosine"]) if "kl" in line else (line["ua"],)


def _mean_losses(logged: list[dict[str, float]], first_step: float) -> dict[str, float]:
    """Average losses over updates; each logged line is itself a mean over the updates since the previous line."""
    before = [first_step, *(line["step"] for line in logged)]
    updates = [line["step"] - step for line, step in zip(logged, before)]
    names = [name for name in ("loss", *LOSS_NAMES) if logged and name in logged[0]]
    return {name: sum(n * line[name] for n, line in zip(updates, logged)) / sum(updates) for name in names}


class EpochLines(ProgressCallback):
    """The Trainer's progress bars, with one readable line per epoch instead of a dict per log."""

    NAMES = {"loss": "loss", **LOSS_NAMES}

    def on_epoch_end(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = True  # so that even a short epoch has its losses logged

    def on_log(
        self, args: TrainingArguments, state: Any, control: Any, logs: dict | None = None, **kwargs: Any
    ) -> None:
        logs = logs or {}
        if "loss" in logs and self.training_bar is not None:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.3f}")
        if "eval_ua" in logs and state.is_world_process_zero:
            *before, line = epoch_history(state.log_history)
            losses = "  ".join(f"{what} {line[name]:.3f}" for name, what in self.NAMES.items() if name in line)
            each = {name.removeprefix("ua/"): ua for name, ua in line.items() if name.startswith("ua/")}
            shown = f" ({', '.join(f'{name} {ua:.3f}' for name, ua in each.items())})" if len(each) > 1 else ""
            best = "  best so far" if all(rank(line) > rank(other) for other in before) else ""
            fit = "".join(f"{SELECTING[name]} {line[name]:.3f}  " for name in SELECTING if name in line)
            scores = f"{fit}UA {line['ua']:.3f}{shown}  WA {line['wa']:.3f}{best}"
            tqdm.write(f"  epoch {line['epoch']:3.0f}   {losses}   validation {scores}")
