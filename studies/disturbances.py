"""Utterances as strangers record them: with silence, noise, a click, an offset or a fading level around the speech."""

from collections.abc import Callable

import numpy as np
import soxr

from fields_ser_align import SAMPLING_RATE
from speech_ser_align import TRIM_DB, find_loudest, measure_levels, trim

AS_RECORDED = "as recorded, with about a second of silence at each end"
WHITE_NOISE = "white noise, 20 dB SNR"
MARGIN = 2 * SAMPLING_RATE  # samples of noise before and after
Disturbance = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, int]]


def make_pink_noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of a room, with equal power per octave above 50 Hz and a level of 0 dB: (samples,)."""
    frequencies = np.fft.rfftfreq(samples, 1 / SAMPLING_RATE)
    spectrum = rng.standard_normal((2, len(frequencies))).T.copy().view(complex)[:, 0]
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequencies, 50)), samples)
    return noise / noise.std()


def add_margins(level_db: float) -> Disturbance:
    """Two seconds of room noise before and after the trimmed speech, `level_db` below its loudest moment."""

    def disturb(waveform: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        start, speech = trim(waveform, TRIM_DB)
        gain = 10 ** ((find_loudest(measure_levels(waveform)) + level_db) / 20)
        before, after = (gain * make_pink_noise(MARGIN, rng) for _ in range(2))
        return np.concatenate([before, speech, after]), MARGIN - start

    return disturb


def add_room_noise(level_db: float) -> Disturbance:
    """Two seconds more before and after, and room noise throughout, `level_db` below the loudest moment."""

    def disturb(waveform: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        gain = 10 ** ((find_loudest(measure_levels(waveform)) + level_db) / 20)
        longer = np.pad(waveform, MARGIN)
        return longer + gain * make_pink_noise(len(longer), rng), MARGIN

    return disturb


def add_white_noise(snr_db: float) -> Disturbance:
    def disturb(waveform: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        level = np.sqrt(np.mean(np.square(trim(waveform, TRIM_DB)[1]))) * 10 ** (-snr_db / 20)
        return waveform + level * rng.standard_normal(len(waveform)), 0

    return disturb


def add_clicks(waveform: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A second of silence before and after, with a click in the middle of each."""
    longer = np.pad(waveform, SAMPLING_RATE)
    for centre in (SAMPLING_RATE // 2, len(longer) - SAMPLING_RATE // 2):
        longer[centre : centre + 10] += 0.9 * (-1.0) ** np.arange(10)
    return longer, SAMPLING_RATE


def add_offset(waveform: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    return waveform + 0.02, 0


def fade(waveform: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A level that falls by 15 dB from the beginning to the end."""
    return waveform * 10 ** (np.linspace(0, -15, len(waveform)) / 20), 0


def keep(waveform: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    return waveform, 0


def cut_tight(waveform: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    start, speech = trim(waveform, TRIM_DB)
    return speech, -start


def resample_through(waveform: np.ndarray, rate: int, saved_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Resample a waveform to `rate`, and from there to `saved_rate`: nothing above half of `rate` is left."""
    return soxr.resample(soxr.resample(waveform, SAMPLING_RATE, rate), rate, saved_rate)


# Each turns a waveform, (samples,), into a disturbed one, and says how many samples later the speech begins there.
DISTURBANCES: dict[str, Disturbance] = {
    AS_RECORDED: keep,
    "cut to the speech": cut_tight,
    "2 s of noise around the speech, -40 dB": add_margins(-40),
    "2 s of noise around the speech, -25 dB": add_margins(-25),
    "room noise throughout, -35 dB": add_room_noise(-35),
    "room noise throughout, -25 dB": add_room_noise(-25),
    WHITE_NOISE: add_white_noise(20),
    "white noise, 10 dB SNR": add_white_noise(10),
    "a loud click in the silence at each end": add_clicks,
    "an offset of 0.02 (DC)": add_offset,
    "a level that falls by 15 dB": fade,
}


def disturb(name: str, waveforms: list[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """The disturbed waveforms, float32, and how many samples later the speech begins in each."""
    rng = np.random.default_rng(0)
    pairs = [DISTURBANCES[name](waveform.astype(np.float64), rng) for waveform in waveforms]
    return [waveform.astype(np.float32) for waveform, _ in pairs], [later for _, later in pairs]
