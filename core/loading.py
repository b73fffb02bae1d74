"""A model from a folder or the Hub, run by this project's code: nothing that lies beside the weights is executed."""

from pathlib import Path

import torch
from transformers import AutoFeatureExtractor, SequenceFeatureExtractor
from transformers.utils import logging

from configuration_ser_align import SERAlignConfig
from core.errors import InputError
from core.speed import check_dtype, make_fast
from feature_extraction_ser_align import SERAlignFeatureExtractor
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline

AutoFeatureExtractor.register(SERAlignConfig, SERAlignFeatureExtractor, exist_ok=True)


def load_model(
    model: str, revision: str | None = None
) -> tuple[SERAlignForAudioClassification, SequenceFeatureExtractor]:
    """A model in float32, for inference, and its feature extractor.

    Args:
        model: folder that train.py left, or name on the Hub.
        revision: commit, branch or tag on the Hub.

    Raises:
        InputError: no such model, or one of another kind.
    """
    is_hub_name = model.count("/") == 1 and not model.startswith((".", "/", "~"))
    if not is_hub_name and not (Path(model) / "config.json").is_file():
        raise InputError(f"--model {model}: neither a folder with a config.json nor a name on the Hub, owner/name")
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        described, _ = SERAlignConfig.get_config_dict(model, revision=revision)
        model_type = described.get("model_type", "")
        if model_type != SERAlignConfig.model_type:
            raise InputError(f"--model {model} is of type {model_type!r}: give one that train.py wrote (ser_align)")
        loaded, info = SERAlignForAudioClassification.from_pretrained(
            model, revision=revision, dtype=torch.float32, output_loading_info=True
        )
        extractor = AutoFeatureExtractor.from_pretrained(model, revision=revision, trust_remote_code=False)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise InputError(f"--model {model} cannot be loaded: {' '.join(str(error).split())}") from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise InputError(f"--model {model} lacks {len(missing)} weights, among them {missing[0]}: train it again")
    return loaded.eval(), extractor


def load_pipeline(
    model: str,
    revision: str | None = None,
    device: str | torch.device | None = None,
    batch_size: int | None = None,
    dtype: str = "float32",
) -> SpeechEmotionRecognitionPipeline:
    """The pipeline of a model, made fast: it can no longer be trained or saved.

    Args:
        model, revision: as for `load_model`.
        device: None is the best there is.
        batch_size: phrases at once; None is the pipeline's own choice.
        dtype: float32, or bfloat16 where the device multiplies in it.

    Raises:
        InputError: as `load_model`, or a device or dtype that is not there.
    """
    loaded, extractor = load_model(model, revision)
    try:
        recognize = SpeechEmotionRecognitionPipeline(
            model=loaded,
            feature_extractor=extractor,
            device=device,  # type: ignore[arg-type]
            batch_size=batch_size,
        )
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"--device {device} cannot be used: {' '.join(str(error).split())[:200]}") from error
    check_dtype(dtype, recognize.device)
    make_fast(loaded, getattr(torch, dtype))
    return recognize
