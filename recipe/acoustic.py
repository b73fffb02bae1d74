"""Acoustic features of the utterances of a split, computed once for each variant of a recording and cached."""

from pathlib import Path

import numpy as np
import torch
from datasets import DatasetDict
from tqdm.auto import tqdm

from core.acoustic import AcousticFeatures
from core.audio import Excerpt
from core.errors import InputError
from feature_extraction_ser_align import SERAlignFeatureExtractor
from recipe.augmentation import Variant, build_augmentation
from recipe.babble import read_voices
from recipe.classical_options import ACOUSTIC_CACHE, ClassicalArguments
from recipe.corpora.rows import read_excerpts
from recipe.feature_cache import FeatureCache
from recipe.preparing import UtterancePreparer


def compute_features(features: AcousticFeatures, split: DatasetDict, args: ClassicalArguments) -> dict[str, np.ndarray]:
    """The features of each part of a split, (utterances, features) float32; computed once per recording and cached.

    With --augment, all training utterances in their first variant are followed by all in their second, and so on.

    Raises:
        InputError: an utterance is too short, or a feature is not finite; the message names the file.
    """
    data = args.run.data
    cache = FeatureCache(Path(data.feature_cache_dir or args.output_dir.parent / ACOUSTIC_CACHE), features.digest)
    preparer = make_preparer(args, split, cache)
    jobs = {
        name: [(excerpt, variant) for variant in list_variants(args, name) for excerpt in read_excerpts(part[:])]
        for name, part in split.items()
    }

    def locate(excerpt: Excerpt, variant: Variant) -> Path:
        is_plain = variant == Variant()
        return cache.locate(excerpt, data.trim_db) if is_plain else preparer.locate_features(excerpt, variant)

    paths = {name: [locate(*job) for job in part] for name, part in jobs.items()}
    pairs = [pair for name in split for pair in zip(jobs[name], paths[name])]
    missing = [(job, path) for job, path in pairs if not cache.is_intact(path)]
    for (excerpt, variant), path in tqdm(missing, desc=f"{args.own.features} features", leave=False):
        try:
            described = features.describe(preparer.read_waveform(excerpt, variant))
        except InputError as error:
            raise InputError(f"{excerpt}: {error}") from None
        cache.write(path, torch.tensor(described)[None])
    stored = {name: np.concatenate([cache.read(path).numpy() for path in part]) for name, part in paths.items()}
    return {name: features.select(part) for name, part in stored.items()}


def list_variants(args: ClassicalArguments, part: str) -> list[Variant]:
    """How the utterances of a part of the split are changed: only those of the training set, with --augment."""
    if part != "train" or not args.own.augment:
        return [Variant()]
    return build_augmentation(args.run.data).fitting_variants()


def make_preparer(args: ClassicalArguments, split: DatasetDict, cache: FeatureCache) -> UtterancePreparer:
    """What reads the variants of training utterances as it does for networks."""
    augmentation = build_augmentation(args.run.data)
    has_voices = args.own.augment and augmentation.has_babble
    return UtterancePreparer(
        SERAlignFeatureExtractor(trim_db=args.run.data.trim_db),
        shortest=1,
        augmentation=augmentation,
        feature_cache=cache,
        voices=read_voices(split["train"]) if has_voices else None,
    )
