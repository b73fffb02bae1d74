"""Feature extractors as modules of an ONNX graph: padded waveforms and their mask to the model's input and its mask.

A Fourier transform is mostly a matrix product here, which ONNX Runtime computes faster than its own.
"""

import torch
from torch import Tensor, nn
from transformers import SequenceFeatureExtractor, Wav2Vec2FeatureExtractor

import whisper_features_ser_align as whisper
from core.errors import InputError
from exact_ser_align import make_length_mask
from feature_extraction_ser_align import (
    DECIBELS_PER_UNIT,
    FFT,
    HOP,
    POWER_FLOOR,
    PREEMPHASIS,
    WINDOW,
    SERAlignFeatureExtractor,
    SERAlignSpectrogramExtractor,
    Trimming,
    mel_filters,
)
from whisper_features_ser_align import SERAlignWhisperFeatureExtractor, whisper_mel_filters

VARIANCE_FLOOR = 1e-7  # of Wav2Vec2FeatureExtractor


def build_front_end(extractor: SequenceFeatureExtractor) -> nn.Module:
    """Build the module of a feature extractor. Raises InputError if it is of another kind."""
    if isinstance(extractor, SERAlignFeatureExtractor):
        return LogMel(extractor)
    if isinstance(extractor, SERAlignWhisperFeatureExtractor):
        return WhisperLogMel(extractor)
    if isinstance(extractor, Wav2Vec2FeatureExtractor):
        return NormalizedWaveform(extractor)
    if isinstance(extractor, SERAlignSpectrogramExtractor):
        return Spectrogram(extractor)
    raise InputError(
        f"{type(extractor).__name__} cannot be exported; only Wav2Vec2FeatureExtractor, SERAlignFeatureExtractor, "
        "SERAlignWhisperFeatureExtractor and SERAlignSpectrogramExtractor are supported"
    )


def sum_exactly(values: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Sum in float64: ONNX Runtime adds value by value, which loses precision in float32."""
    return values.sum(dim=dim, keepdim=True, dtype=torch.float64).float()


class NormalizedWaveform(nn.Module):
    """Wav2Vec2FeatureExtractor as a module: each utterance gets mean 0 and variance 1 over its own samples.

    (batch, samples) waveform and mask to (batch, samples) waveform and mask; 0 at the padding.
    """

    def __init__(self, extractor: Wav2Vec2FeatureExtractor):
        super().__init__()
        self.do_normalize = extractor.do_normalize
        self.removes_offset = extractor.do_normalize or isinstance(extractor, Trimming)

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        padding = attention_mask == 0
        waveform = waveform.masked_fill(padding, 0.0)
        samples = attention_mask.sum(dim=1, keepdim=True)
        if self.removes_offset:
            waveform = (waveform - sum_exactly(waveform, dim=1) / samples).masked_fill(padding, 0.0)
        if self.do_normalize:
            waveform = waveform / torch.sqrt(sum_exactly(waveform.square(), dim=1) / samples + VARIANCE_FLOOR)
        return waveform, attention_mask


class MelSpectrum(nn.Module):
    """Mel power of windows, each transformed as if extended by zeros to `size`: (..., window) to (..., mel bins).

    The even and the odd samples are transformed apart, by one matrix, and joined by one step of the fast Fourier
    transform (Cooley and Tukey 1965): a quarter of the constants, and half of the work.

    Args:
        window, size: in samples, multiples of two and of four.
        filters: (size // 2 + 1, mel bins).
    """

    fourier: Tensor
    turn: Tensor
    filters: Tensor

    def __init__(self, window: int, size: int, filters: Tensor):
        super().__init__()
        half = size // 2
        ascending, descending = torch.arange(half // 2 + 1), torch.arange(half, half // 2, -1)
        times = torch.arange(window // 2, dtype=torch.float64).unsqueeze(1)
        angles, turns = 2 * torch.pi * times * ascending / half, 2 * torch.pi * ascending.double() / size
        self.register_buffer("fourier", torch.cat([angles.cos(), angles.sin()], dim=1).float())
        self.register_buffer("turn", torch.stack([turns.cos(), turns.sin()]).float())
        self.register_buffer("filters", filters[torch.cat([ascending, descending])])

    def forward(self, windows: Tensor) -> Tensor:
        real, imaginary = (windows[..., 0::2] @ self.fourier).chunk(2, dim=-1)
        odd_real, odd_imaginary = (windows[..., 1::2] @ self.fourier).chunk(2, dim=-1)
        cosine, sine = self.turn
        turned_real = odd_real * cosine - odd_imaginary * sine
        turned_imaginary = odd_real * sine + odd_imaginary * cosine
        low = (real + turned_real).square() + (imaginary + turned_imaginary).square()
        high = (real - turned_real).square() + (imaginary - turned_imaginary).square()
        return torch.cat([low, high[..., :-1]], dim=-1) @ self.filters


class MelPower(nn.Module):
    """Kaldi's mel power, as in `measure_mel_power`: (batch, samples) to (batch, log-mel frames of 10 ms, mel bins)."""

    window: Tensor

    def __init__(self, window: Tensor, preemphasis: float, filters: Tensor):
        super().__init__()
        self.preemphasis = preemphasis
        self.register_buffer("window", window)
        self.spectrum = MelSpectrum(WINDOW, FFT, filters)

    def forward(self, waveform: Tensor) -> Tensor:
        windows = waveform.unfold(1, WINDOW, HOP)
        windows = windows - windows.mean(dim=-1, keepdim=True)
        before = torch.cat([windows[..., :1], windows[..., :-1]], dim=-1)
        return self.spectrum((windows - self.preemphasis * before) * self.window)


class Spectrogram(nn.Module):
    """SERAlignSpectrogramExtractor as a module.

    (batch, samples) waveform and mask to (batch, frames, feature_size) log-mel frames and their mask; 0 at the padding.
    """

    def __init__(self, extractor: SERAlignSpectrogramExtractor):
        super().__init__()
        self.mean, self.std = extractor.mean, extractor.std
        filters = mel_filters(extractor.feature_size, extractor.sampling_rate)
        self.measure = MelPower(torch.hann_window(WINDOW, periodic=False), PREEMPHASIS, filters)

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        power = self.measure(waveform.masked_fill(attention_mask == 0, 0.0))
        mask = make_length_mask((attention_mask.sum(dim=1) - WINDOW) // HOP + 1, power.shape[1])
        frames = (power.clamp(min=POWER_FLOOR).log() - self.mean) / (2 * self.std)
        return frames.masked_fill(~mask.unsqueeze(-1), 0.0), mask.long()


class LogMel(nn.Module):
    """SERAlignFeatureExtractor as a module.

    (batch, samples) waveform and mask to (batch, frames, stride * feature_size) log-mel frames and their mask; 0 at the
    padding.
    """

    def __init__(self, extractor: SERAlignFeatureExtractor):
        super().__init__()
        self.stride, self.feature_size = extractor.stride, extractor.feature_size
        self.quietest = 10 ** (-extractor.dynamic_range / 10)  # power, as a share of the loudest
        filters = mel_filters(extractor.feature_size, extractor.sampling_rate)
        self.measure = MelPower(torch.hann_window(WINDOW, periodic=False) ** 0.85, extractor.preemphasis, filters)

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        power = self.measure(waveform.masked_fill(attention_mask == 0, 0.0))
        lengths = (attention_mask.sum(dim=1) - WINDOW) // HOP + 1
        padding = ~make_length_mask(lengths, power.shape[1]).unsqueeze(-1)
        floor = power.masked_fill(padding, 0.0).amax(dim=(1, 2), keepdim=True) * self.quietest
        decibels = 10 * torch.maximum(power, floor.clamp(min=torch.finfo(torch.float32).tiny)).log10()
        values = lengths.view(-1, 1, 1) * self.feature_size
        mean = sum_exactly(decibels.masked_fill(padding, 0.0), dim=(1, 2)) / values
        normalized = (decibels - mean) / DECIBELS_PER_UNIT
        num_frames = power.shape[1] // self.stride
        # The memory layout of a slice depends on its length, so the trace would support only some lengths.
        stacked = normalized.index_select(1, torch.arange(num_frames * self.stride, device=waveform.device))
        frames = stacked.reshape(waveform.shape[0], num_frames, self.stride * self.feature_size)
        mask = make_length_mask(lengths // self.stride, num_frames)
        return frames.masked_fill(~mask.unsqueeze(-1), 0.0), mask.long()


class WhisperLogMel(nn.Module):
    """SERAlignWhisperFeatureExtractor as a module.

    (batch, samples) waveform and mask to (batch, frames, feature_size) log-mel frames and their mask; 0 at the padding.
    """

    window: Tensor

    def __init__(self, extractor: SERAlignWhisperFeatureExtractor):
        super().__init__()
        self.longest = extractor.longest
        self.register_buffer("window", torch.hann_window(whisper.WINDOW))
        filters = whisper_mel_filters(extractor.feature_size, extractor.sampling_rate)
        self.spectrum = MelSpectrum(whisper.WINDOW, whisper.WINDOW, filters)

    def forward(self, waveform: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        frames = attention_mask.sum(dim=1) // whisper.HOP
        extended = self._extend(waveform.masked_fill(attention_mask == 0, 0.0), frames)
        windows = extended.unfold(1, whisper.WINDOW, whisper.HOP) * self.window
        decades = self.spectrum(windows).clamp(min=whisper.POWER_FLOOR).log10()
        floor = decades.amax(dim=(1, 2), keepdim=True) - whisper.DYNAMIC_RANGE
        num_frames = waveform.shape[1] // whisper.HOP
        # The memory layout of a slice depends on its length, so the trace would support only some lengths.
        floored = torch.maximum(decades, floor).index_select(1, torch.arange(num_frames, device=waveform.device))
        mask = make_length_mask(frames, num_frames)
        return ((floored + 4.0) / 4.0).masked_fill(~mask.unsqueeze(-1), 0.0), mask.long()

    def _extend(self, waveform: Tensor, frames: Tensor) -> Tensor:
        """Extend by half a window before, mirrored, and by one window after: silence, or mirrored at the full 30 s."""
        half = whisper.WINDOW // 2
        samples, steps = waveform.shape[1], torch.arange(half, device=waveform.device)
        silence = waveform.new_zeros(waveform.shape[0], whisper.WINDOW)
        padded = torch.cat([waveform, silence], dim=1)
        before = padded.index_select(1, half - steps)
        is_longest = (frames == self.longest).unsqueeze(1)
        after = waveform.index_select(1, (samples - 2 - steps).clamp(min=0)).masked_fill(~is_longest, 0.0)
        return torch.cat([before, waveform, after, silence[:, half:]], dim=1)
