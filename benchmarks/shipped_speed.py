"""Speed of the shipped base model from files to scores, on real speech, beside transformers' Whisper classifier.

    python -m benchmarks.shipped_speed --data_dir CORPORA --files 200 --repetitions 5

CORPORA contains the folders ravdess, emodb and nemo. The files are utterances of the model's test speakers, stored as
WAV, FLAC, OGG and MP3 with several sampling rates. The reference is pipeline("audio-classification") with
WhisperForAudioClassification at its defaults: one file at a time, padded to 30 seconds. It has the shipped
encoder and the same number of threads. Ours are the pipeline of predict.py in float32 and bfloat16, and the exported
ONNX file with 32-bit and 8-bit weights, one utterance at a time. All test utterances are scored in each mode, too.
Writes docs/results/shipped_speed.json and prints the ratios last.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import soundfile
import soxr
import torch
from datasets import Dataset
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score
from transformers import WhisperFeatureExtractor, WhisperForAudioClassification, pipeline
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from benchmarks.inference_speed import FORMATS, index_by_label, list_fast_dtypes, predict_all, read_for_reference
from benchmarks.measuring import in_turn, medians
from core.audio import SAMPLING_RATE, read_audio
from core.errors import InputError
from core.json_files import read_json, read_lines, write_json
from core.loading import load_model, load_pipeline
from core.shipped import ROOT, SHIPPED_MODELS
from inference.onnx_export import export, pad_utterances
from inference.onnx_int8 import quantize
from recipe.corpora import load_corpus
from recipe.corpora.rows import read_excerpts
from recipe.results import library_versions

BASE_MODEL = SHIPPED_MODELS["base"]
RESULT = ROOT / "docs" / "results" / "shipped_speed.json"
CORPORA = "ravdess", "emodb", "nemo"
Predict = Callable[[list[str]], list[dict[str, float]]]  # files to probabilities by label


def run_benchmark(data_dir: Path, count: int, repetitions: int) -> None:
    set_verbosity_error()
    disable_progress_bar()
    recordings, truth = zip(*read_test_utterances(data_dir))
    chosen = np.linspace(0, len(recordings) - 1, count).astype(int)
    with tempfile.TemporaryDirectory() as folder:
        files = [write_file(Path(folder), number, recordings[index]) for number, index in enumerate(chosen)]
        given, ours = read_for_reference(files), load_systems(Path(folder))
        systems = {"reference": partial(predict_all, load_reference(), given)}
        systems |= {name: partial(predict, files) for name, predict in ours.items()}
        seconds = in_turn(systems, repetitions)
        scores = {name: predict(list(recordings)) for name, predict in ours.items()}
        some = slice(None, None, max(1, len(recordings) // count))
        alone = score_alone(list(recordings[some]))
        result = {
            "files": count,
            "seconds_of_audio": sum(soundfile.info(file).duration for file in files),
            "repetitions": repetitions,
            "reference_reads": "files through ffmpeg" if given is files else "waveforms read beforehand",
            "threads": torch.get_num_threads(),
            "seconds": seconds,
            "ratio": {name: medians(seconds)["reference"] / medians(seconds)[name] for name in ours},
            "largest_difference": find_largest_difference(scores["float32"][some], alone),
            "test": {name: compare_answers(found, scores["float32"], truth) for name, found in scores.items()},
            "versions": library_versions() | {"onnxruntime": onnxruntime.__version__},
        }
    write_json(RESULT, result)
    for name, ratio in result["ratio"].items():
        print(f"{name}: ratio {ratio:.2f}, {result['test'][name]}")


def read_test_utterances(data_dir: Path) -> list[tuple[Any, str]]:
    """The recordings of the shipped model's test speakers, and their labels in its words."""
    lines = [line for line in read_lines(BASE_MODEL / "predictions.jsonl") if line["split"] == "test"]
    labels, found = {line["id"]: line["label"] for line in lines}, []
    for corpus in CORPORA:
        rows: Dataset = load_corpus(corpus, str(data_dir / corpus))
        ids = [name if name in labels else f"{corpus}/{name}" for name in rows["id"][:]]
        places = [place for place, name in enumerate(ids) if name in labels]
        chosen = read_excerpts(rows.select(places)[:])
        found += [(excerpt.path, labels[ids[place]]) for excerpt, place in zip(chosen, places)]
    return found


def write_file(folder: Path, number: int, recording: Any) -> str:
    suffix, rate, channels = FORMATS[number % len(FORMATS)]
    samples = soxr.resample(read_audio(recording), SAMPLING_RATE, rate)
    path = folder / f"{number}.{suffix}"
    soundfile.write(path, np.stack([samples] * channels, axis=1), rate)
    return str(path)


def load_reference() -> Any:
    """The library's classifier with the encoder of the shipped model; its own head has random weights."""
    model, _ = load_model(str(BASE_MODEL))
    theirs = WhisperForAudioClassification(model.config.encoder_config).eval()
    state = model.encoder.state_dict()
    assert not theirs.encoder.load_state_dict(state, strict=False).unexpected_keys
    return pipeline("audio-classification", model=theirs, feature_extractor=WhisperFeatureExtractor())


def load_systems(folder: Path) -> dict[str, Predict]:
    """The modes of the shipped model, as functions of files."""
    systems: dict[str, Predict] = {}
    for dtype in ("float32", *list_fast_dtypes()):
        recognize = load_pipeline(str(BASE_MODEL), dtype=dtype)
        systems[dtype] = partial(run_pipeline, recognize)
    model, extractor = load_model(str(BASE_MODEL))
    paths = {"onnx": folder / "model.onnx", "onnx_int8": folder / "model.int8.onnx"}
    export(model, extractor, paths["onnx"])
    quantize(paths["onnx"], paths["onnx_int8"])
    labels = list(model.config.label2id)
    return systems | {name: partial(run_onnx, open_session(path), labels) for name, path in paths.items()}


def run_pipeline(recognize: Any, files: list[str]) -> list[dict[str, float]]:
    return [index_by_label(scores) for scores in predict_all(recognize, files)]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(session: onnxruntime.InferenceSession, labels: list[str], files: list[str]) -> list[dict[str, float]]:
    """Read and score files one by one, as examples/onnx_inference.py does."""
    trim_db = read_json(BASE_MODEL / "preprocessor_config.json")["trim_db"]
    answers = []
    for file in files:
        (logits,) = session.run(["logits"], pad_utterances([read_audio(file, trim_db)]))[0]
        answers.append(dict(zip(labels, softmax(logits).tolist())))
    return answers


@torch.inference_mode()
def score_alone(files: list[str]) -> list[dict[str, float]]:
    """The probabilities of each utterance in a batch of its own, without the pipeline."""
    model, extractor = load_model(str(BASE_MODEL))
    extract: Any = extractor
    answers = []
    for file in files:
        inputs = extract(read_audio(file), sampling_rate=SAMPLING_RATE, return_tensors="pt")
        probabilities = model(**inputs).logits[0].softmax(dim=-1).tolist()
        answers.append(dict(zip(model.config.label2id, probabilities)))
    return answers


def find_largest_difference(found: list[dict[str, float]], expected: list[dict[str, float]]) -> float:
    return max(abs(scores[label] - score) for scores, each in zip(found, expected) for label, score in each.items())


def compare_answers(found: list[dict[str, float]], exact: list[dict[str, float]], truth: tuple[str, ...]) -> dict:
    """UA in percent, and how many labels differ from those in float32."""
    answers, expected = ([max(scores, key=scores.__getitem__) for scores in each] for each in (found, exact))
    return {
        "num_utterances": len(truth),
        "ua": 100 * balanced_accuracy_score(truth, answers),
        "other_label": sum(one != other for one, other in zip(answers, expected)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, metavar="CORPORA")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    try:
        run_benchmark(given.data_dir, given.files, given.repetitions)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
