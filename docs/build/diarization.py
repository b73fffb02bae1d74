"""Builds the table of shipped models in docs/INFERENCE.md from the results of studies/diarization.py."""

import textwrap
from typing import Any

from core.json_files import read_json
from studies.diarization import ALL, RESULTS

INTRODUCTION = (
    "The shipped models on recordings of {utterances} utterances of one test speaker, with different emotions one after "
    "the other, at most {recordings} of each speaker (`{command}`): emotion diarization error rate in percent. *Window* is "
    "the best of {windows} sliding windows; *true boundaries* is the model's verdict on each utterance, cut out without a "
    "pause at its true boundaries. Brackets give 95 % bootstrap intervals over speakers."
)
HEAD = """| | speakers | timeline | window | difference | timeline, no pauses | window | difference | true boundaries |
|---|---|---|---|---|---|---|---|---|"""


def build_diarization_block() -> list[str]:
    found = read_json(RESULTS)
    introduction = INTRODUCTION.format(**{**found, "windows": len(found["windows"])})
    lines = [*textwrap.wrap(introduction, 120, break_on_hyphens=False), "", HEAD]
    for model in found["models"]:
        corpora = model["corpora"] if len(model["corpora"]) > 2 else model["corpora"][-1:]
        for corpus in corpora:
            name = model["model"].removeprefix("ser-align-") + (
                "" if corpus["corpus"] == ALL else f", {corpus['corpus']}"
            )
            cells = [name, str(corpus["speakers"])]
            for condition in ("pauses", "no_pauses"):
                cells += compare(corpus[condition])
            rows = {row["method"]: row for row in corpus["no_pauses"]}
            lines.append(f"| {' | '.join([*cells, percent(rows['true_boundaries']['error'])])} |")
    return lines


def compare(rows: list[dict[str, Any]]) -> list[str]:
    """The error of the timeline, of the best sliding window, and the difference."""
    ours = next(row for row in rows if row["method"] == "timeline")
    best = min((row for row in rows if row["method"].startswith("sliding")), key=lambda row: row["error"])
    interval = f" [{percent(best['low'])}, {percent(best['high'])}]" if best["low"] != best["high"] else ""
    return [percent(ours["error"]), percent(best["error"]), f"{100 * best['advantage']:+.1f}{interval}"]


def percent(share: float) -> str:
    return f"{100 * share:.1f}"
