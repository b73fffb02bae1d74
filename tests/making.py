"""Rows and trainers that several tests need."""

import torch
from conftest import tiny_model, utterances
from datasets import Audio, ClassLabel, Dataset
from transformers import TrainingArguments

from recipe.batching import Collator
from recipe.data import split_rows
from recipe.options import DataArguments
from recipe.trainer import SERAlignTrainer

DURATIONS = [0.3, 0.6, 0.4, 0.5, 0.35, 0.45, 0.3, 0.55]


def rows(speakers, per_class=2, labels=("angry", "happy", "sad"), **columns):
    cells = [(s, i, n) for s in speakers for i in range(len(labels)) for n in range(per_class)]
    data = {
        "id": [f"{s}-{i}-{n}" for s, i, n in cells],
        "audio": [{"path": f"{s}-{i}-{n}.wav"} for s, i, n in cells],
        "speaker": [s for s, _, _ in cells],
        "gender": [("male", "female")[int(s) % 2] if s.isdigit() else "" for s, _, _ in cells],
        "label": [i for _, i, _ in cells],
        "duration": [float(n) for _, _, n in cells],
        **{name: [value(s) for s, _, _ in cells] for name, value in columns.items()},
    }
    return Dataset.from_dict(data).cast_column("label", ClassLabel(names=list(labels)))


NAMES = ["neutral", "happy", "excited", "sad", "no_agreement"]


def labelled_rows(labels, names=NAMES, speakers=None, folder="one", **columns):
    """Rows with these labels in turn."""
    number = len(labels)
    data = {
        "id": [f"u{i}" for i in range(number)],
        "audio": [f"{folder}/u{i}.wav" for i in range(number)],
        "label": [names.index(label) for label in labels],
        "speaker": speakers or [f"s{i % 4}" for i in range(number)],
        "gender": [("female", "male")[i % 2] for i in range(number)],
        "session": [""] * number,
        "duration": [1.0 + i for i in range(number)],
        **columns,
    }
    dataset = Dataset.from_dict(data).cast_column("audio", Audio(decode=False))
    return dataset.cast_column("label", ClassLabel(names=names))


def words(dataset):
    return [dataset.features["label"].names[index] for index in dataset["label"]]


def make_split(rows, corpus, fold=1, num_folds=5, seed=0, **options):
    """The split of a run with these options."""
    data = DataArguments(corpus=corpus, fold=fold, num_folds=num_folds, split_seed=seed, **options)
    return split_rows(data, rows)


def speakers_of(split):
    return {name: set(part["speaker"]) for name, part in split.items()}


def make_trainer(tmp_path, model=None, ema_decay=0.0, **arguments):
    model = tiny_model("wav2vec2-layer", eal_weight=0.3, fual_weight=0.7) if model is None else model
    for module in model.modules():  # no dropout: a loss can then be computed again
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    config = model.encoder.config
    config.apply_spec_augment = False
    for layer in model.encoder.encoder.layers:
        layer.attention.dropout = 0.0
    rows = [
        {"input_values": values, "labels": index % 3, "id": str(index)}
        for index, values in enumerate(utterances(model, DURATIONS))
    ]
    defaults = {"per_device_train_batch_size": 2, "logging_steps": 1, "report_to": [], "remove_unused_columns": False}
    defaults |= {
        "max_steps": 2,
        "logging_nan_inf_filter": False,
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    return SERAlignTrainer(
        model=model,
        args=TrainingArguments(output_dir=str(tmp_path), **{**defaults, **arguments}),
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=Collator("input_values"),
        durations=DURATIONS,
        bucket_batches=2,
        ema_decay=ema_decay,
        pooling_learning_rate=3e-3,
        classifier_learning_rate=4e-3,
        center_learning_rate=5e-3,
    )
