"""The two stages: which model each starts from, its feature extractor and its TrainingArguments."""

import difflib
from dataclasses import asdict, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    SequenceFeatureExtractor,
    TrainingArguments,
)

from configuration_ser_align import SERAlignConfig
from core.errors import InputError, warn
from feature_extraction_ser_align import SERAlignFeatureExtractor
from modeling_ser_align import SERAlignForAudioClassification
from recipe.arguments import Arguments, ModelArguments
from recipe.checkpoints import CHECKPOINTS

# So that a stage folder gives its own extractor back without running the code that lies beside it.
AutoFeatureExtractor.register(SERAlignConfig, SERAlignFeatureExtractor)

# Every field of SERAlignConfig that is an argument of its own.
CONFIG_FIELDS = {f.name for f in fields(ModelArguments)} - {"encoder", "encoder_config"}


def build_model(stage: int, args: Arguments, rows: Dataset) -> SERAlignForAudioClassification:
    """Stage 1: encoder and attentive pooling. Stage 2: the encoder of stage 1 under a new pooling and classifier.

    Raises:
        InputError: a configuration value out of range, or an encoder or stage-1 folder that cannot be loaded.
    """
    names = rows.features["label"].names
    model_fields = {name: value for name, value in asdict(args.model).items() if name in CONFIG_FIELDS}
    model_fields |= {"id2label": dict(enumerate(names)), "trim_db": args.data.trim_db}
    if stage == 1:
        model_fields["pooling"] = "attentive"
    try:
        model = _first_model(args, model_fields) if stage == 1 else _second_model(args, model_fields, names)
        if args.trainer.attn_implementation is not None:
            model.set_attn_implementation({"encoder_config": args.trainer.attn_implementation})
        check_weights(model, str(stage1_folder(args)) if stage == 2 else args.model.encoder)
    except InputError:
        raise
    except UnpicklingError:
        raise InputError(
            f"{args.model.encoder} holds more than weights, so it was not read: give an encoder with model.safetensors"
        ) from None
    except (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError, StrictDataclassError) as error:
        raise InputError(f"the model of stage {stage} cannot be built: {' '.join(str(error).split())}") from error
    return model


def check_weights(model: SERAlignForAudioClassification, source: str | None) -> None:
    """Raise InputError if a weight is not finite: it would make every loss so, and blame the utterances."""
    broken = [name for name, weight in model.state_dict().items() if not weight.isfinite().all()]
    if broken:
        raise InputError(
            f"{source or 'the new model'}: weights of {broken[0]} are not finite numbers ({len(broken)} such in all): "
            "train or download it again"
        )


def _first_model(args: Arguments, model_fields: dict[str, Any]) -> SERAlignForAudioClassification:
    _check_encoder_keys(args)
    if args.model.encoder is not None:
        return SERAlignForAudioClassification.from_pretrained_encoder(
            args.model.encoder, encoder_config=args.model.encoder_config, **model_fields
        )
    config = SERAlignConfig(encoder_config=args.model.encoder_config or None, **model_fields)
    return SERAlignForAudioClassification(config)


def _check_encoder_keys(args: Arguments) -> None:
    """The library keeps an unknown key of encoder_config in silence: a typo would leave the default in force."""
    given = args.model.encoder_config
    if args.model.encoder is not None:
        config = AutoConfig.from_pretrained(args.model.encoder, trust_remote_code=False)
    else:
        config = AutoConfig.for_model(given.get("model_type", "wav2vec2"))
    known = set(config.to_dict()) | set(config.attribute_map)
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise InputError(f"encoder_config: '{name}' is not a setting of {config.model_type}{hint}")


def _second_model(args: Arguments, model_fields: dict[str, Any], names: list[str]) -> SERAlignForAudioClassification:
    folder = stage1_folder(args)
    if not (folder / "config.json").is_file():
        raise InputError(f"stage 2 starts from {folder}, which holds no model: train --stage 1 first, or --init_from")
    first = SERAlignForAudioClassification.from_pretrained(
        folder, freeze_feature_encoder=args.model.freeze_feature_encoder
    )
    encoder_config = first.config.encoder_config
    for name, value in args.model.encoder_config.items():
        kept = getattr(encoder_config, name, None)
        if kept != value and kept != tuple(value if isinstance(value, list) else ()):
            raise InputError(
                f"stage 2 keeps the encoder of {folder}, where {name} is {kept!r}, not {value!r}: "
                "take that line out, or train stage 1 again"
            )
    model = SERAlignForAudioClassification(
        SERAlignConfig(encoder_config=encoder_config, **model_fields), encoder=first.encoder
    )
    known = list(first.config.id2label.values())
    differ = f"{folder} was trained on {', '.join(known)}, in this order, and the utterances have {', '.join(names)}"
    if args.trainer.init_classifier == "stage1":
        if known != names:
            raise InputError(f"--init_classifier stage1: {differ}: give --init_classifier new, or train stage 1 again")
        if model.classifier.weight.shape != first.classifier.weight.shape:
            raise InputError(f"--init_classifier stage1: the classifier of {folder} has another width")
        model.classifier.load_state_dict(first.classifier.state_dict())
    elif known != names and PartialState().is_main_process:
        warn(f"{differ}; only its encoder goes on")
    return model


def stage1_folder(args: Arguments) -> Path:
    return Path(args.trainer.init_from or Path(args.trainer.output_dir) / "stage1")


def feature_extractor_for(
    model: SERAlignForAudioClassification, stage: int, args: Arguments
) -> SequenceFeatureExtractor:
    """The feature extractor of the encoder; it always asks for the attention mask, which exact batches need."""
    source = str(stage1_folder(args)) if stage == 2 else args.model.encoder
    if source is not None:
        try:
            extractor = AutoFeatureExtractor.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InputError(f"{source} has no feature extractor: {' '.join(str(error).split())}") from error
    else:
        extractor = model.config.family.build_feature_extractor(model.config.encoder_config)
    extractor.return_attention_mask = True
    return extractor


def training_arguments(stage_dir: Path, args: Arguments) -> TrainingArguments:
    """TrainingArguments of one stage; what differs from the library's defaults is set here."""
    run = args.trainer
    if run.warmup_ratio >= 1:  # the Trainer would take it as a number of updates
        raise InputError(f"--warmup_ratio {run.warmup_ratio:g} is a share of the updates: give a number below 1")
    if run.averaging >= 1:  # the average would never move
        raise InputError(f"--averaging {run.averaging:g} is a decay: give a number below 1")
    processes = PartialState().num_processes
    if run.batch_size % processes:
        raise InputError(f"--batch_size {run.batch_size} is no multiple of the {processes} processes: give one")
    try:
        return TrainingArguments(
            output_dir=str(stage_dir / CHECKPOINTS),
            num_train_epochs=run.num_epochs,
            max_steps=run.max_steps,
            per_device_train_batch_size=run.batch_size // processes,
            per_device_eval_batch_size=run.eval_batch_size,
            gradient_accumulation_steps=run.gradient_accumulation_steps,
            learning_rate=run.learning_rate,
            weight_decay=run.weight_decay,
            warmup_steps=run.warmup_ratio,  # below 1 it is a share of the updates
            lr_scheduler_type=run.lr_scheduler,
            max_grad_norm=run.max_grad_norm,
            seed=run.seed,
            bf16=run.bf16,
            activation_checkpointing=run.activation_checkpointing,
            use_cpu=run.use_cpu,
            dataloader_num_workers=run.num_workers,
            dataloader_pin_memory=not run.use_cpu and torch.cuda.is_available(),
            # With persistent workers the Trainer would score the validation part again in place of the watched test
            # part.
            dataloader_persistent_workers=run.num_workers > 0 and not run.watch_test,
            logging_steps=run.logging_steps,
            report_to=["tensorboard"] if run.tensorboard else [],
            # The best checkpoint is that of the best validation UA; which ones stay is for recipe/checkpoints.py.
            eval_strategy="epoch",
            save_strategy="epoch",
            metric_for_best_model="ua",
            greater_is_better=True,
            logging_nan_inf_filter=False,  # the default logs a NaN loss as 0
            remove_unused_columns=False,  # rows are prepared when they are read
            label_names=["labels"],
            # SpecAugment's mask vector has no gradient in a batch where nothing was masked.
            ddp_find_unused_parameters=True,
        )
    except (ValueError, ImportError, RuntimeError) as error:  # such as bfloat16 on a device that has none
        raise InputError(f"these options cannot be trained with: {' '.join(str(error).split())}") from error
