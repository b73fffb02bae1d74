"""librosa, imported by one process at a time.

What librosa compiles by numba when it is imported, numba keeps for later processes, each function in two files. On a
new installation, processes that start together could mix up theirs: then they and every later one crash, until the
files are deleted (github.com/numba/numba/issues/10128).
"""

from functools import cache
from pathlib import Path
from types import ModuleType

from filelock import FileLock
from huggingface_hub.constants import HF_HOME

LOCK = Path(HF_HOME) / "ser-align-librosa.lock"


@cache
def load_librosa() -> ModuleType:
    """The library with all of its modules that are compiled when they are imported and that this project uses."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(LOCK):
        import librosa.core.pitch
        import librosa.effects
    return librosa
