"""Renders the result for a recording as HTML: scores, timeline and explanation."""

import base64
import html
import io
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from matplotlib.figure import Figure

from demo.memory import release_memory
from demo.uploads import check_recording, delete_upload
from inference.dimension_figure import choose_plane, draw_plane
from inference.evidence import explain_frames
from inference.figure import choose_colours, draw_outline
from inference.outputs import format_mixed
from inference.values import SOURCES
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recording_ser_align import describe_recording

# Size in inches and dots per inch at which the figure's text is as large as the page's, on computers and phones.
WIDE, NARROW = ((7.0, 2.8), 160), ((3.3, 2.8), 220)
ALT = "Waveform and emotions over time; the table below gives the numbers"
SURE, UNSURE, MIXED = "Sounds most like", "Hard to tell; perhaps", "Sounds like"
ABOUT_EVIDENCE = (
    "The shaded parts are the fifth of the recording whose silence costs the answer the most; in recordings longer "
    "than 15 seconds, they are from the most influential phrase. They show where the model listens and how the voice "
    "differs there, not that this difference caused the answer."
)


def answer_upload(recognize: SpeechEmotionRecognitionPipeline, path: str | None) -> tuple[Any, str]:
    """Score a visitor's recording and delete it.

    Returns:
        the new value of the player, which is cleared if the upload is not a recording of speech; and the result or
        the error message, as HTML.
    """
    if path is None:
        return gr.skip(), ""
    try:
        check_recording(path)
        return gr.skip(), answer(recognize, path, Path(path).name)
    except (ValueError, OSError, RuntimeError) as error:
        return None, f'<p class="wrong" role="alert">{quote(error, path)}</p>'
    finally:
        delete_upload(path)
        release_memory()


def quote(message: object, path: str) -> str:
    """Escape a message about an upload, and shorten its path to its name."""
    shortened = str(message).replace(describe_recording(path), describe_recording(Path(path).name))
    return html.escape(" ".join(shortened.split()))


def answer(recognize: SpeechEmotionRecognitionPipeline, path: str, title: str, note: str = "") -> str:
    """Render the result for a recording; `note` is HTML. Raises ValueError if there is no speech."""
    start = time.perf_counter()
    with warnings.catch_warnings():  # the page shows them
        warnings.simplefilter("ignore")
        result: dict[str, Any] = recognize(  # type: ignore[assignment]
            path, return_timeline=True, return_frames=True, return_outline=True
        )
    note += "".join(f'<p class="wrong">{quote(problem, path)}</p>' for problem in result["warnings"])
    evidence, outline = explain_frames(recognize, result.pop("frames")), result.pop("outline")
    labels = list(recognize.model.config.id2label.values())
    record = {"file": title, "channel": None, **result}
    pictures = "".join(
        render_figure(partial(draw_outline, outline, record, labels, evidence, dark), dark) for dark in (False, True)
    )
    seconds = time.perf_counter() - start
    colour = choose_colours(labels)
    best = result["scores"][0]["label"]
    return (
        '<section class="answer"><p class="about">'
        f"{html.escape(title)} · {result['duration']:.1f}\u00a0s · processed in {seconds:.1f}\u00a0s</p>"
        f"<h2>{render_dot(colour[best])}{render_verdict(result)}</h2>{note}"
        f"{render_dimensions(record)}{render_scores(result['scores'], colour)}"
        f"<h3>Over time</h3>{pictures}{render_timeline(result['timeline'], colour)}"
        f"<h3>What the answer rests on</h3><p>{html.escape(make_sentence(evidence['words']))}</p>"
        f'<p class="about">{ABOUT_EVIDENCE}</p></section>'
    )


def render_verdict(result: dict[str, Any]) -> str:
    """What the recording sounds like: one label, or those of a mixed answer."""
    mixed = {entry["label"]: entry["score"] for entry in result.get("mixed", [])}
    if len(mixed) > 1:
        return f"{MIXED} <b>{html.escape(format_mixed(mixed))}</b>"
    return f"{UNSURE if result['unsure'] else SURE} <b>{html.escape(result['scores'][0]['label'])}</b>"


def make_sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def render_dot(colour: str) -> str:
    return f'<span class="dot" style="background: {colour}"></span>'


def render_scores(scores: list[dict[str, Any]], colour: dict[str, str]) -> str:
    """One bar per label, best first."""
    rows = [
        f'<li><span class="label">{html.escape(entry["label"])}</span><span class="track">'
        f'<span style="width: {100 * entry["score"]:.1f}%; background: {colour[entry["label"]]}"></span></span>'
        f'<span class="score">{100 * entry["score"]:.0f} %</span></li>'
        for entry in scores
    ]
    return f'<ol class="bars">{"".join(rows)}</ol>'


def render_dimensions(record: dict[str, Any]) -> str:
    """The value of each dimension, and the plane of two of them; empty for a model without dimensions."""
    if "dimensions" not in record:
        return ""
    rows = [
        f"<tr><td>{html.escape(name)}</td><td>{each['value']:.2f}</td>"
        f"<td>{'' if each['error'] is None else '± ' + format(each['error'], '.2f')}</td>"
        f"<td>{each['scale'][0]:g} to {each['scale'][1]:g}</td></tr>"
        for name, each in record["dimensions"].items()
    ]
    source = SOURCES[record["dimension_source"]]
    said = f'<p class="about">The values are {source}.</p>' if source else ""
    plane, names = "", choose_plane(record["dimensions"])
    if names is not None:
        alt = f"The plane of {' and '.join(names)}"
        plane = "".join(render_figure(partial(draw_plane, record, dark), dark, alt) for dark in (False, True))
    head = "<tr><th>dimension</th><th>value</th><th>typical error</th><th>scale</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<h3>Dimensions</h3>{said}<div class="timeline" tabindex="0">{table}</div>{plane}'


def render_figure(draw: Callable[[tuple[float, float]], Figure], dark: bool, alt: str = ALT) -> str:
    """Render a figure as an inline image, in one size for computers and one for phones.

    Args:
        draw: gives the figure of a width and height in inches.
    """
    sources = []
    for size, dpi in (WIDE, NARROW):
        content = io.BytesIO()
        figure = draw(size)
        figure.savefig(content, format="png", dpi=dpi, facecolor=figure.get_facecolor())
        sources.append(f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}")
    wide, narrow = sources
    return (
        f'<picture class="{"if-dark" if dark else "if-light"}"><source media="(max-width: 640px)" srcset="{narrow}">'
        f'<img src="{wide}" alt="{html.escape(alt)}"></picture>'
    )


def name_labels(segment: dict[str, Any]) -> str:
    return " + ".join(entry["label"] for entry in segment.get("mixed", [segment]))


def render_timeline(segments: list[dict[str, Any]], colour: dict[str, str]) -> str:
    """Render the timeline as a table: start and end in seconds, emotion, score."""
    rows = [
        f"<tr><td>{segment['start']:.2f}</td><td>{segment['end']:.2f}</td><td>{render_dot(colour[segment['label']])}"
        f"{html.escape(name_labels(segment))}</td><td>{segment['score']:.2f}</td></tr>"
        for segment in segments
    ]
    head = "<tr><th>start (s)</th><th>end (s)</th><th>emotion</th><th>score</th></tr>"
    return (
        f'<div class="timeline" tabindex="0"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
