"""The two stages: the initial configuration and model of each, and its feature extractor."""

import copy
import difflib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from configuration_ser_align import SERAlignConfig
from core.errors import InputError, warn
from core.loading import make_feature_extractor
from core.model_files import LOAD_ERRORS, explain_failure, find_damage
from encoders_ser_align import read_pretrained_config
from fields_ser_align import SERAlignFields
from modeling_ser_align import SERAlignForAudioClassification
from recipe.class_weights import compute_class_weights
from recipe.dimensions import describe_targets
from recipe.lora import add_lora
from recipe.options import Arguments, ModelArguments
from recipe.teacher import read_teacher_size
from text_ser_align import load_text_encoder, read_text_config


def find_stage_folder(stage: int, args: Arguments) -> Path:
    return Path(args.trainer.output_dir) / f"stage{stage}"


def find_stage1_folder(args: Arguments) -> Path:
    """The folder of the stage 1 that stage 2 starts from."""
    return Path(args.trainer.init_from) if args.trainer.init_from else find_stage_folder(1, args)


def check_model(stage: int, args: Arguments, first: Arguments | None = None) -> None:
    """Raise InputError if the model of a stage cannot be built. Only configurations are read.

    Args:
        first: for stage 2, the options of the stage 1 that is still to be trained; None if it is already trained.
    """
    with name_refusals(stage, args):
        config = build_config(stage, args, first)
        with torch.device("meta"):
            model = SERAlignForAudioClassification(config)
            add_lora(model, args.model)
        set_attention(model, args)
    source = None if first is not None else find_source(stage, args)
    if source is not None and (damage := find_damage(Path(source)) if Path(source).is_dir() else None):
        raise InputError(f"{name_source(stage, args)} {damage}")
    if first is None:
        make_feature_extractor(config, source, args.data.trim_db)


def build_config(stage: int, args: Arguments, first: Arguments | None = None) -> SERAlignConfig:
    """The configuration of a stage, without its labels."""
    if stage == 1:
        return SERAlignConfig(
            encoder_config=read_encoder_config(args.model),
            text_encoder_config=read_text_encoder_config(args.model),
            **select_fields(stage, args),
            **describe_targets(args.data),
        )
    if first is not None:
        source, config = "stage 1", build_config(1, first)
    else:
        source, config = str(find_stage1_folder(args)), SERAlignConfig.from_pretrained(check_stage1_folder(args))
    check_same_encoder(config, args.model.encoder_config, source)
    chosen = select_fields(stage, args) | describe_targets(args.data)
    text_config = read_text_encoder_config(args.model)
    second = SERAlignConfig(encoder_config=config.encoder_config, text_encoder_config=text_config, **chosen)
    check_same_averaging(config, second, source)
    return second


def build_model(stage: int, args: Arguments, rows: Dataset) -> SERAlignForAudioClassification:
    """Stage 1: encoder and attentive pooling, or `stage1_pooling`. Stage 2: that encoder, a new pooling and classifier.

    Raises:
        InputError: a configuration value is out of range, or an encoder or stage-1 folder cannot be loaded.
    """
    names = rows.features["label"].names
    model_fields = select_fields(stage, args) | {
        **describe_targets(args.data, rows),
        "id2label": dict(enumerate(names)),
        "class_weights": compute_class_weights(args.model.class_weights, rows, args.data.corpus_temperature),
    }
    with name_refusals(stage, args):
        model = _first_model(args, model_fields) if stage == 1 else _second_model(args, model_fields, names)
        set_attention(model, args)
        check_weights(model, find_source(stage, args))
        add_lora(model, args.model)
    return model


@contextmanager
def name_refusals(stage: int, args: Arguments) -> Iterator[None]:
    """Turn any error of the libraries while this block builds a model into a one-line InputError."""
    try:
        yield
    except InputError:
        raise
    except UnpicklingError:
        raise InputError(
            f"{args.model.encoder} contains more than weights, so it was not loaded: choose an encoder with "
            "model.safetensors"
        ) from None
    except (*LOAD_ERRORS, StrictDataclassError) as error:
        source = find_source(stage, args)
        is_to_come = stage == 2 and source is not None and not Path(source).exists()  # stage 1 is still to be trained
        reason = None if source is None or is_to_come else explain_failure(source, error)
        if reason is not None:
            raise InputError(f"{name_source(stage, args)} {reason}") from error
        raise InputError(f"the model of stage {stage} cannot be built: {' '.join(str(error).split())}") from error


def select_fields(stage: int, args: Arguments) -> dict[str, Any]:
    """The SERAlignConfig fields of one stage that are set by options."""
    chosen = {field.name: getattr(args.model, field.name) for field in fields(SERAlignFields)}
    if stage == 1:
        chosen["pooling"] = args.model.stage1_pooling
    return {**chosen, "teacher_size": read_teacher_size(args)}


def set_attention(model: SERAlignForAudioClassification, args: Arguments) -> None:
    if args.trainer.attn_implementation is not None:
        model.set_attn_implementation({"encoder_config": args.trainer.attn_implementation})


def check_weights(model: SERAlignForAudioClassification, source: str | None) -> None:
    """Raise InputError if a weight is not finite; every loss would be, too, and the utterances would be blamed."""
    broken = [name for name, weight in model.state_dict().items() if not weight.isfinite().all()]
    if broken:
        raise InputError(
            f"{source or 'the new model'}: the weights {broken[0]} are not finite ({len(broken)} such tensors in "
            "total): train or download the model again"
        )


def read_encoder_config(model: ModelArguments) -> PreTrainedConfig | dict[str, Any] | None:
    """The encoder's configuration with the overrides of --encoder_config; None means the library's default.

    Raises:
        InputError: a setting is unknown; the library would silently ignore it.
    """
    given = model.encoder_config
    if model.encoder is None:
        config = AutoConfig.for_model(given.get("model_type", "wav2vec2"))
    else:
        config = _read_pretrained_config(model.encoder, "{}")
    known = set(config.to_dict()) | set(config.attribute_map)
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise InputError(f"encoder_config: '{name}' is not a setting of {config.model_type}{hint}")
    if model.encoder is None:
        return given or None
    return copy.deepcopy(_read_pretrained_config(model.encoder, json.dumps(given)))


def read_text_encoder_config(model: ModelArguments) -> PreTrainedConfig | None:
    """The configuration of --text_encoder. Raises InputError if it is no text encoder."""
    if model.text_encoder is None:
        return None
    try:
        return read_text_config(model.text_encoder)
    except LOAD_ERRORS as error:
        reason = explain_failure(model.text_encoder, error) or f"cannot be used: {' '.join(str(error).split())}"
        raise InputError(f"--text_encoder {model.text_encoder} {reason}") from error


@cache
def _read_pretrained_config(encoder: str, overrides: str) -> PreTrainedConfig:
    """Cached per process, since an experiment needs it before each of its runs."""
    settings, _ = PreTrainedConfig.get_config_dict(encoder)
    if settings.get("model_type") == SERAlignConfig.model_type:
        raise InputError(
            f"--encoder {encoder} is a whole SER-Align model: --stage 2 --init_from {encoder} trains a new pooling and "
            "classifier on its encoder"
        )
    return read_pretrained_config(encoder, settings, json.loads(overrides))


def _first_model(args: Arguments, model_fields: dict[str, Any]) -> SERAlignForAudioClassification:
    encoder_config = read_encoder_config(args.model)
    if args.model.encoder is not None:
        return SERAlignForAudioClassification.from_pretrained_encoder(
            args.model.encoder, args.model.encoder_config, args.model.text_encoder, **model_fields
        )
    config = SERAlignConfig(
        encoder_config=encoder_config, text_encoder_config=read_text_encoder_config(args.model), **model_fields
    )
    return SERAlignForAudioClassification(config, text_encoder=_load_text_encoder(args.model))


def _load_text_encoder(model: ModelArguments) -> PreTrainedModel | None:
    if model.text_encoder is None:
        return None
    return load_text_encoder(model.text_encoder, read_text_config(model.text_encoder))


def _second_model(args: Arguments, model_fields: dict[str, Any], names: list[str]) -> SERAlignForAudioClassification:
    folder = check_stage1_folder(args)
    first, info = SERAlignForAudioClassification.from_pretrained(
        folder,
        freeze_feature_encoder=args.model.freeze_feature_encoder,
        freeze_encoder_layers=args.model.freeze_encoder_layers,
        average_after=args.model.average_after,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        raise InputError(f"{folder} lacks {len(info['missing_keys'])} weights of its model: copy it or train it again")
    check_same_encoder(first.config, args.model.encoder_config, str(folder))
    text_config = read_text_encoder_config(args.model)
    config = SERAlignConfig(encoder_config=first.config.encoder_config, text_encoder_config=text_config, **model_fields)
    check_same_averaging(SERAlignConfig.from_pretrained(folder), config, str(folder))
    text_encoder = _load_text_encoder(args.model)
    if text_encoder is not None and first.text_encoder is not None:  # which stage 1 may have tuned
        try:
            text_encoder.load_state_dict(first.text_encoder.state_dict())
        except RuntimeError:
            raise InputError(f"{folder} has another text encoder: give the same --text_encoder") from None
    model = SERAlignForAudioClassification(config, encoder=first.encoder, text_encoder=text_encoder)
    if model.layer_mix is not None and first.layer_mix is not None:
        model.layer_mix.load_state_dict(first.layer_mix.state_dict())
    known = list(first.config.id2label.values())
    differ = f"{folder} was trained on {', '.join(known)}, in this order, but the labels here are {', '.join(names)}"
    if args.trainer.init_classifier == "stage1":
        if known != names:
            raise InputError(f"--init_classifier stage1: {differ}: use --init_classifier new, or train stage 1 again")
        try:
            for name in ("classifier", "dimension_head", "fusion"):
                module, trained = getattr(model, name), getattr(first, name)
                if module is not None and trained is not None:
                    module.load_state_dict(trained.state_dict())
        except RuntimeError:
            raise InputError(
                f"--init_classifier stage1: the classifier of {folder} has another width or hidden layer: use "
                "--init_classifier new"
            ) from None
    elif known != names and PartialState().is_main_process:
        warn(f"{differ}; stage 2 uses only its encoder")
    return model


def check_stage1_folder(args: Arguments) -> Path:
    """The folder that stage 2 starts from. Raises InputError if it contains no model."""
    folder = find_stage1_folder(args)
    if not (folder / "config.json").is_file():
        raise InputError(f"stage 2 starts from {folder}, which contains no model: train stage 1 or set --init_from")
    return folder


def check_same_encoder(stage1: SERAlignConfig, given: dict[str, Any], source: str) -> None:
    """Raise InputError if --encoder_config would change the encoder that stage 2 takes from stage 1."""
    for name, value in given.items():
        kept = getattr(stage1.encoder_config, name, None)
        if kept != value and kept != tuple(value if isinstance(value, list) else ()):
            raise InputError(
                f"stage 2 keeps the encoder of {source}, where {name} is {kept!r}, not {value!r}: "
                "remove that setting, or train stage 1 again"
            )


def check_same_averaging(stage1: SERAlignConfig, stage2: SERAlignConfig, source: str) -> None:
    """Raise InputError if stage 2 averages frames in another layer, whose successors were trained at another rate."""
    both_average = stage1.average_frames > 1 and stage2.average_frames > 1
    if both_average and stage1.averaging_layer != stage2.averaging_layer:
        raise InputError(
            f"stage 2 averages frames after layer {stage2.averaging_layer} of the encoder, but {source} was trained "
            f"with averages after layer {stage1.averaging_layer}: set --average_after {stage1.averaging_layer}"
        )


def name_source(stage: int, args: Arguments) -> str:
    """What errors call the source of a stage: with the option that gave it, if one did."""
    option = "--encoder " if stage == 1 else "--init_from " if args.trainer.init_from else ""
    return f"{option}{find_source(stage, args)}"


def find_source(stage: int, args: Arguments) -> str | None:
    """The Hub name or folder that a stage starts from: the pretrained encoder, if any, or stage 1."""
    return str(find_stage1_folder(args)) if stage == 2 else args.model.encoder
