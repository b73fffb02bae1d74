"""LoRA adapters (Hu et al. 2022) on the layers of the encoder, by peft.

A checkpoint of an unfinished run holds the adapters, so that training resumes; what is scored and published has them
merged into the weights, so it needs no peft.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from configuration_ser_align import SERAlignConfig
from core.errors import InputError
from modeling_ser_align import SERAlignForAudioClassification
from recipe.options import ModelArguments

REQUIREMENTS = "requirements-lora.txt"


def add_lora(model: SERAlignForAudioClassification, args: ModelArguments) -> None:
    """Freeze the encoder and add adapters to its layers that are not frozen anyway, in place.

    Does nothing if the rank is 0.

    Raises:
        InputError: peft is not installed, or the layers have no linear layer of a given name.
    """
    if args.lora_rank == 0:
        return
    if find_spec("peft") is None:
        raise InputError(f"--lora_rank needs peft, which is not installed: pip install -r {REQUIREMENTS}")
    from peft import LoraConfig, inject_adapter_in_model

    targets = find_targets(model, args.lora_targets)
    alpha: Any = args.lora_alpha  # a whole number to peft, though it only divides it
    settings = LoraConfig(r=args.lora_rank, lora_alpha=alpha, target_modules=targets)
    inject_adapter_in_model(settings, model.encoder)


def find_targets(model: SERAlignForAudioClassification, given: list[str]) -> list[str]:
    """List the linear layers that get adapters, by their full names in the encoder. Raises InputError."""
    family, config = model.config.family, model.config
    trained = family.list_layers(model.encoder)[config.freeze_encoder_layers :]
    linear = {id(part) for layer in trained for part in layer.modules() if isinstance(part, nn.Linear)}
    names = [name for name, part in model.encoder.named_modules() if id(part) in linear]
    # Some attention layers use the weights of their linear layers without calling them.
    valid = {name.rpartition(".")[2] for name in names} - set(family.never_called)
    wanted = set(given or family.lora_targets)
    if not wanted <= valid:
        raise InputError(
            f"--lora_targets {' '.join(sorted(wanted - valid))}: the {len(trained)} trained layers of this "
            f"{config.encoder_config.model_type} encoder have {', '.join(sorted(valid)) or 'no linear layer'}"
        )
    return [name for name in names if name.rpartition(".")[2] in wanted]


def merge_lora(model: nn.Module) -> None:
    """Merge all adapters into the weights and remove them, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                child.merge(safe_merge=True)  # type: ignore[operator]
                setattr(parent, name, child.get_base_layer())


def load_merged(folder: Path, args: ModelArguments) -> SERAlignForAudioClassification:
    """Load the model of a checkpoint, with its adapters, if any, merged."""
    if args.lora_rank == 0:
        return SERAlignForAudioClassification.from_pretrained(folder)
    model = SERAlignForAudioClassification(SERAlignConfig.from_pretrained(folder))
    add_lora(model, args)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    merge_lora(model)
    return model.eval()
