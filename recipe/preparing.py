"""Preparation: rows -> model inputs, one utterance at a time."""

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import SequenceFeatureExtractor

from core.acoustic import extract_inputs
from core.audio import SAMPLING_RATE, Excerpt, as_excerpt, read_audio
from core.errors import InputError
from quality_ser_align import RecordingQuality
from recipe.augmentation import NUM_VOICES, UNCHANGED, Augmentation, Variant, degrade
from recipe.babble import Voices
from recipe.batching import TEACHER_FRAMES, WORDS, Draw
from recipe.corpora.rows import read_excerpts
from recipe.degradations import mix_voices
from recipe.dimensions import COLUMN as DIMENSIONS
from recipe.distributions import COLUMN, Target, encode_target
from recipe.feature_cache import FeatureCache
from recipe.mixing import mix
from recipe.reading import Reader
from recipe.teacher import Teacher
from speech_ser_align import trim
from words_ser_align import shift_words

MEASURED = 300  # utterances that the bandwidth is measured on


class AudioCache:
    """In-memory cache of waveforms and model inputs, shared by all stages and cells that one process trains.

    It is pickled empty, since `datasets` hashes the transform that holds it and each worker process fills its own.
    """

    def __init__(self) -> None:
        self._values: dict[tuple, Any] = {}

    def get(self, key: tuple, compute: Callable[[], Any]) -> Any:
        """Return the value of a key, computed on first use."""
        if key not in self._values:
            self._values[key] = compute()
        return self._values[key]

    def __reduce__(self) -> tuple:
        return AudioCache, ()


class UtterancePreparer:
    """Turn rows into model inputs: read, trim, augment, crop, then normalise or extract features.

    A degraded utterance is degraded as it was recorded and trimmed afterwards, as a recording is that a model is given.

    For `Dataset.with_transform`: takes a dict of columns and returns a dict of lists with the model's
    input (float32 tensor, (samples,) or (frames, features)), `labels` and `id`.

    `labels` are class indices, or distributions if the rows have them; `dimensions` are there if the rows have them,
    and `teacher_frames`, (frames, features), if the teacher gives them.

    Args:
        feature_extractor: of the encoder, for waveforms or log-mel frames; its `trim_db` decides what is trimmed.
        shortest: number of samples that one frame of the encoder needs.
        max_duration: as in `DataArguments`; longer utterances are cropped to their middle.
        augmentation: applied to an utterance each time it is read. With mixing, all labels are distributions over
            `num_labels` classes.
        cache: in-memory cache of waveforms and inputs; None disables it.
        feature_cache: outputs of the frozen part of the encoder, (frames, features), which then replace the waveforms
            or log-mel frames as model input.
        voices: utterances that the degradation `babble` is made of.
        teacher: softens the labels, which then are distributions, and may give frames, but not of mixtures.
        reader: of the column `text`; None prepares no words.

    Raises:
        InputError: an utterance is shorter than one frame or its input is not finite; the message names the file.
    """

    def __init__(
        self,
        feature_extractor: SequenceFeatureExtractor,
        shortest: int,
        max_duration: float | None = None,
        augmentation: Augmentation = UNCHANGED,
        num_labels: int = 0,
        cache: AudioCache | None = None,
        feature_cache: FeatureCache | None = None,
        voices: Voices | None = None,
        teacher: Teacher | None = None,
        reader: Reader | None = None,
    ):
        self.feature_extractor = feature_extractor
        self.input_name = "extracted_features" if feature_cache is not None else feature_extractor.model_input_names[0]
        self.shortest = shortest
        self.trim_db = getattr(feature_extractor, "trim_db", None)
        self.max_samples = None if max_duration is None else int(max_duration * SAMPLING_RATE)
        self.augmentation = augmentation
        self.num_labels = num_labels
        self.cache = cache
        self.feature_cache = feature_cache
        self.voices = voices
        self.teacher = teacher
        self.reader = reader
        plain = copy.copy(feature_extractor)
        vars(plain).pop("bandwidth", None)  # known only once features are extracted, and no part of them
        self._extraction = plain.to_json_string()

    def __call__(self, columns: dict[str, list[Any]], seeds: Sequence[int] = ()) -> dict[str, list[Any]]:
        """Prepare utterances.

        Args:
            seeds: of each utterance, for its augmentation; none are needed without degradations.
        """
        excerpts, labels = read_excerpts(columns), columns.get(COLUMN, columns["label"])
        seeds = seeds or [0] * len(excerpts)
        dimensions, frames, prosody = columns.get(DIMENSIONS), None, {}
        if self.augmentation.mix_probability == 0:
            variants = [self.augmentation.draw(seed) for seed in seeds]
            inputs = [self.prepare_variant(excerpt, variant) for excerpt, variant in zip(excerpts, variants)]
            prosody = self._read_prosody(excerpts, variants, columns)
            if self.teacher is not None:
                heard = [self._ask_teacher(*each) for each in zip(excerpts, variants, labels)]
                labels = [label for label, _ in heard]
                frames = [frames for _, frames in heard] if self.teacher.gives_frames else None
        else:
            inputs, labels, dimensions = self._prepare_mixed(excerpts, labels, dimensions, seeds)
        for excerpt, values in zip(excerpts, inputs):
            if not values.isfinite().all():
                raise InputError(f"{excerpt}: its model input is not finite; export the file again or remove it")
        prepared = {self.input_name: inputs, "labels": labels, "id": columns["id"]}
        words = None if self.reader is None else [self.reader(text) for text in columns["text"]]
        optional = {DIMENSIONS: dimensions, TEACHER_FRAMES: frames, WORDS: words}
        return prepared | {name: values for name, values in optional.items() if values is not None} | prosody

    def prepare(self, recording: str | Path | Excerpt, seed: int = 0) -> Tensor:
        """Turn one file or excerpt, in a randomly drawn variant, into the model's input."""
        return self.prepare_variant(recording, self.augmentation.draw(seed))

    def prepare_variant(self, recording: str | Path | Excerpt, variant: Variant) -> Tensor:
        """Turn one variant of a file or excerpt into the model's input."""
        if self.feature_cache is not None:
            return self.feature_cache.read(self.locate_features(recording, variant))
        key = (self._extraction, as_excerpt(recording), variant, self.max_samples)
        return self._recall_variant(variant, key, lambda: self.extract(self.read_waveform(recording, variant)))

    def read_waveform(self, recording: str | Path | Excerpt, variant: Variant) -> np.ndarray:
        """Read one file or excerpt, then trim, augment and crop it: (samples,) at 16 kHz."""
        if variant.degradation is None:
            waveform = variant.apply(self._read_speech(recording, self.trim_db))
        else:
            waveform = variant.apply(self._read_speech(recording, trim_db=None))
            make_babble = functools.partial(self._make_babble, as_excerpt(recording))
            waveform = degrade(waveform, self.augmentation, variant.degradation, make_babble)
            _, waveform = trim(waveform, self.trim_db)
        if self.max_samples is not None and len(waveform) > self.max_samples:
            start = (len(waveform) - self.max_samples) // 2
            waveform = waveform[start : start + self.max_samples]
        if len(waveform) < self.shortest:
            after = "" if self.trim_db is None else f" after trimming at --trim_db {self.trim_db:g}"
            raise InputError(
                f"{recording} lasts {len(waveform) / SAMPLING_RATE:.4f} s{after}; one frame of the encoder needs at "
                f"least {self.shortest / SAMPLING_RATE:.4f} s: remove it or record it again"
            )
        return waveform

    def extract(self, waveform: np.ndarray) -> Tensor:
        """Normalise a waveform or extract its features: (samples,) to (samples,) or (frames, features)."""
        return extract_inputs(self.feature_extractor, waveform)

    def locate_features(self, recording: str | Path | Excerpt, variant: Variant) -> Path:
        """The file in the feature cache for one variant of a recording."""
        assert self.feature_cache is not None
        how: tuple = ()
        if variant.degradation is not None:
            drawn_from = (tuple(self.augmentation.degradations), self.augmentation.max_degradations)
            how = (variant.degradation, *drawn_from, self.voices and self.voices.digest)
        return self.feature_cache.locate(recording, self._extraction, variant, self.trim_db, self.max_samples, *how)

    def _make_babble(self, excerpt: Excerpt, length: int, rng: np.random.Generator) -> np.ndarray:
        """Make babble of the voices of other speakers than that of an utterance."""
        assert self.voices is not None
        number = int(rng.integers(NUM_VOICES[0], NUM_VOICES[1] + 1))
        others = [self._read_speech(other, self.trim_db) for other in self.voices.draw(excerpt, number, rng)]
        return mix_voices(others, length, rng)

    def _prepare_mixed(
        self, excerpts: list[Excerpt], labels: list[Target], dimensions: list[Any] | None, seeds: Sequence[int]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor] | None]:
        """Mix each utterance, with the given probability, with another one in the batch, and their targets alike."""
        variants = [self.augmentation.draw(seed) for seed in seeds]
        waveforms = [self._recall_waveform(excerpt, variant) for excerpt, variant in zip(excerpts, variants)]
        if self.teacher is None:
            distributions = [encode_target(label, self.num_labels) for label in labels]
        else:
            distributions = [self._ask_teacher(*each)[0] for each in zip(excerpts, variants, labels)]
        inputs, pairs = [], []
        for index, waveform in enumerate(waveforms):
            other, share = int(torch.randint(len(waveforms), ())), 0.0
            if float(torch.rand(())) < self.augmentation.mix_probability:
                waveform, share = mix(self.augmentation.mix, waveform, waveforms[other])
            inputs.append(self.extract(waveform))
            pairs.append((index, other, share))
        mixed_labels = [torch.lerp(distributions[one], distributions[other], share) for one, other, share in pairs]
        if dimensions is None:
            return inputs, mixed_labels, None
        values = [torch.tensor(each) for each in dimensions]
        return inputs, mixed_labels, [torch.lerp(values[one], values[other], share) for one, other, share in pairs]

    def _ask_teacher(self, excerpt: Excerpt, variant: Variant, label: Target) -> tuple[Tensor, Tensor | None]:
        """The softened label of a variant of an utterance and, if the teacher gives them, its frames."""
        assert self.teacher is not None
        teacher, heard = self.teacher, (excerpt, variant, self.trim_db, self.max_samples)
        extract = functools.cache(lambda: teacher.extract(self._recall_waveform(excerpt, variant)))  # once, for both
        key = (teacher.folder, *teacher.labels, teacher.weight, *heard)
        softened = self._recall_variant(variant, key, lambda: teacher.soften(extract(), label))
        if not teacher.gives_frames:
            return softened, None
        key = (TEACHER_FRAMES, teacher.folder, *heard)
        return softened, self._recall_variant(variant, key, lambda: teacher.encode(extract()))

    def _read_prosody(
        self, excerpts: list[Excerpt], variants: list[Variant], columns: dict[str, list[Any]]
    ) -> dict[str, list[Tensor]]:
        """The prosody of utterances and of their words, as the model takes it; empty if it takes none."""
        if self.reader is None or not self.reader.hears:
            return {}
        found = []
        for excerpt, variant, words in zip(excerpts, variants, columns.get("words", [None] * len(excerpts))):
            key = ("prosody", excerpt, variant, self.trim_db, self.max_samples, *self.reader.levels, str(words))
            measure = functools.partial(self._measure_prosody, excerpt, variant, words or [])
            found.append(self._recall_variant(variant, key, measure))
        return {name: [each[name] for each in found] for name in found[0]}

    def _measure_prosody(self, excerpt: Excerpt, variant: Variant, words: list[dict[str, Any]]) -> dict[str, Tensor]:
        assert self.reader is not None
        if words:
            cut, speech = trim(self._read_speech(excerpt, trim_db=None), self.trim_db)
            longest = self.max_samples or math.inf
            cropped = max(0.0, len(speech) / variant.speed - longest) / 2
            faster = [{**word, **{name: word[name] / variant.speed for name in ("start", "end")}} for word in words]
            words = shift_words(faster, -(cut / variant.speed + cropped) / SAMPLING_RATE)
        return self.reader.read_prosody(self.read_waveform(excerpt, variant), words)

    def _recall_waveform(self, excerpt: Excerpt, variant: Variant) -> np.ndarray:
        key = (excerpt, variant, self.trim_db, self.max_samples)
        return self._recall_variant(variant, key, lambda: self.read_waveform(excerpt, variant))

    def _read_speech(self, recording: str | Path | Excerpt, trim_db: float | None) -> np.ndarray:
        return self._recall((as_excerpt(recording), trim_db), lambda: read_audio(recording, trim_db))

    def _recall_variant(self, variant: Variant, key: tuple, compute: Callable[[], Any]) -> Any:
        """Recall a value, unless it is degraded in a way that will not come again."""
        is_new = variant.degradation is not None and self.augmentation.is_endless
        return compute() if is_new else self._recall(key, compute)

    def _recall(self, key: tuple, compute: Callable[[], Any]) -> Any:
        return compute() if self.cache is None else self.cache.get(key, compute)


def measure_bandwidth(rows: Dataset, preparer: UtterancePreparer) -> float | None:
    """Measure the bandwidth of the training data in Hz; None if all utterances are too short.

    The 5th percentile over utterances that are evenly spaced in the rows, with the augmentation applied: a model has
    heard telephones if one utterance in twenty was one. Changes of speed and pitch are left out; they move a voice, but
    remove nothing from it.
    """
    chosen = np.linspace(0, len(rows) - 1, min(MEASURED, len(rows))).astype(int)
    augmentation = preparer.augmentation
    variants = list(dict.fromkeys(replace(each, speed=1.0, pitch_steps=0.0) for each in augmentation.plain_variants()))
    found = []
    for number, excerpt in enumerate(read_excerpts(rows.select(chosen)[:])):
        quality = RecordingQuality()
        variant = augmentation.draw_degraded(variants[number % len(variants)], seed=number)
        quality.add_spectra(preparer.read_waveform(excerpt, replace(variant, speed=1.0, pitch_steps=0.0)))
        found.append(quality.measure_bandwidth())
    known = [bandwidth for bandwidth in found if bandwidth is not None]
    return float(np.percentile(known, 5, method="lower")) if known else None


class TrainingSet(torch.utils.data.Dataset):
    """Training utterances, prepared when a `SeededSampler` draws them."""

    def __init__(self, rows: Dataset, preparer: UtterancePreparer):
        self.rows = rows
        self.preparer = preparer

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, draws: list[Draw]) -> list[dict[str, Any]]:
        """Prepare the utterances of a batch."""
        prepared = self.preparer(self.rows[[draw.row for draw in draws]], [draw.seed for draw in draws])
        return [dict(zip(prepared, values)) for values in zip(*prepared.values())]

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        return self.__getitems__([draw])[0]


def prepare_rows(rows: Dataset, preparer: UtterancePreparer) -> Dataset:
    """Let the preparer turn the rows into model inputs when they are accessed."""
    return rows.with_transform(preparer)
