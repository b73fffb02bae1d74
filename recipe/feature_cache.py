"""On-disk cache for the output of the frozen part of the encoder: the convolutions, and any frozen layers.

The convolutions over a waveform take a sixth of a training step. While they are frozen, an utterance has the same
output in both stages, so each output is computed once. It is stored in a file named by a hash of what it depends on:
the bytes of the recording, how it is cut and augmented, and the configuration and weights of the frozen part. As a
result, entries never become stale, a killed run leaves only complete files, and folds that share recordings share their
entries.
"""

import contextlib
import hashlib
import os
import random
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from accelerate import PartialState
from datasets import DatasetDict
from tqdm.auto import tqdm

from core.acoustic import AcousticFeatures
from core.audio import Excerpt, as_excerpt
from core.errors import writing
from core.hashing import hash_content, hash_frozen_part
from modeling_ser_align import SERAlignForAudioClassification
from recipe.augmentation import build_augmentation
from recipe.corpora.rows import read_excerpts
from recipe.options import Arguments


class FeatureCache:
    """Files in a folder, each float32 (frames, features).

    Args:
        folder: created if it is missing.
        frozen_part: the digest of what computes the outputs, such as `hash_frozen_part` gives.
    """

    def __init__(self, folder: Path, frozen_part: str):
        self.folder = folder
        self._hashes: dict[str, str] = {}  # of each recording
        self.frozen_part = frozen_part
        folder.mkdir(parents=True, exist_ok=True)

    def locate(self, recording: str | Path | Excerpt, *how: Any) -> Path:
        """The file for a recording that is cut and augmented in this way; it need not exist."""
        name, *times = as_excerpt(recording)
        how = how if as_excerpt(recording).is_whole else (*times, *how)
        if name not in self._hashes:
            self._hashes[name] = hash_content(name)
        return self._name((self._hashes[name], how, self.frozen_part))

    def locate_waveform(self, waveform: np.ndarray) -> Path:
        """The file for a waveform (samples,), whatever it was made of; it need not exist."""
        return self._name((hashlib.sha256(waveform.tobytes()).hexdigest(), self.frozen_part))

    def _name(self, key: tuple) -> Path:
        return self.folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.features.npy"

    def is_intact(self, path: Path) -> bool:
        """Whether there is an entry, as long as it says, with a beginning and an end.

        After a power failure, a file may be empty, cut, or filled up with zeros.
        """
        try:
            features = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return False
        return bool(features[0].any() and features[-1].any())

    def read(self, path: Path) -> torch.Tensor:
        return torch.from_numpy(np.array(np.load(path, mmap_mode="r")))

    def write(self, path: Path, features: torch.Tensor) -> None:
        unfinished = path.with_name(f"{path.stem}.{uuid4().hex}.unfinished")  # other runs may write the same entry
        with writing(path), unfinished.open("wb") as file:
            np.save(file, features.cpu().numpy())
        unfinished.replace(path)


class StoredFeatures:
    """Acoustic features that are computed once for each waveform, and kept in a folder."""

    def __init__(self, features: AcousticFeatures, folder: Path):
        self.features = features
        self.settings, self.digest = features.settings, features.digest
        self.cache = FeatureCache(folder, features.digest)

    def describe(self, waveform: np.ndarray) -> np.ndarray:
        """As in `AcousticFeatures`."""
        path = self.cache.locate_waveform(waveform)
        if not self.cache.is_intact(path):
            self.cache.write(path, torch.tensor(self.features.describe(waveform))[None])
        return self.cache.read(path).numpy()[0]

    def select(self, described: np.ndarray) -> np.ndarray:
        """As in `AcousticFeatures`."""
        return self.features.select(described)


def plan_cache(model: SERAlignForAudioClassification, args: Arguments, split: DatasetDict) -> FeatureCache | None:
    """Create the cache if it pays off, else return None. Prints its size, or the reason for not using it."""
    config = model.config
    if not args.data.cache_features or (config.takes_log_mel and config.freeze_encoder_layers == 0):
        return None
    folder = find_cache_folder(args)
    variants = len(build_augmentation(args.data).variants())
    seconds = sum((variants if name == "train" else 1) * sum(part["duration"][:]) for name, part in split.items())
    needed = int(seconds / config.extracted_frame_seconds) * config.extracted_size * 4
    layers = f" and {config.freeze_encoder_layers} layers" if config.freeze_encoder_layers > 0 else ""
    reason = _explain_no_cache(model, args, variants, needed, folder)
    if reason is not None:
        PartialState().print(f"  the convolutions{layers} run in every epoch: {reason}")
        return None
    size = f"{needed / 1e9:.2f} GB in {folder}"
    PartialState().print(f"  the frozen convolutions{layers} run once; their output takes {size}")
    return FeatureCache(folder, hash_frozen_part(model))


def find_cache_folder(args: Arguments) -> Path:
    return Path(args.data.feature_cache_dir or Path(args.trainer.output_dir) / "features")


def remove_cache(folder: Path) -> None:
    """Delete the cached files, and the folder if nothing else is in it."""
    for path in folder.glob("*.features.*"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _explain_no_cache(
    model: SERAlignForAudioClassification, args: Arguments, variants: int, needed: int, folder: Path
) -> str | None:
    if not model.config.freeze_feature_encoder and model.config.freeze_encoder_layers == 0:
        return "they are trained"
    if args.data.mix_probability > 0:
        return "--mix_probability creates new audio every time"
    if build_augmentation(args.data).is_endless:
        return "--degrade_probability creates new audio every time; --degraded_variants 8 computes 8 versions once"
    if args.data.feature_cache_dir is None and args.trainer.num_epochs < 2 * variants:
        return f"{args.trainer.num_epochs:g} epochs are too few for {variants} variants of each utterance"
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > 0.8 * free:
        return f"their output takes {needed / 1e9:.2f} GB, and only {free / 1e9:.2f} GB are free in {existing}"
    return None


def fill_cache(model: SERAlignForAudioClassification, preparers: dict[str, Any], split: DatasetDict) -> None:
    """Compute the missing outputs for the rows of a split; several processes share the work.

    Args:
        preparers: the `UtterancePreparer` of each part of the split, which knows the variants that are needed.
    """
    state = PartialState()
    work = [
        (preparers[name], excerpt, variant)
        for name, part in split.items()
        for excerpt in read_excerpts(part[:])
        for variant in preparers[name].augmentation.variants()
    ]
    missing = [job for job in work if not job[0].feature_cache.is_intact(job[0].locate_features(*job[1:]))]
    share = missing[state.process_index :: state.num_processes]
    random.Random(os.getpid()).shuffle(share)  # so that runs which fill the same folder at once share the work
    home = model.device
    model.to(state.device)  # type: ignore[arg-type]
    for preparer, excerpt, variant in tqdm(share, desc="frozen part", leave=False, disable=not state.is_main_process):
        path = preparer.locate_features(excerpt, variant)
        if not preparer.feature_cache.is_intact(path):  # another run may have computed it
            inputs = preparer.extract(preparer.read_waveform(excerpt, variant))[None].to(state.device)
            preparer.feature_cache.write(path, model.extract_features(inputs)[0])
    model.to(home)  # type: ignore[arg-type]
    state.wait_for_everyone()
