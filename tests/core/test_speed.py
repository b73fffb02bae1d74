"""core/speed.py: optimized models give the same scores."""

import re

import pytest
import torch
from conftest import TINY_ENCODERS, batch, tiny_model, utterances
from torch.nn.utils import parametrize

from core.errors import InputError
from core.loading import load_pipeline
from core.shipped import MINI_MODEL
from core.speed import PackedLinear, check_dtype, make_fast
from models.ship import generate_buzzes


@pytest.mark.parametrize("encoder", TINY_ENCODERS)
@torch.no_grad()
def test_a_fast_model_gives_the_same_answers(encoder):
    model = tiny_model(encoder, pooling="cls")
    inputs = batch(model, utterances(model, [0.7, 1.3]))
    expected = model(**inputs)
    make_fast(model, torch.float32)
    found = model(**inputs)
    for name in ("logits", "frame_logits", "frame_weights"):
        mask = expected.frame_mask if name != "logits" else ...
        assert torch.allclose(found[name][mask], expected[name][mask], atol=1e-6), name
    assert any(isinstance(module, PackedLinear) for module in model.modules())
    assert not any(parametrize.is_parametrized(module) for module in model.modules())


def test_bfloat16_is_refused_where_it_would_be_emulated(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False})
    with pytest.raises(InputError, match=re.escape("--dtype bfloat16 needs a processor with AVX-512 BF16 or AMX")):
        load_pipeline(str(MINI_MODEL), device="cpu", dtype="bfloat16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    check_dtype("bfloat16", torch.device("cpu"))


def test_bfloat16_answers_nearly_the_same(recognize, monkeypatch):
    """Emulated where it must be: slower, the same numbers."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    rough = load_pipeline(str(MINI_MODEL), device="cpu", dtype="bfloat16")
    for waveform in generate_buzzes().values():
        exact = {entry["label"]: entry["score"] for entry in recognize(waveform)}
        near = {entry["label"]: entry["score"] for entry in rough(waveform)}
        assert near == pytest.approx(exact, abs=0.02) and near != exact
