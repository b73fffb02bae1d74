"""Writes docs/CORPORA.md from the docstrings of the corpus readers."""

from recipe.corpora import PUBLISHED


def build_corpora_page() -> str:
    lines = [
        "# Corpora",
        "",
        "Generated from the readers in `recipe/corpora` by `python -m docs.build.make`; do not edit.",
        "",
    ]
    for name, module in PUBLISHED.items():
        title, _, text = (module.__doc__ or "").partition(":")
        lines += [f"## {title}", "", f"`--corpus {name}`. {text.strip()}", ""]
    return "\n".join(lines)
