"""How the benchmarks measure: systems in turn in one process, ratios of medians."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch


def in_turn(systems: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Seconds that each system takes, one after the other in each repetition, after a first that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for repetition in range(repetitions + 1):
        for name, run in systems.items():
            start = time.perf_counter()
            run()
            if repetition:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: median(values) for name, values in seconds.items()}


def matrix_peak(dtype: torch.dtype = torch.float32, size: int = 2048) -> float:
    """Floating-point operations a second of a large matrix product by torch, the best of many."""
    left, right = torch.randn(2, size, size).to(dtype)
    seconds = in_turn({"product": lambda: left @ right}, 15)["product"]
    return 2 * size**3 / min(seconds)


def peak_megabytes() -> float:
    """Peak memory of this process so far. Not getrusage: what that tells begins with the peak of the parent."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
