"""The oldest libraries that the files of a model run on, in its folder alone; the next older ones, and what they say.

    python studies/oldest_versions.py

Makes an environment in a temporary folder for each row, of Python 3.11 and the packages that the model card asks for (a
few GB each, fetched from where pip fetches), and in it loads models/ser-align-mini with trust_remote_code, no network
and nothing else of this project. Its logits are compared with those of the environment that runs this script. Writes
docs/results/reliability/versions.json.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from recipe.model_card import OLDEST
from studies.reporting import RELIABILITY, write_study

MODEL = ROOT / "models" / "ser-align-mini"
RESULTS = RELIABILITY / "versions.json"
TOLERANCE = 1e-5
# The environment of each row: the oldest of all, and with one library of the release before.
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
    expected, said = probed(sys.executable)
    if expected is None:
        sys.exit(f"error: {said}")
    rows = [{"what": named(versions), "measured": tried(versions, expected)} for versions in TRIED]
    write_study(
        RESULTS,
        title="Oldest versions that a model's own files run on",
        command="python studies/oldest_versions.py",
        rows=rows,
        notes="Largest difference to the versions below, over the logits of AutoModel and "
        "AutoModelForAudioClassification and the scores of both pipelines. The recipe itself runs on the pinned "
        "versions alone.",
    )
    print(json.dumps(rows, indent=2))


def named(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def tried(versions: dict[str, str], expected: list[list[float]]) -> str:
    """What the model does in an environment of these versions."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        packages = [f"{name}=={number}" for name, number in versions.items()]
        subprocess.run([python, "-m", "pip", "install", "-q", *packages, "soundfile", "soxr"], check=True)
        found, said = probed(python)
    if found is None:
        return f"does not load: {said}"
    difference = max(abs(a - b) for mine, theirs in zip(expected, found) for a, b in zip(mine, theirs))
    return f"{'the same' if difference < TOLERANCE else 'DIFFERENT'}, to {difference:.1e}"


def probed(python: str) -> tuple[list[list[float]] | None, str]:
    """What the model says to one waveform in this Python, or None and the last line of the error."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(MODEL, Path(folder) / "model")
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        variables |= {"HF_HOME": folder, "HF_HUB_OFFLINE": "1"}
        command = [python, "-c", PROBE, str(copy)]
        run = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    if run.returncode:
        return None, next(line for line in run.stderr.splitlines()[::-1] if "Error: " in line)
    return json.loads(run.stdout.split("RESULT")[1]), ""


if __name__ == "__main__":
    main()
