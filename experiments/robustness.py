"""Tests saved models on their own test speakers, as recorded and degraded, and writes a report."""

import argparse
import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets
from tqdm.auto import tqdm

from core.audio import AUDIO_SUFFIXES, Excerpt, read_audio
from core.classical import FILE as CLASSIFIER
from core.classical import load_classical_pipeline
from core.errors import InputError
from core.hashing import hash_content
from core.json_files import read_json, read_lines, write_json, write_lines
from core.loading import load_pipeline
from core.model_files import CONFIG, is_classical
from core.shipped import find_model
from experiments.conditions import Condition, RobustnessTest, read_robustness_test
from experiments.robustness_report import build_rows, compare_systems, write_report
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.arguments import convert
from recipe.babble import Voices
from recipe.broken import check_audio, keep_usable
from recipe.corpora.rows import read_excerpts
from recipe.data import read_selected_rows, split_rows
from recipe.degradations import mix_voices
from recipe.feature_cache import StoredFeatures
from recipe.options import DataArguments
from recipe.records import use_current_names
from recipe.run import quiet_libraries
from recording_ser_align import SAMPLING_RATE
from speech_ser_align import TRIM_DB

NUM_VOICES = 6  # of babble
FILES = ("model.safetensors", "config.json", "preprocessor_config.json")  # that answers depend on
CLASSICAL_FILES = (CLASSIFIER, CONFIG)
NOISE_SNRS = (20, 10, 5, 0)  # dB


def run_robustness_test(config: str, models: list[str], options: list[str]) -> Path:
    """Test models; return the path of report.md.

    Args:
        config: a YAML file as `read_robustness_test` takes it.
        models: folders that train.py or baseline.py wrote, with results.json.
        options: of the command line, see `parse_options`.

    Raises:
        InputError: a file, a model or a corpus cannot be read, or a model's test speakers cannot be found again.
    """
    quiet_libraries()
    given, test = parse_options(options), read_robustness_test(config)
    noises, test = read_noises(given.noise, test)
    names = name_models(models, given.pool_folds)
    splits = read_splits(names, given)  # refuse before anything is scored
    output = Path(given.output_dir or test.output_dir)
    (output / "conditions").mkdir(parents=True, exist_ok=True)
    hashes = {folder: hash_files(folder) for folder in names}
    tested = []
    for split, folders in group_by_rows(splits):
        device = "cpu" if given.use_cpu else None
        recognizers = {folder: load_recognizer(folder, device, output / "features") for folder in folders}
        lines = predict_conditions(recognizers, test, split, noises, output / "conditions", hashes)
        tested += [{"model": names[folder], **line} for folder, own in lines.items() for line in own]
    order = {name: number for number, name in enumerate(dict.fromkeys(names.values()))}
    tested.sort(key=lambda line: order[line["model"]])
    write_lines(output / "predictions.jsonl", tested)
    conditions = [condition.name for condition in test.conditions]
    words = [*models, *(["--pool_folds"] if given.pool_folds else []), "--data_dir CORPORA"]
    words += ["--noise NOISES"] if given.noise else []
    content = {
        "title": test.title,
        "command": f"python experiment.py --config {test.path.as_posix()} --model {' '.join(words)}",
        "models": describe_models(names, splits, hashes),
        "rows": build_rows(tested, conditions),
        "comparisons": compare_systems(tested, conditions),
    }
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
    parser.add_argument("--noise", nargs="+", default=[], help="audio files of noise, or folders of them")
    parser.add_argument(
        "--pool_folds", action="store_true", help="pool the test speakers of folders with the same name: folds"
    )
    parser.add_argument("--use_cpu", action="store_true", help="test on the CPU even if there is a GPU")
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        raise InputError(
            f"{unknown[0]} is not an option of a robustness test; valid are --data_dir, --data_dirs, --output_dir, "
            "--noise, --pool_folds and --use_cpu"
        )
    given.data_dirs = convert("data_dirs", given.data_dirs, "--data_dirs")
    return given


def read_noises(paths: list[str], test: RobustnessTest) -> tuple[dict[str, np.ndarray], RobustnessTest]:
    """Read noise from files and folders; a test without a condition for it gets one for each of `NOISE_SNRS`.

    Returns:
        (samples,) by the hash of each file; and the test.

    Raises:
        InputError: a condition needs noise and there is none, or a path has no audio files or a silent one.
    """
    if not paths and test.has_noise:
        raise InputError(f"{test.path} adds noise from files: give audio files or folders of them with --noise")
    noises = {}
    for path in paths:
        files = [path] if Path(path).is_file() else sorted(map(str, find_audio(path)))
        if not files:
            raise InputError(f"--noise {path} contains no audio files: give audio files, or folders that contain some")
        for file in files:
            noise = read_audio(file)
            if not noise.any():
                raise InputError(f"--noise {file} is silent: remove it")
            noises[hash_content(file)] = noise
    if noises and not test.has_noise:
        own = tuple(Condition(f"own noise, {snr} dB", {"noise": snr}) for snr in NOISE_SNRS)
        test = replace(test, conditions=(*test.conditions, *own))
    return noises, test


def find_audio(folder: str) -> list[Path]:
    return [path for path in Path(folder).rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file()]


def name_models(models: list[str], pool_folds: bool = False) -> dict[str, str]:
    """The short name of each model's folder: that of the folder, or its whole path if two are alike.

    Args:
        pool_folds: whether models of one name are folds of one system, and keep it; a stage has the name of its run.
    """
    models = [find_model(model) for model in models]
    for model in models:
        if not (Path(model) / "results.json").is_file():
            raise InputError(
                f"--model {model} has no results.json, which names its test speakers: give a folder that train.py or "
                "baseline.py wrote, or a complete download of one"
            )
    folders = [Path(model).resolve() for model in models]
    if pool_folds:
        return {
            model: (folder.parent if folder.name.startswith("stage") else folder).name
            for model, folder in zip(models, folders)
        }
    short = [folder.name for folder in folders]
    names = [model if short.count(name) > 1 or name.startswith("stage") else name for model, name in zip(models, short)]
    return dict(zip(models, names))


def hash_files(folder: str) -> dict[str, str]:
    """The hash of each file that the answers of a model depend on; the first one has its weights."""
    files = CLASSICAL_FILES if is_classical(folder) else FILES
    return {file: hash_content(f"{folder}/{file}") for file in files}


def load_recognizer(folder: str, device: str | None, features: Path) -> SpeechEmotionRecognitionPipeline:
    """Load the pipeline of a model; a classical one keeps the features of what it hears in a folder."""
    if not is_classical(folder):
        return load_pipeline(folder, device=device)
    recognize = load_classical_pipeline(folder, device)
    recognize.features = StoredFeatures(recognize.features, features)
    return recognize


# --------------------------------------------------------------------------------------------- test speakers


def read_splits(names: dict[str, str], given: argparse.Namespace) -> dict[str, DatasetDict]:
    """The split of each model's folder, as `read_split` returns it; models with the same data share one."""
    known: dict[str, DatasetDict] = {}
    splits = {}
    for folder in names:
        results = read_json(Path(folder) / "results.json")
        key = json.dumps([asdict(find_corpora(results, given)), results["speakers"]["test"]])
        known[key] = known.get(key) or read_split(folder, given)
        splits[folder] = known[key]
    return splits


def group_by_rows(splits: dict[str, DatasetDict]) -> list[tuple[DatasetDict, list[str]]]:
    """The models that are tested on the same recordings with the same voices as babble and with the same labels."""
    groups: dict[str, tuple[DatasetDict, list[str]]] = {}
    for folder, split in splits.items():
        recordings = [read_excerpts(split[part][:]) for part in ("validation", "test")]
        test = split["test"]
        key = json.dumps([recordings, test["id"][:], test["label"][:], test.features["label"].names])
        groups.setdefault(key, (split, []))[1].append(folder)
    return list(groups.values())


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
    """Of each system: name, corpus, hash of the weights of its first fold, and numbers of test speakers, utterances,
    labels and folds."""
    described = []
    for name in dict.fromkeys(names.values()):
        folders = [folder for folder, own in names.items() if own == name]
        tests = [splits[folder]["test"] for folder in folders]
        results = read_json(Path(folders[0]) / "results.json")
        speakers = {speaker for test in tests for speaker in test["speaker"]}
        described.append(
            {"name": name, "corpus": results["corpus"], "weights": next(iter(hashes[folders[0]].values()))}
            | {"speakers": len(speakers), "utterances": sum(map(len, tests)), "labels": len(results["labels"])}
            | {"folds": len(folders)}
        )
    return described


# --------------------------------------------------------------------------------------------------- scoring


def predict_conditions(
    recognizers: dict[str, SpeechEmotionRecognitionPipeline],
    test: RobustnessTest,
    split: DatasetDict,
    noises: dict[str, np.ndarray],
    finished: Path,
    hashes: dict[str, dict[str, str]],
) -> dict[str, list[dict[str, Any]]]:
    """Predict every test utterance in every condition; models that are tested together share the degraded recordings.

    Args:
        recognizers: by folder.
        noises: by the hash of their file.
        finished: folder of a file for each finished condition, which an interrupted test continues from.
        hashes: of the files of each folder.

    Returns:
        For each folder, a line per condition and utterance: what a user of the pipeline would be told. A recording in
        which no speech is found has no `prediction`.
    """
    rows = split["test"]
    lines: dict[str, list[dict[str, Any]]] = {folder: [] for folder in recognizers}
    unheard = concatenate_datasets([split["validation"], rows])
    voices = Voices(read_excerpts(unheard[:]), unheard["speaker"][:])
    waveforms = {excerpt: read_audio(excerpt) for excerpt in read_excerpts(rows[:])}
    for condition in tqdm(test.conditions, desc="conditions", leave=False):
        recordings: list[np.ndarray] = []
        for folder, recognize in recognizers.items():
            part = finished / f"{hash_condition(condition, test, unheard, noises, recognize, hashes[folder])}.jsonl"
            if not part.exists():
                recordings = recordings or [
                    condition.apply(waveform, test.seed, partial(make_babble, voices, excerpt), list(noises.values()))
                    for excerpt, waveform in waveforms.items()
                ]
                write_lines(part, list(predict(recognize, recordings, rows)))
            lines[folder] += [{"condition": condition.name, **line} for line in read_lines(part)]
    return lines


def hash_condition(
    condition: Condition,
    test: RobustnessTest,
    unheard: Dataset,
    noises: dict[str, np.ndarray],
    recognize: SpeechEmotionRecognitionPipeline,
    model: dict[str, str],
) -> str:
    """The name of what a model, given by the hashes of its files, answers in a condition."""
    used = [list(noises)] if "noise" in condition.steps else []
    asked = [list(model.values()), test.seed, condition.steps, unheard["id"][:], recognize.model.device.type, *used]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def predict(
    recognize: SpeechEmotionRecognitionPipeline, recordings: list[np.ndarray], rows: Dataset
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
