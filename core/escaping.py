"""Names and labels come from corpora, file systems and models of others: shown as text wherever they would be more."""

import re
from typing import Any

# What Markdown or HTML within it would obey; an underscore within a word it takes as it is.
MARKUP = re.compile(r"[\\`*{}\[\]<>|#~$&!]|(?<![^\W_])_|_(?![^\W_])")
# What spreadsheets take for the beginning of a formula, also in full width; the apostrophe so that undoing is exact.
BEGINS_FORMULA = tuple("=+-@\t\r\n'\uff1d\uff0b\uff0d\uff20")


def printable(text: str) -> str:
    """On one line, with what a terminal would obey written out: a line break becomes \\n, an escape \\x1b."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def markdown_text(text: str) -> str:
    """As plain text in a line of Markdown or a cell of its tables."""
    return MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))


def csv_cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers.

    Undone by taking one leading apostrophe away.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(BEGINS_FORMULA) else value
