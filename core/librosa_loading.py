"""Imports librosa in one process at a time.

When librosa is imported, numba compiles functions and caches each in two files. On a new installation, processes that
start at the same time can corrupt this cache; then they and all later processes crash until the files are deleted
(github.com/numba/numba/issues/10128).
"""

from functools import cache
from pathlib import Path
from types import ModuleType

from filelock import FileLock
from huggingface_hub.constants import HF_HOME

LOCK = Path(HF_HOME) / "ser-align-librosa.lock"


@cache
def load_librosa() -> ModuleType:
    """Import librosa, with all modules that this project uses and that are compiled on import."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(LOCK):
        import librosa.core.pitch
        import librosa.effects
    return librosa
