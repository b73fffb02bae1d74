"""Measure every supported encoder, tiny and with random weights: exact in a batch, ONNX, and 16 bits.

    python -m studies.encoders

Writes docs/results/encoders.json, from which `python -m docs.build.make` builds docs/ENCODERS.md. The tests of the
encoders run the same measurements.
"""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configuration_ser_align import SERAlignConfig
from core.json_files import write_json
from modeling_ser_align import SERAlignForAudioClassification
from recipe.results import library_versions

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "encoders.json"
TINY = {"hidden_size": 32, "layerdrop": 0.0, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TINY_CONV = {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
# Every supported encoder; both kinds where the first convolution may be normalised over time ("group").
TINY_ENCODERS: dict[str, dict[str, Any]] = {
    **{
        f"{model_type}-{norm}": {"model_type": model_type, "feat_extract_norm": norm, **TINY, **TINY_CONV}
        for model_type in ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "wav2vec2-conformer")
        for norm in ("group", "layer")
    },
    "data2vec-audio": {
        "model_type": "data2vec-audio",
        **TINY,
        **TINY_CONV,
        "num_conv_pos_embeddings": 3,
        "conv_pos_kernel_size": 9,
    },
    "wav2vec2-bert": {"model_type": "wav2vec2-bert", **TINY},
    "whisper": {
        "model_type": "whisper",
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "num_mel_bins": 16,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 48,
        "vocab_size": 60,
        "pad_token_id": 50,
        "max_source_positions": 250,
    },
    "audio-spectrogram-transformer": {
        "model_type": "audio-spectrogram-transformer",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "num_mel_bins": 40,
        "max_length": 600,
    },
}

SECONDS = (0.31, 1.4, 0.05, 3.0)
LIMITS = {"batch": 1e-5, "onnx": 1e-4, "bfloat16": 0.05, "float16": 0.01}  # what the tests and the page accept


def build_tiny_model(settings: dict[str, Any], seed: int = 0, **fields: Any) -> SERAlignForAudioClassification:
    """Build a model whose biases and norms are not 0 and 1, so that a measurement sees whether they are used."""
    torch.manual_seed(seed)
    fields = {"id2label": {0: "angry", 1: "happy", 2: "sad"}, **fields}
    model = SERAlignForAudioClassification(SERAlignConfig(encoder_config=dict(settings), **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def measure_encoder(settings: dict[str, Any], with_onnx: bool = True) -> dict[str, float]:
    """Measure the largest differences of logits (batch, onnx) and of probabilities (16 bits)."""
    model = build_tiny_model(settings)
    extractor = model.config.build_feature_extractor()
    rng = np.random.default_rng(0)
    lengths = [max(int(16000 * seconds), model.config.shortest_samples) for seconds in SECONDS]
    waveforms = [(0.1 * rng.standard_normal(length)).astype(np.float32) for length in lengths]
    together = extractor(waveforms, sampling_rate=16000, padding=True, return_tensors="pt")
    with torch.no_grad():
        exact = model(**together).logits
        alone = [model(**extractor(each, sampling_rate=16000, return_tensors="pt")).logits for each in waveforms]
        found = {"batch": measure_largest(exact, torch.cat(alone))}
        if with_onnx:
            found["onnx"] = export_to_onnx(model)
        for dtype in (torch.bfloat16, torch.float16):
            model.to(dtype=dtype)  # type: ignore[call-arg]
            rough = model(**together).logits.float()
            found[str(dtype).removeprefix("torch.")] = measure_largest(rough.softmax(-1), exact.softmax(-1))
            model.to(dtype=torch.float32)  # type: ignore[call-arg]
            model.load_state_dict(build_tiny_model(settings).state_dict())
    return found


def measure_largest(found: Tensor, expected: Tensor) -> float:
    return (found - expected).abs().max().item()


def export_to_onnx(model: SERAlignForAudioClassification) -> float:
    from inference.onnx_export import export

    with tempfile.TemporaryDirectory() as folder:
        return export(model, model.config.build_feature_extractor(), Path(folder) / "model.onnx")


def main() -> None:
    logging.disable(logging.WARNING)  # of the exporter, about its own code
    rows: dict[str, dict[str, Any]] = {}
    for settings in TINY_ENCODERS.values():
        config = SERAlignConfig(encoder_config=dict(settings))
        row = {
            "input": "log-mel frames" if config.takes_log_mel else "waveform",
            "frame_seconds": config.frame_seconds,
        }
        measured = measure_encoder(settings)
        former = rows.get(settings["model_type"], {})
        worst = {name: max(value, former.get(name, 0.0)) for name, value in measured.items()}
        rows[settings["model_type"]] = {**row, **worst}
        print(settings["model_type"], worst)
    write_json(RESULTS, {"command": "python -m studies.encoders", "rows": rows, "versions": library_versions()})


if __name__ == "__main__":
    main()
