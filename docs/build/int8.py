"""Builds the tables of 8-bit files in docs/ONNX.md from docs/results/int8.json."""

import textwrap
from pathlib import Path

from core.json_files import read_json

RESULTS = Path(__file__).parents[1] / "results" / "int8.json"
NAMES = {"float": "32 bits", "dynamic": "`--int8`", "static": "`--int8 static`"}

TEST = """`{command}` compares the files of a model of {parameters:.2g} million parameters ([results](results/int8.json)) on
the {test} utterances of its test speakers. Another label is one that differs from that of the file of 32 bits; the
change is that of a probability. Time is the processor time of one thread for one second of speech, the median of
{passes}, and memory the peak of a process with Python and onnxruntime that scores it."""
TEST_TABLE = """
| | MB | UA, % | other labels | largest change | mean change | ms | times as fast | memory, MB |
|---|---|---|---|---|---|---|---|---|
{rows}
"""
VALIDATION = """Ways to quantize statically, on the {validation} utterances of the validation speakers, with {calibration} of training
speakers for calibration. Softmax and LayerNorm always have 32 bits."""
VALIDATION_TABLE = """
| | MB | UA, % | other labels | largest change | mean change |
|---|---|---|---|---|---|
{ways}"""


def build_int8_block() -> list[str]:
    found = read_json(RESULTS)
    speed, memory = found["speed"], found["peak_megabytes"]
    rows = [
        f"| {NAMES[name]} | {_format(own)} | {speed['milliseconds'][name]:.2f} | {speed['times_as_fast'][name]:.2f} | "
        f"{memory[name]:.0f} |"
        for name, own in found["test"].items()
    ]
    ways = [f"| {NAMES.get(name, name)} | {_format(own)} |" for name, own in found["validation"].items()]
    facts = {
        **{name: found[name] for name in ("command", "calibration")},
        **found["utterances"],
        "parameters": found["parameters"] / 1e6,
        "passes": speed["passes"],
    }
    return [
        *textwrap.wrap(TEST.format(**facts), 120, break_on_hyphens=False),
        *TEST_TABLE.format(rows="\n".join(rows)).splitlines(),
        "",
        *textwrap.wrap(VALIDATION.format(**facts), 120, break_on_hyphens=False),
        *VALIDATION_TABLE.format(ways="\n".join(ways)).splitlines(),
    ]


def _format(own: dict[str, float]) -> str:
    return (
        f"{own['megabytes']:.2f} | {own['ua']:.1f} | {own['other_label']} | {own['largest_change']:.3f} | "
        f"{own['mean_change']:.4f}"
    )
