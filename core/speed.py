"""Makes a model fast for inference. Its scores do not change, but it can no longer be trained or saved."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.errors import InputError

BFLOAT16_CPU = ("avx512_bf16", "amx_bf16", "bf16")  # instruction sets; the last one is Arm's


def check_dtype(dtype: str, device: torch.device) -> None:
    """Raise InputError if the device would emulate bfloat16, which is slower than float32."""
    if dtype != "bfloat16":
        return
    if device.type == "cuda":
        is_supported, needed = (
            torch.cuda.is_bf16_supported(including_emulation=False),
            "an NVIDIA GPU of the Ampere generation or newer",
        )
    else:
        is_supported = device.type == "mps" or any(torch.cpu.get_capabilities().get(name) for name in BFLOAT16_CPU)
        needed = "a processor with AVX-512 BF16 or AMX"
    if not is_supported:
        raise InputError(
            f"--dtype bfloat16 needs {needed}, but {device} does not support it: remove the option, or export the "
            "model with export_onnx.py --int8"
        )


class PackedLinear(nn.Module):
    """A linear layer whose weights are stored in oneDNN's own layout.

    nn.Linear uses MKL, which repacks the weights in every call. `torch.compile` uses these operators too.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")


def make_fast(model: nn.Module, dtype: torch.dtype) -> None:
    """Fold weight normalisation into the weights, convert, and pack the linear layers on a CPU; in place."""
    for module in model.modules():
        for name in list(getattr(module, "parametrizations", ())):
            parametrize.remove_parametrizations(module, name)
    model.to(dtype)
    if next(model.parameters()).device.type == "cpu" and can_pack(dtype):
        pack_linear(model)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether torch has the operators of [`PackedLinear`], and this processor runs them in the dtype."""
    has_operators = hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return has_operators and (dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_linear(module: nn.Module) -> None:
    """Replace the linear layers in a module with [`PackedLinear`]."""
    if type(module).__name__ == "WavLMAttention":  # reads the weights of its layers without calling them
        return
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        else:
            pack_linear(child)
