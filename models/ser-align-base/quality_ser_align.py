"""Measures what makes a recording unreliable: no voice, noise, a narrow band, clipping, and more.

Everything is measured while the recording is read, in constant memory. The bandwidth is measured in the spectrum, not
read from the header: a telephone call saved at 44.1 kHz still has a bandwidth of 4 kHz.

Part of the model code on the Hugging Face Hub; imports only the other files of the model.
"""

import math
import warnings
from collections.abc import Iterable, Iterator

import numpy as np

try:
    from .fields_ser_align import SAMPLING_RATE
    from .speech_ser_align import LONGEST_UTTERANCE
    from .voice_ser_align import FEWEST_FRAMES as VOICE_FRAMES
    from .voice_ser_align import VoiceCounts
except ImportError:
    if __package__:
        raise
    from fields_ser_align import SAMPLING_RATE
    from speech_ser_align import LONGEST_UTTERANCE
    from voice_ser_align import FEWEST_FRAMES as VOICE_FRAMES
    from voice_ser_align import VoiceCounts

# Ours. A recording is clipped if more than 1% of its samples reach 0.99; floats above 8 are integers in disguise.
FULL_SCALE, CLIPPED_SHARE, LARGEST_FLOAT = 0.99, 0.01, 8.0
SHORTEST_UTTERANCE = 0.5  # seconds; ours: on so little, ser-align-mini loses half its UA (python -m studies.limits)
LEAST_8_BIT_PEAK = 0.5  # ours: below it, the quantisation noise of 8 bits costs accuracy
FRAME, HOP, BANDS = 1024, 512, 32  # samples: spectra of 64 ms every 32 ms, in bands of 250 Hz
BAND_WIDTH = SAMPLING_RATE / 2 / BANDS  # Hz
# Ours, chosen on RAVDESS, EmoDB and nEMO (python -m studies.bandwidth). Frames up to 40 dB below the loudest one are
# speech. A band contains speech if its 95th percentile is at most 50 dB below that of the loudest band. It contains
# noise alone if it is 30 dB below and its level varies by less than 6 dB.
SPEECH_RANGE_DB, BAND_RANGE_DB = 40.0, 50.0
NOISE_SPREAD_DB, NOISE_RANGE_DB = 6.0, 30.0
# Speech of 8 kHz, upsampled without a filter, mirrors its levels about 4 kHz: those above correlate with those below,
# and the standard deviation of their differences is at most 6 dB.
MIRROR, MIRRORED, MIRROR_SPREAD_DB = BANDS // 2, 0.94, 6.0
LEAST_RANGE_DB = 36.0  # between the loudest band and the quietest tenth of the frames of a typical band
# A band below 1 kHz contains hum if its level in half of the frames is less than 3 dB above that in the quietest tenth,
# and at most 30 dB below the loudest band. No file of the three corpora does (python -m studies.voice).
HUM_BANDS, HUM_SPREAD_DB, HUM_RANGE_DB = 4, 3.0, 30.0
FEWEST_FRAMES = 16  # half a second of speech: less may lack a consonant
CLEARLY_BELOW = 0.85  # of the bandwidth of the training data
QUIETEST_DB, LEVELS = -140, 340  # histogram of the levels in a band: steps of 1 dB, up to 32-bit integers


class RecordingQuality:
    """Measures of one recording or stream, updated as its blocks pass through."""

    def __init__(self) -> None:
        self.rate: int = SAMPLING_RATE
        self.samples = self.clipped = 0  # of all channels, at the recording's own rate
        self.heard = 0  # samples at 16 kHz
        self.lost = 0.0  # share of the recording that its header promises and the file does not hold
        self.largest = 0.0
        # Sums over samples: of the mean power of the channels, and of the power of their mean.
        self.power, self.mixed_power, self.channels = 0.0, 0.0, 1
        self.may_be_batch = False  # an array of two rows, which may be two recordings
        self.has_8_bits = True  # all samples so far are multiples of 1/128
        self.loudest = float(QUIETEST_DB)  # level of the loudest frame so far, dB
        self.levels = np.zeros((BANDS, LEVELS), np.int64)  # number of speech frames by band and level
        # Sums over speech frames of the levels above 4 kHz, of those mirrored below, their squares and products, dB.
        self.mirrors = np.zeros((5, MIRROR))
        self.voice = VoiceCounts()

    def watch_samples(self, blocks: Iterator[np.ndarray], rate: int) -> Iterator[np.ndarray]:
        """Pass through blocks at the recording's own sampling rate, (samples, channels), and measure their samples."""
        self.rate = rate
        for block in blocks:
            magnitudes = np.abs(block)
            self.samples += block.size
            self.clipped += int(np.count_nonzero(magnitudes >= FULL_SCALE))
            self.has_8_bits = self.has_8_bits and bool((block * 128 == np.rint(block * 128)).all())
            self.largest = max(self.largest, float(magnitudes.max(initial=0.0)))
            if block.shape[1] > 1:
                self.channels = block.shape[1]
                self.power += float(np.square(block).mean(axis=1).sum())
                self.mixed_power += float(np.square(block.mean(axis=1)).sum())
            yield block

    def watch_waveform(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass through blocks of 16 kHz mono, (samples,), and measure their spectra."""
        for block in blocks:
            self.heard += len(block)
            self.add_spectra(block)
            yield block

    def add_spectra(self, block: np.ndarray) -> None:
        """Count the levels of the speech frames of a block, (samples,) at 16 kHz."""
        if len(block) < FRAME:
            return
        power = measure_power(block)
        levels = 10 * np.log10(power[:, :-1].reshape(len(power), BANDS, -1).sum(axis=2) + 1e-14)
        of_frames = levels.max(axis=1)
        self.loudest = max(self.loudest, float(of_frames.max()))
        is_speech = of_frames > max(self.loudest - SPEECH_RANGE_DB, QUIETEST_DB)
        self.voice.add(power, is_speech)
        speech = levels[is_speech]
        above, below = speech[:, MIRROR:], speech[:, MIRROR - 1 :: -1]
        self.mirrors += [each.sum(axis=0) for each in (above, below, above**2, below**2, above * below)]
        steps = np.clip(speech - QUIETEST_DB, 0, LEVELS - 1).astype(int)
        for band in range(BANDS):
            self.levels[band] += np.bincount(steps[:, band], minlength=LEVELS)

    def measure_bandwidth(self) -> float | None:
        """Measure the highest frequency of the speech in Hz, at most 8000; None if there is too little speech."""
        limit = min(self.rate, SAMPLING_RATE) / 2
        if self.levels[0].sum() < FEWEST_FRAMES:
            return limit if limit < SAMPLING_RATE / 2 else None
        if self.is_mirrored():
            limit = min(limit, MIRROR * BAND_WIDTH)
        typical, loud, loudest = (self._find_levels(share) for share in (0.5, 0.95, 0.98))
        is_heard = loud >= loud.max() - BAND_RANGE_DB
        is_noise = (loudest - typical < NOISE_SPREAD_DB) & (loud < loud.max() - NOISE_RANGE_DB)
        return min(limit, float(1 + np.flatnonzero(is_heard & ~is_noise)[-1]) * BAND_WIDTH)

    def is_mirrored(self) -> bool:
        """Whether the levels above 4 kHz follow those below, mirrored, so that they are images and not speech."""
        above, below, above_squared, below_squared, products = self.mirrors / max(self.levels[0].sum(), 1)
        variances = np.maximum([above_squared - above**2, below_squared - below**2], 1e-6)
        covariances = products - above * below
        spreads = np.sqrt(np.maximum(variances.sum(axis=0) - 2 * covariances, 0))
        correlations = covariances / np.sqrt(variances.prod(axis=0))
        return bool(np.median(correlations) > MIRRORED and np.median(spreads) < MIRROR_SPREAD_DB)

    def measure_range(self, bandwidth: float | None) -> float:
        """Measure how far the speech, up to a bandwidth in Hz, rises above the quietest tenth of its frames, in dB.

        Noise makes it small; infinite if there is too little speech.
        """
        if bandwidth is None or self.voice.frames < VOICE_FRAMES:
            return math.inf
        bands = slice(0, max(1, round(bandwidth / BAND_WIDTH)))
        quiet, loud = self._find_levels(0.1)[bands], self._find_levels(0.95)[bands]
        return float(loud.max() - np.median(quiet))

    def measure_hum(self) -> float | None:
        """Measure how far a steady hum or noise below 1 kHz lies below the speech, in dB; None if there is none."""
        if self.voice.frames < VOICE_FRAMES:
            return None
        quiet, typical, loud = (self._find_levels(share) for share in (0.1, 0.5, 0.95))
        distances = (loud.max() - quiet)[:HUM_BANDS]
        is_hum = ((typical - quiet)[:HUM_BANDS] < HUM_SPREAD_DB) & (distances <= HUM_RANGE_DB)
        return float(distances[is_hum].min()) if is_hum.any() else None

    def find_problems(self, name: str, heard: float | None, seconds: float | None = None) -> dict[str, str]:
        """Return the reasons why scores of this recording may be unreliable: one line for each kind of problem.

        Args:
            name: name of the recording.
            heard: bandwidth in Hz of the speech that the model was trained on; None means unknown, taken as 8000.
            seconds: duration of the longest stretch of it that was scored as an utterance; None means unknown.
        """
        problems = {}
        if self.lost > 0:
            held = self.heard / SAMPLING_RATE
            problems["length"] = (
                f"{name} is cut short: it holds {held:.1f} of {held / (1 - self.lost):.1f} s; copy or download it again"
            )
        if self.largest > LARGEST_FLOAT:
            problems["scale"] = (
                f"{name} contains samples of up to {self.largest:.3g}, but full scale is 1; they are read "
                "as they are. Divide 16-bit samples by 32768"
            )
        elif self.clipped > CLIPPED_SHARE * self.samples:
            problems["clipping"] = (
                f"{name} is clipped: {self.clipped / self.samples:.0%} of its samples are at full scale, which "
                "distorts the voice; record it at a lower gain"
            )
        if self.has_8_bits and 0 < self.largest < LEAST_8_BIT_PEAK:
            problems["resolution"] = (
                f"{name} has 8-bit samples and uses less than half of their range, so quantisation noise masks quiet "
                "speech; record it with 16 bits"
            )
        if cancellation := self.find_cancellation(name):
            problems["channels"] = cancellation
        if self.may_be_batch:
            problems["batch"] = (
                f"{name} is an array of two rows, which are averaged as the channels of one recording; give a batch as "
                "a list of waveforms, and channels with their sampling rate, (waveform, rate)"
            )
        if seconds is not None and seconds < SHORTEST_UTTERANCE:
            problems["short"] = (
                f"{name} contains only {seconds:.2f} s of speech at a time, which is too little for reliable scores; "
                "give whole sentences"
            )
        if seconds is not None and seconds > LONGEST_UTTERANCE + 1e-3:
            problems["long"] = (
                f"{name} lasts {seconds:.0f} s, but the model was trained on single utterances, so its scores are "
                "unreliable; cut it into utterances, as predict.py does"
            )
        if no_voice := self.voice.find_problem(name):
            problems["voice"] = no_voice
        heard = SAMPLING_RATE / 2 if heard is None else heard
        bandwidth = self.measure_bandwidth()
        if bandwidth is not None and bandwidth < CLEARLY_BELOW * heard:
            problems["bandwidth"] = (
                f"{name} contains no speech above {bandwidth / 1000:.2g} kHz, but the model was trained on speech up "
                f"to {heard / 1000:.2g} kHz, so its scores are unreliable; record at {2 * heard / 1000:.2g} kHz or "
                "higher, or use a model trained on such speech"
            )
        if (span := self.measure_range(bandwidth)) < LEAST_RANGE_DB:
            problems["noise"] = (
                f"{name} is noisy: noise masks all but the loudest {span:.0f} dB of the speech, so its scores are "
                "unreliable; record closer to the speaker or in a quieter place"
            )
        elif (distance := self.measure_hum()) is not None:
            problems["hum"] = (
                f"{name} contains a steady hum or noise below 1 kHz, only {distance:.0f} dB below the speech, so its "
                "scores may be unreliable; filter it out, or record away from its source"
            )
        return problems

    def find_cancellation(self, name: str) -> str | None:
        """Say that the channels cancel each other in their mean, as those of a recorder with one inverted input do.

        The mean of N unrelated channels has 1/N of their power; a quarter of that means cancellation.
        """
        if self.mixed_power * 4 * self.channels >= self.power:
            return None
        return (
            f"{name} has {self.channels} channels that cancel each other when they are averaged, so speech is lost; "
            "score one channel, with channel=0 or --channels each"
        )

    def _find_levels(self, share: float) -> np.ndarray:
        """Return a quantile of the levels of the speech frames in each band: (bands,), dB."""
        counts = self.levels.cumsum(axis=1)
        return QUIETEST_DB + (counts < share * counts[:, -1:]).sum(axis=1)


def measure_quality(waveform: np.ndarray) -> RecordingQuality:
    """Measure a waveform at 16 kHz, (samples,)."""
    quality = RecordingQuality()
    for block in quality.watch_samples(iter([waveform[:, None]]), SAMPLING_RATE):
        quality.heard += len(block)
        quality.add_spectra(block[:, 0])
    return quality


def warn_of(problems: Iterable[str]) -> None:
    """Issue a Python warning for each problem, even if an earlier recording had the same: Python shows a text once."""
    for problem in problems:
        warnings.warn_explicit(problem, UserWarning, __file__, 0)


def measure_power(block: np.ndarray, hop: int = HOP) -> np.ndarray:
    """(samples,) to the power of each frequency, (frames, FRAME // 2 + 1), of a frame every `hop` samples."""
    window = np.hanning(FRAME).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(block, FRAME)[::hop] * window
    spectra = np.fft.rfft(frames)
    spectra[:, :2] = 0  # a constant offset is not speech
    return np.square(np.abs(spectra)) / np.square(window).sum() / FRAME
