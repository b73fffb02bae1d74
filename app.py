"""A page in the browser: speak or give a recording, and see which emotion is in it, and when.

    python app.py
    python app.py --model outputs/quickstart/stage2 --port 8000

Needs no network, keeps no recording. As a Space on the Hugging Face Hub:

    python app.py --write_space my_space
    hf upload --repo-type space user/name my_space

The Space serves the model that ships; its variable SER_ALIGN_MODEL names another one on the Hub.
"""

import argparse
import os
import socket
import sys
import tempfile

from core.errors import InputError, error_line

SHIPPED = "models/ser-align-mini"


def read_command_line(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        default=os.environ.get("SER_ALIGN_MODEL", SHIPPED),
        metavar="DIR_OR_HUB_ID",
        help="default: SER_ALIGN_MODEL of the environment, or the one that ships",
    )
    parser.add_argument(
        "--host",
        default="0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1",
        help="address to listen on; default: this machine alone, on a Space everyone; 0.0.0.0 is everyone",
    )
    parser.add_argument("--port", type=int, default=7860, help="default: 7860")
    parser.add_argument("--write_space", metavar="DIR", help="write what a Space needs into a new folder, and end")
    return parser.parse_args(argv)


def check_address(host: str, port: int) -> None:
    """Raise InputError where nothing can listen."""
    if not 1 <= port <= 65535:
        raise InputError(f"--port {port} is not a number from 1 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error.strerror}; give another one") from None


if __name__ == "__main__":  # before the slow imports, so that --help and a mistake answer at once
    OPTIONS = read_command_line(sys.argv[1:])
    try:
        if OPTIONS.write_space is None:
            check_address(OPTIONS.host, OPTIONS.port)
    except InputError as error:
        sys.exit(error_line(error))

# Gradio reads these when it is imported: nothing is reported, and uploads lie in a folder that goes with this process.
FOLDER = tempfile.mkdtemp(prefix="ser-align-")
UPLOADS = os.path.join(FOLDER, "uploads")
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=UPLOADS)

import atexit
import base64
import contextlib
import ctypes
import html
import io
import secrets
import shutil
import signal
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import safehttpx
import soundfile
from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse
from gradio import queueing, route_utils
from starlette.requests import ClientDisconnect

from core.loading import load_pipeline
from inference.evidence import explain
from inference.figure import choose_colours, draw
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.corpora.demo import EMOTIONS, make_speaker, synthesise
from recording_ser_align import SAMPLING_RATE, name_of, read_blocks

atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
ROOT = Path(__file__).parent
MOST_MEGABYTES, MOST_MINUTES = 30, 10
VALID = f"valid are recordings of up to {MOST_MEGABYTES} MB and {MOST_MINUTES} minutes"
MOST_WAITING = 20  # visitors in the queue; the next one is told to come again
FULL = f"{MOST_WAITING} visitors are waiting already, which is the most; give your recording again in a minute"
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of mallopt, in malloc.h
LONGEST_KEPT = 900  # seconds; older uploads go: those for which no answer was asked
# Inches and dots per inch, so that the text has the size of the page's on a computer and on a phone.
WIDE, NARROW = ((7.0, 2.8), 160), ((3.3, 2.8), 220)
EXAMPLES = {  # of synthetic voices: speaker and manner, one after the other
    "Low and loud": [(4, "angry")],
    "High and lively": [(3, "happy")],
    "Slow and soft": [(0, "sad")],
    "Two voices, in turn": [(2, "angry"), (5, "neutral"), (2, "happy"), (3, "angry"), (2, "neutral"), (3, "happy")],
}
SYNTHETIC = (
    '<p class="about">Generated babble, not speech: it shows how this page works, not how well the model does.</p>'
)
LEARNED = (
    "It learned from twenty actors who spoke two English sentences in a studio, and says which of eight acted emotions "
    "a voice resembles most, not what anybody feels. It is often wrong, and more so on spontaneous speech, other "
    "languages, children, old people, telephones and noise."
)
LEARNED_ELSEWHERE = (
    "What it learned from stands on its model card; on other voices, languages and rooms it is more often wrong. It "
    "says what a voice resembles, not what anybody feels."
)


def main(options: argparse.Namespace) -> None:
    """Serve the page until the process is told to end. Raises InputError."""
    keep_memory_low()
    recognize = load_pipeline(options.model)
    examples = make_examples(Path(FOLDER) / "examples")
    answered(recognize, read_limited(str(examples["Low and loud"])), "")  # what is slow the first time is done now
    page = make_page(recognize, examples, options.model)
    page.queue(default_concurrency_limit=1, max_size=MOST_WAITING)
    threading.Thread(target=forget_old_uploads, daemon=True).start()
    host = f"[{options.host}]" if ":" in options.host else options.host
    # Gradio calls its own page when it starts, which is for no proxy.
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = ",".join(filter(None, [spared, "localhost", options.host]))
    try:
        page.launch(
            server_name=host,
            server_port=options.port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            run_history=False,  # would keep recordings in the browser
            max_file_size=MOST_MEGABYTES * 10**6,
            state_session_capacity=1,  # it would keep the answers of so many visitors, which nothing reads again
            allowed_paths=[],
            footer_links=[],
            theme=THEME,
            css=STYLE,
            head=f"<script>{REFUSE}</script>",
            app_kwargs={"exception_handlers": {503: refuse_to_queue, ClientDisconnect: say_nothing}},
        )
    except OSError as error:
        raise InputError(f"--host {options.host} --port {options.port}: {error}") from None
    print(f"Open http://{host.replace('0.0.0.0', 'localhost')}:{options.port}", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)


# ---------------------------------------------------------------------------------------- recordings


def make_examples(folder: Path) -> dict[str, Path]:
    """Synthetic voices as WAV files, by name."""
    folder.mkdir(parents=True)
    paths = {}
    for number, (name, parts) in enumerate(EXAMPLES.items()):
        random = np.random.default_rng(number)
        pieces = []
        for speaker, manner in parts:
            pause = 0.002 * random.normal(size=SAMPLING_RATE // 2)  # as noisy as the voice's recording
            pieces += [pause, synthesise(make_speaker(speaker), EMOTIONS[manner], random)]
        waveform = np.concatenate(pieces[1:])
        paths[name] = folder / f"{name.lower().replace(',', '').replace(' ', '-')}.wav"
        soundfile.write(paths[name], waveform, SAMPLING_RATE)
    return paths


class OneUpload(route_utils.GradioUploadFile):
    """An upload whose folder is named by its content and by chance, and of which nothing stays if it breaks off.

    By its content alone, two visitors with the same recording would share one file, which goes with the first answer.
    """

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.sha.update(secrets.token_bytes(32))
        weakref.finalize(self, Path(self.file.name).unlink, missing_ok=True)  # a complete one has moved away by then


async def refuse_address(*_: Any, **__: Any) -> Any:
    """A visitor gives a file; an address of one would have the server fetch it, from anywhere."""
    raise gr.Error("an address is not fetched: give a file")


route_utils.GradioUploadFile = OneUpload  # type: ignore[misc]
safehttpx.get = safehttpx.async_validate_url = refuse_address  # all that Gradio fetches goes through one of them


def read_limited(path: str) -> np.ndarray:
    """A recording, float32 (samples,) at 16 kHz. Raises InputError if it is too large or too long, else ValueError."""
    if not Path(path).is_file():
        raise InputError(f"{name_of(path)} is no longer here: give it again")
    if (megabytes := Path(path).stat().st_size / 1e6) > MOST_MEGABYTES:
        raise InputError(f"{name_of(path)} has {megabytes:.1f} MB; {VALID}")
    most = 60 * MOST_MINUTES * SAMPLING_RATE
    blocks: list[np.ndarray] = []
    for block in read_blocks(path):
        blocks.append(block)
        if sum(map(len, blocks)) > most:
            raise InputError(f"{name_of(path)} is {length_of(path)} long; {VALID}")
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def length_of(path: str) -> str:
    """Of a recording beyond the limit; what only ffmpeg reads does not tell without reading all of it."""
    with contextlib.suppress(soundfile.LibsndfileError, RuntimeError):
        return f"{soundfile.info(path).duration / 60:.1f} minutes"
    return f"more than {MOST_MINUTES} minutes"


def forget(path: str) -> None:
    """Delete an upload and the folder that it has for itself."""
    with contextlib.suppress(OSError):
        Path(path).unlink()
        Path(path).parent.rmdir()


def forget_old_uploads() -> None:
    """Every minute. Gradio's own delete_cache stops for good at the first upload that comes while it looks."""
    while True:
        time.sleep(60)
        delete_older(Path(UPLOADS), LONGEST_KEPT)


def delete_older(folder: Path, seconds: float) -> None:
    """Delete the folders in it that nobody has written to for so long."""
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):  # its answer has come meanwhile
            if time.time() - path.stat().st_mtime > seconds:
                shutil.rmtree(path)


def forget_given(data: Any) -> None:
    """Delete the upload that a visitor has sent with a request, if there is one: a button sends none."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        (given,) = data
        path = Path(given["path"]).resolve()
        if Path(UPLOADS).resolve() in path.parents:
            forget(str(path))


async def refuse_to_queue(request: Request, error: HTTPException) -> Response:
    """Says the limit in words, where Gradio says that it is busy, and deletes what the visitor sent."""
    forget_given((await request.json()).get("data"))
    return JSONResponse({"detail": FULL}, status_code=429)


async def leave_queue(queue: queueing.Queue, *, session_hash: str | None = None, event_id: str | None = None) -> None:
    """Gradio's own, called when a visitor is gone; it leaves what the visitor sent."""
    waiting = [event for part in queue.event_queue_per_concurrency_id.values() for event in part.queue]
    await LEAVE_QUEUE(queue, session_hash=session_hash, event_id=event_id)
    for event in waiting:
        if (event.session_hash == session_hash or event._id == event_id) and event.data is not None:
            forget_given(event.data.data)


LEAVE_QUEUE = queueing.Queue.clean_events
queueing.Queue.clean_events = leave_queue  # type: ignore[method-assign, assignment]


async def say_nothing(request: Request, error: ClientDisconnect) -> Response:
    """To a visitor who has left in the middle of an upload; else the terminal would show a traceback."""
    return Response()


# ------------------------------------------------------------------------------------------- answers


def answer_upload(recognize: SpeechEmotionRecognitionPipeline, path: str | None) -> tuple[Any, str]:
    """HTML that answers to a visitor's recording, or says what is wrong with it; the file is deleted.

    Before the HTML comes what becomes of the player: it keeps a recording, and is emptied of what is none.
    """
    if path is None:
        return gr.skip(), ""
    name = Path(path).name

    def in_words(message: object) -> str:
        return html.escape(" ".join(str(message).replace(name_of(path), name_of(name)).split()))

    try:
        with warnings.catch_warnings(record=True) as caught:  # of a clipped recording
            warnings.simplefilter("always")
            waveform = read_limited(path)
        note = "".join(f'<p class="wrong">{in_words(warning.message)}</p>' for warning in caught)
        return gr.skip(), answered(recognize, waveform, name, note)
    except (ValueError, OSError, RuntimeError) as error:
        return None, f'<p class="wrong" role="alert">{in_words(error)}</p>'
    finally:
        forget(path)
        give_memory_back()


def keep_memory_low() -> None:
    """Whatever is large gets pages of its own, which are free again with it: glibc's heaps of many threads keep them.

    Other systems do without.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**16)
        libc.mallopt(M_ARENA_MAX, 2)


def give_memory_back() -> None:
    """What glibc's heaps keep of what was freed; other systems need nothing."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def answered(recognize: SpeechEmotionRecognitionPipeline, waveform: np.ndarray, name: str, note: str = "") -> str:
    """The answer to a recording (samples,) at 16 kHz as HTML; `note` is HTML. Raises ValueError without speech."""
    start = time.perf_counter()
    found: dict[str, Any] = recognize(waveform, return_timeline=True)  # type: ignore[assignment]
    evidence = explain(recognize, waveform)
    labels = list(recognize.model.config.id2label.values())
    record = {"file": name, "channel": None, **found}
    shown = choose_colours(labels)
    picture = "".join(drawn(waveform, record, labels, evidence, dark) for dark in (False, True))
    best = found["scores"][0]["label"]
    about = (
        f"{html.escape(name)} · {found['duration']:.1f}\u00a0s · answered in {time.perf_counter() - start:.1f}\u00a0s"
    )
    return (
        f'<section class="answer"><p class="about">{about}</p>'
        f"<h2>{dot(shown[best])}Sounds most like <b>{html.escape(best)}</b></h2>{note}{bars(found['scores'], shown)}"
        f"<h3>When</h3>{picture}{table(found['timeline'], shown)}"
        f"<h3>Where it listened</h3><p>{html.escape(sentence(evidence['words']))}</p>"
        '<p class="about">Shaded above are the fifth of the frames that weighed most; beyond 15 seconds, of the phrase '
        "that counted most. This says where the model listened and how the voice differs there; it proves no cause.</p>"
        "</section>"
    )


def dot(colour: str) -> str:
    return f'<span class="dot" style="background: {colour}"></span>'


def sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def bars(scores: list[dict[str, Any]], colour: dict[str, str]) -> str:
    """A bar for each label, best first."""
    rows = [
        f'<li><span class="label">{html.escape(entry["label"])}</span><span class="track">'
        f'<span style="width: {100 * entry["score"]:.1f}%; background: {colour[entry["label"]]}"></span></span>'
        f'<span class="score">{100 * entry["score"]:.0f} %</span></li>'
        for entry in scores
    ]
    return f'<ol class="bars">{"".join(rows)}</ol>'


def drawn(waveform: np.ndarray, record: dict[str, Any], labels: list[str], evidence: dict[str, Any], dark: bool) -> str:
    """Waveform and ribbon as an image within the page, in a shape for a computer and one for a phone."""
    sources = []
    for size, dpi in (WIDE, NARROW):
        content = io.BytesIO()
        figure = draw(waveform, record, labels, evidence, dark, size)
        figure.savefig(content, format="png", dpi=dpi, facecolor=figure.get_facecolor())
        sources.append(f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}")
    wide, narrow = sources
    return (
        f'<picture class="{"if-dark" if dark else "if-light"}"><source media="(max-width: 640px)" srcset="{narrow}">'
        f'<img src="{wide}" alt="Waveform and emotions over time; the table says the same in numbers"></picture>'
    )


def table(segments: list[dict[str, Any]], colour: dict[str, str]) -> str:
    """The timeline: start and end in seconds, emotion, score."""
    rows = [
        f"<tr><td>{segment['start']:.2f}</td><td>{segment['end']:.2f}</td><td>{dot(colour[segment['label']])}"
        f"{html.escape(segment['label'])}</td><td>{segment['score']:.2f}</td></tr>"
        for segment in segments
    ]
    head = "<tr><th>from, s</th><th>to, s</th><th>emotion</th><th>score</th></tr>"
    return (
        f'<div class="timeline" tabindex="0"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


# ---------------------------------------------------------------------------------------------- page


def make_page(recognize: SpeechEmotionRecognitionPipeline, examples: dict[str, Path], model: str) -> gr.Blocks:
    def of_example(name: str) -> tuple[str, str]:
        path = str(examples[name])
        answer = answered(recognize, read_limited(path), f"Synthetic voice: {name.lower()}", SYNTHETIC)
        give_memory_back()
        return path, answer

    with gr.Blocks(title="SER-Align", analytics_enabled=False) as page:
        gr.HTML(TITLE)
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="ask"):
                audio = gr.Audio(
                    label="Recording",
                    type="filepath",
                    sources=["upload", "microphone"],
                    editable=False,
                    buttons=[],
                    elem_id="recording",
                )
                gr.HTML('<p id="refused" class="wrong" role="alert"></p><p>Or a synthetic voice, not speech:</p>')
                with gr.Row(elem_id="examples"):
                    buttons = {name: gr.Button(name, min_width=140) for name in examples}
            answer = gr.HTML(EMPTY, elem_id="answer")
            gr.HTML(limits(model), elem_id="limits")
        # One answer at a time, however it is asked for.
        queued: dict[str, Any] = {"concurrency_id": "answer", "show_progress_on": answer, "api_visibility": "private"}
        for listen in (audio.upload, audio.stop_recording):
            listen(lambda path: answer_upload(recognize, path), audio, [audio, answer], **queued)
        for name, button in buttons.items():
            button.click(lambda name=name: of_example(name), None, [audio, answer], **queued)
        audio.clear(lambda: EMPTY, None, answer, api_visibility="private", queue=False)
    return page


def limits(model: str) -> str:
    """What the model learned from, and what happens to a recording."""
    is_shipped = Path(model).resolve() == (ROOT / SHIPPED).resolve()
    name = Path(model).name if Path(model).is_dir() else model
    return (
        f'<footer class="limits"><p><b>{html.escape(name)}</b>. {LEARNED if is_shipped else LEARNED_ELSEWHERE} '
        "Do not use it to judge people.</p><p>A recording may have up to "
        f"{MOST_MEGABYTES} MB and {MOST_MINUTES} minutes. It is deleted as soon as the answer is there, and nothing "
        "about it is kept.</p></footer>"
    )


TITLE = "<header><h1>SER-Align</h1><p>Which emotion is in a recording of speech, and when.</p></header>"
EMPTY = '<p class="empty">Speak, or give a recording: here appears what it sounds like, and when.</p>'
# Before the browser sends it, what would be refused; the file's name is put in as text.
REFUSE = f"""
function refuse(event) {{
  const note = document.getElementById("refused");
  const files = [...(event.dataTransfer?.files ?? event.target.files ?? [])];
  if (!note || !files.length) return;
  const large = files.find((file) => file.size > {MOST_MEGABYTES}e6);
  const other = files.find((file) => file.type && !file.type.startsWith("audio/"));
  note.textContent = large ? `${{large.name}} has ${{(large.size / 1e6).toFixed(1)}} MB; {VALID}`
    : other ? `${{other.name}} is no audio file; {VALID}` : "";
  if (!note.textContent) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.type === "change") event.target.value = "";
}}
for (const name of ["change", "drop"]) addEventListener(name, refuse, true);
"""
THEME = gr.themes.Default(
    primary_hue="indigo", neutral_hue="slate", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
).set(
    body_background_fill="#f4f5f8",
    body_background_fill_dark="#0d0f13",
    block_background_fill_dark="#16181d",
    body_text_color_subdued="#5a6372",
    body_text_color_subdued_dark="#a3acbb",
)
STYLE = """
.gradio-container { max-width: 1180px !important; width: 100% !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0; }
.dark .if-light, body:not(.dark) .if-dark { display: none; }
header h1 { font-size: 2rem; margin: 0.5rem 0 0; }
header p { color: var(--body-text-color-subdued); }

#columns {
  display: grid; grid-template: "ask answer" auto "limits answer" 1fr / minmax(0, 2fr) minmax(0, 3fr); gap: 20px;
}
#ask { grid-area: ask; min-width: 0; }
#answer { grid-area: answer; min-width: 0; }
#limits { grid-area: limits; min-width: 0; }
@media (max-width: 800px) {
  #columns { grid-template: "ask" auto "answer" auto "limits" auto / minmax(0, 1fr); }
  .gradio-container .empty { padding: 2rem 20px; }
}
.limits { border-top: 1px solid var(--border-color-primary); padding-top: 1rem; }
.limits p { font-size: 0.9rem; color: var(--body-text-color-subdued); }
.limits p, .answer p { margin: 0 0 0.5rem; }

.answer, .empty { background: #fff; border: 1px solid var(--border-color-primary); border-radius: 12px; padding: 20px; }
.dark .answer, .dark .empty { background: #16181d; }
.empty { border-style: dashed; color: var(--body-text-color-subdued); text-align: center; padding: 5rem 20px; }
.wrong { background: #fdecea; color: #8c1d18; border-radius: 8px; padding: 0.75rem 1rem; overflow-wrap: anywhere; }
.dark .wrong { background: #3b1513; color: #ffb4ab; }
.wrong:empty { display: none; }
.answer .about { color: var(--body-text-color-subdued); font-size: 0.85rem; overflow-wrap: anywhere; }
.answer h2 { font-size: 1.5rem; font-weight: 400; margin: 0 0 0.75rem; overflow-wrap: anywhere; }
.answer h3 { font-size: 1rem; margin: 1.25rem 0 0.5rem; }
.answer picture img { width: 100%; height: auto; display: block; }
.dot { display: inline-block; width: 0.7em; height: 0.7em; border-radius: 50%; margin-right: 0.5em; }

.bars { list-style: none; margin: 0; padding: 0; }
.bars li { display: grid; grid-template-columns: 6rem 1fr 3rem; align-items: center; gap: 0.75rem; margin: 0.3rem 0; }
.bars li:first-child { font-weight: 600; }
.bars .label { overflow: hidden; text-overflow: ellipsis; }
.bars .track { background: #e6e9ef; border-radius: 5px; height: 10px; overflow: hidden; }
.dark .bars .track { background: #2a2e37; }
.bars .track span { display: block; height: 100%; border-radius: 5px; }
.bars .score { text-align: right; font-variant-numeric: tabular-nums; }

.timeline { max-height: 15rem; overflow-y: auto; margin-top: 0.75rem; }
.timeline table, .timeline tr { border: 0 !important; }
.timeline table { width: 100%; border-collapse: collapse; margin: 0; font-variant-numeric: tabular-nums; }
.timeline th, .timeline td { border: 0; border-bottom: 1px solid var(--border-color-primary); padding: 0.35rem 0.5rem; }
.timeline th { position: sticky; top: 0; background: #fff; font-weight: 500; text-align: left; }
.dark .timeline th { background: #16181d; }

#examples { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
#examples button { min-height: 48px; font-weight: 500; font-size: 0.95rem; padding: 0.4rem; }
#recording .source-selection { gap: 0.5rem; padding: 0.4rem; height: auto; }
#recording .source-selection button {
  flex: 1; width: auto; height: 44px; display: flex; align-items: center; justify-content: center; gap: 0.5rem;
}
#recording .source-selection button:not(.selected) { color: var(--body-text-color-subdued); }
#recording .source-selection button::after { content: attr(aria-label); }
.dark #recording .source-selection .selected { color: #a5b4fc; }
#recording .source-selection svg, #recording .volume svg { width: 22px; height: 22px; }
#recording .controls button, #recording .controls select { min-height: 44px; min-width: 44px; justify-content: center; }
#recording .controls .volume { display: flex; align-items: center; }
#recording .icon-button { min-width: 44px; min-height: 44px; justify-content: center; }
#recording .component-wrapper { padding-top: 40px; }
"""


# --------------------------------------------------------------------------------------------- Space


SPACE_CARD = f"""---
title: SER-Align
emoji: 🎙️
colorFrom: indigo
colorTo: pink
sdk: gradio
sdk_version: {gr.__version__}
python_version: "3.11"
app_file: app.py
license: apache-2.0
short_description: Which emotion is in a recording of speech, and when
---

The demo page of SER-Align. The code is Apache-2.0; the weights carry the licence on their card in
`{SHIPPED}`.
"""


def write_space(folder: Path) -> None:
    """Everything that the page needs on a Space. Raises InputError if the folder is there already."""
    if folder.exists():
        raise InputError(f"--write_space {folder} is there already: give a new folder")
    packages = [path for name in ("inference", "recipe") for path in (ROOT / name).rglob("*.py")]
    files = [ROOT / "app.py", ROOT / "requirements.txt", *ROOT.glob("*_ser_align.py"), *packages]
    for path in [*files, *(ROOT / SHIPPED).iterdir()]:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            shutil.copyfile(path, target)
    (folder / "README.md").write_text(SPACE_CARD, encoding="utf-8")


if __name__ == "__main__":
    for name in ("SIGTERM", "SIGHUP"):  # so that the folder of uploads goes then, too
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit(0))
    try:
        if OPTIONS.write_space is not None:
            write_space(Path(OPTIONS.write_space))
            print(f"Publish it: hf upload --repo-type space user/name {OPTIONS.write_space}")
        else:
            main(OPTIONS)
    except InputError as error:
        sys.exit(error_line(error))
    except KeyboardInterrupt:
        sys.exit(130)
