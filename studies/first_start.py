"""Check that librosa's numba cache survives several first processes on a new installation.

    python -m studies.first_start --rounds 5

In each round, three processes start within three seconds with an empty numba cache and use librosa; a fourth follows.
The study runs with a plain `import librosa` and with this project's import. Writes
docs/results/reliability/first_start.json.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from studies.reporting import RELIABILITY, write_study

ROOT = Path(__file__).parent.parent
RESULTS = RELIABILITY / "first_start.json"
IMPORTS = {
    "import librosa": "import librosa",
    "core.librosa_loading": "from core.librosa_loading import load_librosa; librosa = load_librosa()",
}
USES = """
import numpy as np
noise = np.random.default_rng(0).standard_normal(16000)
uses = {
    "trim": lambda: librosa.effects.trim(noise, top_db=30),
    "yin": lambda: librosa.yin(noise, fmin=60, fmax=400, sr=16000),
    "shift": lambda: librosa.effects.pitch_shift(noise, sr=16000, n_steps=1.0),
}
"""
ORDERS = (("trim", "yin"), ("yin", "trim"), ("shift", "trim", "yin"), ("trim", "yin", "shift"))


def start_process(how: str, order: tuple[str, ...], folder: str) -> subprocess.Popen[bytes]:
    """Start a process that uses librosa in this order, with its numba cache in the folder."""
    script = IMPORTS[how] + USES + "".join(f"uses[{name!r}]()\n" for name in order)
    environment = {**os.environ, "NUMBA_CACHE_DIR": folder, "HF_HOME": folder}
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)


def count_crashes(how: str, pauses: random.Random) -> tuple[int, int]:
    """Count how many of the first three processes crash, and whether the later one crashes."""
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for order in ORDERS[:3]:
            processes.append(start_process(how, order, folder))
            time.sleep(pauses.uniform(0, 1.5))
        first = sum(process.wait() != 0 for process in processes)
        return first, int(start_process(how, ORDERS[3], folder).wait() != 0)


def run_study(rounds: int) -> None:
    rows = []
    for how in IMPORTS:
        pauses = random.Random(0)
        first, later = (sum(counts) for counts in zip(*(count_crashes(how, pauses) for _ in range(rounds))))
        measured = f"{first} of {3 * rounds} first processes crash, {later} of {rounds} later ones"
        rows.append({"what": f"`{how}`", "measured": measured})
        print(f"{how}: {measured}")
    write_study(
        RESULTS,
        title="First start on a new installation",
        command=f"python -m studies.first_start --rounds {rounds}",
        rows=rows,
        notes="Processes that compile librosa's functions at the same time corrupt numba's cache (numba issue 10128). "
        "This project imports librosa in one process at a time.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    run_study(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
