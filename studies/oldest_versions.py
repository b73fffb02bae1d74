"""Find the oldest library versions that the Hub files support, and what earlier releases report.

    python -m studies.oldest_versions

For each row, creates a temporary environment with Python 3.11 and the packages that the model card requires (a few GB
each, downloaded by pip) and loads models/ser-align-mini in it with trust_remote_code, without network and without the
rest of this project. Its logits are compared with those of the current environment. Writes
docs/results/reliability/versions.json.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from core.shipped import MINI_MODEL
from recipe.model_card import OLDEST
from studies.reporting import RELIABILITY, write_study

RESULTS = RELIABILITY / "versions.json"
TOLERANCE = 1e-5
# One environment per row: the oldest versions, and variants with one library a release older.
TRIED = [OLDEST, {**OLDEST, "transformers": "5.19.0"}, {**OLDEST, "torch": "2.5.1"}]
PROBE = """
import json, sys
import numpy as np, torch
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, pipeline

folder, trust = sys.argv[1], {"trust_remote_code": True}
waveform = (0.1 * np.random.default_rng(0).standard_normal(24000)).astype(np.float32)
inputs = AutoFeatureExtractor.from_pretrained(folder, **trust)(waveform, sampling_rate=16000, return_tensors="pt")
found = []
with torch.no_grad():
    for auto in (AutoModel, AutoModelForAudioClassification):
        found.append(auto.from_pretrained(folder, **trust).eval()(**inputs).logits[0].tolist())
for task in ("audio-classification", "speech-emotion-recognition"):
    scores = {entry["label"]: entry["score"] for entry in pipeline(task, folder, **trust)(waveform, top_k=None)}
    found.append([scores[label] for label in sorted(scores)])
print("RESULT" + json.dumps(found))
"""


def main() -> None:
    expected, message = probe(sys.executable)
    if expected is None:
        sys.exit(f"error: {message}")
    rows = [{"what": format_versions(versions), "measured": try_versions(versions, expected)} for versions in TRIED]
    write_study(
        RESULTS,
        title="Oldest supported library versions",
        command="python -m studies.oldest_versions",
        rows=rows,
        notes="Largest difference from the pinned versions over the logits of AutoModel and "
        "AutoModelForAudioClassification and the scores of both pipelines. Training requires the pinned versions.",
    )
    print(json.dumps(rows, indent=2))


def format_versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def try_versions(versions: dict[str, str], expected: list[list[float]]) -> str:
    """Run the model in an environment with these versions and return the result."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        packages = [f"{name}=={number}" for name, number in versions.items()]
        subprocess.run([python, "-m", "pip", "install", "-q", *packages, "soundfile", "soxr"], check=True)
        found, message = probe(python)
    if found is None:
        return f"does not load: {message}"
    difference = max(abs(a - b) for mine, theirs in zip(expected, found) for a, b in zip(mine, theirs))
    return f"{'the same' if difference < TOLERANCE else 'DIFFERENT'}, to {difference:.1e}"


def probe(python: str) -> tuple[list[list[float]] | None, str]:
    """Return the model's scores for one waveform in this Python, or None and the last line of the error."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(MINI_MODEL, Path(folder) / "model")
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables |= {"HF_HOME": folder, "HF_HUB_OFFLINE": "1"}
        command = [python, "-c", PROBE, str(copy)]
        run = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    if run.returncode:
        return None, next(line for line in run.stderr.splitlines()[::-1] if "Error: " in line)
    return json.loads(run.stdout.split("RESULT")[1]), ""


if __name__ == "__main__":
    main()
