"""Time to the first prediction in a new process.

    python -m benchmarks.first_answer --repetitions 5

Runs predict.py and train.py with --help, and predict.py with each shipped model on a short file. These alternate with
bare processes that import torch and transformers and run one forward pass of the library's encoder of the same size on
as many frames. Writes docs/results/first_answer.json and prints the ratios last.
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
from core.shipped import ROOT, SHIPPED_MODELS
from recipe.results import library_versions

RESULT = ROOT / "docs" / "results" / "first_answer.json"
FRAMES = 400  # of log-mel features, at most: 4 s
BARE = """
import json, sys, torch, transformers
config = transformers.AutoConfig.for_model(**json.load(open(sys.argv[1]))["encoder_config"])
frames = int(sys.argv[2])
if config.model_type == "whisper":
    config.max_source_positions = frames // 2  # else the library takes 30 seconds alone
    model = transformers.models.whisper.modeling_whisper.WhisperEncoder(config).eval()
    shape = 1, config.num_mel_bins, frames
else:
    model = transformers.AutoModel.from_config(config).eval()
    shape = 1, frames // 4, config.feature_projection_input_dim
with torch.inference_mode():
    model(torch.zeros(shape))
"""


def run_benchmark(repetitions: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/clip.wav"
        soundfile.write(path, clips(1)[0][: FRAMES * SAMPLING_RATE // 100], SAMPLING_RATE)
        commands = {"predict.py --help": ["predict.py", "--help"], "train.py --help": ["train.py", "--help"]}
        for name, model_dir in SHIPPED_MODELS.items():
            commands[f"bare, {name}"] = ["-c", BARE, str(model_dir / "config.json"), str(FRAMES)]
            commands[f"first prediction, {name}"] = ["predict.py", path, "--model", name]
        seconds = medians(in_turn({name: partial(run, words) for name, words in commands.items()}, repetitions))
    ratio = {name: seconds[f"first prediction, {name}"] / seconds[f"bare, {name}"] for name in SHIPPED_MODELS}
    write_json(RESULT, {"repetitions": repetitions, "seconds": seconds, "ratio": ratio, "versions": library_versions()})
    print({name: round(value, 2) for name, value in seconds.items()})
    print({name: round(value, 2) for name, value in ratio.items()})


def run(words: list[str]) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    run_benchmark(parser.parse_args().repetitions)


if __name__ == "__main__":
    main()
