"""Batching: rows -> prepared utterances -> padded batches of similar duration."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from transformers import SequenceFeatureExtractor

from configuration_ser_align import SERAlignConfig
from recipe.audio import SAMPLING_RATE, read_audio
from recipe.errors import InputError

# Log-mel frames of 25 ms every 10 ms, in samples; Wav2Vec2-BERT stacks some of them into one frame.
LOG_MEL_WINDOW, LOG_MEL_HOP = 400, 160

# What was prepared, shared by all preparers of a process: stages and runs that follow each other read a file once.
_PREPARED: dict[tuple, Tensor] = {}


def shortest_utterance(config: SERAlignConfig) -> int:
    """Samples at 16 kHz that one frame of the encoder needs."""
    if config.takes_log_mel:
        return LOG_MEL_WINDOW + (config.num_stacked_log_mel - 1) * LOG_MEL_HOP
    return config.receptive_field


class UtterancePreparer:
    """Rows to model inputs: read, trim, resample, normalise or extract features, each utterance on its own.

    Meant for `Dataset.with_transform`: takes a dict of columns, returns a dict of lists with the model's
    input (float32 tensor, (samples,) or (frames, features)), `labels` and `id`.

    Args:
        feature_extractor: Wav2Vec2FeatureExtractor or SeamlessM4TFeatureExtractor.
        shortest: samples that one frame of the encoder needs.
        trim_db, max_duration: as in `DataArguments`; longer utterances are cut to their middle.
        speed_factors: one of them is drawn from torch's generator at each access; pitch and formants move
            with the speed (Ko et al. 2015), so that a speaker sounds like another one.
        noise_snrs: white noise at one of these signal-to-noise ratios in dB, drawn likewise; none if empty.
        cache: keep what was prepared in memory.

    Raises:
        InputError: an utterance shorter than one frame, by name.
    """

    def __init__(
        self,
        feature_extractor: SequenceFeatureExtractor,
        shortest: int,
        trim_db: float | None = None,
        max_duration: float | None = None,
        speed_factors: Sequence[float] = (1.0,),
        noise_snrs: Sequence[float] = (),
        cache: bool = False,
    ):
        self.feature_extractor = feature_extractor
        self.input_name = feature_extractor.model_input_names[0]
        self.shortest = shortest
        self.trim_db = trim_db
        self.max_samples = None if max_duration is None else int(max_duration * SAMPLING_RATE)
        self.speed_factors = speed_factors
        self.noise_snrs = noise_snrs
        self.cache = cache
        self._settings = (feature_extractor.to_json_string(), trim_db, max_duration)

    def __call__(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        inputs = [self.prepare(audio["path"]) for audio in columns["audio"]]
        return {self.input_name: inputs, "labels": columns["label"], "id": columns["id"]}

    def prepare(self, path: str | Path) -> Tensor:
        """One file to the encoder's input."""
        variant = str(path), drawn(self.speed_factors), drawn(self.noise_snrs)
        if not self.cache:
            return self._prepare(*variant)
        key = (*self._settings, *variant)
        if key not in _PREPARED:
            _PREPARED[key] = self._prepare(*variant)
        return _PREPARED[key]

    def _prepare(self, path: str, speed: float | None, noise_snr: float | None) -> Tensor:
        waveform = read_audio(path, self.trim_db)
        if speed not in (None, 1.0):
            waveform = librosa.resample(waveform, orig_sr=SAMPLING_RATE * speed, target_sr=SAMPLING_RATE)
        if noise_snr is not None:
            level = np.sqrt(np.mean(waveform**2)) * 10 ** (-noise_snr / 20)
            noise = np.random.default_rng(len(waveform)).standard_normal(len(waveform), dtype=np.float32)
            waveform = waveform + level * noise
        if self.max_samples is not None and len(waveform) > self.max_samples:
            start = (len(waveform) - self.max_samples) // 2
            waveform = waveform[start : start + self.max_samples]
        if len(waveform) < self.shortest:
            trimmed = "" if self.trim_db is None else f" after trimming at --trim_db {self.trim_db:g}"
            raise InputError(
                f"{path} lasts {len(waveform) / SAMPLING_RATE:.4f} s{trimmed}; one frame of the encoder needs at "
                f"least {self.shortest / SAMPLING_RATE:.4f} s: remove it or record it again"
            )
        extracted = self.feature_extractor(waveform, sampling_rate=SAMPLING_RATE, return_attention_mask=True)
        values = np.asarray(extracted[self.input_name][0], dtype=np.float32)
        valid = int(np.asarray(extracted["attention_mask"][0]).sum())
        return torch.from_numpy(values[:valid])


def drawn(choices: Sequence[float]) -> float | None:
    """One of the choices from torch's generator, which a resumed run restores; None if there is none."""
    return choices[int(torch.randint(len(choices), ()))] if choices else None


class Collator:
    """Prepared utterances to one batch, padded with zeros on the right.

    Two utterances of 2 and 3 samples with labels 0 and 3 become
    `{"input_values": [[a, b, 0], [c, d, e]], "attention_mask": [[1, 1, 0], [1, 1, 1]], "labels": [0, 3]}`.
    """

    def __init__(self, input_name: str):
        self.input_name = input_name

    def __call__(self, utterances: list[dict[str, Any]]) -> dict[str, Tensor]:
        inputs = [utterance[self.input_name] for utterance in utterances]
        lengths = torch.tensor([len(values) for values in inputs])
        return {
            self.input_name: pad_sequence(inputs, batch_first=True),
            "attention_mask": (torch.arange(int(lengths.max())) < lengths.unsqueeze(1)).long(),
            "labels": torch.tensor([utterance["labels"] for utterance in utterances]),
        }


class DurationSampler(Sampler[int]):
    """Random batches of utterances of similar duration: less padding, same expected gradient.

    Each epoch shuffles all utterances, sorts pools of some batches by duration and shuffles the batches.
    The order depends on (seed, epoch) alone, so that a resumed run continues exactly.

    Args:
        durations: seconds of each utterance.
        pool: batches in a pool. Duration goes with speaker and emotion: the larger the pool, the more alike
            the utterances of a batch in these too, which may cost accuracy on small corpora; 1 is plain shuffling.
    """

    def __init__(self, durations: list[float], batch_size: int, pool: int, seed: int):
        self.durations = np.asarray(durations)
        self.batch_size = batch_size
        self.pool_size = pool * batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.durations)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self))
        pools = [order[start : start + self.pool_size] for start in range(0, len(order), self.pool_size)]
        order = np.concatenate([pool[np.argsort(self.durations[pool], kind="stable")] for pool in pools])
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        last = batches.pop() if len(batches[-1]) < self.batch_size else np.array([], dtype=int)
        shuffled = [batches[index] for index in rng.permutation(len(batches))]
        yield from np.concatenate([*shuffled, last]).astype(int).tolist()


def prepared(rows: Dataset, preparer: UtterancePreparer) -> Dataset:
    """Rows that are read and prepared when they are accessed."""
    return rows.with_transform(preparer)
