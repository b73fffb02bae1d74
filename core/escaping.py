"""Escapes names and labels, which come from untrusted corpora, file systems and models."""

import io
import re
import sys
from typing import Any

from fields_ser_align import printable

# Characters that Markdown, or HTML within it, would interpret; an underscore inside a word is plain text.
MARKUP = re.compile(r"[\\`*{}\[\]<>|#~$&!]|(?<![^\W_])_|_(?![^\W_])")
# Characters that start a formula in spreadsheets, also full-width; and the apostrophe, so that escaping is reversible.
BEGINS_FORMULA = tuple("=+-@\t\r\n'\uff1d\uff0b\uff0d\uff20")


def escape_streams() -> None:
    """Write out what the encoding of standard output or standard error lacks (`\\u751f`) instead of failing there."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def markdown_text(text: str) -> str:
    """Escape text for a line of Markdown or a cell of a Markdown table."""
    return MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))


def csv_cell(value: Any) -> Any:
    """Put an apostrophe in front of text that a spreadsheet would read as a formula; numbers stay numbers.

    To undo it, remove one leading apostrophe.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(BEGINS_FORMULA) else value
