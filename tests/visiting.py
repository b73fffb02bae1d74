"""Calls the demo page's API as any client can, and generates recordings that it refuses."""

import json
import os
import secrets
import time
from pathlib import Path

import numpy as np
import soundfile


def write_silence(path):
    soundfile.write(path, np.zeros(32000), 16000)


def write_too_long(path):
    soundfile.write(path, 0.1 * np.sin(np.arange(11 * 60 * 8000) / 20), 8000)


def write_too_large(path):
    with path.open("wb") as file:
        file.truncate(31_000_000)


def write_text(path):
    path.write_text("no audio")


def find_uploads(folder):
    """Names of the complete uploads among the server's temporary files, which may go while this looks."""
    return [name for path, _, names in os.walk(folder) for name in names if Path(path).parent.name == "uploads"]


def wait_until(is_true, seconds=120):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)


def find_upload_function(http):
    """Number of the function that answers an upload."""
    dependencies = http.get("/config").json()["dependencies"]
    return next(entry["id"] for entry in dependencies if entry["targets"][0][1] == "upload")


def upload(http, name, content):
    """The server's name for an uploaded file, as a request sends it."""
    (path,) = http.post("/gradio_api/upload", files={"files": (name, content)}).json()
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def join_queue(http, session, file):
    """Ask for an answer to a file."""
    event = {"data": [file], "fn_index": find_upload_function(http), "session_hash": session}
    return http.post("/gradio_api/queue/join", json=event)


def request_answer(http, file):
    """Ask for an answer to a file and wait for it: the last message."""
    session = secrets.token_hex(5)
    assert join_queue(http, session, file).status_code == 200
    with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as lines:
        for line in lines.iter_lines():
            if line.startswith("data:") and (message := json.loads(line[5:]))["msg"] == "process_completed":
                return message
