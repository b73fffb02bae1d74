"""Names and labels that terminals, spreadsheets, Markdown, HTML, Praat or players would interpret as more than text."""

import csv
import io
import re

import numpy as np
import pytest
import webvtt
from markdown_it import MarkdownIt
from praatio import textgrid
from running import BRIEF

from core.errors import InputError, error_line
from core.escaping import csv_cell, markdown_text, printable
from experiments.report import make_environment, write_csv
from inference.outputs import format_audacity, format_csv, format_textgrid, format_webvtt

CONTROLS = "\x1b[2Jcleared\r\n\tnext\x07\u202eright\ud800"
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'=1", "\uff1d1"]
LABELS = {
    "terminal": "\x1b]0;owned\x07angry",
    "lines": "angry\n\n00:00:00.000 --> 00:00:09.000\nforged\tcell",
    "markup": "<script>alert(1)</script> | [a](http://x) ![b](http://y) `c` **d** $e$ &amp; _f_ g_h",
    "quote": 'angry"',
    "formula": '=HYPERLINK("http://x")',
}


def record(label):
    segment = {"start": 0.0, "end": 1.0, "label": label, "score": 0.9}
    answer = {"duration": 1.0, "label": label, "score": 0.9, "scores": {label: 0.9, "-calm": 0.1}}
    return {"file": "=cmd.wav", "channel": None, **answer, "timeline": [segment]}


def test_a_terminal_gets_nothing_to_obey():
    shown = printable(CONTROLS)
    assert shown == "\\x1b[2Jcleared\\r\\n\\tnext\\x07\\u202eright\\ud800"
    assert shown.encode("utf-8") and printable("Ünï 声 |") == "Ünï 声 |"
    assert error_line(InputError(f"{CONTROLS} is wrong")) == f"error: {shown} is wrong"
    in_worker = "Caught InputError in DataLoader worker process 0.\nTraceback ...\ncore.errors.InputError: a.wav: bad\n"
    assert error_line(InputError(in_worker)) == "error: a.wav: bad"


@pytest.mark.parametrize("text", FORMULAS)
def test_a_spreadsheet_gets_no_formula_and_undoing_is_exact(text):
    assert csv_cell(text) == f"'{text}" and csv_cell(text).removeprefix("'") == text
    assert csv_cell("angry - 1") == "angry - 1"


def test_numbers_in_a_table_stay_numbers():
    assert [csv_cell(value) for value in (-0.5, -1, 0, None, "")] == [-0.5, -1, 0, None, ""]


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
def test_a_label_in_a_table_of_answers_is_one_cell_that_can_be_read_back(label):
    header, row = csv.reader(io.StringIO(format_csv([record(label)]), newline=""))
    assert header[:6] == ["file", "channel", "duration", "label", "score", "unsure"]
    assert not any(cell.startswith(tuple("=+-@\t\r\n")) for cell in [*header, *row])
    assert row[0] == "'=cmd.wav" and row[3].removeprefix("'") == label
    assert {cell.removeprefix("'") for cell in header[6:8]} == {label, "-calm"}
    assert float(row[4]) == 0.9


def test_a_label_called_as_a_column_does_not_take_its_place():
    header, row = csv.reader(io.StringIO(format_csv([record("file")])))
    assert row[0] == "'=cmd.wav" and header.count("file") == 2 and row[header.index("file", 1)] == "0.9"


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
def test_a_label_in_a_track_makes_no_line_or_segment_of_its_own(label, tmp_path):
    answer = record(label)
    (tmp_path / "a.TextGrid").write_text(format_textgrid(answer), encoding="utf-8")
    (interval,) = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), True).getTier("emotion").entries
    assert interval.label == printable(label) and (interval.start, interval.end) == (0, 1)
    (line,) = format_audacity(answer).splitlines()
    assert line.split("\t") == ["0.000000", "1.000000", printable(label)]
    (cue,) = webvtt.from_buffer(io.StringIO(format_webvtt(answer)))
    assert "<" not in cue.raw_text and "\n" not in cue.raw_text and cue.end == "00:00:01.000"


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
def test_markdown_shows_a_label_as_it_is(label):
    """Rendered by a reader of Markdown that knows tables and HTML: one cell, whose text is the label."""
    table = f"| a | b |\n|---|---|\n| {markdown_text(label)} | 1 |\n"
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(table)
    cells = [token for token in tokens if token.type == "inline"][2:]
    assert len(cells) == 2 and cells[1].content == "1"
    assert {child.type for child in cells[0].children} <= {"text", "text_special"}
    assert "".join(child.content for child in cells[0].children) == printable(" ".join(label.split()))


def test_a_report_and_its_tables_hold_names_as_text(tmp_path):
    write_csv(tmp_path / "table.csv", [{"=name": "@speaker", "ua": -0.5}, {"=name": "anna", "ua": 1}])
    lines = list(csv.reader((tmp_path / "table.csv").open(encoding="utf-8", newline="")))
    assert lines == [["'=name", "ua"], ["'@speaker", "-0.5"], ["anna", "1"]]
    shown = make_environment().from_string("{{ name | text }}").render(name="<b>|anna_1")
    assert shown == "\\<b\\>\\|anna_1"


def test_hostile_labels_and_speakers_go_through_a_whole_run(hostile_csv, tmp_path, capfd):
    """From a CSV to scores and model card, in this process: names stay text in the card and in the terminal."""
    from recipe.arguments import parse_arguments
    from recipe.run import run

    argv = [*BRIEF, "--stage", "1", "--max_steps", "1", "--corpus", "folder", "--csv", str(hostile_csv)]
    run(parse_arguments([*argv, "--output_dir", str(tmp_path / "run")], description=""))
    card = (tmp_path / "run" / "stage1" / "README.md").read_text(encoding="utf-8")
    text = card.partition("\n---\n")[2]
    assert "\\<img src=x onerror=alert(1)\\>\\|\\\\x1b\\[31m" in text and "\\<b\\>\\|speaker" in text
    assert not re.search(r"(?<!\\)<(img|b>)", text) and "\x1b" not in card
    assert "\x1b[31m" not in "".join(capfd.readouterr())


def test_a_figure_takes_a_dollar_for_a_dollar(tmp_path):
    from experiments import figures

    figures.draw_confusion(np.eye(2), ["$x_{$", "<b>"], "title", tmp_path / "confusion")
    assert "$x_{$" in (tmp_path / "confusion.svg").read_text(encoding="utf-8")  # as the text of its comment
