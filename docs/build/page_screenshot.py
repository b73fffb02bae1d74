"""Write docs/app.png: a screenshot of the demo page with its prediction for a synthetic voice.

Requires Chromium and playwright:

    python -m docs.build.page_screenshot
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)


def main() -> None:
    if CHROMIUM is None:
        sys.exit(f"error: none of {', '.join(NAMES)} is installed")
    with serving() as url, browsing() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.get_by_role("button", name="Two voices, in turn").click()
        page.wait_for_selector(".answer")
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)  # the player draws the waveform
        page.screenshot(path=ROOT / "docs" / "app.png", full_page=True)


@contextlib.contextmanager
def serving(*arguments: str, folder: Path = ROOT, launcher: tuple[str, ...] = (), **variables: str) -> Iterator[str]:
    """Run the app.py of a folder in a separate process, with these environment variables; yields its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *launcher, "app.py", "--port", str(port), *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **variables}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()  # once it listens
            assert line.startswith("Open http://"), line
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:  # gradio waits for its threads, for long on a busy machine
                process.kill()


@contextlib.contextmanager
def browsing() -> Iterator[Any]:
    """Headless Chromium with a microphone that beeps."""
    from playwright.sync_api import sync_playwright

    microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=microphone)
        yield browser
        browser.close()


if __name__ == "__main__":
    main()
