"""The demo page in headless Chromium."""

import time
from urllib.parse import urlsplit

import httpx
import pytest
from conftest import write_wav
from visiting import find_uploads, join_queue, upload, wait_until, write_text, write_too_large

pytestmark = pytest.mark.slow


def open_page(browser, url, width=1280, height=900, scheme="light"):
    """A visitor's page, with its requests and console errors."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, seen = context.new_page(), []
    page.set_default_timeout(30_000)
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(f"error: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.goto(url)
    page.wait_for_selector("#recording")
    return page, seen


def choose_file(page, path):
    page.locator("#recording input[type=file]").set_input_files(path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_recording_is_answered_on_the_page(browser, server, example, tmp_path, width, height, scheme):
    url, folder = server
    page, seen = open_page(browser, url, width, height, scheme)
    path = tmp_path / "my voice.wav"
    path.write_bytes(example.read_bytes())
    choose_file(page, path)
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
    assert "my voice.wav" not in find_uploads(folder)
    assert not [line for line in seen if line.startswith("error")]
    hosts = {urlsplit(line).hostname for line in seen if not line.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    page.context.close()


def test_the_page_says_what_is_wrong(browser, server, tmp_path):
    url, folder = server
    page, _ = open_page(browser, url)
    for make, name, message in (
        (write_text, "text.wav", "text.wav cannot be read as audio"),
        (write_too_large, "large.wav", "large.wav is 31.0 MB; upload a recording of up to 30 MB and 10 minutes"),
        (write_text, "text.txt", "text.txt is not an audio file; upload a recording of up to 30 MB and 10 minutes"),
    ):
        make(tmp_path / name)
        choose_file(page, tmp_path / name)
        page.get_by_text(message).wait_for()
        assert page.locator(".answer").count() == 0
    assert not find_uploads(folder)
    write_wav(tmp_path / "noise.wav")
    choose_file(page, tmp_path / "noise.wav")  # and goes on with the next one
    page.wait_for_selector(".answer")
    assert page.inner_text("#refused") == ""
    page.context.close()


def test_the_microphone_and_an_example(browser, server):
    url, folder = server
    page, seen = open_page(browser, url, 390, 844)
    page.get_by_label("Record audio").click()
    page.locator(".record-button").click()
    page.wait_for_timeout(1500)
    page.locator(".stop-button").click()
    page.wait_for_selector(".answer")
    assert "audio.wav" in page.inner_text(".answer .about >> nth=0") and not find_uploads(folder)
    page.get_by_role("button", name="Slow and soft").click()
    page.get_by_text("Synthetic voice: slow and soft").wait_for()
    assert "not speech" in page.inner_text(".answer")
    assert not [line for line in seen if line.startswith("error")]
    page.context.close()


def test_a_full_queue_says_so_and_keeps_nothing(browser, server, tmp_path):
    """One recording that takes some seconds is being answered, twenty wait behind it."""
    url, folder = server
    page, _ = open_page(browser, url)
    write_wav(tmp_path / "long.wav", seconds=300)
    with httpx.Client(base_url=url, timeout=30) as http:
        before = len(find_uploads(folder))
        long = upload(http, "long.wav", (tmp_path / "long.wav").read_bytes())
        assert join_queue(http, "first", long).is_success
        time.sleep(0.3)  # until it is taken out of the queue
        for number in range(20):
            assert join_queue(http, f"visitor{number}", upload(http, "text.wav", b"no audio")).is_success
        refused = join_queue(http, "last", upload(http, "refused.wav", b"no audio"))
        message = "20 visitors are already waiting; try again in a minute"
        assert (refused.status_code, refused.json()) == (429, {"detail": message})
        choose_file(page, write_wav(tmp_path / "short.wav"))
        page.get_by_text(message).wait_for()
        assert "refused.wav" not in find_uploads(folder)
    wait_until(lambda: len(find_uploads(folder)) == before)
    page.context.close()
