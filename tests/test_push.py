"""--push_to_hub against a small Hub on the loopback interface: what arrives is the complete stage folder."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from running import FILES, SHORT, train

REPO = "someone/ser-align-demo"


class Hub(BaseHTTPRequestHandler):
    """Answers the calls that huggingface_hub makes for create_repo and upload_folder; keeps the commit's files."""

    files: dict[str, bytes | None] = {}

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        base = f"http://{self.headers['Host']}"
        if self.path.endswith("/repos/create"):
            return self.answer({"url": f"{base}/{REPO}"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "lfs" if is_large(f["path"]) else "regular"} for f in files]
            return self.answer({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
        if "/info/lfs/" in self.path:
            objects = json.loads(body)["objects"]
            upload = [{**o, "actions": {"upload": {"href": f"{base}/lfs/{o['oid']}"}}} for o in objects]
            return self.answer({"transfer": "basic", "objects": upload})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    self.files[line["value"]["path"]] = None
            return self.answer({"commitOid": "0" * 40, "commitUrl": f"{base}/{REPO}/commit/{'0' * 40}"})
        return self.answer({})

    def do_PUT(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer({})

    def do_GET(self):
        self.answer({"id": REPO, "sha": "0" * 40, "siblings": []})

    def answer(self, content):
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


def is_large(path):
    return path.endswith(".safetensors")


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_last_stage_arrives_complete_with_a_card_that_names_it(short_run, demo, hub, monkeypatch):
    output, _ = short_run
    for name, value in {"HF_ENDPOINT": hub, "HF_TOKEN": "hf_dummy", "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(name, value)
    run = train(*SHORT, "--data_dir", demo, "--output_dir", output, "--push_to_hub", REPO, offline="0")
    assert "Pushed to" in run.stdout
    assert set(Hub.files) >= FILES | {"README.md", "results.json", "last/model.safetensors", "last/config.json"}
    assert not any("checkpoint" in name or "arguments" in name or "tensorboard" in name for name in Hub.files)
    assert f'from_pretrained("{REPO}", trust_remote_code=True)' in Hub.files["README.md"].decode()
