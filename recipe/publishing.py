"""Publishing: half-size weights, and pushing a stage folder to the Hugging Face Hub."""

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from core.errors import InputError
from modeling_ser_align import SERAlignForAudioClassification
from recipe.checkpoints import CHECKPOINTS
from recipe.model_card import write_model_card
from recipe.options import Arguments
from recipe.results import read_results

# Files of a stage folder that only the training machine needs, or that contain its local paths.
NOT_PUSHED = ("arguments.json", "tensorboard/*")
CARD = "README.md"
# Seconds before each retry if the Hub does not respond. The Hub client itself retries only some of its calls.
RETRY_AFTER = (1, 2, 4)


def round_weights(model: SERAlignForAudioClassification) -> None:
    """Round matrices to float16, in place. Biases and norms remain in float32: they are small, and sums need them."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.abs().max() <= torch.finfo(torch.float16).max:
            parameter.data = parameter.data.half()


def push(stage_dir: Path, args: Arguments, repo_id: str) -> None:
    """Push a stage folder to the Hub, with a model card that names its repository.

    Raises:
        InputError: the Hub cannot be reached or rejects the push; the message says how to push by hand. The folder
            remains complete.
    """
    results = read_results(stage_dir)

    def write_card(commit: str = "") -> None:
        if results is not None:
            write_model_card(stage_dir, results, args, where=repo_id, revision=commit)

    write_card()
    for seconds in (*RETRY_AFTER, None):
        try:
            url = upload(stage_dir, repo_id, not args.trainer.hub_public, write_card)
            break
        except (HTTPError, OSError, RuntimeError) as error:  # RuntimeError: from the transfer of large files
            if seconds is None or not is_transient(error):
                raise InputError(
                    f"{repo_id} could not be pushed ({' '.join(str(error).split())}); the model is complete in "
                    f"{stage_dir}; to push it later, run: {push_by_hand(stage_dir, args, repo_id)}"
                ) from error
            print(f"warning: the Hub does not respond ({error}); retrying in {seconds} s", file=sys.stderr)
            time.sleep(seconds)
    print(f"Pushed to {url}")


def upload(stage_dir: Path, repo_id: str, private: bool, write_card: Callable[[str], None]) -> str:
    """Create the repository if needed and upload the folder. The model card comes last, because it names the commit
    of the code. Uploading again changes only that name."""
    api = HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    ignored = [f"{CHECKPOINTS}/*", CARD, *NOT_PUSHED]
    write_card(api.upload_folder(repo_id=repo_id, folder_path=stage_dir, ignore_patterns=ignored).oid)
    return api.upload_file(repo_id=repo_id, path_or_fileobj=stage_dir / CARD, path_in_repo=CARD)


def is_transient(error: Exception) -> bool:
    """Whether a retry may succeed: there was no response, or one with a temporary error."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, HTTPError)


def push_by_hand(stage_dir: Path, args: Arguments, repo_id: str) -> str:
    """The command of the Hub client that pushes the same files."""
    words = ["hf", "upload", repo_id, str(stage_dir), *([] if args.trainer.hub_public else ["--private"])]
    for pattern in NOT_PUSHED:
        words += ["--exclude", pattern]
    return shlex.join(words)
