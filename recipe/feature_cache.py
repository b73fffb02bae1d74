"""Outputs of the frozen convolutional feature encoder, computed once and read from disk ever after.

These convolutions are a sixth of a training step and give the same for the same waveform as long as they are frozen,
in both stages. Each output is a file of its own, named by what it depends on: the bytes of the recording, how it is cut
and varied, and the weights of the convolutions. So nothing can be stale, a kill leaves only whole files, and folds that
share recordings share them too.
"""

import contextlib
import hashlib
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import DatasetDict
from tqdm.auto import tqdm

from core.errors import writing
from modeling_ser_align import SERAlignForAudioClassification
from recipe.augmentation import augmentation_of
from recipe.options import Arguments


class KeptFeatures:
    """Files of a folder, each (frames, channels) float32, memory-mapped when read.

    Args:
        folder: made where it is missing.
        model: whose convolutions are kept.
    """

    def __init__(self, folder: Path, model: SERAlignForAudioClassification):
        self.folder = folder
        state = model.encoder.feature_extractor.state_dict()
        digest = hashlib.sha256()
        for name in sorted(state):
            digest.update(name.encode() + state[name].float().cpu().numpy().tobytes())
        self.weights = digest.hexdigest()
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, recording: str | Path, *how: Any) -> Path:
        """The file for a recording, cut and varied in this way."""
        key = repr((content_of(str(recording)), how, self.weights))
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.features.npy"

    def read(self, path: Path) -> torch.Tensor:
        return torch.from_numpy(np.array(np.load(path, mmap_mode="r")))

    def write(self, path: Path, features: torch.Tensor) -> None:
        unfinished = path.with_name(f"{path.stem}.{PartialState().process_index}.unfinished")
        with writing(path), unfinished.open("wb") as file:
            np.save(file, features.cpu().numpy())
        unfinished.replace(path)


@cache
def content_of(path: str) -> str:
    """Hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def features_to_keep(model: SERAlignForAudioClassification, args: Arguments, split: DatasetDict) -> KeptFeatures | None:
    """Where the outputs go, after saying how much they need; None, with the reason, where that is not worth it."""
    if not args.data.cache_features or model.config.takes_log_mel:
        return None
    folder = features_folder(args)
    variants = len(augmentation_of(args.data).variants())
    seconds = sum((variants if name == "train" else 1) * sum(part["duration"]) for name, part in split.items())
    needed = int(seconds / model.config.frame_seconds) * model.config.encoder_config.conv_dim[-1] * 4
    reason = _why_not(model, args, variants, needed, folder)
    if reason is not None:
        PartialState().print(f"  the convolutions run in every epoch: {reason}")
        return None
    PartialState().print(f"  the frozen convolutions run once; their output needs {needed / 1e9:.2f} GB in {folder}")
    return KeptFeatures(folder, model)


def features_folder(args: Arguments) -> Path:
    return Path(args.data.feature_cache_dir or Path(args.trainer.output_dir) / "features")


def remove_features(folder: Path) -> None:
    """Delete what was kept there, and the folder, unless it holds anything else."""
    for path in folder.glob("*.features.*"):
        path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _why_not(
    model: SERAlignForAudioClassification, args: Arguments, variants: int, needed: int, folder: Path
) -> str | None:
    if not model.config.freeze_feature_encoder:
        return "they are trained"
    if args.data.mix_probability > 0:
        return "--mix_probability makes new audio each time"
    if args.trainer.num_epochs < 2 * variants:
        return f"{args.trainer.num_epochs:g} epochs are too few for {variants} variants of each utterance"
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > 0.8 * free:
        return f"their output needs {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free in {existing}"
    return None


def keep_features(model: SERAlignForAudioClassification, preparers: dict[str, Any], split: DatasetDict) -> None:
    """Compute what is missing for the rows of a split; with several processes each does its share.

    Args:
        preparers: of each part of the split; they say which variants it needs.
    """
    state = PartialState()
    work = [
        (preparers[name], row["audio"]["path"], variant)
        for name, part in split.items()
        for row in part
        for variant in preparers[name].augmentation.variants()
    ]
    missing = [job for job in work if not job[0].kept(*job[1:]).is_file()]
    share = missing[state.process_index :: state.num_processes]
    home = model.device
    model.to(state.device)  # type: ignore[arg-type]
    for preparer, path, variant in tqdm(share, desc="convolutions", leave=False, disable=not state.is_main_process):
        waveform = preparer.extract(path, variant)[None].to(state.device)
        preparer.features.write(preparer.kept(path, variant), model.extract_features(waveform)[0])
    model.to(home)  # type: ignore[arg-type]
    state.wait_for_everyone()
