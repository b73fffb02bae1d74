"""A small Hub on the loopback interface, in memory: what huggingface_hub calls to make, fill and read a repository."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

REPO = "someone/ser-align-demo"
TOKEN = "hf_FAKEnotReallyASecret0123456789"


class Hub(ThreadingHTTPServer):
    """Repositories in memory, with the calls of huggingface_hub for making, filling and reading one."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.created = []  # the body of each call that made a repository
        self.objects = {}  # sha256 -> content of a large file
        self.commits = {}  # sha -> {path: content}, oldest first
        self.refusals = {}  # other repository -> status and error code of each answer
        self.busy = []  # the first call to a path that holds one of these words is answered 503

    @property
    def main(self):
        return next(reversed(self.commits), "0" * 40)

    @property
    def files(self):
        return self.commits[self.main]

    def commit(self, lines):
        """Files of the lines that a client sends for a commit, over those of the commit before."""
        files = dict(self.commits.get(self.main, {}))
        for value in (line["value"] for line in lines if line["key"] == "file"):
            files[value["path"]] = base64.b64decode(value["content"])
        for value in (line["value"] for line in lines if line["key"] == "lfsFile"):
            files[value["path"]] = self.objects[value["oid"]]
        names = json.dumps(sorted((path, hashlib.sha256(content).hexdigest()) for path, content in files.items()))
        sha = hashlib.sha1(names.encode()).hexdigest()
        self.commits[sha] = files
        return sha


class Answers(BaseHTTPRequestHandler):
    """Every answer but that to an upload needs the token, as in a private repository."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.refused():
            return
        hub, path = self.server, self.path
        if path.endswith("/repos/create"):
            hub.created.append(json.loads(body))
            self.answer({"url": f"{hub.url}/{REPO}"}, status=409 if len(hub.created) > 1 else 200)
        elif "/preupload/" in path:
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
                for f in json.loads(body)["files"]
            ]
            self.answer({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
        elif "/info/lfs/" in path:
            objects = json.loads(body)["objects"]
            upload = [{**o, "actions": {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}}} for o in objects]
            self.answer({"transfer": "basic", "objects": upload})
        elif "/commit/" in path:
            sha = hub.commit([json.loads(line) for line in body.splitlines()])
            self.answer({"commitOid": sha, "commitUrl": f"{hub.url}/{REPO}/commit/{sha}"})
        else:
            self.answer({})  # validate-yaml

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.objects[oid] = content
        self.answer({})

    def do_GET(self):
        if self.refused():
            return
        hub, path = self.server, urlsplit(self.path).path
        if file := re.fullmatch(rf"/{REPO}/resolve/([^/]+)/(.+)", path):
            self.answer_file(hub.main if file[1] == "main" else file[1], file[2])
        elif tree := re.fullmatch(rf"/api/models/{REPO}/tree/([^/]+)(/.*)?", path):
            files = hub.commits.get(hub.main if tree[1] == "main" else tree[1], {})
            self.answer([{"type": "file", "path": name, "size": len(files[name]), "oid": "0"} for name in files])
        elif info := re.fullmatch(rf"/api/models/{REPO}(?:/revision/([^/]+))?", path):
            sha = hub.main if info[1] in (None, "main") else info[1]
            siblings = [{"rfilename": name} for name in hub.commits.get(sha, {})]
            self.answer({"id": REPO, "sha": sha, "private": True, "siblings": siblings})
        else:
            refusals = [answer for name, answer in hub.refusals.items() if f"/{name}" in path]
            status, code = (*refusals, (404, "RepoNotFound"))[0]
            self.answer({}, status=status, headers={"X-Error-Code": code})

    do_HEAD = do_GET

    def refused(self):
        """Whether the call was answered: busy once, or no token."""
        for word in self.server.busy:
            if word in self.path:
                self.server.busy.remove(word)
                self.answer({"error": "busy"}, status=503)
                return True
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid username or password."}, status=401)
            return True
        return False

    def answer_file(self, sha, name):
        content = self.server.commits.get(sha, {}).get(name)
        if content is None:
            return self.answer({}, status=404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        headers = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        self.answer(content, headers=headers)

    def answer(self, content, status=200, headers=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


def online(monkeypatch, url, home):
    """Processes started from now on have this Hub, its token and an empty cache."""
    variables = {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}
    for name, value in {**variables, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}.items():
        monkeypatch.setenv(name, value)
