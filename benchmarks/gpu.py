"""Training and inference on one GPU, compared with transformers' own classifiers, in less than five minutes.

    python -m benchmarks.gpu

Encoders have the size of wav2vec2-base and whisper-base and random weights; clips are noise with durations as in
IEMOCAP, at most 30 s. The reference trains Wav2Vec2ForSequenceClassification on random batches padded to their longest
clip, or WhisperForAudioClassification, which pads every clip to 30 s, with the steps of Trainer: autocast, clipped
gradients, AdamW. Its inference is pipeline("audio-classification") at its default batch size of one. Ours is stage 2
with EAL and FUAL on bucket batches, from the cached output of the frozen convolutions for wav2vec2-base, and the
pipeline of predict.py. Both have their inputs in memory, and a training step includes their transfer to the GPU.

Each system runs alone, so that its peak memory is its own: one warm-up epoch, then --repetitions measured ones, each
between two synchronisations. Ratios are of medians, between systems of the same dtype; flash attention 2 is compared
with the reference in bfloat16, and left out where it is not installed.

Targets: training at least 2x, inference at least 4x the throughput of the reference. Writes docs/results/gpu.json and
prints the ratios last.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    PreTrainedConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    pipeline,
)
from transformers.utils import is_flash_attn_2_available
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.clips import clips
from configuration_ser_align import SERAlignConfig
from core.audio import SAMPLING_RATE
from core.errors import InputError
from core.json_files import write_json
from core.loading import load_pipeline
from core.shipped import ROOT
from core.speed import check_dtype
from modeling_ser_align import SERAlignForAudioClassification
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.batching import BucketSampler, Collator
from recipe.options import DataArguments
from recipe.results import library_versions

RESULT = ROOT / "docs" / "results" / "gpu.json"
TARGETS = {"training": 2.0, "inference": 4.0}
LABELS = dict(enumerate(("angry", "happy", "neutral", "sad")))
LONGEST = 30  # seconds; Whisper takes no more
ENCODERS: dict[str, PreTrainedConfig] = {
    "wav2vec2-base": Wav2Vec2Config(layerdrop=0.0, id2label=LABELS),
    "whisper-base": WhisperConfig(
        d_model=512,
        encoder_layers=6,
        encoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_layers=1,
        id2label=LABELS,
    ),
}
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """What is measured, and how often."""

    device: torch.device
    clips: int
    batch_size: int
    repetitions: int


def run_benchmark(encoders: dict[str, PreTrainedConfig], setting: Setting) -> dict[str, Any]:
    """Measure every system on every encoder: utterances per second, peak memory in MB, and ratios."""
    waveforms = [clip[: LONGEST * SAMPLING_RATE] for clip in clips(setting.clips)]
    result: dict[str, Any] = {}
    for name, config in encoders.items():
        training, inference = list_trainings(config, waveforms, setting), list_inferences(config, waveforms, setting)
        result[name] = {
            "training": measure_systems(f"{name}, training", training, setting),
            "inference": measure_systems(f"{name}, inference", inference, setting),
        }
    return result


def list_dtypes(device: torch.device) -> list[str]:
    try:
        check_dtype("bfloat16", device)
    except InputError as error:
        print(error)
        return ["float32"]
    return ["float32", "bfloat16"]


def list_trainings(
    config: PreTrainedConfig, waveforms: list[np.ndarray], setting: Setting
) -> dict[str, Callable[[], Callable[[], None]]]:
    """By name, functions that build a system and return a function that trains it for one epoch."""
    theirs, ours = make_reference_batches(config, waveforms, setting), make_our_batches(config, waveforms, setting)
    systems: dict[str, Callable[[], Callable[[], None]]] = {}
    for dtype in list_dtypes(setting.device):
        systems[f"reference {dtype}"] = partial(
            start_training, partial(build_reference, config), theirs, dtype, setting
        )
        systems[f"ours {dtype}"] = partial(start_training, partial(build_ours, config), ours, dtype, setting)
    if is_flash_attn_2_available():
        build = partial(build_ours, config, "flash_attention_2")
        systems["ours flash"] = partial(start_training, build, ours, "bfloat16", setting)
    return systems


def list_inferences(
    config: PreTrainedConfig, waveforms: list[np.ndarray], setting: Setting
) -> dict[str, Callable[[], Callable[[], None]]]:
    """By name, functions that load a pipeline and return a function that scores all clips once."""
    systems: dict[str, Callable[[], Callable[[], None]]] = {}
    for dtype in list_dtypes(setting.device):
        systems[f"reference {dtype}"] = partial(load_reference, config, waveforms, dtype, setting)
        systems[f"ours {dtype}"] = partial(load_ours, config, waveforms, dtype, setting)
    if is_flash_attn_2_available():
        systems["ours flash"] = partial(load_ours, config, waveforms, "bfloat16", setting, "flash_attention_2")
    return systems


# ------------------------------------------------------------------------------------------- measuring


def measure_systems(
    title: str, systems: dict[str, Callable[[], Callable[[], None]]], setting: Setting
) -> dict[str, Any]:
    """Measure the systems one after the other; the ratios are to the reference of the same dtype."""
    found: dict[str, Any] = {}
    for name, build in systems.items():
        try:
            found[name] = measure_system(build, setting)
        except (RuntimeError, ValueError, ImportError) as error:
            if name != "ours flash":
                raise
            found[name] = {"error": " ".join(str(error).split())}  # a kernel may not support this card or size
        print(f"{title}, {name}: {found[name]}", flush=True)
    rates = {name: of_one["utterances_per_second"] for name, of_one in found.items() if "error" not in of_one}
    references = {"ours float32": "reference float32", "ours bfloat16": "reference bfloat16"}
    references |= {"ours flash": "reference bfloat16"}
    ratios = {name: rates[name] / rates[reference] for name, reference in references.items() if name in rates}
    return {"systems": found, "ratio": ratios}


def measure_system(build: Callable[[], Callable[[], None]], setting: Setting) -> dict[str, Any]:
    """Median seconds of a run after one warm-up run, its throughput, and the peak memory in MB on a GPU."""
    is_gpu = setting.device.type == "cuda"
    gc.collect()
    if is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    run = build()
    seconds = [time_run(run, is_gpu) for _ in range(setting.repetitions + 1)][1:]
    peak = torch.cuda.max_memory_allocated() / 1e6 if is_gpu else None
    rate = setting.clips / median(seconds)
    return {"utterances_per_second": rate, "seconds": seconds, "peak_megabytes": peak}


def time_run(run: Callable[[], None], is_gpu: bool) -> float:
    if is_gpu:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if is_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start


# -------------------------------------------------------------------------------------------- training


def build_reference(config: Any) -> Any:
    torch.manual_seed(0)
    if config.model_type == "whisper":
        return WhisperForAudioClassification(config)
    model = Wav2Vec2ForSequenceClassification(config)
    model.freeze_feature_encoder()
    return model


def build_ours(config: PreTrainedConfig, attention: str | None = None) -> SERAlignForAudioClassification:
    """Stage 2 with the paper's losses."""
    torch.manual_seed(0)
    model = SERAlignForAudioClassification(SERAlignConfig(id2label=LABELS, encoder_config=config.to_dict()))
    if attention is not None:
        model.set_attn_implementation({"encoder_config": attention})
    return model


def make_reference_batches(config: PreTrainedConfig, waveforms: list[np.ndarray], setting: Setting) -> list[Batch]:
    """Random batches: waveforms padded to their longest and without a mask, or log-mel frames padded to 30 s."""
    extractor: Any = Wav2Vec2FeatureExtractor() if config.model_type == "wav2vec2" else WhisperFeatureExtractor()
    padding = {"padding": True} if config.model_type == "wav2vec2" else {}
    order = np.random.default_rng(0).permutation(len(waveforms))
    batches = []
    for start in range(0, len(order), setting.batch_size):
        part = order[start : start + setting.batch_size]
        inputs = extractor(
            [waveforms[index] for index in part], sampling_rate=SAMPLING_RATE, return_tensors="pt", **padding
        )
        batches.append({**inputs, "labels": torch.tensor([choose_label(index) for index in part])})
    return pin(batches, setting)


def make_our_batches(config: PreTrainedConfig, waveforms: list[np.ndarray], setting: Setting) -> list[Batch]:
    """Bucket batches of the cached output of the convolutions, or of log-mel frames for Whisper."""
    model = build_ours(config)
    model.to(setting.device)  # type: ignore[arg-type]
    extractor = model.config.build_feature_extractor()
    name = "extracted_features" if config.model_type == "wav2vec2" else model.main_input_name
    utterances = []
    for index, waveform in enumerate(waveforms):
        extracted = extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")
        values = extracted[model.main_input_name]
        if name == "extracted_features":
            values = model.extract_features(values.to(setting.device)).cpu()
        utterances.append({name: values[0], "labels": choose_label(index)})
    seconds = [len(waveform) / SAMPLING_RATE for waveform in waveforms]
    order = list(BucketSampler(seconds, setting.batch_size, DataArguments().bucket_batches, seed=0))
    parts = [order[start : start + setting.batch_size] for start in range(0, len(order), setting.batch_size)]
    return pin([Collator(name)([utterances[index] for index in part]) for part in parts], setting)


def choose_label(index: int) -> int:
    return int(index) % len(LABELS)


def pin(batches: list[Batch], setting: Setting) -> list[Batch]:
    """Put batches into page-locked memory, as a DataLoader does for a GPU."""
    if setting.device.type != "cuda":
        return batches
    return [{name: values.pin_memory() for name, values in batch.items()} for batch in batches]


def start_training(build: Callable[[], Any], batches: list[Batch], dtype: str, setting: Setting) -> Callable[[], None]:
    model = build().to(setting.device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)

    def train_epoch() -> None:
        for batch in batches:
            inputs = {name: values.to(setting.device, non_blocking=True) for name, values in batch.items()}
            with torch.autocast(setting.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = model(**inputs).loss
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return train_epoch


# ------------------------------------------------------------------------------------------- inference


def load_reference(
    config: PreTrainedConfig, waveforms: list[np.ndarray], dtype: str, setting: Setting
) -> Callable[[], None]:
    model = build_reference(config).to(getattr(torch, dtype)).eval()
    extractor: Any = Wav2Vec2FeatureExtractor() if config.model_type == "wav2vec2" else WhisperFeatureExtractor()
    recognize = pipeline(
        "audio-classification", model=model, feature_extractor=extractor, device=setting.device, top_k=None
    )
    return partial(score_clips, recognize, waveforms)


def load_ours(
    config: PreTrainedConfig, waveforms: list[np.ndarray], dtype: str, setting: Setting, attention: str | None = None
) -> Callable[[], None]:
    model = build_ours(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        extractor = model.config.build_feature_extractor()
        SpeechEmotionRecognitionPipeline(model=model, feature_extractor=extractor).save_pretrained(folder)
        recognize = load_pipeline(folder, device=setting.device, dtype=dtype)
    if attention is not None:
        recognize.model.set_attn_implementation({"encoder_config": attention})
    return partial(score_clips, recognize, waveforms)


def score_clips(recognize: Any, waveforms: list[np.ndarray]) -> None:
    """Score a generator of clips, which a pipeline reads one by one."""
    answers = list(recognize(waveform for waveform in waveforms))
    assert len(answers) == len(waveforms)


# ---------------------------------------------------------------------------------------------- report


def report_ratios(result: dict[str, Any]) -> list[str]:
    """One line for each ratio, with its target."""
    return [
        f"{name}, {what}, {system}: {ratio:.2f}x ({'reaches' if ratio >= TARGETS[what] else 'misses'} the target of "
        f"{TARGETS[what]:g}x)"
        for name, of_encoder in result.items()
        for what, measured in of_encoder.items()
        for system, ratio in measured["ratio"].items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=192)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        reason = "torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA GPU"
        print(f"error: {reason}; run this benchmark on a machine with an NVIDIA GPU", file=sys.stderr)
        raise SystemExit(2)
    set_verbosity_error()
    disable_progress_bar()
    result = run_benchmark(ENCODERS, Setting(torch.device("cuda"), **vars(given)))
    about = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "targets": TARGETS}
    write_json(RESULT, {**vars(given), **about, "encoders": result, "versions": library_versions()})
    print("\n".join(report_ratios(result)))


if __name__ == "__main__":
    main()
