"""Loads a model from a folder or the Hub with this project's code; code in the model folder is never run."""

import os
from pathlib import Path

import torch
from transformers import (
    AutoFeatureExtractor,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    SequenceFeatureExtractor,
)
from transformers.utils import logging

from configuration_ser_align import SERAlignConfig
from core.errors import InputError
from core.model_files import AGAIN, EXTRACTOR, LOAD_ERRORS, explain_failure
from core.shipped import SHIPPED_MODELS, find_model
from core.speed import check_dtype, make_fast
from feature_extraction_ser_align import (
    SERAlignFeatureExtractor,
    SERAlignSeamlessExtractor,
    SERAlignSpectrogramExtractor,
    SERAlignWaveformExtractor,
    add_trimming,
)
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from whisper_features_ser_align import SERAlignWhisperFeatureExtractor

EXTRACTORS = (
    SERAlignFeatureExtractor,
    SERAlignWaveformExtractor,
    SERAlignSeamlessExtractor,
    SERAlignWhisperFeatureExtractor,
    SERAlignSpectrogramExtractor,
)


def load_feature_extractor(source: str, revision: str | None = None) -> SequenceFeatureExtractor:
    """Load the feature extractor of a model or of a pretrained encoder, as one that trims.

    Earlier releases kept `trim_db` and `bandwidth` in the model's configuration alone.

    Raises:
        OSError, ValueError: there is none, or it is of another kind.
    """
    settings, _ = SequenceFeatureExtractor.get_feature_extractor_dict(source, revision=revision)
    config, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    ours = {name: settings.get(name, config.get(name)) for name in ("trim_db", "bandwidth")}
    for kind in EXTRACTORS:
        if settings.get("feature_extractor_type") == kind.__name__:
            return kind(**{**settings, **ours})
    extractor = AutoFeatureExtractor.from_pretrained(source, revision=revision, trust_remote_code=False)
    return add_trimming(extractor, **ours)


def load_model(
    model: str, revision: str | None = None, option: str = "--model "
) -> tuple[SERAlignForAudioClassification, SequenceFeatureExtractor]:
    """Load a model in float32 for inference, and its feature extractor.

    Args:
        model: name of a shipped model, a folder written by train.py, or a name on the Hub.
        revision: commit, branch or tag on the Hub.
        option: the option that named it, for errors.

    Raises:
        InputError: there is no such model, it is of another kind, or its files are damaged.
    """
    model = find_model(model)
    is_hub_name = model.count("/") == 1 and not model.startswith((".", "/", "~"))
    if not is_hub_name and not (Path(model) / "config.json").is_file():
        raise InputError(
            f"{option}{model} is neither a shipped model ({', '.join(SHIPPED_MODELS)}), nor a folder with a "
            "config.json, nor a name on the Hub, such as owner/name"
        )
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        settings, _ = SERAlignConfig.get_config_dict(model, revision=revision)
        model_type = settings.get("model_type", "")
        if model_type != SERAlignConfig.model_type:
            raise InputError(
                f"{option}{model} has model_type {model_type!r}, not 'ser_align': use a model trained with train.py"
            )
        network, info = SERAlignForAudioClassification.from_pretrained(
            model, revision=revision, dtype=torch.float32, output_loading_info=True
        )
    except InputError:
        raise
    except LOAD_ERRORS as error:
        reason = explain_failure(model, error) or f"cannot be loaded: {' '.join(str(error).split())}"
        raise InputError(f"{option}{model} {reason}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise InputError(
            f"{option}{model} is missing {len(missing)} weights, for example {missing[0]}: copy or train it again"
        )
    return network.eval(), load_extractor(model, f"{option}{model}", revision)


def load_extractor(source: str, name: str, revision: str | None = None) -> SequenceFeatureExtractor:
    """The feature extractor of a model or an encoder.

    Args:
        source: folder, or name on the Hub.
        name: what errors call it.
        revision: commit, branch or tag on the Hub.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        return load_feature_extractor(source, revision)
    except LOAD_ERRORS as error:
        reason = explain_failure(source, error)
        if reason is None and os.path.isdir(source) and not os.path.isfile(os.path.join(source, EXTRACTOR)):
            reason = f"contains no {EXTRACTOR}: {AGAIN}"
        reason = reason or f"has no feature extractor: {' '.join(str(error).split())}"
        raise InputError(f"{name} {reason}") from error


def load_tokenizer(source: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model, or of a text encoder. Raises InputError."""
    try:
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except LOAD_ERRORS as error:
        reason = explain_failure(source, error) or f"has no tokenizer that can be read: {' '.join(str(error).split())}"
        raise InputError(f"{source} {reason}") from error


def make_feature_extractor(
    config: SERAlignConfig, source: str | None, trim_db: float | None
) -> SequenceFeatureExtractor:
    """The feature extractor of a pretrained encoder or stage 1, or a new one where there is none that fits.

    It trims, and always returns the attention mask, which padding-invariant batches need.
    """
    if source is None or not config.family.uses_published_extractor:
        return config.build_feature_extractor(trim_db)
    try:
        extractor = add_trimming(load_extractor(source, source), trim_db)
    except ValueError as error:
        raise InputError(f"{source}: {' '.join(str(error).split())}") from error
    extractor.return_attention_mask = True
    return extractor


def check_device(device: str | torch.device | None) -> None:
    """Raise InputError for a name that is no device, and for the meta device, which computes nothing."""
    try:
        if device is None or torch.device(device).type != "meta":
            return
    except RuntimeError:
        pass
    raise InputError(
        f"--device {device} is not a device that computes: valid are cpu, cuda, cuda:1, mps and xpu; leave it out for "
        "the fastest one available"
    )


def load_pipeline(
    model: str,
    revision: str | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    dtype: str = "float32",
) -> SpeechEmotionRecognitionPipeline:
    """Load the pipeline of a model and optimize it for speed; the model can no longer be trained or saved.

    Args:
        model, revision: as in `load_model`.
        device: None selects the fastest one available.
        batch_size: number of phrases scored together; None uses the pipeline's default.
        dtype: float32, or bfloat16 if the device supports it.

    Raises:
        InputError: as in `load_model`, or the device or dtype is not available.
    """
    check_device(device)
    network, extractor = load_model(model, revision)
    try:
        recognize = SpeechEmotionRecognitionPipeline(
            model=network,
            feature_extractor=extractor,
            tokenizer=load_tokenizer(model, revision) if network.config.reads_text else None,
            device=device,  # type: ignore[arg-type]
            batch_size=batch_size,
        )
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"--device {device} cannot be used: {' '.join(str(error).split())[:200]}") from error
    check_dtype(dtype, recognize.device)
    make_fast(network, getattr(torch, dtype))
    return recognize
