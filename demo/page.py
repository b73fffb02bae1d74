"""Builds and serves the demo page."""

import html
import json
import os
import threading
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import InputError
from core.loading import load_pipeline
from core.shipped import SHIPPED_MODELS
from demo.answers import answer, answer_upload
from demo.examples import write_examples
from demo.memory import limit_heaps, release_memory
from demo.uploads import (
    ADVICE,
    EXCEPTION_HANDLERS,
    MAX_MEGABYTES,
    MAX_MINUTES,
    MAX_WAITING,
    harden_gradio,
    watch_uploads,
)
from pipeline_ser_align import SpeechEmotionRecognitionPipeline

FOLDER = Path(__file__).parent
HEADER = "<header><h1>SER-Align</h1><p>See which emotions a voice expresses, and when.</p></header>"
EMPTY = '<p class="empty">Record or upload speech to see the result here.</p>'
SYNTHETIC = (
    '<p class="about">Generated babble, not speech. It demonstrates the page, not the accuracy of the model.</p>'
)
ABOUT_SHIPPED = {
    "base": "The model was trained on recordings of thirty actors who spoke English, German and Polish sentences in "
    "studios, half of them degraded as on telephones, in rooms and in noise. It predicts which of seven acted emotions "
    "a voice most resembles, not what the speaker feels. It is often wrong, especially on spontaneous speech, other "
    "languages, children and older people.",
    "mini": "The model was trained on recordings of twenty actors speaking two English sentences in a studio. It "
    "predicts which of eight acted emotions a voice most resembles, not what the speaker feels. It is often wrong, "
    "especially on spontaneous speech, other languages, children, older people, phone calls and noisy recordings.",
}
ABOUT_OTHER = (
    "The model card describes the training data. The model is less accurate on other voices, languages and recording "
    "conditions. It predicts which emotion a voice most resembles, not what the speaker feels."
)


def serve(model: str, host: str, port: int, folder: Path) -> None:
    """Serve the page until the process is stopped.

    Args:
        model: folder of a checkpoint, or name on the Hub.
        folder: for temporary files; the caller deletes it.

    Raises:
        InputError: the model cannot be loaded, or the port is in use.
    """
    limit_heaps()
    harden_gradio()
    recognize = load_pipeline(model)
    examples = write_examples(folder / "examples")
    answer(recognize, str(examples["Low and loud"]), "")  # the first one is slow
    page = make_page(recognize, examples, model)
    page.queue(default_concurrency_limit=1, max_size=MAX_WAITING)
    threading.Thread(target=watch_uploads, daemon=True).start()
    launch(page, host, port)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def launch(page: gr.Blocks, host: str, port: int) -> None:
    """Start the server and print its address. Raises InputError if the port is in use."""
    bypass_proxy("localhost", host)
    address = f"[{host}]" if ":" in host else host
    try:
        page.launch(
            server_name=address,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            run_history=False,  # would keep recordings in the browser
            max_file_size=MAX_MEGABYTES * 10**6,
            state_session_capacity=1,  # Gradio keeps the answers of so many visitors; nothing reads them again
            allowed_paths=[],
            footer_links=[],
            theme=make_theme(),
            css_paths=[FOLDER / "style.css"],
            head=f"<script>{make_script()}</script>",
            app_kwargs={"exception_handlers": EXCEPTION_HANDLERS},
        )
    except OSError as error:
        raise InputError(f"--host {host} --port {port}: {error}") from None
    print(f"Open http://{address.replace('0.0.0.0', 'localhost')}:{port}", flush=True)


def bypass_proxy(*hosts: str) -> None:
    """Gradio requests its own page when it starts; keep that request away from any proxy."""
    bypassed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = ",".join(filter(None, [bypassed, *hosts]))


def make_page(recognize: SpeechEmotionRecognitionPipeline, examples: dict[str, Path], model: str) -> gr.Blocks:
    def answer_example(name: str) -> tuple[str, str]:
        path = str(examples[name])
        found = answer(recognize, path, f"Synthetic voice: {name.lower()}", SYNTHETIC)
        release_memory()
        return path, found

    with gr.Blocks(title="SER-Align", analytics_enabled=False) as page:
        gr.HTML(HEADER)
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
                gr.HTML('<p id="refused" class="wrong" role="alert"></p><p>Or try a synthetic voice (not speech):</p>')
                with gr.Row(elem_id="examples"):
                    buttons = {name: gr.Button(name, min_width=140) for name in examples}
            found = gr.HTML(EMPTY, elem_id="answer")
            gr.HTML(describe_limits(model), elem_id="limits")
        # One recording is scored at a time, whether uploaded or an example.
        queued: dict[str, Any] = {"concurrency_id": "answer", "show_progress_on": found, "api_visibility": "private"}
        for listen in (audio.upload, audio.stop_recording):
            listen(lambda path: answer_upload(recognize, path), audio, [audio, found], **queued)
        for name, button in buttons.items():
            button.click(lambda name=name: answer_example(name), None, [audio, found], **queued)
        audio.clear(lambda: EMPTY, None, found, api_visibility="private", queue=False)
    return page


def describe_limits(model: str) -> str:
    """Describe, as HTML, what the model was trained on and what happens to recordings."""
    shipped = {folder.resolve(): ABOUT_SHIPPED[name] for name, folder in SHIPPED_MODELS.items()}
    name = Path(model).name if Path(model).is_dir() else model
    return (
        f'<footer class="limits"><p><b>{html.escape(name)}</b>. {shipped.get(Path(model).resolve(), ABOUT_OTHER)} '
        f"Do not use it to judge people.</p><p>Recordings may be up to {MAX_MEGABYTES} MB and {MAX_MINUTES} minutes "
        "long. Each one is deleted as soon as the result is ready, and nothing is stored.</p></footer>"
    )


def make_script() -> str:
    """Combine refuse.js with the limits that it reads."""
    limits = {"megabytes": MAX_MEGABYTES, "advice": ADVICE}
    return f"const UPLOAD_LIMITS = {json.dumps(limits)};\n{(FOLDER / 'refuse.js').read_text(encoding='utf-8')}"


def make_theme() -> gr.themes.Base:
    return gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    ).set(
        body_background_fill="#f4f5f8",
        body_background_fill_dark="#0d0f13",
        block_background_fill_dark="#16181d",
        body_text_color_subdued="#5a6372",
        body_text_color_subdued_dark="#a3acbb",
    )
