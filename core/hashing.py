"""Digests of what computed features depend on: the bytes of a recording, and the frozen part of an encoder."""

import hashlib

from torch import Tensor

from modeling_ser_align import SERAlignForAudioClassification

# Settings that change no output, and differ between a pretrained encoder and a stage folder.
NO_SETTINGS = ("_name_or_path", "architectures", "dtype", "transformers_version")


def hash_content(path: str) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_frozen_part(model: SERAlignForAudioClassification) -> str:
    """SHA-256 of all that the output of the frozen part depends on, except the utterance."""
    config = model.config
    settings = {name: value for name, value in config.encoder_config.to_dict().items() if name not in NO_SETTINGS}
    averaging = (config.average_frames, config.averaging_layer)
    fixed = (config.freeze_encoder_layers, *averaging, config.extracts_all_layers, config.log_mel_layer_norm)
    how = (*fixed, sorted(settings.items()))
    digest = hashlib.sha256(repr(how).encode())
    for name, weight in sorted(collect_fixed_weights(model).items()):
        digest.update(name.encode() + weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def collect_fixed_weights(model: SERAlignForAudioClassification) -> dict[str, Tensor]:
    """Collect the weights that `extract_features` uses, by names that are their own."""
    fixed, trained = model.config.family.list_convolutions(model.encoder), []
    if model.config.freeze_encoder_layers > 0:
        fixed, trained = [model.encoder], model.list_trained_parts()
    skipped = {id(weight) for module in trained for weight in (*module.parameters(), *module.buffers())}
    return {
        f"{index}.{name}": weight
        for index, module in enumerate(fixed)
        for name, weight in (*module.named_parameters(), *module.named_buffers())
        if id(weight) not in skipped
    }
