"""Feature extractors: they trim an utterance to its speech, and compute what the encoder takes.

Pretrained encoders keep the library's features. The small encoders that SER-Align trains from scratch have log-mel
frames of their own. The feature extractor of pretrained Wav2Vec2-BERT normalises each mel bin over the utterance. Ours
subtracts a single mean from the whole utterance, which removes the gain of the recording but keeps the spectral tilt
and the energy contour, which convey emotion.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    ASTFeatureExtractor,
    BatchFeature,
    SeamlessM4TFeatureExtractor,
    SequenceFeatureExtractor,
    Wav2Vec2FeatureExtractor,
)
from transformers.audio_utils import mel_filter_bank

try:
    from .quality_ser_align import measure_quality, warn_of
    from .speech_ser_align import has_speech, remove_offset, trim
except ImportError:
    if __package__:
        raise
    from quality_ser_align import measure_quality, warn_of
    from speech_ser_align import has_speech, remove_offset, trim

WINDOW, HOP, FFT = 400, 160, 512  # samples at 16 kHz: 25 ms every 10 ms
PREEMPHASIS, POWER_FLOOR = 0.97, 1.192092955078125e-07  # Kaldi's
DECIBELS_PER_UNIT = 20.0


@cache
def mel_filters(feature_size: int, sampling_rate: int) -> Tensor:
    """(FFT // 2 + 1, feature_size), from 20 Hz to half the sampling rate."""
    filters = mel_filter_bank(
        FFT // 2 + 1,
        feature_size,
        20.0,
        sampling_rate / 2,
        sampling_rate,
        mel_scale="kaldi",
        triangularize_in_mel_space=True,
    )
    return torch.from_numpy(filters).float()


def measure_mel_power(waveform: Tensor, window: Tensor, preemphasis: float, filters: Tensor) -> Tensor:
    """(samples,) to (log-mel frames, mel bins), as Kaldi does.

    Args:
        window: (WINDOW,).
        preemphasis: coefficient of the first-order pre-emphasis filter, within each window.
        filters: of [`mel_filters`].
    """
    windows = waveform.unfold(0, WINDOW, HOP)
    windows = windows - windows.mean(dim=1, keepdim=True)
    before = torch.cat([windows[:, :1], windows[:, :-1]], dim=1)
    return torch.fft.rfft((windows - preemphasis * before) * window, FFT).abs().square() @ filters


class Trimming:
    """A feature extractor that trims a waveform to its speech, and removes its offset, before it extracts features.

    So transformers' own pipeline, a bare forward pass and the project's pipeline take the same features, and warn of
    the same recordings.

    Args:
        trim_db: as in [`trim`]; None trims nothing.
        bandwidth: of the speech that the model was trained on, in Hz, as in its configuration; None if unknown.

    Raises:
        ValueError: `trim_db` is not a number above 0.
    """

    removes_offset = True

    def __init__(self, *args: Any, trim_db: float | None = None, bandwidth: float | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if trim_db is not None and not (isinstance(trim_db, int | float) and 0 < trim_db < float("inf")):
            raise ValueError(f"trim_db={trim_db!r} is not a number above 0, or None")
        self.trim_db = trim_db
        self.bandwidth = bandwidth

    def __call__(self, raw_speech: Any, *args: Any, is_trimmed: bool = False, **kwargs: Any) -> BatchFeature:
        """As the library's extractor.

        Args:
            is_trimmed: the waveforms are trimmed and checked already, or are parts of a longer one: only remove their
                offset. Otherwise, a Python warning says why the scores of a recording may be unreliable.

        Raises:
            ValueError: a waveform is empty, or contains samples that are not finite.
        """
        waveforms, is_single = self.prepare_waveforms(raw_speech, is_trimmed)
        return super().__call__(waveforms[0] if is_single else waveforms, *args, **kwargs)  # type: ignore[misc]

    def prepare_waveforms(self, raw_speech: Any, is_trimmed: bool) -> tuple[list[np.ndarray], bool]:
        """One or several waveforms, trimmed and without offset: float32, each (samples,); and whether it is one."""
        is_single = len(raw_speech) == 0 or np.ndim(raw_speech[0]) == 0
        waveforms = [np.asarray(each, np.float32) for each in ([raw_speech] if is_single else raw_speech)]
        if not is_trimmed:
            names = ["the recording"] if is_single else [f"recordings[{index}]" for index in range(len(waveforms))]
            waveforms = [self.trim_and_warn(waveform, name) for waveform, name in zip(waveforms, names)]
        return [remove_offset(waveform) if self.removes_offset else waveform for waveform in waveforms], is_single

    def trim_and_warn(self, waveform: np.ndarray, name: str) -> np.ndarray:
        """Trim a recording, (samples,), and warn of what makes its scores unreliable. Raises ValueError."""
        if len(waveform) == 0:
            raise ValueError(f"{name} is empty: it contains no samples")
        if not np.isfinite(waveform).all():
            raise ValueError(f"{name} contains samples that are not finite numbers; export it again")
        _, trimmed = trim(waveform, self.trim_db)
        if has_speech(iter([waveform])):
            seconds = len(trimmed) / self.sampling_rate  # type: ignore[attr-defined]
            problems = measure_quality(waveform).find_problems(name, self.bandwidth, seconds)
            warn_of(problems.values())
        else:
            warn_of([f"{name} contains no speech: it is silent, so its scores mean nothing"])
        return trimmed


class SERAlignWaveformExtractor(Trimming, Wav2Vec2FeatureExtractor):
    """Wav2Vec2FeatureExtractor with trimming, for encoders that read the waveform."""


class SERAlignSeamlessExtractor(Trimming, SeamlessM4TFeatureExtractor):
    """SeamlessM4TFeatureExtractor with trimming, for pretrained Wav2Vec2-BERT."""


class LogMelExtractor(Trimming, SequenceFeatureExtractor):
    """A feature extractor whose `extract` converts one waveform to log-mel frames."""

    model_input_names = ["input_features", "attention_mask"]

    def __call__(  # type: ignore[override]  # its arguments are those of the library's extractors
        self,
        raw_speech: np.ndarray | Sequence[float] | Sequence[np.ndarray],
        sampling_rate: int | None = None,
        padding: bool | str | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        is_trimmed: bool = False,
        **kwargs: Any,
    ) -> BatchFeature:
        """Extract `input_features` (batch, frames, features) and a mask from one or several waveforms.

        They are padded to one length where `padding` asks for it or, if it is None, where `return_tensors` does: lists
        keep their own lengths, so that frames of padding never outlive their mask.

        Raises:
            ValueError: the sampling rate is wrong, or a waveform is too short for one frame.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(f"sampling_rate={sampling_rate}: resample the waveform to {self.sampling_rate} Hz first")
        waveforms, _ = self.prepare_waveforms(raw_speech, is_trimmed)
        features = [self.extract(torch.from_numpy(waveform)).numpy() for waveform in waveforms]
        return self.pad(
            BatchFeature({"input_features": features}),
            padding=return_tensors is not None if padding is None else padding,
            return_tensors=return_tensors,
            return_attention_mask=return_attention_mask,
            **kwargs,
        )

    def extract(self, waveform: Tensor) -> Tensor:
        """(samples,) to (frames, features). Raises ValueError if the waveform is too short for one frame."""
        raise NotImplementedError


class SERAlignFeatureExtractor(LogMelExtractor):
    """Converts 16 kHz waveforms to stacked log-mel frames that do not depend on the gain of the recording.

    Computes 25 ms power spectra every 10 ms in 80 mel bins and converts them to decibels. Values more than
    `dynamic_range` below the loudest one are raised to that floor. Then the mean of the utterance is subtracted, and
    the result is divided by 20 dB.

    Args:
        feature_size: mel bins.
        sampling_rate: of the waveforms, in Hz; 16,000.
        padding_value: value of frames beyond the end of an utterance.
        stride: number of 10 ms log-mel frames that are stacked into one.
        dynamic_range: in dB, below the loudest value of the utterance.
        preemphasis: coefficient of the first-order pre-emphasis filter.
    """

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        stride: int = 4,
        dynamic_range: float = 80.0,
        preemphasis: float = PREEMPHASIS,
        **kwargs: Any,
    ):
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)
        self.stride = stride
        self.dynamic_range = dynamic_range
        self.preemphasis = preemphasis

    def extract(self, waveform: Tensor) -> Tensor:
        """(samples,) to (frames, stride * feature_size)."""
        shortest = WINDOW + (self.stride - 1) * HOP
        if len(waveform) < shortest:
            raise ValueError(
                f"the waveform has {len(waveform)} samples ({len(waveform) / self.sampling_rate:.4f} s); one frame "
                f"needs at least {shortest} ({shortest / self.sampling_rate:.4f} s)"
            )
        window = torch.hann_window(WINDOW, periodic=False) ** 0.85  # Kaldi's
        filters = mel_filters(self.feature_size, self.sampling_rate)
        power = measure_mel_power(waveform, window, self.preemphasis, filters)
        floor = float(power.max()) * 10 ** (-self.dynamic_range / 10)
        decibels = 10 * power.clamp(min=max(floor, torch.finfo(torch.float32).tiny)).log10()
        normalized = (decibels - decibels.mean()) / DECIBELS_PER_UNIT
        frames = len(normalized) // self.stride
        return normalized[: frames * self.stride].reshape(frames, -1)


class SERAlignSpectrogramExtractor(LogMelExtractor):
    """Converts 16 kHz waveforms to the log-mel frames of ASTFeatureExtractor, as many as the utterance has.

    Args:
        feature_size: number of mel bins.
        mean, std: of the frames in pre-training; the defaults are those of AudioSet.
    """

    removes_offset = False  # each window loses its own

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        mean: float = -4.2677393,
        std: float = 4.5689974,
        **kwargs: Any,
    ):
        super().__init__(feature_size, sampling_rate, padding_value, **{"return_attention_mask": True, **kwargs})
        self.mean = mean
        self.std = std

    def extract(self, waveform: Tensor) -> Tensor:
        """(samples,) to (frames, feature_size)."""
        if len(waveform) < WINDOW:
            raise ValueError(
                f"the waveform has {len(waveform)} samples ({len(waveform) / self.sampling_rate:.4f} s); one frame "
                f"needs at least {WINDOW} ({WINDOW / self.sampling_rate:.4f} s)"
            )
        window = torch.hann_window(WINDOW, periodic=False)
        power = measure_mel_power(waveform, window, PREEMPHASIS, mel_filters(self.feature_size, self.sampling_rate))
        return (power.clamp(min=POWER_FLOOR).log() - self.mean) / (2 * self.std)


SERAlignFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
SERAlignWaveformExtractor.register_for_auto_class("AutoFeatureExtractor")
SERAlignSeamlessExtractor.register_for_auto_class("AutoFeatureExtractor")
SERAlignSpectrogramExtractor.register_for_auto_class("AutoFeatureExtractor")


def add_trimming(
    extractor: SequenceFeatureExtractor, trim_db: float | None, bandwidth: float | None = None
) -> SequenceFeatureExtractor:
    """The feature extractor of an encoder as one of ours, which trims.

    Raises:
        ValueError: there is none for this kind of extractor.
    """
    settings = {**extractor.to_dict(), "trim_db": trim_db, "bandwidth": bandwidth}
    if isinstance(extractor, Trimming):
        return type(extractor)(**settings)
    if isinstance(extractor, Wav2Vec2FeatureExtractor):
        return SERAlignWaveformExtractor(**settings)
    if isinstance(extractor, SeamlessM4TFeatureExtractor):
        return SERAlignSeamlessExtractor(**settings)
    if isinstance(extractor, ASTFeatureExtractor):
        scale = {"mean": extractor.mean, "std": extractor.std} if extractor.do_normalize else {"mean": 0.0, "std": 0.5}
        return SERAlignSpectrogramExtractor(extractor.num_mel_bins, trim_db=trim_db, bandwidth=bandwidth, **scale)
    raise ValueError(
        f"{type(extractor).__name__} has no version that trims; valid are Wav2Vec2FeatureExtractor, "
        "SeamlessM4TFeatureExtractor and ASTFeatureExtractor"
    )
