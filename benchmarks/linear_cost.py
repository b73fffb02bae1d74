"""Check that cost grows linearly: long recordings with predict.py, large corpora in train.py's preparation.

    python -m benchmarks.linear_cost --minutes 1 4 16 60 --data_dir RAVDESS --rows 1000 10000 100000

Recordings are utterances of RAVDESS in random order. A separate predict.py process scores each of them with the mini
model; the time is the one that predict.py reports, without loading. Corpora are CSV files of clips of 0.2 s.
Preparation reads the corpus, checks it (which decodes every clip that is not known yet), splits it, and orders the
first epoch; it is measured for a new corpus and again for a known one. Results are medians of three processes, with
their peak memory. Writes docs/results/linear_cost.json.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy.io.wavfile
import soundfile

from core.audio import SAMPLING_RATE, read_audio
from core.json_files import read_json, write_json
from recipe.results import library_versions

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "docs" / "results" / "linear_cost.json"
REPETITIONS = 3
# Runs a script and prints its peak memory.
MEASURED = """
import runpy, sys
sys.argv.pop(0)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    from benchmarks.measuring import peak_megabytes
    print("PEAK", peak_megabytes())
"""
PREPARATION = """
import json, sys, time
start = time.perf_counter()
from recipe.data import read_rows_alone, split_rows
from recipe.options import DataArguments
from recipe.batching import BucketSampler
imported = time.perf_counter()
data = DataArguments(corpus="folder", data_dir=sys.argv[1], csv=sys.argv[2])
split = split_rows(data, read_rows_alone(data))
next(iter(BucketSampler(split["train"]["duration"][:], 32, data.bucket_batches, 0)))
print("RESULT", json.dumps({"import": imported - start, "preparation": time.perf_counter() - imported}))
"""


def run_benchmark(minutes: list[int], rows: list[int], data_dir: Path) -> None:
    utterances = sorted(data_dir.glob("Actor_*/03-01-*"))
    if not utterances:
        sys.exit(f"error: {data_dir} has no utterances; give the directory of Actor_01 to Actor_24")
    with tempfile.TemporaryDirectory() as folder:
        recordings = [recording(Path(folder), length, utterances) for length in minutes]
        corpora = [corpus(Path(folder), count) for count in rows] or read_json(RESULT)["corpora"]
    write_json(RESULT, {"recordings": recordings, "corpora": corpora, "versions": library_versions()})


def recording(folder: Path, minutes: int, utterances: list[Path]) -> dict[str, Any]:
    path = folder / f"{minutes}.wav"
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", SAMPLING_RATE, 1) as file:
        while file.frames < 60 * minutes * SAMPLING_RATE:
            file.write(read_audio(utterances[rng.integers(len(utterances))]))
    runs = [run(["predict.py", str(path), "--quiet", "--model", "mini"]) for _ in range(REPETITIONS)]
    printed = [float(re.findall(r"([\d.]+) s of compute per minute", output)[0]) for output, _ in runs]
    found = {"minutes": minutes, "seconds_a_minute": median(printed), "peak_megabytes": median(mb for _, mb in runs)}
    print(found, flush=True)
    return found


def corpus(folder: Path, count: int) -> dict[str, Any]:
    directory = folder / str(count)
    directory.mkdir()
    clip = (1000 * np.random.default_rng(0).standard_normal(SAMPLING_RATE // 5)).astype(np.int16)
    lines = ["path,label,speaker"]
    for index in range(count):
        clip[:2] = divmod(index, 2**15)  # no clip is a copy of another
        scipy.io.wavfile.write(directory / f"{index}.wav", SAMPLING_RATE, clip)
        lines.append(f"{index}.wav,{('angry', 'sad')[index % 2]},speaker {index // 2 % 50}")
    (directory / "corpus.csv").write_text("\n".join(lines), encoding="utf-8")
    script = directory / "prepare.py"
    script.write_text(PREPARATION, encoding="utf-8")
    command = [str(script), str(directory), str(directory / "corpus.csv")]
    cache = directory / "cache"
    first, again = [], []
    for _ in range(REPETITIONS):
        shutil.rmtree(cache, ignore_errors=True)
        first.append(run(command, HF_DATASETS_CACHE=str(cache)))
        again.append(run(command, HF_DATASETS_CACHE=str(cache)))
    found = {"rows": count, **summarize(first, count), "again": summarize(again, count)}
    print(found, flush=True)
    return found


def summarize(runs: list[tuple[str, float]], count: int) -> dict[str, float]:
    printed = [json.loads(output.split("RESULT")[1].splitlines()[0]) for output, _ in runs]
    return {
        "ms_a_row": 1000 * median(part["preparation"] for part in printed) / count,
        "import_seconds": median(part["import"] for part in printed),
        "peak_megabytes": median(mb for _, mb in runs),
    }


def run(command: list[str], **variables: str) -> tuple[str, float]:
    """Run a Python script with these environment variables; return its output and its peak memory in megabytes."""
    words = [sys.executable, "-c", MEASURED, *command]
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} failed:\n{done.stderr}")
    return done.stdout + done.stderr, float(done.stdout.split("PEAK")[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", nargs="+", type=int, default=[1, 4, 16, 60])
    parser.add_argument(
        "--rows", nargs="*", type=int, default=[1000, 10_000, 100_000], help="none keeps the results so far"
    )
    parser.add_argument("--data_dir", required=True, type=Path, metavar="RAVDESS", help="holds Actor_01 to Actor_24")
    given = parser.parse_args()
    run_benchmark(given.minutes, given.rows, given.data_dir)


if __name__ == "__main__":
    main()
