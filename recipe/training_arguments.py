"""The TrainingArguments of a stage, set by our options, by the recipe and by --training_arguments."""

import difflib
import types
import typing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import Trainer, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from core.errors import InputError
from recipe.batching import TARGETS
from recipe.checkpoints import CHECKPOINTS
from recipe.dimensions import learns_dimensions
from recipe.options import Arguments

# TrainingArguments that have an option of our own.
OUR_OPTIONS = {
    "output_dir": "output_dir",
    "num_train_epochs": "num_epochs",
    "max_steps": "max_steps",
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "learning_rate": "learning_rate",
    "weight_decay": "weight_decay",
    "warmup_steps": "warmup_ratio",
    "lr_scheduler_type": "lr_scheduler",
    "max_grad_norm": "max_grad_norm",
    "label_smoothing_factor": "label_smoothing",
    "seed": "seed",
    "data_seed": "seed",
    "bf16": "bf16",
    "activation_checkpointing": "activation_checkpointing",
    "gradient_checkpointing": "activation_checkpointing",
    "use_cpu": "use_cpu",
    "dataloader_num_workers": "num_workers",
    "logging_steps": "logging_steps",
    "train_sampling_strategy": "bucket_batches",
    "push_to_hub": "push_to_hub",
    "hub_model_id": "push_to_hub",
    "hub_private_repo": "hub_public",
}
# Set by the recipe for every run. The best checkpoint is the one with the best validation UA; for distributions, that
# with the lowest validation KL; for dimensions, also beside labels, the highest mean CCC (`choose_selection`).
# recipe/checkpoints.py decides which ones to keep.
RECIPE = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "metric_for_best_model": "ua",
    "greater_is_better": True,
    "logging_nan_inf_filter": False,  # the default logs a NaN loss as 0
    "remove_unused_columns": False,  # rows are prepared when they are read
    "label_names": ["labels"],
}
# Not allowed: they would break the recipe's own scoring, checkpoints or resuming.
BREAKING = (
    *("load_best_model_at_end", "save_total_limit", "save_only_model", "save_steps", "save_on_each_node"),
    *("eval_steps", "eval_delay", "eval_on_start", "prediction_loss_only", "include_for_metrics"),
    *("batch_eval_metrics", "eval_do_concat_batches", "eval_use_gather_object", "auto_find_batch_size"),
    *("dataloader_drop_last", "dataloader_persistent_workers", "ignore_data_skip", "resume_from_checkpoint"),
    *("accelerator_config", "parallelism_config", "length_column_name", "local_rank", "logging_strategy"),
    *("do_train", "do_eval", "do_predict", "hub_token", "hub_strategy", "hub_always_push", "hub_revision"),
)


def build_training_arguments(stage_dir: Path, args: Arguments) -> TrainingArguments:
    """Build the TrainingArguments of a stage. Raises InputError for options that the Trainer rejects."""
    run = args.trainer
    processes = PartialState().num_processes
    if run.batch_size % processes:
        raise InputError(
            f"--batch_size {run.batch_size} is not a multiple of the number of processes, {processes}: "
            f"give {processes * max(1, run.batch_size // processes)}"
        )
    if args.model.contrastive_weight > 0 and run.batch_size == processes:
        raise InputError(
            f"--contrastive_weight compares the utterances of a batch, and --batch_size {run.batch_size} gives each "
            "process one: give at least twice as many, or --contrastive_weight 0"
        )
    given = check_training_arguments(run.training_arguments)
    if run.tensorboard and "report_to" in given:
        raise InputError(
            f"--tensorboard and training_arguments: report_to={given['report_to']!r} conflict: remove --tensorboard "
            "and list all integrations in report_to"
        )
    try:
        built = TrainingArguments(
            output_dir=str(stage_dir / CHECKPOINTS),
            num_train_epochs=run.num_epochs,
            max_steps=run.max_steps,
            per_device_train_batch_size=run.batch_size // processes,
            per_device_eval_batch_size=run.eval_batch_size,
            gradient_accumulation_steps=run.gradient_accumulation_steps,
            learning_rate=run.learning_rate,
            weight_decay=run.weight_decay,
            warmup_steps=run.warmup_ratio,  # a value below 1 is a share of the updates
            lr_scheduler_type=run.lr_scheduler,
            max_grad_norm=run.max_grad_norm,
            seed=run.seed,
            bf16=run.bf16,
            activation_checkpointing=run.activation_checkpointing,
            use_cpu=run.use_cpu,
            dataloader_num_workers=run.num_workers,
            # With persistent workers the Trainer would score the validation set again in place of the watched test set.
            dataloader_persistent_workers=run.num_workers > 0 and not run.watch_test,
            logging_steps=run.logging_steps,
            **{**RECIPE, **choose_selection(args), **_find_defaults(args), **given},
        )
        # Otherwise, a missing package would be reported only when the Trainer is built.
        for callback in get_reporting_integration_callbacks(built.report_to):
            callback()
        Trainer.get_optimizer_cls_and_kwargs(built)
    except (ValueError, TypeError, KeyError, ImportError, RuntimeError, OSError, NotImplementedError) as error:
        raise InputError(f"the Trainer rejects these options: {' '.join(str(error).split())}") from error
    if built.fp16 and built.device.type == "cpu":  # the Trainer would silently train in float32
        raise InputError("training_arguments: fp16 has no effect on a CPU: remove it, or use --bf16")
    return built


def choose_selection(args: Arguments) -> dict[str, Any]:
    """What selects the checkpoint; never Clark or Canberra, which a uniform guess can win.

    With dimensions, it is the mean CCC, and a batch has two kinds of targets.
    """
    if learns_dimensions(args.data):
        return {"metric_for_best_model": "ccc", "label_names": list(TARGETS)}
    if args.data.targets == "labels":
        return {}
    return {"metric_for_best_model": "kl", "greater_is_better": False}


def check_training_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Check the values; return them with text such as `1e-8` converted to a number.

    Raises:
        InputError: TrainingArguments does not have a name, the recipe sets it itself, or a value has the wrong type.
    """
    hints = typing.get_type_hints(TrainingArguments)
    for name in given:
        if name in OUR_OPTIONS:
            raise InputError(f"training_arguments: '{name}' is set by --{OUR_OPTIONS[name]}: use that option")
        if name in RECIPE or name in BREAKING:
            raise InputError(f"training_arguments: '{name}' is set by the recipe and cannot be changed: remove it")
        if name not in hints:
            nearest = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise InputError(f"training_arguments: '{name}' is not one of transformers.TrainingArguments{hint}")
    # Rejected here: the library would keep a half-built DeepSpeed configuration in a global and break later models.
    if given.get("deepspeed") and find_spec("deepspeed") is None:
        raise InputError("training_arguments: deepspeed is not installed: pip install deepspeed, or remove it")
    return {name: _convert(name, value, hints[name]) for name, value in given.items()}


def _find_defaults(args: Arguments) -> dict[str, Any]:
    """Our defaults that differ from the library's; --training_arguments may override them."""
    return {
        "dataloader_pin_memory": not args.trainer.use_cpu and torch.cuda.is_available(),
        "report_to": ["tensorboard"] if args.trainer.tensorboard else [],
        # SpecAugment's mask vector has no gradient in a batch where nothing was masked.
        "ddp_find_unused_parameters": True,
    }


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Check a value against the type hint of its field; convert text such as `1e-8`, which PyYAML does not."""
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    members = [typing.get_origin(member) or member for member in (typing.get_args(hint) if is_union else (hint,))]
    if float in members and not isinstance(value, bool):
        try:
            return None if value is None and type(None) in members else float(value)
        except (ValueError, TypeError):
            raise InputError(f"training_arguments: {name}={value!r} is not a number") from None
    kinds = tuple(member for member in members if isinstance(member, type))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        valid = ", ".join(kind.__name__.replace("NoneType", "None") for kind in kinds)
        raise InputError(f"training_arguments: {name}={value!r} has the wrong type; valid types: {valid}")
    return value
