"""Time to the first prediction in a new process.

    python -m benchmarks.first_answer --repetitions 5

Runs predict.py and train.py with --help, and predict.py with the mini model on a short file. These alternate with a
bare process that imports torch and transformers and runs a forward pass of the library's encoder of the same size.
Writes docs/results/first_answer.json and prints the ratio last.
"""

import argparse
import subprocess
import sys
import tempfile
from functools import partial

import soundfile

from benchmarks.clips import clips
from benchmarks.measuring import in_turn, medians
from core.audio import SAMPLING_RATE
from core.json_files import write_json
from core.shipped import MINI_MODEL, ROOT
from recipe.results import library_versions

RESULT = ROOT / "docs" / "results" / "first_answer.json"
BARE = f"""
import json, torch, transformers
config = transformers.AutoConfig.for_model(**json.load(open({str(MINI_MODEL / "config.json")!r}))["encoder_config"])
model = transformers.AutoModel.from_config(config).eval()
with torch.inference_mode():
    model(torch.zeros(1, 100, config.feature_projection_input_dim))
"""


def run_benchmark(repetitions: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/clip.wav"
        soundfile.write(path, clips(1)[0], SAMPLING_RATE)
        commands = {
            "bare": ["-c", BARE],
            "first prediction": ["predict.py", path, "--model", "mini"],
            "predict.py --help": ["predict.py", "--help"],
            "train.py --help": ["train.py", "--help"],
        }
        seconds = medians(in_turn({name: partial(run, words) for name, words in commands.items()}, repetitions))
    ratio = seconds["first prediction"] / seconds["bare"]
    write_json(RESULT, {"repetitions": repetitions, "seconds": seconds, "ratio": ratio, "versions": library_versions()})
    print({name: round(value, 2) for name, value in seconds.items()})
    print(f"ratio {ratio:.2f}")


def run(words: list[str]) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    run_benchmark(parser.parse_args().repetitions)


if __name__ == "__main__":
    main()
