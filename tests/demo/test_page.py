"""app.py: the answers without a browser, and the page in headless Chromium."""

import io
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
import yaml
from conftest import ROOT, write_wav

from docs.build.page_screenshot import CHROMIUM, browsing, serving

MODEL = ROOT / "models" / "ser-align-mini"


@pytest.fixture(scope="module")
def example(recognize, tmp_path_factory):
    import app

    return app.make_examples(tmp_path_factory.mktemp("made") / "examples")["Two voices, in turn"]


def uploaded(folder: Path, name: str = "voice.wav") -> Path:
    """Where an upload called `name` lies: in a folder of its own."""
    (folder / "0123").mkdir()
    return folder / "0123" / name


# ------------------------------------------------------------------------------- without a browser


def test_a_recording_is_answered_and_deleted(recognize, example, tmp_path):
    import app

    path = uploaded(tmp_path)
    path.write_bytes(example.read_bytes())
    _, page = app.answer_upload(recognize, str(path))
    expected = recognize(str(example), return_timeline=True)
    labels = re.findall(r'class="label">(\w+)<', page)
    assert labels == [entry["label"] for entry in expected["scores"]]
    assert page.count("data:image/png;base64,") == 4  # for a computer and a phone, light and dark
    rows = re.findall(r"<tr><td>([\d.]+)</td><td>([\d.]+)</td><td>.*?</span>(\w+)</td><td>([\d.]+)</td>", page)
    assert rows == [
        (f"{s['start']:.2f}", f"{s['end']:.2f}", s["label"], f"{s['score']:.2f}") for s in expected["timeline"]
    ]
    assert f"{expected['scores'][0]['label'].capitalize()}: most weight on" in page
    assert not list(tmp_path.iterdir())


def silent(path):
    soundfile.write(path, np.zeros(32000), 16000)


def too_long(path):
    soundfile.write(path, 0.1 * np.sin(np.arange(11 * 60 * 8000) / 20), 8000)


def too_large(path):
    with path.open("wb") as file:
        file.truncate(31_000_000)


def text(path):
    path.write_text("no audio")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (silent, "the recording holds no speech: it is empty or silent"),
        (too_long, "voice.wav is 11.0 minutes long; valid are recordings of up to 30 MB and 10 minutes"),
        (too_large, "voice.wav has 31.0 MB; valid are recordings of up to 30 MB and 10 minutes"),
        (text, "voice.wav cannot be read as audio"),
    ],
)
def test_what_is_no_recording_gets_one_line_and_is_deleted(recognize, tmp_path, make, message):
    import app

    path = uploaded(tmp_path)
    make(path)
    player, page = app.answer_upload(recognize, str(path))
    assert player is None and page.startswith('<p class="wrong"') and message in page
    assert str(tmp_path) not in page and "Traceback" not in page and "\n" not in page
    assert not list(tmp_path.iterdir())


def test_names_and_labels_are_text(recognize, example, tmp_path, monkeypatch):
    import app

    name = "<img src=x onerror=alert(1)>.wav"
    for make in (text, lambda path: path.write_bytes(example.read_bytes())):
        path = uploaded(tmp_path, name)
        make(path)
        _, page = app.answer_upload(recognize, str(path))
        assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;.wav" in page
    labels = [f"<b>$label_{index}" for index in recognize.model.config.id2label]
    monkeypatch.setattr(recognize.model.config, "id2label", dict(enumerate(labels)))
    page = app.answered(recognize, app.read_limited(str(example)), "")
    assert "<b>$" not in page and page.count("&lt;b&gt;$label_") >= len(labels)


def test_old_uploads_go_and_others_stay(tmp_path):
    app = pytest.importorskip("app", reason="the demo page: pip install -r requirements-app.txt")
    for name in ("old", "new"):
        write_wav(tmp_path / name / "voice.wav")
    os.utime(tmp_path / "old", (time.time() - 1000,) * 2)
    app.delete_older(tmp_path, 900)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_help_and_a_mistake_answer_in_one_line_before_the_slow_imports():
    def run(*argv):
        start = time.perf_counter()
        command = [sys.executable, "app.py", *argv]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        return found, time.perf_counter() - start

    found, seconds = run("--help")
    assert found.returncode == 0 and "hf upload --repo-type space" in found.stdout and seconds < 5
    for argv, message in (
        (["--port", "99999"], "--port 99999 is not a number from 1 to 65535"),
        (
            ["--host", "203.0.113.1"],
            "--host 203.0.113.1 --port 7860: Cannot assign requested address; give another one",
        ),
    ):
        found, _ = run(*argv)
        assert found.returncode == 1 and found.stderr == f"error: {message}\n"


def test_a_space_has_what_the_page_needs(recognize, tmp_path):
    import app

    app.write_space(tmp_path / "space")
    card = (tmp_path / "space" / "README.md").read_text(encoding="utf-8")
    settings = yaml.safe_load(card.split("---")[1])
    assert (settings["sdk"], settings["app_file"]) == ("gradio", "app.py")
    pinned = (ROOT / "requirements-app.txt").read_text()
    assert f"gradio=={settings['sdk_version']}\n" in pinned
    with pytest.raises(ValueError, match="is there already"):
        app.write_space(tmp_path / "space")
    script = (
        "import app, pathlib; recognize = app.load_pipeline(app.SHIPPED); "
        "path = app.make_examples(pathlib.Path('made'))['Slow and soft']; "
        "assert 'Sounds most like' in app.answered(recognize, app.read_limited(str(path)), '')"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "space", check=True, timeout=120)


# ------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright", reason="the demo page in a browser: pip install -r requirements-dev.txt")
    if CHROMIUM is None:
        pytest.skip("the demo page in a browser: install chromium")
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of the page, and the folder that its temporary files lie in."""
    pytest.importorskip("gradio", reason="the demo page: pip install -r requirements-app.txt")
    folder = tmp_path_factory.mktemp("temporary")
    with serving(TMPDIR=str(folder), OMP_NUM_THREADS="1") as url:
        yield url, folder
    assert not list(folder.iterdir())  # gone with the process


def opened(browser, url, width=1280, height=900, scheme="light"):
    """A visitor's page, and what it asked for and complained about."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, seen = context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(f"error: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.goto(url)
    page.wait_for_selector("#recording")
    return page, seen


def give(page, path):
    page.locator("#recording input[type=file]").set_input_files(path)


def left_uploads(folder):
    return [path.name for path in folder.glob("ser-align-*/uploads/*/*") if path.is_file()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_recording_is_answered_on_the_page(browser, server, example, tmp_path, width, height, scheme):
    url, folder = server
    page, seen = opened(browser, url, width, height, scheme)
    path = tmp_path / "my voice.wav"
    path.write_bytes(example.read_bytes())
    give(page, path)
    page.wait_for_selector(".answer")
    assert "my voice.wav · 10" in page.inner_text(".answer .about >> nth=0")
    scores = [int(text.split()[0]) for text in page.locator(".bars .score").all_inner_texts()]
    assert len(scores) == 8 and scores == sorted(scores, reverse=True) and 96 <= sum(scores) <= 104
    assert page.locator(".timeline tbody tr").count() >= 3
    (image,) = [image for image in page.locator(".answer img").all() if image.is_visible()]
    image.evaluate("image => image.decode()")
    image_width, is_wide = image.evaluate("image => [image.getBoundingClientRect().width, image.naturalWidth > 1000]")
    assert 250 < image_width <= width and is_wide == (width > 640)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for button in page.locator("#recording .source-selection button, #examples button").all():
        assert button.bounding_box()["height"] >= 44
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    page.locator("#recording .play-pause-button").click()  # although the file is gone, the browser has what it sent
    page.wait_for_selector("#recording [aria-label=Pause]")
    page.get_by_label("Clear").click()
    page.wait_for_selector(".empty")
    assert "my voice.wav" not in left_uploads(folder)
    assert not [line for line in seen if line.startswith("error")]
    hosts = {urlsplit(line).hostname for line in seen if not line.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    page.context.close()


def test_the_page_says_what_is_wrong(browser, server, tmp_path):
    url, folder = server
    page, _ = opened(browser, url)
    for make, name, message in (
        (text, "text.wav", "text.wav cannot be read as audio"),
        (too_large, "large.wav", "large.wav has 31.0 MB; valid are recordings of up to 30 MB and 10 minutes"),
        (text, "text.txt", "text.txt is no audio file; valid are recordings of up to 30 MB and 10 minutes"),
    ):
        make(tmp_path / name)
        give(page, tmp_path / name)
        page.get_by_text(message).wait_for()
        assert page.locator(".answer").count() == 0
    assert not left_uploads(folder)
    write_wav(tmp_path / "noise.wav")
    give(page, tmp_path / "noise.wav")  # and goes on with the next one
    page.wait_for_selector(".answer")
    assert page.inner_text("#refused") == ""
    page.context.close()


def test_the_microphone_and_an_example(browser, server):
    url, folder = server
    page, seen = opened(browser, url, 390, 844)
    page.get_by_label("Record audio").click()
    page.locator(".record-button").click()
    page.wait_for_timeout(1500)
    page.locator(".stop-button").click()
    page.wait_for_selector(".answer")
    assert "audio.wav" in page.inner_text(".answer .about >> nth=0") and not left_uploads(folder)
    page.get_by_role("button", name="Slow and soft").click()
    page.get_by_text("Synthetic voice: slow and soft").wait_for()
    assert "not speech" in page.inner_text(".answer")
    assert not [line for line in seen if line.startswith("error")]
    page.context.close()


def test_the_server_gives_out_nothing_else(server):
    url, _ = server
    for path in ("/etc/hostname", str(ROOT / "app.py"), "app.py", str(MODEL / "model.safetensors")):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{url}/gradio_api/file={path}", timeout=10)


@pytest.fixture
def elsewhere():
    """Address of a WAV file on another server, and what was asked of that server."""
    content, asked = io.BytesIO(), []
    soundfile.write(content, 0.1 * np.random.default_rng(0).standard_normal(16000), 16000, format="WAV")

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content.getvalue())

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{other.server_port}/voice.wav", asked
        other.shutdown()


def test_a_recording_is_what_was_uploaded_and_no_file_or_address_that_a_visitor_names(server, elsewhere, tmp_path):
    """Through the API, which is open to any client: what the page itself would never send."""
    url, folder = server
    address, asked = elsewhere
    secret = write_wav(tmp_path / "secret.wav", seconds=1.0)
    beside = write_wav(next(folder.glob("ser-align-*")) / "beside.wav", seconds=1.0)
    uploads = f"{folder}/{beside.parent.name}/uploads"
    given = [
        *({"path": path} for path in (str(secret), f"file://{secret}", "/etc/passwd", "app.py", str(beside))),
        *({"path": f"{uploads}/../{name}"} for name in ("beside.wav", "examples/low-and-loud.wav")),
        *({"path": link} for link in (address, address.replace("127.0.0.1", "localhost"))),
        *(
            {"path": str(secret), "url": link}
            for link in (address, f"file://{secret}", f"{url}/gradio_api/file=app.py")
        ),
        {"path": "https://huggingface.co/gpt2/resolve/main/config.json"},
    ]
    for data in given:
        message = answer_of(url, {**data, "meta": {"_type": "gradio.FileData"}})
        assert message["success"] is False, (data, message)
        assert "Sounds most like" not in json.dumps(message)
    assert "an address is not fetched" in json.dumps(message)  # the last one; without this, public ones would be
    assert not asked and secret.is_file() and beside.is_file()
    beside.unlink()
    for link in (address, "https://huggingface.co/gpt2/resolve/main/config.json", f"file://{secret}"):
        with pytest.raises(urllib.error.HTTPError, match=r"40\d|500"):
            urllib.request.urlopen(f"{url}/gradio_api/file={link}", timeout=10)
    assert not asked


def test_what_was_uploaded_is_answered_through_the_api_too(server, tmp_path):
    """So that the refusals above are not those of a wrong call."""
    import httpx

    url, folder = server
    with write_wav(tmp_path / "noise.wav", seconds=1.0).open("rb") as file:
        (path,) = httpx.post(f"{url}/gradio_api/upload", files={"files": ("api.wav", file)}).json()
    message = answer_of(url, {"path": path, "meta": {"_type": "gradio.FileData"}})
    assert message["success"] and "api.wav" in json.dumps(message["output"])
    assert "api.wav" not in left_uploads(folder)


def answer_of(url, data):
    """What the server says at the end to a visitor who asks for an answer to this recording."""
    import httpx

    session = secrets.token_hex(5)
    settings = httpx.get(f"{url}/config").json()
    listening = next(entry["id"] for entry in settings["dependencies"] if len(entry["inputs"]) == 1)
    asked = {"data": [data], "fn_index": listening, "session_hash": session}
    assert httpx.post(f"{url}/gradio_api/queue/join", json=asked).status_code == 200
    with httpx.stream("GET", f"{url}/gradio_api/queue/data", params={"session_hash": session}, timeout=60) as lines:
        for line in lines.iter_lines():
            if line.startswith("data:") and (message := json.loads(line[5:]))["msg"] == "process_completed":
                return message


def test_each_upload_is_a_file_of_its_own_and_none_is_too_large(server):
    import httpx

    url, folder = server
    upload = f"{url}/gradio_api/upload"
    paths = [httpx.post(upload, files={"files": ("same.wav", b"same")}).json()[0] for _ in range(2)]
    assert len(set(paths)) == 2 and all(folder in Path(path).parents for path in paths)
    assert httpx.post(upload, files={"files": ("large.wav", bytes(31_000_000))}).status_code == 413
    assert left_uploads(folder).count("same.wav") == 2 and "large.wav" not in left_uploads(folder)


def test_an_upload_that_breaks_off_leaves_no_file(server):
    url, folder = server
    address, head = urlsplit(url), b'--x\r\nContent-Disposition: form-data; name="files"; filename="cut.wav"\r\n\r\n'
    with socket.create_connection((address.hostname, address.port)) as visitor:
        visitor.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: here\r\nContent-Length: 9000000\r\n")
        visitor.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + head + bytes(1_000_000))
        wait_until(lambda: cut_off_uploads(folder))
    wait_until(lambda: not cut_off_uploads(folder))


def cut_off_uploads(folder):
    return [path for path in folder.glob("ser-align-*/uploads/*") if path.is_file()]


def wait_until(happens, seconds=20):
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.02)


def upload_function(http):
    """Number of the function that answers an upload."""
    dependencies = http.get("/config").json()["dependencies"]
    return next(entry["id"] for entry in dependencies if entry["targets"][0][1] == "upload")


def ask(http, session, name, content):
    """Uploads a file and joins the queue of those who wait for an answer."""
    path = http.post("/gradio_api/upload", files={"files": (name, content)}).json()[0]
    event = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}], "fn_index": upload_function(http)}
    return http.post("/gradio_api/queue/join", json={**event, "session_hash": session})


def test_a_full_queue_says_so_and_keeps_nothing(browser, server, tmp_path):
    """One recording that takes some seconds is being answered, twenty wait behind it."""
    import httpx

    url, folder = server
    page, _ = opened(browser, url)
    write_wav(tmp_path / "long.wav", seconds=300)
    with httpx.Client(base_url=url, timeout=30) as http:
        before = len(left_uploads(folder))
        assert ask(http, "first", "long.wav", (tmp_path / "long.wav").read_bytes()).is_success
        time.sleep(0.3)  # until it is taken out of the queue
        assert all(ask(http, f"visitor{number}", "text.wav", b"no audio").is_success for number in range(20))
        refused = ask(http, "last", "refused.wav", b"no audio")
        message = "20 visitors are waiting already, which is the most; give your recording again in a minute"
        assert (refused.status_code, refused.json()) == (429, {"detail": message})
        give(page, write_wav(tmp_path / "short.wav"))
        page.get_by_text(message).wait_for()
        assert "refused.wav" not in left_uploads(folder)
    wait_until(lambda: len(left_uploads(folder)) == before)
    page.context.close()


def test_a_visitor_who_leaves_the_queue_leaves_no_file(server, tmp_path):
    """Two long recordings are before one that waits and the one that leaves, which is behind it."""
    import httpx

    url, folder = server
    write_wav(tmp_path / "long.wav", seconds=590)
    with httpx.Client(base_url=url, timeout=60) as http:
        for number in range(2):
            assert ask(http, f"long{number}", "long.wav", (tmp_path / "long.wav").read_bytes()).is_success
        for session in ("waiting", "leaving"):
            assert ask(http, session, f"{session}.wav", b"no audio").is_success
        with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": "leaving"}) as messages:
            next(messages.iter_lines())
        wait_until(lambda: "leaving.wav" not in left_uploads(folder))
        assert "waiting.wav" in left_uploads(folder)
    wait_until(lambda: "waiting.wav" not in left_uploads(folder), seconds=60)
