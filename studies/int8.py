"""What 8 bits cost in accuracy, and bring in size, time and memory.

    python -m studies.int8 --model mini --data_dir CORPORA

CORPORA contains the folders of the corpora that the model was trained on. The ranges of activations are set by
utterances of the training speakers. Ways to quantize statically are compared on the validation speakers; the file of
32 bits, the dynamic one and the static one, as export_onnx.py writes them, on the test speakers of the model's
results.json. Time is the processor time of one thread for one second of speech: the files take turns, and the median
counts. Memory is the peak of a process that scores it, with Python and onnxruntime (Linux). Writes
docs/results/int8.json, of which `python -m docs.build.make` makes the tables of docs/ONNX.md.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from datasets import Dataset
from onnxruntime.quantization import CalibrationMethod
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score
from tqdm import tqdm

from core.audio import SAMPLING_RATE, read_audio
from core.errors import InputError, error_line
from core.json_files import write_json
from core.loading import load_model
from core.shipped import find_model
from experiments.robustness import read_split
from inference.onnx_export import export, pad_utterances, silence_exporter
from inference.onnx_int8 import CALIBRATION_RECORDINGS, FRONT_END, quantize, quantize_statically, spread
from recipe.corpora.rows import read_excerpts
from recipe.results import library_versions
from recipe.run import quiet_libraries

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "int8.json"
MOST = 400  # utterances of a split
PASSES = 101
ATTENTION = ("self_attn/", "pooling.layers.0/")  # the products of activations with activations
OUTER = ("feature_projection.", "classifier")
CONVOLUTIONS = ("conv_module.",)
SCORE_ONCE = """
import sys
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
waveform = np.load(sys.argv[2])
session.run(["logits"], {"waveform": waveform[None], "attention_mask": np.ones((1, len(waveform)), np.int64)})
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Way(NamedTuple):
    """A way to quantize: settings of [`quantize_statically`], and seconds of each utterance that calibrate."""

    settings: dict[str, Any]
    seconds: float | None = None  # None: all of it


WAYS = {
    "static": Way({}),
    "static, weights per channel": Way({"per_channel": True}),
    "static, percentiles of activations": Way({"method": CalibrationMethod.Percentile}, 1.0),
    "static, entropy of activations": Way({"method": CalibrationMethod.Entropy}, 1.0),
    "static, attention in 32 bits": Way({"kept": (*FRONT_END, *ATTENTION)}),
    "static, first and last layer in 32 bits": Way({"kept": (*FRONT_END, *OUTER)}),
    "static, convolutions in 32 bits": Way({"kept": (*FRONT_END, *CONVOLUTIONS)}),
}


class Spoken(NamedTuple):
    """Utterances of a split, trimmed, and their labels."""

    waveforms: list[np.ndarray]  # (samples,) each, 16 kHz
    labels: np.ndarray  # (utterances,), class indices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini", help="base, mini, or a folder that train.py wrote")
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="directory of the folders of the corpora")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to write")
    given = parser.parse_args()
    quiet_libraries()
    folder = find_model(given.model)
    model, extractor = load_model(folder)
    split = read_split(folder, argparse.Namespace(data_dir=given.data_dir, data_dirs={}))
    trim_db = getattr(extractor, "trim_db", None)
    train, validation, test = (read_spoken(split[part], trim_db) for part in ("train", "validation", "test"))
    calibration = spread(train.waveforms, CALIBRATION_RECORDINGS)
    with tempfile.TemporaryDirectory() as directory, silence_exporter():
        exported = Path(directory) / "float.onnx"
        export(model, extractor, exported)
        paths = {"float": exported, "dynamic": Path(directory) / "dynamic.onnx"}
        quantize(exported, paths["dynamic"])
        for number, (name, way) in enumerate(WAYS.items()):
            paths[name] = Path(directory) / f"static{number}.onnx"
            quantize_statically(exported, paths[name], cut(calibration, way.seconds), **way.settings)
        second = cut(test.waveforms, 1.0)[0]
        shipped = {name: paths[name] for name in ("float", "dynamic", "static")}
        content = {
            "command": f"python -m studies.int8 --model {given.model} --data_dir CORPORA",
            "parameters": model.num_parameters(),
            "calibration": len(calibration),
            "validation": compare(paths, validation),
            "test": compare(shipped, test),
            "utterances": {"validation": len(validation.labels), "test": len(test.labels)},
            "speed": measure_speed(shipped, second),
            "peak_megabytes": measure_memory(shipped, second, Path(directory) / "second.npy"),
            "versions": library_versions() | {"onnxruntime": onnxruntime.__version__},
        }
    write_json(given.results, content)
    print(f"The results are in {given.results}.")


def read_spoken(rows: Dataset, trim_db: float | None) -> Spoken:
    """Read up to `MOST` utterances, spread evenly over the rows."""
    chosen = rows.select(spread(range(len(rows)), MOST))
    waveforms = [read_audio(excerpt, trim_db) for excerpt in tqdm(read_excerpts(chosen[:]), leave=False)]
    return Spoken(waveforms, np.array(chosen["label"]))


def cut(waveforms: list[np.ndarray], seconds: float | None) -> list[np.ndarray]:
    """The middle of each waveform that lasts so many seconds; all waveforms as they are without any."""
    if seconds is None:
        return waveforms
    size = int(seconds * SAMPLING_RATE)
    starts = {index: (len(each) - size) // 2 for index, each in enumerate(waveforms) if len(each) >= size}
    return [waveforms[index][start : start + size] for index, start in starts.items()]


def open_scorer(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A file as a function on one thread: (samples,) to probabilities (classes,)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda waveform: softmax(session.run(["logits"], pad_utterances([waveform]))[0][0].astype(np.float64))


def compare(paths: dict[str, Path], spoken: Spoken) -> dict[str, dict[str, Any]]:
    """Size and UA of each file, and how its answers differ from those of the first."""
    scores = {}
    for name, path in tqdm(paths.items(), leave=False):
        score = open_scorer(path)
        scores[name] = np.stack([score(waveform) for waveform in spoken.waveforms])
    exact = next(iter(scores.values()))
    return {
        name: {
            "megabytes": round(paths[name].stat().st_size / 1e6, 2),
            "ua": round(100 * balanced_accuracy_score(spoken.labels, own.argmax(axis=1)), 2),
            "other_label": int((own.argmax(axis=1) != exact.argmax(axis=1)).sum()),
            "largest_change": round(float(np.abs(own - exact).max()), 4),
            "mean_change": round(float(np.abs(own - exact).mean()), 5),
        }
        for name, own in scores.items()
    }


def measure_speed(paths: dict[str, Path], second: np.ndarray) -> dict[str, Any]:
    """Milliseconds of each file for one second of speech, the median of alternating passes, and ratios to the first."""
    scorers = {name: open_scorer(path) for name, path in paths.items()}
    seconds: dict[str, list[float]] = {name: [] for name in scorers}
    for _ in range(PASSES):
        for name, score in scorers.items():
            start = time.thread_time()  # what else the machine does takes none of it
            score(second)
            seconds[name].append(time.thread_time() - start)
    medians = {name: median(passes) for name, passes in seconds.items()}
    return {
        "milliseconds": {name: round(1000 * each, 2) for name, each in medians.items()},
        "times_as_fast": {name: round(medians["float"] / each, 2) for name, each in medians.items()},
        "passes": PASSES,
    }


def measure_memory(paths: dict[str, Path], second: np.ndarray, stored: Path) -> dict[str, float]:
    """The peak memory in MB of a process that loads each file and scores one second."""
    np.save(stored, second)
    peaks = {}
    for name, path in paths.items():
        run = subprocess.run(
            [sys.executable, "-c", SCORE_ONCE, str(path), str(stored)], capture_output=True, text=True, check=True
        )
        peaks[name] = round(int(run.stdout) * 1024 / 1e6, 1)  # from KiB
    return peaks


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(error_line(error))
