"""Tells a voice from what is not one: noise, tones, engines and most music.

A voice is periodic for part of the time, and while it is, its pitch and its loudness keep changing. Noise is hardly
ever periodic. The pitch of a note or a machine stands still, and a siren does not change in loudness.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

import numpy as np

try:
    from .fields_ser_align import SAMPLING_RATE
except ImportError:
    if __package__:
        raise
    from fields_ser_align import SAMPLING_RATE

PITCHES = (70.0, 450.0)  # Hz: from a low voice to a child's
HARMONICS = (82.0, 1500.0)  # Hz: above the mains, and where a voice stands out from noise
# Ours, chosen on RAVDESS, EmoDB and nEMO (python -m studies.voice). A frame is voiced if its normalised autocorrelation
# reaches VOICED. Between two voiced frames, 32 ms apart, a voice changes by more than a tenth of a semitone, though not
# by a leap, and by more than 0.3 dB.
VOICED = 0.55
LEAST_STEP, LARGEST_STEP, LEAST_CHANGE_DB = 0.1, 3.0, 0.3  # semitones, semitones, dB
VOICED_SHARE, CHANGING_SHARE = 0.1, 0.25  # of frames, and of pairs of voiced frames: speech has more
WINDOW = 312  # frames: a pause of ten seconds has no voice either, so the best ten seconds count
FEWEST_FRAMES = 30  # a second: less may not contain a vowel


class VoiceCounts:
    """Counts of voiced frames in one recording or stream, updated block by block."""

    def __init__(self) -> None:
        self.frames = 0
        self.window = np.zeros(2, np.int64)  # frames of the current window, and those of them that are voiced
        self.voiced_share = 0.0  # of the most voiced window so far
        self.pairs = self.changing = 0  # of successive voiced frames, and those between which the voice changes

    def add(self, power: np.ndarray, is_loud: np.ndarray) -> None:
        """Count the frames of a block.

        Args:
            power: their Hann-windowed spectra, (frames, FFT size / 2 + 1).
            is_loud: which of them are not silence, (frames,).
        """
        strengths, pitches, levels = measure_periodicity(power)
        is_voiced = is_loud & (strengths >= VOICED)
        is_pair = is_voiced[1:] & is_voiced[:-1]
        steps, changes = np.abs(np.diff(12 * np.log2(pitches))), np.abs(np.diff(levels))
        is_changing = (steps > LEAST_STEP) & (steps < LARGEST_STEP) & (changes > LEAST_CHANGE_DB)
        self.frames += int(is_loud.sum())
        self.pairs += int(is_pair.sum())
        self.changing += int((is_pair & is_changing).sum())
        for start in range(0, len(power), WINDOW):
            part = slice(start, start + WINDOW)
            self.window += is_loud[part].sum(), is_voiced[part].sum()
            if self.window[0] >= WINDOW:
                self.voiced_share = self.measure_voiced_share()
                self.window[:] = 0

    def measure_voiced_share(self) -> float:
        """The share of voiced frames in the most voiced ten seconds."""
        frames, voiced = self.window.tolist()
        return max(self.voiced_share, voiced / frames if frames >= FEWEST_FRAMES else 0.0)

    def measure_changing_share(self) -> float:
        """The share of pairs of voiced frames between which the voice changes; four more, half of them changing, make
        it careful where there are few (Agresti and Coull, 1998)."""
        return (self.changing + 2) / (self.pairs + 4)

    def find_problem(self, name: str) -> str | None:
        """Say that a recording does not sound like speech, or not alone; None if it does, or lasts under a second."""
        if self.frames < FEWEST_FRAMES:
            return None
        if self.measure_voiced_share() < VOICED_SHARE:
            reason = "contains hardly any voiced sound, as noise does"
        elif self.measure_changing_share() < CHANGING_SHARE:
            reason = "hardly changes in pitch or loudness while it sounds, as music and machines do"
        else:
            return None
        return (
            f"{name} sounds unlike speech, or like speech under music or noise: it {reason}, so its scores are "
            "unreliable; give a recording of one person speaking"
        )


def measure_periodicity(power: np.ndarray, octave_cost: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure how periodic frames are, at which pitch, and how loud.

    The autocorrelation of the harmonics, weighted by their frequency since a voice weakens towards higher ones, is
    divided by that of the window and by its value at lag 0.

    Args:
        power: Hann-windowed spectra, (frames, FFT size / 2 + 1).
        octave_cost: what a period that is twice as long loses (Boersma 1993), so that of two equally good ones the
            shorter is taken; a voice detector has no use for it, since only its changes count.

    Returns:
        the autocorrelation at the best period, at most about 1; the pitch, Hz; the level, dB. Each is (frames,).
    """
    size = 2 * (power.shape[1] - 1)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLING_RATE)
    is_used = (frequencies >= HARMONICS[0]) & (frequencies <= HARMONICS[1])
    spectra = power * np.where(is_used, frequencies / 1000, 0.0)
    window = np.fft.irfft(np.square(np.abs(np.fft.rfft(np.hanning(size), 2 * size))))
    first, last = int(SAMPLING_RATE / PITCHES[1]), int(np.ceil(SAMPLING_RATE / PITCHES[0]))
    correlations = np.fft.irfft(spectra)
    energies = np.maximum(correlations[:, 0], 1e-20)
    curves = correlations[:, first - 1 : last + 2] / energies[:, None] / (window[first - 1 : last + 2] / window[0])
    costs = octave_cost * np.log2(np.arange(first, last + 1) / first)
    peaks = (curves[:, 1:-1] - costs).argmax(axis=1) + 1
    before, strengths, after = (curves[np.arange(len(curves)), peaks + step] for step in (-1, 0, 1))
    bends = np.minimum(before - 2 * strengths + after, -1e-9)
    shifts = np.clip(
        0.5 * (before - after) / bends, -0.5, 0.5
    )  # a parabola through the three points has its peak there
    return strengths, SAMPLING_RATE / (first - 1 + peaks + shifts), 10 * np.log10(energies)
