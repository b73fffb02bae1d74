"""What the model refuses, and why: settings, what a call is given, files of weights, and code from the Hub.

Part of the model code on the Hugging Face Hub; requires only torch and safetensors, which transformers brings.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor


def check_distillation(config: Any) -> None:
    """Raise ValueError if frames are to be compared with those of a teacher and cannot be."""
    if config.frame_distillation_weight == 0:
        return
    if config.teacher_size is None:
        raise ValueError(
            f"frame_distillation_weight={config.frame_distillation_weight:g} compares the frames with those of a "
            "teacher: name it with --teacher, or set teacher_size to the number of features of its frames"
        )
    if config.patchout_frames > 0:
        raise ValueError(
            "patchout_frames drops frames, which frame_distillation_weight compares with those of the teacher: set one "
            "of them to 0"
        )


def check_inputs(name: str, inputs: Any, width: int | None) -> None:
    """Raise ValueError unless a feature extractor can have made these.

    Args:
        name: `input_values` or `input_features`.
        inputs: floats, (batch, samples) or (batch, frames, width).
        width: number of features of a frame; None for waveforms.
    """
    if not (isinstance(inputs, Tensor) and inputs.is_floating_point()):
        given = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ValueError(
            f"{name} is {given}, not a tensor of floats: create it with the model's feature extractor and "
            "return_tensors='pt', and call model(**inputs)"
        )
    if width is None and inputs.ndim != 2:
        advice = ": average the channels" if inputs.ndim == 3 else ", one channel"
        raise ValueError(f"{name} has the shape {list(inputs.shape)}; expected (batch, samples){advice}")
    if width is not None and (inputs.ndim != 3 or inputs.shape[2] != width):
        raise ValueError(
            f"{name} has the shape {list(inputs.shape)}; expected (batch, frames, {width}): create it with the model's "
            "own feature extractor, as config.build_feature_extractor() gives it"
        )


def check_mask(mask: Tensor, inputs: Tensor) -> None:
    """Raise ValueError unless a mask is (batch, positions of the inputs), 1 on the utterance and 0 to its right."""
    if torch.compiler.is_compiling():
        return
    if mask.is_meta:
        raise ValueError("attention_mask is on the meta device and has no values: leave it out to compute shapes")
    if mask.shape != inputs.shape[:2]:
        raise ValueError(
            f"attention_mask has the shape {list(mask.shape)}, but the input begins with {list(inputs.shape[:2])}: "
            "give the mask that the feature extractor made of the same batch"
        )
    if bool(((mask != 0) & (mask != 1)).any()):
        raise ValueError("attention_mask must be 1 on the utterance and 0 on the padding")
    if bool((mask[:, :1] < mask).any()):  # of an utterance that has no 1 at all, the length says enough
        raise ValueError("attention_mask is 0 at the first position: pad on the right (padding_side='right')")
    if bool((mask[:, 1:] > mask[:, :-1]).any()):
        raise ValueError("attention_mask is 1 again after a 0: padding is only to the right of an utterance")


def refuse_hidden_outputs(config: Any) -> None:
    """Raise ValueError for outputs that other models return and this one does not."""
    for name in ("output_hidden_states", "output_attentions"):
        if getattr(config, name, False):
            raise ValueError(
                f"config.{name}=True is not supported: set it to False, and call model.encode(...) for the last hidden "
                "states, or read frame_weights in the output for the attention of the pooling"
            )


def check_labels(labels: Any, batch: int, classes: int) -> Tensor:
    """Labels as cross-entropy takes them: (batch,) class indices, or (batch, classes) distributions.

    Raises:
        ValueError: they are neither.
    """
    valid = f"expected {batch} class indices from 0 to {classes - 1}, or distributions, ({batch}, {classes})"
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels is {type(labels).__name__}, not a tensor; {valid}")
    if labels.shape not in ((batch,), (batch, classes)):
        raise ValueError(f"labels has the shape {list(labels.shape)}; {valid}")
    if labels.ndim == 1 and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise ValueError(f"labels is {labels.dtype}; {valid}")
    labels = labels.long() if labels.ndim == 1 else labels.float()
    if torch.compiler.is_compiling() or labels.is_meta:
        return labels
    if labels.ndim == 1 and bool(((labels < 0) | (labels >= classes)).any()):
        raise ValueError(f"labels contains {labels.tolist()}; {valid}")
    if labels.ndim == 2 and not bool((labels >= 0).all() & ((labels.sum(dim=1) - 1).abs() < 1e-2).all()):
        raise ValueError(f"labels contains a row that does not add up to 1; {valid}")
    return labels


def check_targets(targets: Any, batch: int, dimensions: int) -> Tensor:
    """True dimensions as the losses take them, (batch, dimensions), float32. Raises ValueError if they are not that."""
    valid = f"this model learns dimensions: give their values, ({batch}, {dimensions}), on their own scales"
    if not isinstance(targets, Tensor) or targets.shape != (batch, dimensions):
        given = (
            f"has the shape {list(targets.shape)}" if isinstance(targets, Tensor) else f"is {type(targets).__name__}"
        )
        raise ValueError(f"dimensions {given}; {valid}")
    targets = targets.float()
    if not torch.compiler.is_compiling() and not targets.is_meta and not bool(targets.isfinite().all()):
        raise ValueError(f"dimensions contains a value that is not finite; {valid}")
    return targets


@contextmanager
def name_damaged_weights() -> Iterator[None]:
    """Raise OSError that says what to do where the reader of a damaged file says "header too large"."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(
            f"a .safetensors file of this model is empty, incomplete or a Git LFS pointer ({error}): run git lfs pull "
            "where it was cloned, or download it again"
        ) from error


def refuse_other_shapes(info: dict[str, Any]) -> None:
    """Raise ValueError if weights of a checkpoint did not fit; `info` is what the library says of loading it."""
    mismatched = sorted(info["mismatched_keys"])
    if not mismatched:
        return
    name, stored, expected = mismatched[0]
    advice = "its config.json or its weights are those of another model; download both again"
    if all("classifier." in key or key.endswith("objective.centers") for key, *_ in mismatched):
        advice = "pass ignore_mismatched_sizes=True to start with a new classifier"
    raise ValueError(
        f"{len(mismatched)} weights do not fit the configuration, among them {name}, which has the shape "
        f"{list(stored)} in the file and {list(expected)} in the model: {advice}"
    )


def refuse_attention_code(config_dict: dict[str, Any]) -> None:
    """Reject an attention implementation named owner/name, which transformers would download and run."""
    for name, value in config_dict.items():
        if "attn_implementation" in name and "/" in str(value):
            raise ValueError(
                f"{name}={value!r} refers to code on the Hub, which is never run: remove it from config.json"
            )
