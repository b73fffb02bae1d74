"""Write the generated documents, and the generated blocks of hand-written ones.

    python -m docs.build.make
    python -m docs.build.make outputs/quickstart run_configs/ravdess/table3.yaml run_configs/ravdess/timeline.yaml
    python -m docs.build.make --robustness outputs/robustness

Without arguments, this writes the documents that depend only on docs/results and the source code. With the output
folder of the quickstart and the YAML files of experiments and robustness tests, it also writes docs/RESULTS.md, the
scores of the quickstart and of the timeline, and docs/quickstart.png. They need a report
(`python experiment.py --config ... --report`), which is copied to docs/results.
"""

import argparse
import sys
from pathlib import Path

from core.errors import InputError, error_line
from docs.build.blocks import ROOT, replace_block

# The file that contains each generated block, between <!-- name:begin --> and <!-- name:end -->.
BLOCKS = {
    "shipped": ROOT / "README.md",  # by python -m docs.build.first_screen
    "performance": ROOT / "README.md",
    "quickstart": ROOT / "docs" / "TRAINING.md",
    "words": ROOT / "docs" / "TRAINING.md",
    "timeline": ROOT / "docs" / "INFERENCE.md",
    "diarization": ROOT / "docs" / "INFERENCE.md",  # python -m studies.diarization measures it
    "onnx": ROOT / "docs" / "ONNX.md",
    "int8": ROOT / "docs" / "ONNX.md",  # python -m studies.int8 measures it
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quickstart", nargs="?", type=Path, help="output folder of the quickstart")
    parser.add_argument("experiments", nargs="*", help="YAML files of experiments")
    parser.add_argument("--robustness", type=Path, metavar="FOLDER", help="output folder of a robustness test to copy")
    given = parser.parse_args()
    if given.robustness:
        from docs.build.robustness import copy_robustness

        copy_robustness(given.robustness)
    write_measured_documents()
    if given.quickstart:
        write_trained_documents(given.quickstart, given.experiments)


def write_block(name: str, lines: list[str]) -> None:
    replace_block(BLOCKS[name], name, lines)


def write_measured_documents() -> None:
    """Write the documents that depend only on docs/results/*.json and the source code."""
    from docs.build.corpora import build_corpora_page
    from docs.build.diarization import build_diarization_block
    from docs.build.encoders import build_encoders_page
    from docs.build.explanation import build_explanation_page
    from docs.build.int8 import build_int8_block
    from docs.build.performance import build_onnx_block, build_performance_block, build_performance_page
    from docs.build.reliability import build_reliability_page
    from docs.build.robustness import build_robustness_page, write_card_sections
    from docs.build.words import build_words_block

    write_page("CORPORA.md", build_corpora_page())
    write_page("ENCODERS.md", build_encoders_page())
    write_page("EXPLANATION.md", build_explanation_page())
    write_page("PERFORMANCE.md", build_performance_page())
    write_page("RELIABILITY.md", build_reliability_page())
    write_page("ROBUSTNESS.md", build_robustness_page())
    write_card_sections()
    write_block("performance", build_performance_block())
    write_block("onnx", build_onnx_block())
    write_block("int8", build_int8_block())
    write_block("words", build_words_block())
    write_block("diarization", build_diarization_block())


def write_trained_documents(quickstart: Path, paths: list[str]) -> None:
    """Write the documents that depend on finished runs."""
    from docs.build.quickstart import build_quickstart_block, describe_quickstart, draw_quickstart, read_stages
    from docs.build.results import build_results_page, build_timeline_block
    from experiments.cells import read_experiment
    from experiments.conditions import read_robustness_test
    from recipe.arguments import read_yaml

    command = f"python -m docs.build.make {quickstart.as_posix()} {' '.join(paths)}"
    stages = read_stages(quickstart)
    tests = [read_robustness_test(path) for path in paths if "conditions" in read_yaml(path)]
    experiments = [read_experiment(path, []) for path in paths if "conditions" not in read_yaml(path)]
    write_page("RESULTS.md", build_results_page(command, experiments, tests, describe_quickstart(stages)))
    for experiment in experiments:
        if experiment.timeline:
            write_block("timeline", build_timeline_block(experiment))
    write_block("quickstart", build_quickstart_block(quickstart))
    draw_quickstart(quickstart, ROOT / "docs" / "quickstart.png")


def write_page(name: str, text: str) -> None:
    (ROOT / "docs" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(error_line(error))
