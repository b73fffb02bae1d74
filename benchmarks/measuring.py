"""Timing for the benchmarks: systems take turns in one process, and ratios are of medians."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch


def in_turn(systems: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Measure the seconds of each system per repetition; systems take turns, after one warm-up repetition."""
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
    """Measure the floating-point operations per second of a large matrix product in torch, best of 15."""
    left, right = torch.randn(2, size, size).to(dtype)
    seconds = in_turn({"product": lambda: left @ right}, 15)["product"]
    return 2 * size**3 / min(seconds)


def peak_megabytes() -> float:
    """Read the peak memory of this process. getrusage would start at the peak memory of the parent process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
