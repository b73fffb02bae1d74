"""Whether the tests notice mistakes in the model's own files: each mutant has one, in a place drawn at random.

    pip install cosmic-ray==8.7.0
    python studies/mutants.py

A place is an operator, a comparison, a condition, a number, True or False, or a loop; its change is drawn from those
that cosmic-ray knows. The tests run until one fails. A mutant that none notices is listed with its change, to be looked
at. Writes docs/results/reliability/mutants.json; what is found out about a survivor goes into its `looked_at`, and
`--report` takes that up.
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

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from core.json_files import read_json
from studies.reporting import RELIABILITY, write_study

RESULTS = RELIABILITY / "mutants.json"
SHIPPED = "models/ser-align-mini"  # its copies of the files are changed alike: a test compares them
SEED = 20261122
# Of each file: how many mutants, and the tests that are to notice, fast ones first.
FILES = {
    "modeling_ser_align.py": (
        36,
        "losses model properties batching speed hub shipped_model pipeline pretrained_encoder stages trainer "
        "features export_onnx",
    ),
    "pipeline_ser_align.py": (
        28,
        "pipeline properties evidence diarization shipped_model calibration predict_script app",
    ),
    "recording_ser_align.py": (24, "recording bad_audio pipeline properties corpora predict_script"),
    "configuration_ser_align.py": (
        10,
        "config model first_release properties arguments stages hub pipeline trainer pretrained_encoder",
    ),
    "feature_extraction_ser_align.py": (8, "feature_extraction properties shipped_model hub features"),
}
KINDS = (
    *("Binary", "Comparison", "Unary", "AddNot", "AndWithOr", "OrWithAnd"),
    *("True", "False", "Number", "Break", "Continue", "ZeroIteration"),
)
ANNOTATIONS = "BitOr"  # `str | None`: whatever replaces it fails when the file is imported, which shows nothing
NOTICED = "noticed by a test"  # how what is said of a survivor begins, once there is one
PATIENCE = 600  # seconds for the tests of one mutant; without a mistake they take less than two minutes


@dataclass
class Mutant:
    file: str
    code: str
    change: str  # the line before and after

    def survives(self, copy: Path) -> str:
        """`killed`, `survived` or `timed out`, by the tests in a copy of the project."""
        original = (ROOT / self.file).read_text(encoding="utf-8")
        tests = [f"tests/test_{name}.py" for name in FILES[self.file][1].split()]
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


def mutants_of(file: str, count: int) -> list[Mutant]:
    """One change each of so many places."""
    code = (ROOT / file).read_text(encoding="utf-8")
    places: dict[int, list[str]] = {}
    for name in operator_names():
        if not any(kind in name for kind in KINDS) or ANNOTATIONS in name:
            continue
        occurrence = 0
        while mutated := mutate_code(code, get_operator(name)(), occurrence):
            places.setdefault(first_difference(code, mutated), []).append(mutated)
            occurrence += 1
    drawing = random.Random(SEED)
    chosen = drawing.sample(sorted(places), min(count, len(places)))
    return [Mutant(file, mutated, change(code, mutated)) for mutated in (drawing.choice(places[at]) for at in chosen)]


def first_difference(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


def change(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return "  →  ".join(line[1:].strip() for line in list(lines)[3:])


def main(workers: int) -> None:
    mutants = [mutant for file, (count, _) in FILES.items() for mutant in mutants_of(file, count)]
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    with tempfile.TemporaryDirectory() as folder:
        copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(workers):
            copy = Path(folder) / str(number)
            for name in filter(None, files):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, copy / name)
            copies.put(copy)

        def tested(mutant: Mutant) -> str:
            copy = copies.get()
            outcome = mutant.survives(copy)
            copies.put(copy)
            print(f"{outcome:9} {mutant.file}: {mutant.change}", flush=True)
            return outcome

        for file in FILES:  # a test that fails without a mistake would kill them all
            unchanged = Mutant(file, (ROOT / file).read_text(encoding="utf-8"), "nothing")
            if tested(unchanged) != "survived":
                sys.exit(f"error: the tests of {file} fail without a mistake: mend them first")
        with ThreadPoolExecutor(workers) as pool:
            outcomes = list(pool.map(tested, mutants))
    found = [{"file": m.file, "change": m.change, "outcome": outcome} for m, outcome in zip(mutants, outcomes)]
    report(found, {})


def report(outcomes: list[dict[str, str]], looked_at: dict[str, str], **more: Any) -> None:
    """Write the results; what was found out about a survivor is written into `looked_at` by hand."""

    def share(file: str) -> str:
        found = [one["outcome"] for one in outcomes if file in ("", one["file"])]
        noticed = len(found) - found.count("survived")
        return f"{noticed} of {len(found)} ({100 * noticed / len(found):.0f} %), {found.count('timed out')} by time"

    left = [one["change"] for one in outcomes if one["outcome"] == "survived"]
    since = sum(looked_at.get(change, "").startswith(NOTICED) for change in left)
    after = len(outcomes) - len(left) + since
    write_study(
        RESULTS,
        title="Mistakes that the tests notice",
        command="python studies/mutants.py",
        rows=[
            {"what": "mutants of the model's own files that the tests noticed", "measured": share("")},
            *({"what": file, "measured": share(file)} for file in FILES),
            {
                "what": "with the tests that were written for the others",
                "measured": f"{after} of {len(outcomes)} ({100 * after / len(outcomes):.0f} %)",
            },
            *({"what": f"`{change}`", "measured": looked_at.get(change, "not looked at")} for change in left),
        ],
        outcomes=outcomes,
        looked_at=looked_at,
        **more,
        notes="One mistake each, in places drawn at random. Those that were not noticed stand with their line "
        "before and after, and what became of them.",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="mutants tested at once; default: 2")
    parser.add_argument("--report", action="store_true", help="test nothing: take up what `looked_at` says by now")
    options = parser.parse_args()
    if options.report:
        known = read_json(RESULTS)
        report(known["outcomes"], known["looked_at"], versions=known["versions"])
    else:
        main(options.workers)
