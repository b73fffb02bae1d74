"""Load test of the demo page with many simultaneous visitors, some of whom are slow, leave or send too much.

    python -m studies.page_load --clients 50 --minutes 5

Serves app.py on the loopback interface and sends the same requests as the page in a browser. Most visitors send short
synthetic voices, one after the other. Of every ten visitors, one sends slowly, one disconnects in the middle of an
upload, one leaves while waiting for its answer, and one sends 30 MB and then more than the page accepts. Every answer
is compared with the answer to a single visitor. Writes docs/results/reliability/page_load.json.
"""

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import soundfile

from core.synthesis import EMOTIONS, make_speaker, synthesise
from docs.build.page_screenshot import serving
from studies.reporting import RELIABILITY, write_study

ROOT = Path(__file__).parent.parent
OUTPUT = RELIABILITY / "page_load.json"
BEHAVIOURS = ("short",) * 6 + ("slow", "hangs up", "leaves", "large")  # of every ten visitors
TOO_LARGE = 31_000_000  # bytes
PATIENCE = 180.0  # seconds until a request is counted as unanswered
PAUSE = 2.0  # seconds between a visitor's answer and the next recording
PROCESSED_IN = re.compile(r"processed in [\d.]+")


class HungUp(Exception):
    """A visitor who leaves in the middle of an upload."""


class Page:
    """The page as its visitors use it; `seen` counts the outcomes of their requests."""

    def __init__(self, http: httpx.AsyncClient, function: int):
        self.http, self.function = http, function
        self.seen: Counter[str] = Counter()
        self.waited: list[float] = []  # seconds from the first byte of a short recording to its answer
        self.differences: list[float] = []  # score difference of each answer from that to a single visitor

    async def upload(self, name: str, content: bytes, seconds: float = 0.0, share: float = 1.0) -> str | None:
        """Upload a file, or only a share of it; returns its path on the server, or None if it is too large."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + b"\r\n--x--\r\n"

        async def pieces() -> AsyncIterator[bytes]:
            size = len(body) // 20 + 1
            for start in range(0, int(share * len(body)), size):
                yield body[start : start + size]
                await asyncio.sleep(seconds / 20)
            if share < 1:
                raise HungUp

        headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(len(body))}
        response = await self.http.post("/gradio_api/upload", content=pieces(), headers=headers)
        if response.status_code == 413:
            self.seen["refused: " + response.text] += 1
            return None
        response.raise_for_status()
        return response.json()[0]

    async def answer(self, path: str, session: str, patience: float | None = None) -> str | None:
        """The answer as HTML, or None if the queue is full or the visitor left first."""
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        event = {"data": [file], "fn_index": self.function, "session_hash": session}
        joined = await self.http.post("/gradio_api/queue/join", json=event)
        if joined.is_error:
            self.seen["refused: " + str(joined.json()["detail"])] += 1
            return None
        messages = self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session})
        try:
            async with asyncio.timeout(patience or PATIENCE), messages as stream:
                async for line in stream.aiter_lines():
                    message = json.loads(line.removeprefix("data:")) if line else {}
                    if message.get("msg") == "process_completed":
                        return message["output"]["data"][1]
        except TimeoutError:
            self.seen["left while waiting" if patience else f"error: no answer in {PATIENCE:g} s"] += 1
            return None
        raise ConnectionError("no answer")


async def visit(page: Page, number: int, recordings: dict[str, bytes], expected: dict[str, str], end: float) -> None:
    """Simulate one visitor until the time is up."""
    random, behaviour = np.random.default_rng(number), BEHAVIOURS[number % len(BEHAVIOURS)]
    short = [name for name in recordings if name != "large.wav"]
    while time.monotonic() < end:
        name = "large.wav" if behaviour == "large" else str(random.choice(short))
        start = time.monotonic()
        try:
            if behaviour == "large":
                await page.upload("too-large.wav", bytes(TOO_LARGE))
            share = 0.6 if behaviour == "hangs up" else 1.0
            path = await page.upload(name, recordings[name], 10.0 if behaviour == "slow" else 0.0, share)
            assert path is not None
            patience = 0.5 if behaviour == "leaves" else None
            found = await page.answer(path, f"visitor{number}-{start}", patience)
        except HungUp:
            page.seen["hung up during the upload"] += 1
        except (httpx.HTTPError, OSError) as error:
            page.seen[f"error: {type(error).__name__} {error}"] += 1
        else:
            if found is not None:
                page.seen["answered"] += 1
                page.differences.append(difference(found, expected[name]))
                page.waited += [time.monotonic() - start] if behaviour == "short" else []
        await asyncio.sleep(PAUSE)


def difference(found: str, expected: str) -> float:
    """Largest difference between the scores in two answers; 1 if they differ in anything else."""
    if PROCESSED_IN.sub("", found) == PROCESSED_IN.sub("", expected):
        return 0.0
    shown = [re.findall(r'class="label">(\w+)<.*?class="score">(\d+)', page) for page in (found, expected)]
    labels, scores = zip(*(zip(*sorted(pairs)) for pairs in shown))
    if labels[0] != labels[1]:
        return 1.0
    return max(abs(int(one) - int(other)) for one, other in zip(*scores)) / 100 or 1.0


def made_recordings() -> dict[str, bytes]:
    """WAV files by name: voices of about 2 seconds, and 9.5 seconds that take 29 MB."""
    files = {}
    for number, manner in enumerate(("angry", "happy", "sad", "neutral")):
        voice = synthesise(make_speaker(number), EMOTIONS[manner], np.random.default_rng(number))
        files[f"{manner}.wav"] = wav(voice, 16000)
    loud_room = np.tile(np.repeat(voice, 6), 9)[: int(9.5 * 96000)]
    files["large.wav"] = wav(np.stack([loud_room] * 8, axis=1), 96000, "FLOAT")
    return files


def wav(samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        soundfile.write(file.name, samples, rate, subtype=subtype)
        return Path(file.name).read_bytes()


async def load(url: str, folder: Path, server: psutil.Process, clients: int, seconds: float) -> dict[str, Any]:
    """The measurements by name; `folder` contains the server's temporary files."""

    def megabytes() -> float:
        return server.memory_info().rss / 1e6

    def left() -> int:
        return sum(path.is_file() and path.parent.name != "examples" for path in folder.rglob("*"))

    recordings = made_recordings()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits, trust_env=False) as http:
        config = (await http.get("/config")).json()
        uploads = [entry["id"] for entry in config["dependencies"] if entry["targets"][0][1] == "upload"]
        alone = Page(http, uploads[0])
        expected = {}
        for turn in range(4):  # warm up before memory is measured
            for name, content in recordings.items():
                path = await alone.upload(name, content)
                assert path is not None
                expected[name] = await alone.answer(path, f"single{turn}") or ""
        before, peak, page, end = megabytes(), [0.0], Page(http, uploads[0]), time.monotonic() + seconds

        async def watch() -> None:
            while True:
                peak[0] = max(peak[0], megabytes())
                await asyncio.sleep(0.25)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(visit(page, number, recordings, expected, end) for number in range(clients)))
        watching.cancel()
    await asyncio.sleep(15)  # Gradio checks every ten seconds for visitors who have left
    return {"page": page, "before": before, "peak": peak[0], "after": megabytes(), "left": left()}


def measure(clients: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, serving(TMPDIR=folder, OMP_NUM_THREADS="1") as url:
        (server,) = [child for child in psutil.Process().children() if "app.py" in child.cmdline()]
        return asyncio.run(load(url, Path(folder), server, clients, seconds))


def rows(found: dict[str, Any]) -> list[dict[str, str]]:
    page: Page = found["page"]
    kinds = ("answered", "hung up", "left", "refused", "error")
    counted = sorted(page.seen.items(), key=lambda item: [item[0].startswith(kind) for kind in kinds], reverse=True)
    median, late = np.percentile(page.waited, [50, 95])
    memory = " / ".join(f"{found[name]:.0f}" for name in ("before", "peak", "after"))
    wait = f"{median:.1f} / {late:.1f} s"
    return [
        *({"what": f"requests {what}", "measured": str(number)} for what, number in counted),
        {
            "what": "largest score difference from the answer to a single visitor",
            "measured": f"{max(page.differences):g}",
        },
        {"what": "wait for the answer to a short voice, median / 95th percentile", "measured": wait},
        {"what": "memory before / peak / after", "measured": f"{memory} MB"},
        {"what": "temporary files left", "measured": str(found["left"])},
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50, help="visitors at once; default: 50")
    parser.add_argument("--minutes", type=float, default=5.0, help="default: 5")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="default: the file that docs/RELIABILITY.md is built from"
    )
    options = parser.parse_args()
    measured = rows(measure(options.clients, 60 * options.minutes))
    write_study(
        options.output,
        title="The demo page under load",
        command=f"python -m studies.page_load --clients {options.clients} --minutes {options.minutes:g}",
        rows=measured,
        notes="One process answers one recording at a time on two CPU cores, which the simulated visitors share.",
    )
    print(json.dumps(measured, indent=2))
