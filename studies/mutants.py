"""Mutation testing of the Hub files: how many random mistakes do the tests detect?

    pip install cosmic-ray==8.7.0
    python -m studies.mutants

Each mutant changes one operator, comparison, condition, number, boolean or loop with a random cosmic-ray operator. The
tests run until one fails. Surviving mutants are listed with their change for review. Writes
docs/results/reliability/mutants.json. Record your review of a survivor in `looked_at`, and run with --report to update
the table.
"""

import argparse
import difflib
import random
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from core.json_files import read_json
from studies.reporting import RELIABILITY, write_study

ROOT = Path(__file__).parent.parent
RESULTS = RELIABILITY / "mutants.json"
SHIPPED = "models/ser-align-mini"  # a test compares its copies of the files, so they are changed too
SEED = 20261122
# For each file: the number of mutants, and the tests that should detect them, fast ones first.
FILES = {
    "modeling_ser_align.py": (
        36,
        "hub/test_losses hub/test_model core/test_properties recipe/test_batching core/test_speed hub/test_hub "
        "hub/test_shipped_model hub/test_pipeline hub/test_pretrained_encoder recipe/test_stages recipe/test_trainer "
        "recipe/test_feature_cache inference/test_export_onnx",
    ),
    "objective_ser_align.py": (
        8,
        "hub/test_losses hub/test_model recipe/test_mixing recipe/test_trainer",
    ),
    "pipeline_ser_align.py": (
        28,
        "hub/test_pipeline core/test_properties inference/test_evidence experiments/test_diarization "
        "hub/test_shipped_model recipe/test_calibration scripts/test_predict demo/test_page",
    ),
    "recording_ser_align.py": (
        16,
        "hub/test_recording core/test_bad_audio hub/test_pipeline core/test_properties recipe/test_corpora "
        "scripts/test_predict",
    ),
    "speech_ser_align.py": (
        8,
        "hub/test_recording hub/test_pipeline core/test_properties recipe/test_corpora scripts/test_predict",
    ),
    "configuration_ser_align.py": (
        10,
        "hub/test_config hub/test_model hub/test_first_release core/test_properties recipe/test_arguments "
        "recipe/test_stages hub/test_hub hub/test_pipeline recipe/test_trainer hub/test_pretrained_encoder",
    ),
    "feature_extraction_ser_align.py": (
        8,
        "hub/test_feature_extraction core/test_properties hub/test_shipped_model hub/test_hub "
        "recipe/test_feature_cache",
    ),
}
KINDS = (
    *("Binary", "Comparison", "Unary", "AddNot", "AndWithOr", "OrWithAnd"),
    *("True", "False", "Number", "Break", "Continue", "ZeroIteration"),
)
ANNOTATIONS = "BitOr"  # `str | None`: any replacement fails at import, which is not informative
DETECTED = "detected by"  # prefix in the review of survivors that a new test detects
PATIENCE = 600  # seconds for the tests of one mutant; without a mistake they take less than two minutes


@dataclass
class Mutant:
    file: str
    code: str
    change: str  # the line before and after

    def run_tests(self, copy: Path) -> str:
        """Run the tests in a copy of the project: `killed`, `survived` or `timed out`."""
        original = (ROOT / self.file).read_text(encoding="utf-8")
        tests = [f"tests/{name}.py" for name in FILES[self.file][1].split()]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
        try:
            self.write(copy, self.code)
            run = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return "timed out"
        finally:
            self.write(copy, original)
        return "killed" if run.returncode else "survived"

    def write(self, copy: Path, code: str) -> None:
        for folder in (".", SHIPPED):
            (copy / folder / self.file).write_text(code, encoding="utf-8")


def draw_mutants(file: str, count: int) -> list[Mutant]:
    """Generate mutants of a file, each with one change in a different place."""
    from cosmic_ray.mutating import mutate_code  # not a dependency of the project: pip install cosmic-ray
    from cosmic_ray.plugins import get_operator, operator_names

    code = (ROOT / file).read_text(encoding="utf-8")
    places: dict[int, list[str]] = {}
    for name in operator_names():
        if not any(kind in name for kind in KINDS) or ANNOTATIONS in name:
            continue
        occurrence = 0
        while mutated := mutate_code(code, get_operator(name)(), occurrence):
            places.setdefault(find_difference(code, mutated), []).append(mutated)
            occurrence += 1
    drawing = random.Random(SEED)
    chosen = drawing.sample(sorted(places), min(count, len(places)))
    return [
        Mutant(file, mutated, describe_change(code, mutated))
        for mutated in (drawing.choice(places[at]) for at in chosen)
    ]


def find_difference(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def describe_change(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "  →  ".join(line[1:].strip() for line in list(lines)[3:])


def run_study(workers: int) -> None:
    mutants = [mutant for file, (count, _) in FILES.items() for mutant in draw_mutants(file, count)]
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    with tempfile.TemporaryDirectory() as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(workers):
            copy = Path(folder) / str(number)
            for name in filter(None, files):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, copy / name)
            copies.put(copy)

        def test_mutant(mutant: Mutant) -> str:
            copy = copies.get()
            outcome = mutant.run_tests(copy)
            copies.put(copy)
            print(f"{outcome:9} {mutant.file}: {mutant.change}", flush=True)
            return outcome

        for file in FILES:  # a test that fails without a mistake would kill every mutant
            unchanged = Mutant(file, (ROOT / file).read_text(encoding="utf-8"), "nothing")
            if test_mutant(unchanged) != "survived":
                sys.exit(f"error: the tests of {file} fail without a mutation: fix them first")
        with ThreadPoolExecutor(workers) as pool:
            outcomes = list(pool.map(test_mutant, mutants))
    found = [{"file": m.file, "change": m.change, "outcome": outcome} for m, outcome in zip(mutants, outcomes)]
    write_report(found, {})


def write_report(outcomes: list[dict[str, str]], looked_at: dict[str, str], **more: Any) -> None:
    """Write the results; `looked_at` contains the review of each survivor, written by hand."""

    def share(file: str) -> str:
        found = [one["outcome"] for one in outcomes if file in ("", one["file"])]
        noticed = len(found) - found.count("survived")
        return f"{noticed} of {len(found)} ({100 * noticed / len(found):.0f} %), {found.count('timed out')} by timeout"

    left = [one["change"] for one in outcomes if one["outcome"] == "survived"]
    since = sum(looked_at.get(change, "").startswith(DETECTED) for change in left)
    after = len(outcomes) - len(left) + since
    write_study(
        RESULTS,
        title="Mutation testing",
        command="python -m studies.mutants",
        rows=[
            {"what": "mutants of the Hub files that the tests detect", "measured": share("")},
            *({"what": file, "measured": share(file)} for file in FILES),
            {
                "what": "including tests that were added for survivors",
                "measured": f"{after} of {len(outcomes)} ({100 * after / len(outcomes):.0f} %)",
            },
            *({"what": f"`{change}`", "measured": looked_at.get(change, "not reviewed")} for change in left),
        ],
        outcomes=outcomes,
        looked_at=looked_at,
        **more,
        notes="Each mutant has one change in a random place. Survivors are listed with the line before and after the "
        "change, and with what the review found.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="mutants to test in parallel; default: 2")
    parser.add_argument("--report", action="store_true", help="run no tests: update the table from `looked_at`")
    options = parser.parse_args()
    if options.report:
        known = read_json(RESULTS)
        write_report(known["outcomes"], known["looked_at"], versions=known["versions"])
    else:
        run_study(options.workers)


if __name__ == "__main__":
    main()
