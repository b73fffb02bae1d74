"""Pickled models: torch cannot pickle the weight norm of the encoders, so a model is rebuilt from its weights.

Part of the model code on the Hugging Face Hub; requires only torch.
"""

from typing import Any

import torch
from torch import Tensor


def rebuild(cls: type, config: Any, weights: dict[str, Tensor], trained: list[str], training: bool) -> Any:
    """Rebuild a pickled model.

    Args:
        trained: names of the weights that require a gradient.
        training: whether the model is in training mode.
    """
    with torch.random.fork_rng():  # its initial weights are replaced, so they must not advance the random state
        model = cls(config)
    model.load_state_dict(weights, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return model.train(training)
