"""Tests saved models on their own test speakers, as recorded and degraded, and writes a report."""

import argparse
import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets
from tqdm.auto import tqdm

from core.audio import Excerpt, read_audio
from core.errors import InputError
from core.hashing import hash_content
from core.json_files import read_json, read_lines, write_json, write_lines
from core.loading import load_pipeline
from core.shipped import find_model
from experiments.conditions import RobustnessTest, read_robustness_test
from experiments.robustness_report import build_rows, write_report
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.arguments import convert
from recipe.babble import Voices
from recipe.broken import check_audio, keep_usable
from recipe.corpora.rows import read_excerpts
from recipe.data import read_selected_rows, split_rows
from recipe.degradations import mix_voices
from recipe.options import DataArguments
from recipe.records import use_current_names
from recipe.run import quiet_libraries
from recording_ser_align import SAMPLING_RATE
from speech_ser_align import TRIM_DB

NUM_VOICES = 6  # of babble
FILES = ("model.safetensors", "config.json", "preprocessor_config.json")  # that answers depend on


def run_robustness_test(config: str, models: list[str], options: list[str]) -> Path:
    """Test models; return the path of report.md.

    Args:
        config: a YAML file as `read_robustness_test` takes it.
        models: folders that train.py wrote, with results.json.
        options: of the command line, see `parse_options`.

    Raises:
        InputError: a file, a model or a corpus cannot be read, or a model's test speakers cannot be found again.
    """
    quiet_libraries()
    given, test = parse_options(options), read_robustness_test(config)
    names = name_models(models)
    splits = {name: read_split(folder, given) for name, folder in names.items()}  # refuse before anything is scored
    tested, output = [], Path(given.output_dir or test.output_dir)
    finished = output / "conditions"
    finished.mkdir(parents=True, exist_ok=True)
    hashes = {name: {file: hash_content(f"{folder}/{file}") for file in FILES} for name, folder in names.items()}
    for name, folder in names.items():
        recognize = load_pipeline(folder, device="cpu" if given.use_cpu else None)
        lines = predict_conditions(recognize, test, splits[name], finished, list(hashes[name].values()))
        tested += [{"model": name, **line} for line in lines]
    write_lines(output / "predictions.jsonl", tested)
    rows = build_rows(tested, [condition.name for condition in test.conditions])
    command = f"python experiment.py --config {test.path.as_posix()} --model {' '.join(models)} --data_dir CORPORA"
    content = {"title": test.title, "command": command, "models": describe_models(names, splits, hashes), "rows": rows}
    write_json(output / "robustness.json", content)
    return write_report(output, content)


def parse_options(argv: list[str]) -> argparse.Namespace:
    """Parse what a robustness test takes beside --config and --model."""
    parser = argparse.ArgumentParser(
        usage="experiment.py --config FILE --model FOLDER ... [options]", allow_abbrev=False
    )
    parser.add_argument("--data_dir", help="directory of the corpus, or the one that holds the corpora by name")
    parser.add_argument("--data_dirs", default="{}", help="directory of each corpus, as JSON")
    parser.add_argument("--output_dir", help="folder of the report; by default that of the YAML file")
    parser.add_argument("--use_cpu", action="store_true", help="test on the CPU even if there is a GPU")
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        raise InputError(
            f"{unknown[0]} is not an option of a robustness test; valid are --data_dir, --data_dirs, --output_dir and "
            "--use_cpu"
        )
    given.data_dirs = convert("data_dirs", given.data_dirs, "--data_dirs")
    return given


def name_models(models: list[str]) -> dict[str, str]:
    """The folder of each model by a short name: that of the folder, or its whole path if two are alike."""
    models = [find_model(model) for model in models]
    short = [Path(model).resolve().name for model in models]
    names = [model if short.count(name) > 1 or name.startswith("stage") else name for model, name in zip(models, short)]
    for model in models:
        if not (Path(model) / "results.json").is_file():
            raise InputError(
                f"--model {model} has no results.json, which names its test speakers: give a folder that train.py "
                "wrote, or a complete download of one"
            )
    return dict(zip(names, models))


# --------------------------------------------------------------------------------------------- test speakers


def read_split(folder: str, given: argparse.Namespace) -> DatasetDict:
    """Split the corpora of a model as it was trained, and check that its test speakers are the same again."""
    results = read_json(Path(folder) / "results.json")
    data = find_corpora(results, given)
    split = split_rows(data, read_selected_rows(data))
    expected, found = set(results["speakers"]["test"]), set(split["test"]["speaker"])
    if expected != found:
        raise InputError(
            f"{folder} was tested on {len(expected)} speakers, but the same split has {len(found)} here, "
            f"{len(expected & found)} of them the same: give the corpora that it was trained on with --data_dirs"
        )
    split["test"], _ = keep_usable(split["test"], check_audio(split["test"]), data.max_broken_share)
    return split


def find_corpora(results: dict[str, Any], given: argparse.Namespace) -> DataArguments:
    """The data options of a finished run, with the directories of this machine."""
    recorded, known = use_current_names(results["arguments"]), {field.name for field in fields(DataArguments)}
    data = DataArguments(**{name: value for name, value in recorded.items() if name in known})
    if data.corpora:
        return replace(data, data_dir=given.data_dir, data_dirs=given.data_dirs)
    tested = data.test_corpus and find_directory(data.test_corpus, given)
    return replace(data, data_dir=find_directory(data.corpus, given), test_data_dir=tested)


def find_directory(corpus: str, given: argparse.Namespace) -> str | None:
    """The directory of one corpus: that of --data_dirs, or --data_dir itself, or the folder of its name there."""
    if corpus in given.data_dirs or given.data_dir is None:
        return given.data_dirs.get(corpus)
    inside = Path(given.data_dir) / corpus
    return str(inside if inside.is_dir() else given.data_dir)


def describe_models(
    names: dict[str, str], splits: dict[str, DatasetDict], hashes: dict[str, dict[str, str]]
) -> list[dict[str, Any]]:
    """Of each model: name, corpus, hash of the weights, and numbers of test speakers, utterances and labels."""
    described = []
    for name, folder in names.items():
        results, test = read_json(Path(folder) / "results.json"), splits[name]["test"]
        described.append(
            {"name": name, "corpus": results["corpus"], "weights": hashes[name]["model.safetensors"]}
            | {"speakers": len(set(test["speaker"])), "utterances": len(test), "labels": len(results["labels"])}
        )
    return described


# --------------------------------------------------------------------------------------------------- scoring


def predict_conditions(
    recognize: SpeechEmotionRecognitionPipeline,
    test: RobustnessTest,
    split: DatasetDict,
    finished: Path,
    model: list[str],
) -> list[dict[str, Any]]:
    """Predict every test utterance in every condition.

    Args:
        finished: folder of a file for each finished condition, which an interrupted test continues from.
        model: hashes of its files.

    Returns:
        A line per condition and utterance: what a user of the pipeline would be told. A recording in which no speech
        is found has no `prediction`.
    """
    rows, lines = split["test"], []
    unheard = concatenate_datasets([split["validation"], rows])
    voices = Voices(read_excerpts(unheard[:]), unheard["speaker"][:])
    waveforms = {excerpt: read_audio(excerpt) for excerpt in read_excerpts(rows[:])}
    for condition in tqdm(test.conditions, desc="conditions", leave=False):
        asked = json.dumps([model, test.seed, condition.steps, unheard["id"][:], recognize.model.device.type])
        part = finished / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.jsonl"
        if not part.exists():
            recordings = (
                condition.apply(waveform, test.seed, partial(make_babble, voices, excerpt))
                for excerpt, waveform in waveforms.items()
            )
            write_lines(part, list(predict(recognize, recordings, rows)))
        lines += [{"condition": condition.name, **line} for line in read_lines(part)]
    return lines


def predict(
    recognize: SpeechEmotionRecognitionPipeline, recordings: Iterator[np.ndarray], rows: Dataset
) -> Iterator[dict[str, Any]]:
    """Yield a line per recording, the waveform (samples,) of a row."""
    names = rows.features["label"].names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a recording is noisy is what is tested
        inputs = ({"array": waveform, "sampling_rate": SAMPLING_RATE} for waveform in recordings)
        answers = list(recognize(inputs, on_error="return"))
    for row, answer in zip(rows, answers, strict=True):
        scores = {} if isinstance(answer, Exception) else {each["label"]: each["score"] for each in answer}
        yield {
            "id": row["id"],
            "speaker": row["speaker"],
            **({"corpus": row["corpus"]} if "corpus" in row else {}),
            "label": names[row["label"]],
            "prediction": max(scores, key=scores.__getitem__, default=None),
            "probabilities": scores,
        }


def make_babble(voices: Voices, excerpt: Excerpt, length: int, rng: np.random.Generator) -> np.ndarray:
    """Make babble of speakers whom the model has not heard in training, other than that of an utterance."""
    others = [read_audio(other, TRIM_DB) for other in voices.draw(excerpt, NUM_VOICES, rng)]
    return mix_voices(others, length, rng)
