"""writing(): a file that cannot be written gives a one-line error; other errors pass through unchanged."""

import resource
import signal

import pytest
import torch
from safetensors.torch import save_file

from core.errors import InputError, writing

TENSORS = {"a": torch.zeros(100_000)}


@pytest.fixture
def small_files():
    """Limit the files of this process to 100 kB, as if the disk were full."""
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save(TENSORS, path),
        lambda path: torch.save(TENSORS, path, _use_new_zipfile_serialization=False),
        lambda path: save_file(TENSORS, path),
        lambda path: path.write_bytes(bytes(200_000)),
    ],
    ids=["torch", "torch-legacy", "safetensors", "python"],
)
def test_a_full_disk_is_one_line(small_files, tmp_path, write):
    with pytest.raises(InputError, match="could not be written") as error, writing(tmp_path / "file"):
        write(tmp_path / "file")
    assert "free up disk space" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_folder_is_one_line(tmp_path):
    with pytest.raises(InputError, match="could not be written"), writing(tmp_path):
        torch.save(TENSORS, tmp_path / "nowhere" / "file")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled system error"),
        RuntimeError("Expected all tensors to be on the same device"),
        ValueError("a mistake of ours"),
        InputError("one line already"),
    ],
    ids=["memory", "nccl", "device", "value", "input"],
)
def test_any_other_error_passes_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, writing(tmp_path):
        raise error
    assert caught.value is error
