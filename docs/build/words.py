"""Builds the table of voice and words in docs/TRAINING.md from docs/results/words.json."""

from core.json_files import read_json
from docs.build.blocks import ROOT

ANSWERS = {"voice": "voice alone", "words": "words alone", "both": "both"}
ALONE = "voice"  # the run that reads no words, whose three answers are one


def build_words_block() -> list[str]:
    """UA of each answer of each run, in percent, by kind of words."""
    results = read_json(ROOT / "docs" / "results" / "words.json")
    kinds = list(results[ALONE])
    lines = [f"| UA | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for run, scores in sorted(results.items(), key=lambda item: item[0] != ALONE):
        answers = {"both": "trained on the voice alone"} if run == ALONE else ANSWERS
        for answer, shown in answers.items():
            name = shown if run == ALONE else f"{run.replace('_', '-')}, {shown}"
            lines.append(f"| {name} | {' | '.join(f'{100 * scores[kind][answer]:.1f}' for kind in kinds)} |")
    return lines
