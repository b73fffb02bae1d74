"""Log-mel frames for encoders of the Whisper family.

For the frames of an utterance, the values are those of Whisper's own feature extractor, which pads its input to 30 s:
the decimal logarithm of the mel power, no lower than 8 below the loudest value, shifted and scaled. Here, utterances
need no padding.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

try:
    from .feature_extraction_ser_align import LogMelExtractor
except ImportError:
    if __package__:  # inside a package, the relative import must work: do not hide its error
        raise
    from feature_extraction_ser_align import LogMelExtractor

WINDOW, HOP = 400, 160  # samples at 16 kHz: 25 ms every 10 ms
POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # decades below the loudest value


@cache
def whisper_mel_filters(feature_size: int, sampling_rate: int) -> Tensor:
    """(WINDOW // 2 + 1, feature_size), from 0 Hz to half the sampling rate."""
    filters = mel_filter_bank(
        WINDOW // 2 + 1, feature_size, 0.0, sampling_rate / 2, sampling_rate, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters).float()


class SERAlignWhisperFeatureExtractor(LogMelExtractor):
    """Converts 16 kHz waveforms to Whisper's log-mel frames, one every 10 ms, as many as the utterance has.

    Args:
        feature_size: mel bins, 80, or 128 for large-v3.
        sampling_rate: of the waveforms, in Hz; 16,000.
        padding_value: value of the frames beyond the end of an utterance.
        longest: frames of the longest input of the encoder, 3,000. A shorter utterance ends in silence, as it does in
            Whisper's padded input.
    """

    removes_offset = False  # the values are Whisper's own

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        longest: int | None = 3000,
        **kwargs: Any,
    ):
        super().__init__(feature_size, sampling_rate, padding_value, **{"return_attention_mask": True, **kwargs})
        self.longest = longest

    def extract(self, waveform: Tensor) -> Tensor:
        """(samples,) to (frames, feature_size)."""
        frames = len(waveform) // HOP
        if frames == 0:
            raise ValueError(
                f"the waveform has {len(waveform)} samples ({len(waveform) / self.sampling_rate:.4f} s); one frame "
                f"needs at least {HOP} ({HOP / self.sampling_rate:.4f} s)"
            )
        # Shorter ones end in silence, and every window that reaches into the utterance counts for the loudest value.
        waveform = waveform[: frames * HOP] if frames == self.longest else F.pad(waveform, (0, WINDOW))
        spectrum = torch.stft(waveform, WINDOW, HOP, window=torch.hann_window(WINDOW), return_complex=True)
        power = (spectrum[:, :-1].abs() ** 2).T @ whisper_mel_filters(self.feature_size, self.sampling_rate)
        decades = power.clamp(min=POWER_FLOOR).log10()
        floored = decades.clamp(min=float(decades.max()) - DYNAMIC_RANGE)
        return (floored[:frames] + 4.0) / 4.0


SERAlignWhisperFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")
