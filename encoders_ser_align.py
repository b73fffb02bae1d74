"""Speech encoders of transformers, one adapter for each family.

An adapter knows which input its family takes, how many frames it outputs, how to load it, and how to run it: the
convolutions, what precedes the layers, the layers, and what follows them. It runs the encoder's modules one by one, so
that the lengths of a batch reach the modules that need them (exact_ser_align.py), the output of every layer can be
used, and training can start from the cached output of a fixed part.

Part of the model code on the Hugging Face Hub; requires only torch and transformers.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import logging

try:
    from .checks_ser_align import name_damaged_weights, refuse_attention_code, refuse_other_shapes
    from .log_mel_encoders_ser_align import LogMelFamily, WhisperFamily
    from .spectrogram_encoders_ser_align import SpectrogramFamily
    from .waveform_encoders_ser_align import ConformerFamily, Data2VecFamily, WaveformFamily, WavLMFamily
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from checks_ser_align import name_damaged_weights, refuse_attention_code, refuse_other_shapes
    from log_mel_encoders_ser_align import LogMelFamily, WhisperFamily
    from spectrogram_encoders_ser_align import SpectrogramFamily
    from waveform_encoders_ser_align import ConformerFamily, Data2VecFamily, WaveformFamily, WavLMFamily

Family: TypeAlias = WaveformFamily  # or a subclass
# By the model_type of the encoder's configuration.
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("wav2vec2", "hubert", "unispeech", "unispeech-sat"), WaveformFamily()),
    "wavlm": WavLMFamily(),
    "data2vec-audio": Data2VecFamily(),
    "wav2vec2-conformer": ConformerFamily(),
    "wav2vec2-bert": LogMelFamily(),
    "whisper": WhisperFamily(),
    "audio-spectrogram-transformer": SpectrogramFamily(),
}


# Encoders that one might expect here, and why they are not.
REFUSED = {
    "data2vec2": "transformers does not have data2vec 2.0; Data2Vec 1.0 is data2vec-audio",
    "sew": "it pools its frames before the layers and repeats them afterwards, so padding would change them",
    "sew-d": "it pools its frames before the layers and repeats them afterwards, so padding would change them",
}


def find_family(model_type: str) -> Family:
    """Find the adapter of an encoder. Raises ValueError if it is not supported; the message lists those that are."""
    if model_type not in FAMILIES:
        reason = f": {REFUSED[model_type]}" if model_type in REFUSED else ""
        names = ", ".join(FAMILIES)
        raise ValueError(f"encoder_config has model_type={model_type!r}, which is not one of {names}{reason}")
    return FAMILIES[model_type]


def read_pretrained_config(name_or_path: str, settings: dict[str, Any], overrides: dict[str, Any]) -> PreTrainedConfig:
    """Read the configuration of a pretrained encoder.

    Args:
        settings: the content of its config.json.
        overrides: values that replace its own.

    Raises:
        ValueError: the encoder is not supported, or it or its attention needs custom code.
    """
    if "auto_map" not in settings:  # otherwise the library says that it needs custom code
        find_family(settings.get("model_type", ""))
    try:
        config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False, **overrides)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(
            f"{name_or_path} needs custom code, which is never run here; an encoder is one of {', '.join(FAMILIES)}"
        ) from error
    refuse_attention_code({"attn_implementation": config._attn_implementation})
    # Old configurations contain this switch, which would enable checkpointing permanently; the Trainer controls it.
    vars(config).pop("gradient_checkpointing", None)
    return config


def load_encoder(name_or_path: str, config: PreTrainedConfig) -> Any:
    """Load a pretrained encoder in float32.

    Args:
        config: of the encoder, which may differ from the checkpoint's own, for instance in the number of layers.

    Raises:
        ValueError: weights of the encoder are missing or do not have the shapes that the configuration says.
        OSError: there is no such encoder, or a file of weights is damaged.
    """
    encoder, info = load_weights(find_family(config.model_type).load, name_or_path, config)
    # Some published checkpoints lack SpecAugment's mask vector, which is then newly initialised.
    missing = sorted(set(info["missing_keys"]) - {"masked_spec_embed"})
    if missing:
        raise ValueError(f"{name_or_path} is missing {len(missing)} encoder weights, for example {missing[0]}")
    return encoder


def load_weights(load: Callable[..., Any], name_or_path: str, config: PreTrainedConfig) -> tuple[Any, dict[str, Any]]:
    """Load a pretrained model in float32, without code from elsewhere; the caller checks which weights are missing.

    Args:
        load: takes the arguments of the library's `from_pretrained`, and returns the model and its loading info.

    Raises:
        ValueError: weights do not have the shapes that the configuration says.
        OSError: there is no such model, or a file of weights is damaged.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # ignore the unused heads of the checkpoint
    try:
        with name_damaged_weights():
            model, info = load(
                name_or_path,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                trust_remote_code=False,
                weights_only=True,  # published encoders may be pickles
            )
    finally:
        logging.set_verbosity(verbosity)
    refuse_other_shapes(info)
    return model, info
