"""Sounds that are not speech, generated: five seconds each, float, 16 kHz. Part of studies/voice.py."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.signal import butter, sawtooth, sosfilt, square

from fields_ser_align import SAMPLING_RATE as RATE

LENGTH = 5 * RATE
TIMES = np.arange(LENGTH) / RATE
Sound = Callable[[], np.ndarray]


def scale(waveform: np.ndarray, level: float = 0.1) -> np.ndarray:
    return level * waveform / waveform.std()


def make_noise(slope: float = 0.0, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """Noise whose amplitude falls with the frequency to the power of `slope`: 0 is white, 0.5 pink, 1 brown."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(LENGTH))
    return scale(np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 1) ** slope, LENGTH), level)


def filter_noise(low: float, high: float) -> np.ndarray:
    return scale(sosfilt(butter(4, (low, high), "band", fs=RATE, output="sos"), make_noise()))


def swell(rate: float) -> np.ndarray:
    """Pink noise that swells and ebbs `rate` times a second, as surf and applause do."""
    return make_noise(0.5) * (1 + 0.9 * np.sin(2 * np.pi * rate * TIMES))


def rain(drops: int) -> np.ndarray:
    """Short bursts of noise, `drops` a second."""
    rng, waveform = np.random.default_rng(0), np.zeros(LENGTH + 500)
    for start in rng.integers(0, LENGTH, 5 * drops):
        burst = rng.standard_normal(400) * np.exp(-np.arange(400) / rng.integers(10, 80))
        waveform[start : start + 400] += rng.exponential() * burst
    return scale(waveform[:LENGTH])


def glide(pitch: np.ndarray, shape: Callable[[np.ndarray], np.ndarray] = np.sin) -> np.ndarray:
    """A tone of a pitch in Hz that changes, (samples,)."""
    return 0.2 * shape(2 * np.pi * np.cumsum(pitch) / RATE)


def sweep(low: float, high: float, shape: Callable[[np.ndarray], np.ndarray] = np.sin) -> np.ndarray:
    return glide(low * (high / low) ** (TIMES / 5), shape)


def wail(low: float, high: float, rate: float, shape: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A siren."""
    return glide(low + (high - low) * (0.5 - 0.5 * np.cos(2 * np.pi * rate * TIMES)), shape)


def beep(pitch: float, seconds: float, shape: Callable[[np.ndarray], np.ndarray] = np.sin) -> np.ndarray:
    """A tone that is on and off in turns."""
    return 0.2 * shape(2 * np.pi * pitch * TIMES) * (TIMES % (2 * seconds) < seconds)


def hum(pitch: float, noise: float = 0.0) -> np.ndarray:
    tones = sum(np.sin(2 * np.pi * pitch * n * TIMES) / n for n in (1, 2, 3, 4, 5, 7))
    return 0.1 * tones + noise * make_noise()


def run_engine(pitch: float, swing: float) -> np.ndarray:
    """Explosions at an uneven rate, and the noise of the exhaust."""
    wander = 0.01 * np.cumsum(np.random.default_rng(0).standard_normal(LENGTH)) / np.sqrt(RATE)
    phases = np.cumsum(pitch * (1 + swing * np.sin(2 * np.pi * 0.3 * TIMES) + wander)) / RATE
    strokes = np.exp(-12 * (phases % 1)) + 0.6 * np.exp(-15 * ((phases + 0.3) % 1))
    return scale(sosfilt(butter(2, (60, 1500), "band", fs=RATE, output="sos"), strokes)) + 0.2 * make_noise(0.5)


# ---------------------------------------------------------------------------------------------- music

SCALE = (0, 2, 4, 5, 7, 9, 11, 12, 14)  # semitones
ROOTS = (220.0, 174.6, 261.6, 196.0)


def play_note(pitch: float, seconds: float, decay: float, brightness: float) -> np.ndarray:
    times = np.arange(int(seconds * RATE)) / RATE
    overtones = [n for n in range(1, 11) if n * pitch < RATE / 2]
    tone = np.sum([np.sin(2 * np.pi * n * pitch * times + n) / n**brightness for n in overtones], axis=0)
    return tone * np.exp(-decay * times) * np.minimum(1, times / 0.005)


def mix(notes: list[tuple[float, np.ndarray]]) -> np.ndarray:
    """Notes, each with the second at which it begins."""
    waveform = np.zeros(2 * LENGTH)
    for second, note in notes:
        start = int(second * RATE)
        waveform[start : start + len(note)] += note[: max(0, len(waveform) - start)]
    return scale(waveform[:LENGTH])


def list_chords(decay: float, brightness: float, step: float = 0.5) -> list[tuple[float, np.ndarray]]:
    return [
        (number * step, play_note(ROOTS[number % 4] * ratio, 1.5 * step, decay, brightness))
        for number in range(int(5 / step))
        for ratio in (1, 1.26, 1.5)
    ]


def list_melody(decay: float, brightness: float, octave: int = 0, step: float = 0.25) -> list[tuple[float, np.ndarray]]:
    chosen = np.random.default_rng(0).choice(SCALE, int(5 / step))
    return [
        (number * step, play_note(220 * 2 ** (octave + semitones / 12), step, decay, brightness))
        for number, semitones in enumerate(chosen)
    ]


def list_drums(per_minute: float) -> list[tuple[float, np.ndarray]]:
    """A bass drum and a snare drum in turns, and a hi-hat twice as fast."""
    times, noise = np.arange(int(0.3 * RATE)) / RATE, make_noise()[: int(0.3 * RATE)] * 10
    bass = np.sin(2 * np.pi * (50 * times + 4 * (1 - np.exp(-30 * times)))) * np.exp(-12 * times)
    snare = 0.5 * noise * np.exp(-18 * times) + 0.4 * np.sin(2 * np.pi * 190 * times) * np.exp(-20 * times)
    hat, beat = 0.25 * np.diff(noise, prepend=0.0) * np.exp(-50 * times), 60 / per_minute
    beats = [(number * beat, (bass, snare)[number % 2]) for number in range(int(5 / beat) + 1)]
    return beats + [(number * beat / 2, hat) for number in range(int(10 / beat) + 1)]


def soften(notes: list[tuple[float, np.ndarray]]) -> list[tuple[float, np.ndarray]]:
    return [(second, 0.3 * note) for second, note in notes]


def play_chords(decay: float, brightness: float) -> np.ndarray:
    return mix(list_chords(decay, brightness))


def play_melody(decay: float, octave: int) -> np.ndarray:
    return mix(list_melody(decay, 1, octave))


def play_drums(per_minute: float) -> np.ndarray:
    return mix(list_drums(per_minute))


def sing(pitch: float, vibrato: float) -> np.ndarray:
    """A held vowel with a vibrato."""
    phases = 2 * np.pi * np.cumsum(pitch * (1 + vibrato * np.sin(2 * np.pi * 5.5 * TIMES))) / RATE
    weights = {n: 1 / (1 + ((n * pitch - 700) / 400) ** 2) for n in range(1, 13)}
    return scale(np.sum([weight * np.sin(n * phases) for n, weight in weights.items()], axis=0))


BANDS = ((100, 400), (200, 800), (300, 3400), (1000, 3000), (3000, 7000))
SOUNDS: dict[str, dict[str, Sound]] = {
    "noise": {
        **{
            f"slope {slope:g}, level {level:g}": partial(make_noise, slope, level)
            for slope in (-0.5, 0, 0.5, 1)
            for level in (0.1, 0.001)
        },
        **{f"{low} to {high} Hz": partial(filter_noise, low, high) for low, high in BANDS},
        **{f"swelling {rate:g} times a second": partial(swell, rate) for rate in (0.4, 1, 4)},
        **{f"{drops} drops a second": partial(rain, drops) for drops in (50, 3000)},
    },
    "tones, hums and engines": {
        **{
            f"tone of {pitch} Hz": partial(glide, np.full(LENGTH, float(pitch)))
            for pitch in (50, 100, 150, 220, 300, 440, 700, 1000, 3000, 6000)
        },
        **{f"buzz of {pitch} Hz": partial(glide, np.full(LENGTH, float(pitch)), sawtooth) for pitch in (60, 120, 250)},
        **{f"hum of {pitch} Hz": partial(hum, pitch) for pitch in (50, 60, 100)},
        "hum of 100 Hz in noise": partial(hum, 100, 0.2),
        **{
            f"engine of {pitch} Hz": partial(run_engine, pitch, swing)
            for pitch, swing in ((40, 0.1), (90, 0.2), (150, 0.05))
        },
    },
    "sweeps, sirens and alarms": {
        **{
            f"sweep from {low} to {high} Hz": partial(sweep, low, high)
            for low, high in ((20, 7900), (100, 4000), (100, 450))
        },
        "buzz that rises from 80 to 400 Hz": partial(sweep, 80, 400, sawtooth),
        "siren, 500 to 1500 Hz": partial(wail, 500, 1500, 0.4, np.sin),
        "siren, 300 to 900 Hz": partial(wail, 300, 900, 0.5, sawtooth),
        "siren, 150 to 400 Hz": partial(wail, 150, 400, 0.5, sawtooth),
        "fast siren, 600 to 1400 Hz": partial(wail, 600, 1400, 3, square),
        "fast siren, 150 to 300 Hz": partial(wail, 150, 300, 3, sawtooth),
        "busy tone": partial(beep, 425, 0.48),
        **{f"alarm of {pitch} Hz": partial(beep, pitch, 0.15, square) for pitch in (250, 1000)},
    },
    "music": {
        **{
            f"chords, decay {decay}, brightness {brightness:g}": partial(play_chords, decay, brightness)
            for decay in (1, 3, 8)
            for brightness in (0.5, 1, 2)
        },
        **{
            f"melody, decay {decay}, octave {octave}": partial(play_melody, decay, octave)
            for decay in (0, 3, 8)
            for octave in (-1, 0, 1)
        },
        "a chord": lambda: mix([(0, play_note(pitch, 5, 0, 1)) for pitch in (220, 277.2, 329.6)]),
        **{f"drums at {tempo}": partial(play_drums, tempo) for tempo in (90, 110)},
        "drums and chords": lambda: mix(list_drums(110) + soften(list_chords(3, 1))),
        "drums and melody": lambda: mix(list_drums(110) + soften(list_melody(3, 1))),
    },
    "a vowel that is held": {
        f"{pitch} Hz, vibrato of {100 * vibrato:g} %": partial(sing, pitch, vibrato)
        for pitch in (130, 260)
        for vibrato in (0, 0.03)
    },
}
