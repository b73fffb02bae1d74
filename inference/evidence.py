"""Explains predictions: which stretches of a recording a prediction rests on, and how the voice differs there.

Each moment of the recording is silenced in turn. The stretches contain the fifth of them that costs the predicted label
the most. `python -m studies.explanation` compares this with pooling weights and gradients: it finds the moments that
the model uses far better than either. The voice in the stretches is compared with the rest of the recording using
standard acoustic measures: pitch, loudness, harmonics-to-noise ratio, spectral slope and syllable rate. This shows
where the model listens and how that part differs, not that the difference caused the prediction. (Idea: Nasr, Ren and
Johnson 2025, arXiv 2511.11691.)
"""

from typing import Any

import numpy as np
import scipy.signal

from core.librosa_loading import load_librosa
from inference.saliency import STEP, score_label, score_occluded, silence
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recording_ser_align import SAMPLING_RATE

TOP_SHARE = 0.2  # of the steps
MOST_STEPS = 20  # of a recording; a step lasts at least 150 ms
MOST_NAMED = 4  # stretches in the sentence
LEAST_LOSS = 0.05  # of the score, without the stretches: less says little
MEASURE_STEP = 160  # samples: measures every 10 ms
LOWEST_PITCH, HIGHEST_PITCH = 65.0, 500.0  # Hz
VOICED_DB = 0.0  # harmonics-to-noise ratio of a voiced frame: at least half of its energy is periodic
VOICE_RANGE_DB = 40.0  # a frame further below the loudest one is a pause
SLOPE_BAND = (200.0, 5000.0)  # Hz

# measure: (unit, smallest difference worth reporting, word for a higher value, word for a lower value)
MEASURES = {
    "pitch": ("semitones", 1.0, "higher in pitch", "lower in pitch"),
    "loudness": ("dB", 2.0, "louder", "softer"),
    "harmonics_to_noise": ("dB", 2.0, "clearer", "rougher or breathier"),
    "spectral_slope": ("dB/octave", 1.0, "brighter", "darker"),
    "syllable_rate": ("syllables/s", 1.0, "faster", "slower"),
}
UNCHANGED = "the voice there is similar to the rest of the recording"


def explain(recognize: SpeechEmotionRecognitionPipeline, recording: Any, channel: int | None = None) -> dict[str, Any]:
    """Explain the prediction for a recording; if it is longer than 15 seconds, for its most influential window.

    Args:
        recognize: the pipeline.
        recording: as the pipeline takes it.
        channel: counted from 0; None averages all channels.

    Returns:
        as in [`explain_frames`].

    Raises:
        ValueError: as in the pipeline.
    """
    answer: Any = recognize(recording, channel=channel, return_frames=True)
    return explain_frames(recognize, answer["frames"])


def explain_frames(recognize: SpeechEmotionRecognitionPipeline, frames: dict[str, Any]) -> dict[str, Any]:
    """Explain a prediction from the `frames` in the pipeline's result; this scores up to 22 variants of the recording.

    Args:
        recognize: the pipeline.
        frames: `frames` in its result with `return_frames=True`.

    Returns:
        a dict with `label`; `start` and `end` of the scored piece in seconds; `saliency`, a dict with the `times` of
        the steps and the log-probability that the label loses when each is silenced (`values`); `stretches`, dicts
        with start and end, in temporal order; `score` of the label, and `score_without`, with all stretches silenced;
        `differences`, for each measure the stretches minus the rest, None if it cannot be measured; `words`, one
        sentence without a full stop.
    """
    waveform, start, label = frames["waveform"], frames["start"], frames["label"]
    config: Any = recognize.model.config
    index = config.label2id[label]
    step = max(STEP, -(-len(waveform) // MOST_STEPS))
    before, *occluded = score_occluded(recognize, waveform, index, step)
    saliency = before - np.array(occluded)
    chosen = choose_top_steps(saliency)
    (after,) = score_label(recognize, [silence(waveform, chosen, step)], index)
    scores = {"score": float(np.exp(before)), "score_without": float(np.exp(after))}
    seconds = step / SAMPLING_RATE
    stretches = [
        {"start": start + first * seconds, "end": min(start + last * seconds, frames["end"])}
        for first, last in _find_stretches(chosen)
    ]
    differences = _compare_voice(waveform, [(s["start"] - start, s["end"] - start) for s in stretches])
    return {
        "label": label,
        "start": start,
        "end": frames["end"],
        "saliency": {
            "times": [start + (number + 0.5) * seconds for number in range(len(saliency))],
            "values": saliency.tolist(),
        },
        "stretches": stretches,
        **scores,
        "differences": differences,
        "words": _write_words(label, stretches, scores, differences),
    }


def choose_top_steps(values: np.ndarray, share: float = TOP_SHARE) -> np.ndarray:
    """Mask of the steps with the highest values, at least one: (steps,) to (steps,)."""
    mask = np.zeros(len(values), bool)
    mask[np.argsort(-values, kind="stable")[: max(1, round(share * len(values)))]] = True
    return mask


def _find_stretches(chosen: np.ndarray) -> list[tuple[int, int]]:
    """Find (first, last + 1) of the runs of chosen steps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(int), [0]])))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


# -------------------------------------------------------------------------------------------- voice


def measure_voice(waveform: np.ndarray) -> dict[str, np.ndarray]:
    """Compute acoustic measures of the voice every 10 ms: each (frames,), NaN where it cannot be measured.

    Returns:
        `pitch` in semitones above 65 Hz (YIN, de Cheveigné and Kawahara 2002), `loudness` in dB,
        `harmonics_to_noise` in dB (from the autocorrelation at the period, Boersma 1993), `spectral_slope` in
        dB per octave between 200 and 5000 Hz, and `syllables`, 1 at a syllable nucleus and 0 elsewhere (intensity
        peaks in voiced frames, at least 2 dB above the preceding dip, after de Jong and Wempe 2009).
    """
    window = int(SAMPLING_RATE / LOWEST_PITCH * 3)  # three periods of the lowest voice
    window += window % 2
    centred = np.pad(waveform.astype(np.float64), window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(centred, window)[::MEASURE_STEP]
    loudness = 10 * np.log10(np.maximum((frames**2).mean(axis=1), 1e-12))
    speech = loudness > loudness.max() - VOICE_RANGE_DB

    frequency = load_librosa().yin(
        waveform, fmin=LOWEST_PITCH, fmax=HIGHEST_PITCH, sr=SAMPLING_RATE, frame_length=2048, hop_length=MEASURE_STEP
    )[: len(frames)]
    frames, loudness, speech = frames[: len(frequency)], loudness[: len(frequency)], speech[: len(frequency)]
    harmonics = _measure_harmonics(frames, np.round(SAMPLING_RATE / frequency).astype(int))
    voiced = speech & (harmonics > VOICED_DB)
    return {
        "pitch": np.where(voiced, 12 * np.log2(frequency / LOWEST_PITCH), np.nan),
        "loudness": np.where(speech, loudness, np.nan),
        "harmonics_to_noise": np.where(voiced, harmonics, np.nan),
        "spectral_slope": np.where(voiced, _measure_slope(frames), np.nan),
        "syllables": _find_syllables(loudness, voiced),
    }


def _measure_harmonics(frames: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """Measure the harmonicity of (frames, samples) in dB: window-corrected autocorrelation at the period (frames,)."""
    size = frames.shape[1]
    taper = np.hanning(size)
    autocorrelation = _autocorrelate((frames - frames.mean(axis=1, keepdims=True)) * taper)
    taper_only = _autocorrelate(taper[None])[0]
    periods = np.minimum(periods, size // 2)
    rows = np.arange(len(frames))
    periodic = autocorrelation[rows, periods] / np.maximum(autocorrelation[:, 0], 1e-12)
    periodic = np.clip(periodic * taper_only[0] / taper_only[periods], 1e-4, 1 - 1e-4)
    return 10 * np.log10(periodic / (1 - periodic))


def _autocorrelate(frames: np.ndarray) -> np.ndarray:
    size = 2 * frames.shape[1]
    return np.fft.irfft(np.abs(np.fft.rfft(frames, size)) ** 2)[:, : frames.shape[1]]


def _measure_slope(frames: np.ndarray) -> np.ndarray:
    """Convert (frames, samples) to dB per octave: the slope of a line fitted to the spectrum over log frequency."""
    power = np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]))) ** 2
    frequency = np.fft.rfftfreq(frames.shape[1], 1 / SAMPLING_RATE)
    kept = (frequency >= SLOPE_BAND[0]) & (frequency <= SLOPE_BAND[1])
    octaves, level = np.log2(frequency[kept]), 10 * np.log10(np.maximum(power[:, kept], 1e-12))
    importance = 1 / frequency[kept]  # every octave has the same weight, however many bins it has
    centred = octaves - np.average(octaves, weights=importance)
    return level @ (centred * importance) / (centred**2 @ importance)


def _find_syllables(loudness: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Mark each syllable nucleus with 1, everything else with 0: (frames,)."""
    smooth = scipy.signal.savgol_filter(loudness, 7, 2) if len(loudness) >= 7 else loudness
    peaks, _ = scipy.signal.find_peaks(smooth, prominence=2.0, distance=8)
    nuclei = np.zeros(len(loudness))
    nuclei[[peak for peak in peaks if voiced[peak]]] = 1.0
    return nuclei


def _compare_voice(waveform: np.ndarray, stretches: list[tuple[float, float]]) -> dict[str, float | None]:
    """Compute the median of each measure inside the stretches minus outside; for syllables, the rate in speech."""
    measures = measure_voice(waveform)
    times = np.arange(len(measures["loudness"])) * MEASURE_STEP / SAMPLING_RATE
    inside = np.zeros(len(times), bool)
    for start, end in stretches:
        inside |= (times >= start) & (times < end)
    differences: dict[str, float | None] = {}
    for name in ("pitch", "loudness", "harmonics_to_noise", "spectral_slope"):
        parts = [measures[name][mask] for mask in (inside, ~inside)]
        measured = [part[~np.isnan(part)] for part in parts]
        is_enough = all(len(part) >= 5 for part in measured)
        differences[name] = float(np.median(measured[0]) - np.median(measured[1])) if is_enough else None
    speech = ~np.isnan(measures["loudness"])
    seconds = [(speech & mask).sum() * MEASURE_STEP / SAMPLING_RATE for mask in (inside, ~inside)]
    counts = [measures["syllables"][mask].sum() for mask in (inside, ~inside)]
    is_enough = min(seconds) >= 0.5 and min(counts) >= 2  # a rate from fewer is not reliable
    differences["syllable_rate"] = float(counts[0] / seconds[0] - counts[1] / seconds[1]) if is_enough else None
    return differences


def _write_words(
    label: str, stretches: list[dict[str, float]], scores: dict[str, float], differences: dict[str, float | None]
) -> str:
    where = " and ".join(f"{stretch['start']:.2f}-{stretch['end']:.2f} s" for stretch in stretches[:MOST_NAMED])
    if len(stretches) > MOST_NAMED:
        where = where.replace(" and ", ", ") + f" and {len(stretches) - MOST_NAMED} more"
    before, after = scores["score"], scores["score_without"]
    if after > before - LEAST_LOSS:
        scored = f"its score is {after:.2f} instead of {before:.2f}"
        return f"{label}: rests on no single moment; with {where} silenced, {scored}"
    changes = []
    for name, difference in differences.items():
        unit, smallest, more, less = MEASURES[name]
        if difference is not None and abs(difference) >= smallest:
            changes.append(f"{more if difference > 0 else less} ({difference:+.1f} {unit})")
    voice = f"compared with the rest, the voice there is {', '.join(changes)}" if changes else UNCHANGED
    return f"{label}: with {where} silenced, its score falls from {before:.2f} to {after:.2f}; {voice}"
