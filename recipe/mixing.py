"""Mixing of two training utterances, on the waveform, with the weight of the second label.

All random choices use torch's generator, whose state is restored when a run resumes.
"""

import numpy as np
import torch

MIX_SNRS = (-5.0, 10.0)
LONGEST_SEGMENT = 0.5  # share of the first utterance


def mix(how: str, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, float]:
    """Mix a second utterance into the first, (samples,), which keeps its length.

    Args:
        how: as in `DataArguments.mix`.

    Returns:
        the mixture, (samples,), and the weight of the second label.
    """
    if how == "whole":
        return overlay(first, second, *draw_mix())
    return mix_segment(first, second, *draw_segment(), by_energy=how == "energy")


def overlay(first: np.ndarray, second: np.ndarray, snr: float, offset: float) -> tuple[np.ndarray, float]:
    """Overlay a whole second utterance on the first and keep its length.

    Args:
        first, second: (samples,).
        snr: level of the first above the second, in dB.
        offset: position of the shorter one within the longer one, from 0 to 1.

    Returns:
        the mixture, (samples,), and the weight of the second label: the second utterance's share of the energy,
        counted only where it overlaps the first.
    """
    if not second.any():
        return first, 0.0
    start = int(offset * abs(len(first) - len(second)))
    gain = np.sqrt(np.mean(np.square(first)) / np.mean(np.square(second))) * 10 ** (-snr / 20)
    second = np.float32(gain) * second
    if len(second) >= len(first):
        return first + second[start : start + len(first)], _label_share(snr, coverage=1.0)
    both = first.copy()
    both[start : start + len(second)] += second
    return both, _label_share(snr, coverage=len(second) / len(first))


def mix_segment(
    first: np.ndarray,
    second: np.ndarray,
    snr: float,
    length: float,
    places: tuple[float, float],
    by_energy: bool,
) -> tuple[np.ndarray, float]:
    """Add a segment of a second utterance to a segment of the first.

    By energy: energy-adaptive mixup (Wang et al., arXiv 2512.04551). The segment is scaled to the level that `snr` sets
    relative to the segment of the first that it covers. The weight of its label is its share of the energy of the
    mixture, which grows with level and coverage; this formula is our reading. Over a pause, the segment is almost
    silent, so it hardly counts.

    By length: the segment is added as it is, and the weight of its label is the share of the first that it covers.

    Args:
        first, second: (samples,).
        snr: level of the first above the second in the segment, in dB.
        length: length of the segment as a share of the first, above 0; it is cut to the second.
        places: start of the segment in the first and in the second, each from 0 (earliest) to 1 (latest possible).

    Returns:
        the mixture, (samples,), and the weight of the second label.
    """
    samples = max(1, min(int(length * len(first)), len(second)))
    start, source = (int(place * (len(whole) - samples)) for place, whole in zip(places, (first, second)))
    covered, added = first[start : start + samples], second[source : source + samples]
    if not added.any():
        return first, 0.0
    share = samples / len(first)
    if by_energy:
        power = np.mean(np.square(covered)) / np.mean(np.square(added)) * 10 ** (-snr / 10)
        added = np.float32(np.sqrt(power)) * added
        energy, before = (float(np.square(part, dtype=np.float64).sum()) for part in (added, first))
        share = energy / (energy + before) if energy > 0 else 0.0
    both = first.copy()
    both[start : start + samples] += added
    return both, share


def _label_share(snr: float, coverage: float) -> float:
    energy = coverage * 10 ** (-snr / 10)
    return energy / (1 + energy)


def draw_mix() -> tuple[float, float]:
    """Draw a signal-to-noise ratio within `MIX_SNRS`, in dB, and an offset from 0 to 1."""
    position, offset = torch.rand(2).tolist()
    return _place_snr(position), offset


def draw_segment() -> tuple[float, float, tuple[float, float]]:
    """Draw a signal-to-noise ratio, the length of a segment up to `LONGEST_SEGMENT`, and its two places."""
    position, length, place, source = torch.rand(4).tolist()
    return _place_snr(position), LONGEST_SEGMENT * length, (place, source)


def _place_snr(position: float) -> float:
    low, high = MIX_SNRS
    return low + (high - low) * position
