"""Latency of live streams: the time from the last sample of a second to the line with its answer.

    python -m benchmarks.live_latency --data_dir RAVDESS --streams 1 8 --seconds 30

Each stream is a predict.py process with the base model and one thread. Utterances of RAVDESS, one after the other, are
written to it as they would be spoken, once it has answered to its first second. Writes docs/results/live_latency.json
and prints the latencies last.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from core.audio import SAMPLING_RATE, read_audio
from core.json_files import write_json
from core.shipped import ROOT
from recipe.results import library_versions

RESULT = ROOT / "docs" / "results" / "live_latency.json"
STEP = SAMPLING_RATE // 10  # samples that are written at once


def run_benchmark(data_dir: Path, counts: list[int], seconds: int) -> None:
    files = sorted(data_dir.glob("Actor_01/03-01-*"))
    if not files:
        sys.exit(f"error: {data_dir} has no utterances; give the directory of Actor_01 to Actor_24")
    speech = np.concatenate([read_audio(file) for file in files])
    samples = (2**15 * speech).astype("<i2")
    runs = []
    for count in counts:
        offsets = np.linspace(0, len(samples) - (seconds + 1) * SAMPLING_RATE, count).astype(int)
        streams = [Stream(samples[start : start + (seconds + 1) * SAMPLING_RATE]) for start in offsets]
        for thread in [stream.start() for stream in streams]:
            thread.join()
        latencies = np.concatenate([stream.latencies for stream in streams])
        run = {
            "streams": count,
            "lines": len(latencies),
            "median_seconds": float(np.median(latencies)),
            "percentile_95_seconds": float(np.percentile(latencies, 95)),
            "longest_seconds": float(latencies.max()),
            "cpu_seconds_per_second": float(np.mean([stream.cpu_seconds for stream in streams]) / seconds),
        }
        runs.append(run)
        print(run, flush=True)
    cores = len(os.sched_getaffinity(0))
    write_json(RESULT, {"seconds": seconds, "cores": cores, "runs": runs, "versions": library_versions()})


class Stream:
    """A predict.py process that is given samples as they would be spoken.

    Args:
        samples: int16 (samples,), at 16 kHz; the first second only warms up.
    """

    def __init__(self, samples: np.ndarray):
        self.samples = samples
        self.latencies: list[float] = []
        self.cpu_seconds = 0.0

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run)
        thread.start()
        return thread

    def _run(self) -> None:
        command = [sys.executable, "predict.py", "-"]
        quiet: dict[str, Any] = {"stderr": subprocess.DEVNULL, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, **quiet)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(self.samples[:SAMPLING_RATE].tobytes())
        process.stdin.flush()
        process.stdout.readline()
        before = sum(psutil.Process(process.pid).cpu_times()[:2])
        writer = threading.Thread(target=self._write, args=(process.stdin, begin := time.perf_counter()))
        writer.start()
        for line in process.stdout:
            spoken = json.loads(line)["end"] - 1.0
            self.latencies.append(time.perf_counter() - begin - spoken)
            if spoken * SAMPLING_RATE >= len(self.samples) - 2 * SAMPLING_RATE:  # the process ends after its last line
                self.cpu_seconds = sum(psutil.Process(process.pid).cpu_times()[:2]) - before
        writer.join()
        process.wait()

    def _write(self, pipe: Any, begin: float) -> None:
        for first in range(SAMPLING_RATE, len(self.samples), STEP):
            due = begin + (first + STEP - SAMPLING_RATE) / SAMPLING_RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            pipe.write(self.samples[first : first + STEP].tobytes())
            pipe.flush()
        pipe.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, metavar="RAVDESS", help="holds Actor_01 to Actor_24")
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 8], help="at once, each in a run of its own")
    parser.add_argument("--seconds", type=int, default=30, help="of speech in each stream")
    given = parser.parse_args()
    run_benchmark(given.data_dir, given.streams, given.seconds)


if __name__ == "__main__":
    main()
