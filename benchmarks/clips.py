"""Generates clips for the benchmarks: seeded noise with durations as in IEMOCAP."""

import numpy as np

from core.audio import SAMPLING_RATE

MEDIAN, PERCENTILE_95, SHORTEST, LONGEST = 3.58, 11.1, 0.6, 34.0  # seconds
Z_95 = 1.6449


def durations(count: int, seed: int = 0) -> np.ndarray:
    """Draw log-normal durations in seconds, clipped at both ends, (count,)."""
    spread = np.log(PERCENTILE_95 / MEDIAN) / Z_95
    return np.clip(np.random.default_rng(seed).lognormal(np.log(MEDIAN), spread, count), SHORTEST, LONGEST)


def clips(count: int, seed: int = 0) -> list[np.ndarray]:
    """Generate waveforms, each float32 (samples,)."""
    rng = np.random.default_rng([seed, 1])
    return [0.1 * rng.standard_normal(int(s * SAMPLING_RATE), dtype=np.float32) for s in durations(count, seed)]
