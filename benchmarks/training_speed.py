"""Training throughput compared with transformers' own classifier and Trainer.

    python -m benchmarks.training_speed --clips 96 --repetitions 5

The reference is the usual alternative: Wav2Vec2ForSequenceClassification with a frozen feature encoder, trained by
Trainer on random batches padded to their longest clip. Ours is stage 2 with EAL and FUAL, trained by SERAlignTrainer.
Both have the same encoder size (wav2vec2-base, random weights), clips, threads, batch size and optimiser, and hold the
audio in memory. They take turns, one epoch each; the ratio is of medians. Writes docs/results/training_speed.json;
running the command again adds missing repetitions. Prints the ratio last.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.clips import MEDIAN, clips, durations
from benchmarks.measuring import matrix_peak, medians
from configuration_ser_align import SERAlignConfig
from core.audio import SAMPLING_RATE
from core.json_files import read_json, write_json
from modeling_ser_align import SERAlignForAudioClassification
from recipe.batching import BucketSampler, Collator
from recipe.options import DataArguments
from recipe.results import library_versions
from recipe.trainer import SERAlignTrainer

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "docs" / "results" / "training_speed.json"
LABELS = dict(enumerate(("angry", "happy", "neutral", "sad")))
FRAME = 0.02  # seconds
EPOCHS_FOR_ALL = 10  # over which the one pass through the convolutions is spread


def run_benchmark(count: int, repetitions: int, batch_size: int, bucket_batches: int) -> None:
    set_verbosity_error()
    disable_progress_bar()
    waveforms = clips(count)
    labels = [index % len(LABELS) for index in range(count)]
    systems: dict[str, Callable[[], Trainer]] = {}
    with tempfile.TemporaryDirectory() as folder:
        base = arguments(folder, batch_size)
        systems["reference"] = lambda: reference(waveforms, labels, base)
        normalized = [normalize(waveform) for waveform in waveforms]
        model = SERAlignForAudioClassification(SERAlignConfig(id2label=LABELS))
        start = time.perf_counter()
        features = [model.extract_features(values[None])[0] for values in normalized]
        once = time.perf_counter() - start
        systems["ours"] = lambda: ours(features, labels, base, bucket_batches)
        machine = {
            "gflop_per_second_of_audio": {
                "reference": count_gflop(systems["reference"](), torch.randn(1, int(MEDIAN * SAMPLING_RATE))),
                "ours": count_gflop(systems["ours"](), torch.randn(1, int(MEDIAN / FRAME), 512)),
            },
            "matrix_peak_gflops": matrix_peak() / 1e9,
        }
        setting = {"clips": count, "batch_size": batch_size, "bucket_batches": bucket_batches}
        seconds = read_earlier(setting) or {name: [] for name in systems}
        for repetition in range(len(seconds["ours"]) + 1, repetitions + 1):
            for name, make in systems.items():
                base.seed = base.data_seed = repetition
                seconds[name].append(epoch_seconds(make()))
                print(f"{repetition}: {name:10} {count / seconds[name][-1]:7.3f} utterances/s", flush=True)
            result = {**setting, **summarize(seconds, setting, once), **machine, "versions": library_versions()}
            write_json(RESULT, result)  # after each repetition, so that an interrupted run is not lost
    print(f"ratio {result['ratio']:.2f}, with the one pass through the convolutions spread over ten epochs "
          f"{result['ratio_with_convolutions_over_10_epochs']:.2f}")  # fmt: skip


def read_earlier(setting: dict[str, int]) -> dict[str, list[float]] | None:
    """Read the epoch times of an earlier run with the same settings and versions, or None; this run extends them."""
    if not RESULT.is_file():
        return None
    before = read_json(RESULT)
    same = {**setting, "threads": torch.get_num_threads(), "versions": library_versions()}
    return before["epoch_seconds"] if all(before.get(name) == value for name, value in same.items()) else None


def summarize(seconds: dict[str, list[float]], setting: dict[str, int], once: float) -> dict[str, Any]:
    middle = medians(seconds)
    repetitions = len(seconds["ours"])
    return {
        "seconds_of_audio": float(durations(setting["clips"]).sum()),
        "repetitions": repetitions,
        "threads": torch.get_num_threads(),
        "utterances_per_second": {name: setting["clips"] / value for name, value in middle.items()},
        "epoch_seconds": seconds,
        "padded_audio": {
            "reference": measure_padding(setting["clips"], setting["batch_size"], 1, repetitions),
            "ours": measure_padding(**setting, epochs=repetitions),
        },
        "convolutions_once_seconds": once,
        "ratio": middle["reference"] / middle["ours"],
        "ratio_with_convolutions_over_10_epochs": middle["reference"] / (middle["ours"] + once / EPOCHS_FOR_ALL),
    }


def arguments(folder: str, batch_size: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=1,
        per_device_train_batch_size=batch_size,
        learning_rate=1e-5,
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
    )


def normalize(waveform: np.ndarray) -> Tensor:
    extractor = Wav2Vec2FeatureExtractor()
    return torch.from_numpy(np.asarray(extractor(waveform, sampling_rate=SAMPLING_RATE)["input_values"][0]))


def reference(waveforms: list[np.ndarray], labels: list[int], base: TrainingArguments) -> Trainer:
    """Collate like the library's audio-classification example: raw audio, padded by the feature extractor, no mask."""
    torch.manual_seed(0)
    model = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(id2label=LABELS, layerdrop=0.0))
    model.freeze_feature_encoder()
    extractor = Wav2Vec2FeatureExtractor()

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = extractor(
            [waveforms[row["index"]] for row in rows], sampling_rate=SAMPLING_RATE, padding=True, return_tensors="pt"
        )
        return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}

    return Trainer(model=model, args=base, train_dataset=make_dataset(labels), data_collator=collate)


def ours(
    inputs: list[Tensor],
    labels: list[int],
    base: TrainingArguments,
    bucket_batches: int,
    encoder_config: dict[str, float] | None = None,
) -> SERAlignTrainer:
    torch.manual_seed(0)
    config = SERAlignConfig(id2label=LABELS, encoder_config={"layerdrop": 0.0, **(encoder_config or {})})
    return make_trainer(
        SERAlignForAudioClassification(config), inputs, labels, durations(len(labels)).tolist(), base, bucket_batches
    )


def make_trainer(
    model: SERAlignForAudioClassification,
    inputs: list[Tensor],
    labels: list[int],
    seconds: list[float],
    base: TrainingArguments,
    bucket_batches: int,
) -> SERAlignTrainer:
    """The trainer of one epoch over inputs in memory: waveforms (samples,), or features (frames, features)."""
    name = "input_values" if inputs[0].ndim == 1 else "extracted_features"
    collator = Collator(name)
    return SERAlignTrainer(
        model=model,
        args=base,
        train_dataset=make_dataset(labels),
        data_collator=lambda rows: collator([{name: inputs[row["index"]], "labels": row["labels"]} for row in rows]),
        durations=seconds,
        bucket_batches=bucket_batches,
        ema_decay=0.0,
        pooling_learning_rate=1e-4,
        classifier_learning_rate=1e-4,
        center_learning_rate=5e-3,
    )


def measure_padding(clips: int, batch_size: int, bucket_batches: int, epochs: int) -> float:
    """Compute the ratio of padded to original audio, averaged over epochs."""
    seconds = durations(clips)
    padded = 0.0
    for epoch in range(epochs):
        sampler = BucketSampler(seconds.tolist(), batch_size, bucket_batches, epoch)
        order = np.array(list(sampler))
        batches = [order[start : start + batch_size] for start in range(0, clips, batch_size)]
        padded += sum(len(batch) * seconds[batch].max() for batch in batches)
    return float(padded / epochs / seconds.sum())


def count_gflop(trainer: Trainer, inputs: Tensor) -> float:
    """Count GFLOP per second of audio: matrix products and convolutions of a training step, forward and backward."""
    device = trainer.args.device
    with FlopCounterMode(display=False) as counter:
        name = "input_values" if inputs.ndim == 2 else "extracted_features"
        trainer.model.train()(**{name: inputs.to(device)}, labels=torch.tensor([0], device=device)).loss.backward()
    return counter.get_total_flops() / MEDIAN / 1e9


def make_dataset(labels: list[int]) -> Dataset:
    indices = list(range(len(labels)))
    return Dataset.from_dict({"index": indices, "id": [str(index) for index in indices], "labels": labels})


def epoch_seconds(trainer: Trainer) -> float:
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--bucket_batches", type=int, default=DataArguments().bucket_batches)
    given = parser.parse_args()
    run_benchmark(given.clips, given.repetitions, given.batch_size, given.bucket_batches)


if __name__ == "__main__":
    main()
