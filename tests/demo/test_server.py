"""The API of the page's server, which any client can call: what it serves, fetches and stores."""

import io
import json
import socket
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import soundfile
from conftest import ROOT, write_wav
from visiting import find_uploads, join_queue, request_answer, upload, wait_until

from core.shipped import MINI_MODEL

pytestmark = pytest.mark.slow


def test_the_server_gives_out_nothing_else(server):
    url, _ = server
    for path in ("/etc/hostname", str(ROOT / "app.py"), "app.py", str(MINI_MODEL / "model.safetensors")):
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
    """Requests through the API, open to any client, that the page itself would never send."""
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
        with httpx.Client(base_url=url, timeout=60) as http:
            message = request_answer(http, {**data, "meta": {"_type": "gradio.FileData"}})
        assert message["success"] is False, (data, message)
        assert "Sounds most like" not in json.dumps(message) and "<section" not in json.dumps(message)
    assert "URLs are not supported" in json.dumps(message)  # the last one; without this, public ones would be
    assert not asked and secret.is_file() and beside.is_file()
    beside.unlink()
    for link in (address, "https://huggingface.co/gpt2/resolve/main/config.json", f"file://{secret}"):
        with pytest.raises(urllib.error.HTTPError, match=r"40\d|500"):
            urllib.request.urlopen(f"{url}/gradio_api/file={link}", timeout=10)
    assert not asked


def test_what_was_uploaded_is_answered_through_the_api_too(server, tmp_path):
    """Shows that the requests above are refused for their content and not because the call is wrong."""
    url, folder = server
    with httpx.Client(base_url=url, timeout=60) as http:
        file = upload(http, "api.wav", write_wav(tmp_path / "noise.wav", seconds=1.0).read_bytes())
        message = request_answer(http, file)
    assert message["success"] and "api.wav" in json.dumps(message["output"])
    assert "api.wav" not in find_uploads(folder)


def test_each_upload_is_a_file_of_its_own_and_none_is_too_large(server):
    url, folder = server
    with httpx.Client(base_url=url, timeout=60) as http:
        paths = [upload(http, "same.wav", b"same")["path"] for _ in range(2)]
        large = http.post("/gradio_api/upload", files={"files": ("large.wav", bytes(31_000_000))})
    assert len(set(paths)) == 2 and all(folder in Path(path).parents for path in paths)
    assert large.status_code == 413
    assert find_uploads(folder).count("same.wav") == 2 and "large.wav" not in find_uploads(folder)


def test_an_upload_that_breaks_off_leaves_no_file(server):
    url, folder = server
    address, head = urlsplit(url), b'--x\r\nContent-Disposition: form-data; name="files"; filename="cut.wav"\r\n\r\n'
    with socket.create_connection((address.hostname, address.port)) as visitor:
        visitor.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: here\r\nContent-Length: 9000000\r\n")
        visitor.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + head + bytes(1_000_000))
        wait_until(lambda: find_unfinished_uploads(folder))
    wait_until(lambda: not find_unfinished_uploads(folder))


def find_unfinished_uploads(folder):
    return [path for path in folder.glob("ser-align-*/uploads/*") if path.is_file()]


def test_a_visitor_who_leaves_the_queue_leaves_no_file(server, tmp_path):
    """Two long recordings are before one that waits and the one that leaves, which is behind it."""
    url, folder = server
    write_wav(tmp_path / "long.wav", seconds=590)
    with httpx.Client(base_url=url, timeout=60) as http:
        for number in range(2):
            long = upload(http, "long.wav", (tmp_path / "long.wav").read_bytes())
            assert join_queue(http, f"long{number}", long).is_success
        for session in ("waiting", "leaving"):
            assert join_queue(http, session, upload(http, f"{session}.wav", b"no audio")).is_success
        with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": "leaving"}) as messages:
            next(messages.iter_lines())
        wait_until(lambda: "leaving.wav" not in find_uploads(folder))
        assert "waiting.wav" in find_uploads(folder)
    wait_until(lambda: "waiting.wav" not in find_uploads(folder))
