"""Why a model or an encoder cannot be loaded: what is wrong with its files or with its name, and what to do."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import ModelCard, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from yaml import YAMLError

# What the libraries raise for files that they cannot read, or that hold something else than they expect.
LOAD_ERRORS = (
    *(OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, ImportError),
    *(SafetensorError, HTTPError, OfflineModeIsEnabled),
)
CONFIG, EXTRACTOR, CARD = "config.json", "preprocessor_config.json", "README.md"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")  # only an encoder may have these
LFS_POINTER = b"version https://git-lfs"
CLASSICAL = "ser_align_classical"  # model_type in the configuration of a classical model
AGAIN = "copy or download it again, with all its files"


def is_classical(model: str) -> bool:
    """Whether this is the folder of a classical model."""
    config = Path(model) / CONFIG
    return config.is_file() and f'"{CLASSICAL}"' in config.read_text(encoding="utf-8", errors="replace")


def explain_failure(source: str, error: BaseException) -> str | None:
    """What is wrong with a model that the libraries could not load, to follow its name; None if nothing is known.

    Args:
        source: folder, or name on the Hub.
        error: what they raised.
    """
    if "custom code" in str(error):  # of a repository that the library would run after a question
        return "needs custom code, which is never run here: give a model that transformers loads without any"
    if os.path.isdir(source):
        return find_damage(Path(source))
    reason = _explain_hub_error(source, error)
    if reason is None and isinstance(config := try_to_load_from_cache(source, CONFIG), str):
        damage = find_damage(Path(config).parent)
        reason = damage and f"{damage}; its folder in the cache is {Path(config).parent}"
    return reason


def read_licence(model: str, revision: str | None = None) -> str | None:
    """The licence in a model's card, as the Hub names it, such as cc-by-nc-sa-4.0; None if no card states one.

    Args:
        model: folder, or name on the Hub.
        revision: commit, branch or tag on the Hub.
    """
    try:
        card = Path(model, CARD) if os.path.isdir(model) else hf_hub_download(model, CARD, revision=revision)
        licence = ModelCard.load(card).data.license
    except (*LOAD_ERRORS, YAMLError):
        return None
    return licence if isinstance(licence, str) and licence.isprintable() else None


def find_damage(folder: Path) -> str | None:
    """The first file of a model's folder that is missing or damaged, as a phrase that follows its name."""
    if not (folder / CONFIG).is_file():
        return f"contains no {CONFIG}: give the folder of a model, or {AGAIN}"
    for path in (folder / CONFIG, folder / EXTRACTOR, folder / INDEX):
        if path.exists() and (damage := _check_json(path)):
            return f"contains a {path.name} that {damage}"
    weights = _list_weights(folder)
    if not weights:
        return f"contains no {WEIGHTS}: {AGAIN}"
    for path in weights:
        if not path.is_file():
            return f"contains no {path.name}, which {INDEX} names: {AGAIN}"
        if damage := _check_weights(path):
            return f"contains a {path.name} that {damage}"
    return None


def _list_weights(folder: Path) -> list[Path]:
    """Files that hold the weights, whether they are there or not; none if none is named."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        names = json.loads((folder / INDEX).read_text(encoding="utf-8")).get("weight_map")
        return [folder / str(name) for name in sorted(set(names.values()))] if isinstance(names, dict) else []
    return [folder / name for name in PICKLED if (folder / name).is_file()]


def _check_json(path: Path) -> str | None:
    content = path.read_bytes()
    try:
        if isinstance(json.loads(content), dict):
            return None
    except ValueError:
        pass
    return _describe_content(content) or f"is not a JSON object: {AGAIN}"


def _check_weights(path: Path) -> str | None:
    with path.open("rb") as file:
        damage = _describe_content(file.read(len(LFS_POINTER)))
    if damage is None and path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                return None
        except SafetensorError as error:
            return f"is incomplete or damaged ({error}): {AGAIN}"
    return damage


def _describe_content(start: bytes) -> str | None:
    if not start:
        return f"is empty: {AGAIN}"
    if start.startswith(LFS_POINTER):
        return f"is a Git LFS pointer instead of the file itself: run git lfs pull where it was cloned, or {AGAIN}"
    return None


def _explain_hub_error(source: str, error: BaseException) -> str | None:
    """The same for a name on the Hub, or for what is neither that nor a folder."""
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        return "is not a folder: check the path, or give a name on the Hub, such as owner/name"
    kinds = list(_list_causes(error))

    def is_any(*types: type[BaseException]) -> bool:
        return any(isinstance(each, types) for each in kinds)

    if is_any(HFValidationError):
        return "is neither a folder nor a name on the Hub, such as owner/name: check the spelling"
    if is_any(GatedRepoError):
        return f"is gated: accept its terms on {constants.ENDPOINT}/{source}, then log in with hf auth login"
    if is_any(RevisionNotFoundError):
        return "has no such revision on the Hub: give one of its branches, tags or commits"
    if is_any(RepositoryNotFoundError):
        return (
            "is neither a folder nor a model that you can read on the Hub: check the spelling, and log in with hf auth "
            "login if it is private"
        )
    if constants.is_offline_mode() and is_any(LocalEntryNotFoundError, OfflineModeIsEnabled):
        return "is not a folder and was not downloaded before, and HF_HUB_OFFLINE is set: unset it, or give a folder"
    if is_any(LocalEntryNotFoundError, HfHubHTTPError, HTTPError) and not is_any(RemoteEntryNotFoundError):
        return "is not a folder, and the Hub does not answer: check the network, or give a folder"
    return None


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
