"""Training throughput with a pretrained Whisper encoder whose lower half is fixed, beside transformers' own classifier.

    python -m benchmarks.shipped_training --data_dir CORPORA --clips 96 --repetitions 5

CORPORA contains the folders ravdess, emodb and nemo, whose utterances, evenly spaced, are the clips. The reference is
WhisperForAudioClassification, trained by Trainer on log-mel features of 30 seconds, as its feature extractor pads them.
Ours is stage 2 with EAL and FUAL, trained by SERAlignTrainer on what the fixed layers give. Both inputs are computed
beforehand. Both have the encoder of the shipped base model, of which the convolutions and two of four layers are fixed,
and the same batch size, optimiser and threads. They take turns, one epoch each; the ratio is of medians. Writes
docs/results/shipped_training.json and prints the ratio last.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments, WhisperFeatureExtractor, WhisperForAudioClassification
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.measuring import in_turn, medians
from benchmarks.shipped_speed import BASE_MODEL, CORPORA, ROOT
from benchmarks.training_speed import EPOCHS_FOR_ALL, arguments, epoch_seconds, make_dataset, make_trainer
from core.audio import SAMPLING_RATE, read_audio
from core.errors import InputError
from core.json_files import write_json
from core.loading import load_model
from recipe.corpora import load_corpus
from recipe.corpora.rows import read_excerpts
from recipe.results import library_versions
from recipe.trainer import SERAlignTrainer

RESULT = ROOT / "docs" / "results" / "shipped_training.json"
FIXED_LAYERS, BUCKET_BATCHES = 2, 4


def run_benchmark(data_dir: Path, count: int, repetitions: int, batch_size: int) -> None:
    set_verbosity_error()
    disable_progress_bar()
    waveforms = read_speech(data_dir, count)
    model, extractor = load_model(str(BASE_MODEL))
    model.config.freeze_encoder_layers = FIXED_LAYERS
    extract: Any = extractor
    inputs = [extract(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt") for waveform in waveforms]
    start = time.perf_counter()
    with torch.no_grad():
        features = [model.extract_features(each["input_features"])[0] for each in inputs]
    once = time.perf_counter() - start
    padded = WhisperFeatureExtractor()(waveforms, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_features"]
    seconds_of_audio = sum(map(len, waveforms)) / SAMPLING_RATE
    with tempfile.TemporaryDirectory() as folder:
        base = arguments(folder, batch_size)
        systems = {
            "reference": lambda: epoch_seconds(make_reference(padded, base)),
            "ours": lambda: epoch_seconds(make_ours(features, [len(each) for each in waveforms], base)),
        }
        seconds = in_turn(systems, repetitions)
    middle = medians(seconds)
    result = {
        "clips": count,
        "batch_size": batch_size,
        "seconds_of_audio": seconds_of_audio,
        "repetitions": repetitions,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "utterances_per_second": {name: count / value for name, value in middle.items()},
        "fixed_half_once_seconds": once,
        "ratio": middle["reference"] / middle["ours"],
        "ratio_with_fixed_half_over_10_epochs": middle["reference"] / (middle["ours"] + once / EPOCHS_FOR_ALL),
        "versions": library_versions(),
    }
    write_json(RESULT, result)
    print(f"ratio {result['ratio']:.2f}, with the fixed half {result['ratio_with_fixed_half_over_10_epochs']:.2f}")


def read_speech(data_dir: Path, count: int) -> list[np.ndarray]:
    """Utterances of the three corpora, in equal numbers, (samples,) at 16 kHz."""
    waveforms = []
    for corpus in CORPORA:
        rows = load_corpus(corpus, str(data_dir / corpus))
        chosen = np.linspace(0, len(rows) - 1, -(-count // len(CORPORA))).astype(int)
        waveforms += [read_audio(excerpt) for excerpt in read_excerpts(rows.select(chosen)[:])]
    return waveforms[:count]


def make_reference(padded: Tensor, base: TrainingArguments) -> Trainer:
    torch.manual_seed(0)
    ours, _ = load_model(str(BASE_MODEL))
    model = WhisperForAudioClassification(ours.config.encoder_config)
    model.encoder.load_state_dict(ours.encoder.state_dict(), strict=False)
    encoder = model.encoder
    for part in (encoder.conv1, encoder.conv2, encoder.embed_positions, *encoder.layers[:FIXED_LAYERS]):
        part.requires_grad_(False)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        labels = torch.tensor([row["labels"] for row in rows])
        return {"input_features": padded[[row["index"] for row in rows]], "labels": labels}

    return Trainer(model=model, args=base, train_dataset=make_dataset(make_labels(len(padded))), data_collator=collate)


def make_ours(features: list[Tensor], lengths: list[int], base: TrainingArguments) -> SERAlignTrainer:
    torch.manual_seed(0)
    model, _ = load_model(str(BASE_MODEL))
    model.config.freeze_encoder_layers = FIXED_LAYERS
    model.requires_grad_(True).freeze()
    seconds = [length / SAMPLING_RATE for length in lengths]
    return make_trainer(model, features, make_labels(len(features)), seconds, base, BUCKET_BATCHES)


def make_labels(count: int) -> list[int]:
    return [index % 2 for index in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, metavar="CORPORA")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=8)
    given = parser.parse_args()
    try:
        run_benchmark(given.data_dir, given.clips, given.repetitions, given.batch_size)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
