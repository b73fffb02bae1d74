"""Scores the shards of a manifest on a Ray cluster: predict.py --manifest FILE --engine ray."""

import argparse
import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from core.errors import InputError
from inference.answers import load_recognizer
from inference.manifest import Manifest
from inference.options import list_models
from inference.shards import score_shard

MAX_RETRIES = 3  # ours, of a shard whose actor has died; a recording that kills every actor ends the run
OBJECT_STORE = 2**27  # bytes: it holds the numbers of shards


class ShardScorer:
    """A Ray actor that holds the model. If it dies, Ray gives its shards to another one, which resumes them."""

    def __init__(self, manifest: Manifest, options: argparse.Namespace):
        warnings.simplefilter("ignore", UserWarning)  # the records have them
        self.manifest, self.options = manifest, options
        self.recognize = load_recognizer(options)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Score the shards with these numbers (count,)."""
        for number in batch["item"].tolist():
            score_shard(self.recognize, self.manifest, number, self.options)
        return batch


def score_with_ray(manifest: Manifest, options: argparse.Namespace, on_scored: Callable[[int], Any]) -> None:
    """Score all shards with Ray Data, on the cluster that RAY_ADDRESS names or else on this machine.

    Ray Data holds back shards while all actors are busy, and starts actors and shards again that were lost.

    Args:
        on_scored: called after each shard with the number of its entries.

    Raises:
        InputError: Ray is not installed, or an option is not valid.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(f"--engine ray needs Ray ({error}): pip install -r requirements-ray.txt") from None
    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers {options.workers} is not a whole number of at least 1")
    # Refuses wrong options here, on whatever this machine has, before any actor starts.
    load_recognizer(argparse.Namespace(**{**vars(options), "device": "cpu", "dtype": "float32"}))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # sends nothing
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **choose_resources(options.workers))
    gpus = int(ray.cluster_resources().get("GPU", 0))
    workers = options.workers or max(1, gpus)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    count = len(manifest.shards)
    scored = ray.data.from_items(list(range(count)), override_num_blocks=count).map_batches(
        ShardScorer,
        fn_constructor_args=(manifest, make_absolute(options)),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(workers, count)),
        num_cpus=1,
        num_gpus=1 if gpus else 0,
        ray_remote_args_fn=limit_retries,
    )
    try:
        for batch in scored.iter_batches(batch_size=1):
            is_last = batch["item"].item() == count - 1
            on_scored((manifest.num_entries - 1) % manifest.shard_size + 1 if is_last else manifest.shard_size)
    except Exception as error:  # that of an actor comes with tracebacks in its text
        _, found, reason = str(error).rpartition("core.errors.InputError: ")
        if not found:
            raise
        raise InputError(reason.splitlines()[0]) from None


def choose_resources(workers: int | None) -> dict[str, Any]:
    """What Ray is to start on this machine; nothing on a cluster, whose resources are its own."""
    if "RAY_ADDRESS" in os.environ:
        return {}
    cores = max(os.cpu_count() or 1, workers or 1)  # more workers than cores are the user's choice
    return {"num_cpus": cores, "include_dashboard": False, "object_store_memory": OBJECT_STORE}


def limit_retries() -> dict[str, Any]:
    """Ray's options for each actor."""
    return {"max_task_retries": MAX_RETRIES}


def make_absolute(options: argparse.Namespace) -> argparse.Namespace:
    """The options with absolute paths: actors may run in another folder."""
    model, *members = (os.path.abspath(each) if os.path.isdir(each) else each for each in list_models(options))
    changed = {"output": os.path.abspath(options.output), "model": model, "members": members or None}
    return argparse.Namespace(**{**vars(options), **changed})
