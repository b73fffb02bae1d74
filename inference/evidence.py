"""Why: which stretches of a recording carried the decision, and what the voice did there.

The pooling gives each frame a weight; the fifth of the frames with the highest weights are the stretches. The voice
there is compared with the rest of the recording by measures of the field: pitch, loudness, harmonics-to-noise
ratio, spectral slope, syllable rate. This says where the model looked and how that place differs. It is no proof of
a cause. (Idea: Nasr, Ren and Johnson 2025, arXiv 2511.11691.)
"""

from typing import Any

import numpy as np
import scipy.signal
import torch

from core.librosa_loading import load_librosa
from pipeline_ser_align import SpeechEmotionRecognitionPipeline, recording_pieces
from recording_ser_align import SAMPLING_RATE, describe_recording, read_blocks

TOP_SHARE = 0.2  # of the frames
JOIN = 0.12  # seconds: stretches closer than this are one
HOP = 160  # samples: measures every 10 ms
LOWEST_PITCH, HIGHEST_PITCH = 65.0, 500.0  # Hz
VOICED_DB = 0.0  # harmonics-to-noise ratio of a voiced frame: half of its energy is periodic
SPEECH_DB = 40.0  # a frame further below the loudest one is a pause
SPECTRUM = (200.0, 5000.0)  # Hz, where the slope is fitted

# measure: (unit, smallest difference worth a word, words for more and for less)
MEASURES = {
    "pitch": ("semitones", 1.0, "higher voice", "lower voice"),
    "loudness": ("dB", 2.0, "louder", "softer"),
    "harmonics_to_noise": ("dB", 2.0, "clearer voice", "rougher or breathier voice"),
    "spectral_slope": ("dB/octave", 1.0, "brighter, tenser sound", "darker, laxer sound"),
    "syllable_rate": ("syllables/s", 1.0, "faster", "slower"),
}


def explain(recognize: SpeechEmotionRecognitionPipeline, recording: Any, channel: int | None = None) -> dict[str, Any]:
    """What carried the decision on a recording; of one longer than 15 seconds, on the phrase that counted most.

    Args:
        recognize: the pipeline.
        recording: as the pipeline takes it.
        channel: counted from 0; None is the mean of all.

    Returns:
        `label`; `start` and `end` of what was scored, seconds; `weights`, dicts of `times` and `values` of each
        frame; `stretches`, dicts of start, end and share of the weight, in order of time; `differences`, measure:
        stretches minus the rest, None where it cannot be told; `words`, one sentence.

    Raises:
        ValueError: as the pipeline.
    """
    start, waveform, output = _deciding_piece(recognize, recording, channel)
    label = recognize.model.config.id2label[int(output.logits[0].argmax())]
    weights = output.frame_weights[0].float().cpu().numpy()
    frame_seconds = recognize.model.config.frame_seconds
    chosen = top_frames(weights)
    stretches = [
        {
            "start": start + first * frame_seconds,
            "end": min(start + last * frame_seconds, start + len(waveform) / SAMPLING_RATE),
            "weight": float(weights[first:last].sum()),
        }
        for first, last in _stretches(chosen, frame_seconds)
    ]
    differences = _differences(waveform, [(s["start"] - start, s["end"] - start) for s in stretches])
    return {
        "label": label,
        "start": start,
        "end": start + len(waveform) / SAMPLING_RATE,
        "weights": {
            "times": [start + (index + 0.5) * frame_seconds for index in range(len(weights))],
            "values": weights.tolist(),
        },
        "stretches": stretches,
        "differences": differences,
        "words": _words(label, stretches, differences),
    }


def top_frames(weights: np.ndarray, share: float = TOP_SHARE) -> np.ndarray:
    """Mask of the frames with the highest weights: (frames,) to (frames,), at least one of them."""
    mask = np.zeros(len(weights), bool)
    mask[np.argsort(-weights, kind="stable")[: max(1, round(share * len(weights)))]] = True
    return mask


def _deciding_piece(
    recognize: SpeechEmotionRecognitionPipeline, recording: Any, channel: int | None
) -> tuple[float, np.ndarray, Any]:
    """The whole utterance, or the phrase window whose winning probability times duration is the largest."""
    best: tuple[float, float, np.ndarray, Any] | None = None
    blocks = read_blocks(recording, channel)
    for piece in recording_pieces(blocks, False, trim_db=recognize.model.config.trim_db):
        inputs = recognize.feature_extractor(  # type: ignore[misc]
            piece["waveform"], sampling_rate=SAMPLING_RATE, return_tensors="pt", return_attention_mask=True
        )
        with torch.no_grad():
            output = recognize.model(**inputs.to(recognize.device))
        importance = float(output.logits.float().softmax(-1).max()) * len(piece["waveform"])
        if best is None or importance > best[0]:
            best = (importance, piece["start"] / SAMPLING_RATE, piece["waveform"], output)
    if best is None:
        raise ValueError(f"{describe_recording(recording)} holds no speech: it is empty or silent")
    return best[1:]


def _stretches(chosen: np.ndarray, frame_seconds: float) -> list[tuple[int, int]]:
    """(first, last + 1) of the runs of chosen frames, joined over short gaps."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(int), [0]]))).reshape(-1, 2).tolist()
    joined: list[tuple[int, int]] = []
    for first, last in edges:
        if joined and (first - joined[-1][1]) * frame_seconds < JOIN:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


# ------------------------------------------------------------------------------------------ the voice


def voice_measures(waveform: np.ndarray) -> dict[str, np.ndarray]:
    """What the voice does every 10 ms: each (frames,), NaN where it cannot be told.

    Returns:
        `pitch` in semitones above 65 Hz (YIN, de Cheveigné and Kawahara 2002), `loudness` in dB, and
        `harmonics_to_noise` in dB (from the autocorrelation at the period, Boersma 1993), `spectral_slope` in
        dB per octave between 200 and 5000 Hz, `syllables`, 1 at a syllable's peak and else 0 (peaks of intensity in
        voiced frames that stand 2 dB above the dip before, after de Jong and Wempe 2009).
    """
    window = int(SAMPLING_RATE / LOWEST_PITCH * 3)  # three periods of the lowest voice
    window += window % 2
    padded = np.pad(waveform.astype(np.float64), window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::HOP]
    loudness = 10 * np.log10(np.maximum((frames**2).mean(axis=1), 1e-12))
    speech = loudness > loudness.max() - SPEECH_DB

    frequency = load_librosa().yin(
        waveform, fmin=LOWEST_PITCH, fmax=HIGHEST_PITCH, sr=SAMPLING_RATE, frame_length=2048, hop_length=HOP
    )[: len(frames)]
    frames, loudness, speech = frames[: len(frequency)], loudness[: len(frequency)], speech[: len(frequency)]
    harmonics = _harmonics_to_noise(frames, np.round(SAMPLING_RATE / frequency).astype(int))
    voiced = speech & (harmonics > VOICED_DB)
    return {
        "pitch": np.where(voiced, 12 * np.log2(frequency / LOWEST_PITCH), np.nan),
        "loudness": np.where(speech, loudness, np.nan),
        "harmonics_to_noise": np.where(voiced, harmonics, np.nan),
        "spectral_slope": np.where(voiced, _spectral_slope(frames), np.nan),
        "syllables": _syllable_peaks(loudness, voiced),
    }


def _harmonics_to_noise(frames: np.ndarray, periods: np.ndarray) -> np.ndarray:
    """(frames, samples) and their periods in samples to dB: the autocorrelation at the period, less the window's."""
    size = frames.shape[1]
    taper = np.hanning(size)
    autocorrelation = _autocorrelation((frames - frames.mean(axis=1, keepdims=True)) * taper)
    of_taper = _autocorrelation(taper[None])[0]
    periods = np.minimum(periods, size // 2)
    rows = np.arange(len(frames))
    periodic = autocorrelation[rows, periods] / np.maximum(autocorrelation[:, 0], 1e-12)
    periodic = np.clip(periodic * of_taper[0] / of_taper[periods], 1e-4, 1 - 1e-4)
    return 10 * np.log10(periodic / (1 - periodic))


def _autocorrelation(frames: np.ndarray) -> np.ndarray:
    size = 2 * frames.shape[1]
    return np.fft.irfft(np.abs(np.fft.rfft(frames, size)) ** 2)[:, : frames.shape[1]]


def _spectral_slope(frames: np.ndarray) -> np.ndarray:
    """(frames, samples) to dB per octave: a line through the spectrum over the logarithm of frequency."""
    power = np.abs(np.fft.rfft(frames * np.hanning(frames.shape[1]))) ** 2
    frequency = np.fft.rfftfreq(frames.shape[1], 1 / SAMPLING_RATE)
    kept = (frequency >= SPECTRUM[0]) & (frequency <= SPECTRUM[1])
    octaves, level = np.log2(frequency[kept]), 10 * np.log10(np.maximum(power[:, kept], 1e-12))
    importance = 1 / frequency[kept]  # an octave counts as much as another, however many bins it has
    centred = octaves - np.average(octaves, weights=importance)
    return level @ (centred * importance) / (centred**2 @ importance)


def _syllable_peaks(loudness: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    smooth = scipy.signal.savgol_filter(loudness, 7, 2) if len(loudness) >= 7 else loudness
    peaks, _ = scipy.signal.find_peaks(smooth, prominence=2.0, distance=8)
    found = np.zeros(len(loudness))
    found[[peak for peak in peaks if voiced[peak]]] = 1.0
    return found


def _differences(waveform: np.ndarray, stretches: list[tuple[float, float]]) -> dict[str, float | None]:
    """Median of each measure inside the stretches minus outside; rates by their time of speech."""
    measures = voice_measures(waveform)
    times = np.arange(len(measures["loudness"])) * HOP / SAMPLING_RATE
    inside = np.zeros(len(times), bool)
    for start, end in stretches:
        inside |= (times >= start) & (times < end)
    differences: dict[str, float | None] = {}
    for name in ("pitch", "loudness", "harmonics_to_noise", "spectral_slope"):
        parts = [measures[name][mask] for mask in (inside, ~inside)]
        told = [part[~np.isnan(part)] for part in parts]
        enough = all(len(part) >= 5 for part in told)
        differences[name] = float(np.median(told[0]) - np.median(told[1])) if enough else None
    speech = ~np.isnan(measures["loudness"])
    seconds = [(speech & mask).sum() * HOP / SAMPLING_RATE for mask in (inside, ~inside)]
    counts = [measures["syllables"][mask].sum() for mask in (inside, ~inside)]
    enough = min(seconds) >= 0.5 and min(counts) >= 2  # of fewer a rate is chance
    differences["syllable_rate"] = float(counts[0] / seconds[0] - counts[1] / seconds[1]) if enough else None
    return differences


def _words(label: str, stretches: list[dict[str, float]], differences: dict[str, float | None]) -> str:
    by_weight = sorted(stretches, key=lambda stretch: -stretch["weight"])[:3]
    where = ", ".join(f"{s['start']:.2f}-{s['end']:.2f} s" for s in sorted(by_weight, key=lambda s: s["start"]))
    said = []
    for name, difference in differences.items():
        unit, smallest, more, less = MEASURES[name]
        if difference is not None and abs(difference) >= smallest:
            said.append(f"{more if difference > 0 else less} ({difference:+.1f} {unit})")
    what = "; there against the rest: " + ", ".join(said) if said else "; the voice there is much like the rest"
    return f"{label}: most weight on {where}{what}"
