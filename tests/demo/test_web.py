"""The browser example in headless Chromium: the scores of ONNX Runtime, the phrases and the timeline of predict.py."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from urllib.parse import urlsplit

import numpy as np
import onnxruntime
import pytest
import soundfile
from conftest import ROOT
from documents import read_blocks
from running import environment, run_anew
from scipy.special import softmax

from core.audio import read_audio
from core.loading import load_pipeline
from core.shipped import MINI_MODEL
from docs.build.page_screenshot import CHROMIUM
from inference.onnx_export import pad_utterances
from inference.onnx_int8 import quantize_statically
from quality_ser_align import measure_quality
from speech_ser_align import PAUSE, WINDOW, cut_phrases, cut_windows
from studies.disturbances import resample_through

pytestmark = pytest.mark.slow

SPEECH = ROOT / "examples" / "speech.flac"
BLOCKS = read_blocks((ROOT / "examples" / "README.md").read_text(encoding="utf-8"), "bash")
FETCH, EXPORT = re.search(r"(npm pack .*?\n)python (export_onnx.py .*?)\n", "".join(BLOCKS), re.DOTALL).groups()
# Runs functions of the module on a file of the served folder, whose samples the browser decodes.
ANALYSE = """async ([name, file, changes]) => {
  const web = await import("./ser_align.js");
  const waveform = await web.readFile(new File([await (await fetch(name)).arrayBuffer()], name));
  const loaded = await web.loadModel(file ?? "model.onnx");
  const model = { ...loaded, settings: { ...loaded.settings, ...changes } };
  const { windows, segments } = await web.analyse(model, waveform);
  const phrases = web.findPhrases(waveform, model.settings.trim_db);
  return { windows, segments, phrases, settings: model.settings, bandwidth: web.measureBandwidth(waveform) };
}"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder laid out as the commands of examples/README.md leave it, with recordings beside the page."""
    if shutil.which("npm") is None:
        pytest.skip("the browser example: install npm")
    root = tmp_path_factory.mktemp("clone")
    folder = shutil.copytree(ROOT / "examples" / "web", root / "examples" / "web")
    for path in folder.glob("*.onnx"):
        path.unlink()
    subprocess.run(FETCH, shell=True, cwd=root, env=environment(), check=True, capture_output=True, timeout=300)
    run_anew(*EXPORT.split(), cwd=root)
    speech, rate = soundfile.read(SPEECH, dtype="float32")
    soundfile.write(folder / "speech.flac", speech, rate)
    soundfile.write(folder / "speech.wav", speech, rate)
    soundfile.write(folder / "narrow.wav", resample_through(speech, 8000), rate)
    soundfile.write(folder / "stereo.wav", np.repeat(np.stack([speech, 0.5 * speech], axis=1), 3, axis=0), 3 * rate)
    rng = np.random.default_rng(0)
    noisy = np.concatenate([speech, np.zeros(8000, np.float32), speech[::-1]])
    soundfile.write(folder / "noisy.wav", noisy + 0.001 * rng.standard_normal(len(noisy)), rate)
    quantize_statically(folder / "model.onnx", folder / "static.onnx", [read_audio(SPEECH)])
    soundfile.write(folder / "silent.wav", np.zeros(32000), rate)
    (folder / "text.wav").write_text("Dear Sir")
    return folder


@pytest.fixture(scope="module")
def url(folder):
    """Address of the served folder."""
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def visit(browser, url, width=390, height=844):
    """The page, when it is ready or says why not, with its requests and errors."""
    page, seen = browser.new_context(viewport={"width": width, "height": height}).new_page(), []
    page.set_default_timeout(60_000)
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(f"error: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.goto(url)
    page.wait_for_function("document.getElementById('state').textContent !== 'Loading the model …'")
    return page, seen


@pytest.fixture(scope="module")
def page(browser, url):
    page, seen = visit(browser, url)
    yield page
    assert not [line for line in seen if line.startswith("error")]
    page.context.close()


def analyse(page, name, model="model.onnx", **changes):
    """What the module says of a served recording, with a served model and changed settings."""
    return page.evaluate(ANALYSE, [name, model, changes])


def open_session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


# ----------------------------------------------------------------------------------------- the module


@pytest.mark.parametrize("name", ["speech.flac", "noisy.wav"])
def test_phrases_windows_and_scores_are_those_of_python(page, folder, name):
    found, session = analyse(page, name), open_session(folder / "model.onnx")
    metadata = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    assert found["settings"] == metadata and metadata["licence"] == "cc-by-nc-sa-4.0"
    waveform = read_audio(folder / name)
    phrases = list(cut_phrases(iter([waveform]), PAUSE, metadata["trim_db"]))
    assert len(phrases) == (2 if name == "speech.flac" else 4)
    edges = [[phrase.start, phrase.start + len(phrase.waveform)] for phrase in phrases]
    np.testing.assert_allclose(found["phrases"], edges, atol=128)  # one step of the levels
    starts = [start for phrase in phrases for start, _ in cut_windows(phrase, WINDOW)]
    np.testing.assert_allclose([window["start"] for window in found["windows"]], starts, atol=256)
    assert_scores_of(session, found["windows"], waveform, 1e-4)


def assert_scores_of(session, windows, waveform, tolerance):
    for window in windows:
        (logits,) = session.run(["logits"], pad_utterances([waveform[window["start"] : window["end"]]]))
        expected = softmax(logits[0].astype(np.float64))
        np.testing.assert_allclose(window["probabilities"], expected, rtol=0, atol=tolerance)


def test_a_static_file_of_8_bits_runs_too(page, folder):
    """Its metadata also has notes of onnxruntime's own; a sum between two steps may be rounded to the other one."""
    found = analyse(page, "speech.flac", "static.onnx")
    assert found["settings"] == analyse(page, "speech.flac")["settings"]
    assert_scores_of(open_session(folder / "static.onnx"), found["windows"], read_audio(SPEECH), 0.02)


def test_the_ribbon_is_the_timeline_of_the_pipeline(page):
    answer = load_pipeline(str(MINI_MODEL))(str(SPEECH), return_timeline=True)
    found = analyse(page, "speech.flac")["segments"]
    assert [segment["label"] for segment in found] == [segment["label"] for segment in answer["timeline"]]
    for segment, expected in zip(found, answer["timeline"]):
        assert [segment[name] for name in ("start", "end", "score")] == pytest.approx(
            [expected[name] for name in ("start", "end", "score")], abs=0.02
        )


@pytest.mark.parametrize("name", ["speech.flac", "narrow.wav", "stereo.wav"])
def test_the_bandwidth_is_that_of_python(page, folder, name):
    expected = measure_quality(read_audio(folder / name)).measure_bandwidth()
    assert analyse(page, name)["bandwidth"] == pytest.approx(expected, abs=250)


def test_channels_are_averaged_and_other_rates_resampled(page):
    speech, stereo = (analyse(page, name)["windows"] for name in ("speech.flac", "stereo.wav"))
    assert len(speech) == len(stereo) > 2
    for one, other in zip(speech, stereo):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=0.1)


# ------------------------------------------------------------------------------------------- the page


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (320, 640)])
def test_a_file_becomes_a_ribbon(browser, url, folder, tmp_path, width, height):
    page, seen = visit(browser, url, width, height)
    page.get_by_label("Audio file").set_input_files(folder / "speech.flac")
    ribbon = page.get_by_role("list", name="Emotions over time")
    ribbon.wait_for()
    expected = analyse(page, "speech.flac")
    assert ribbon.get_by_role("listitem").count() == len(expected["segments"]) >= 2
    threshold = expected["settings"]["unsure_below"]
    names = ["unsure" if segment["score"] < threshold else segment["label"] for segment in expected["segments"]]
    assert ribbon.get_by_role("listitem").all_inner_texts() == names
    rows = page.get_by_role("row").all_inner_texts()[1:]
    assert [row.split("\t")[2].split()[0] for row in rows] == names
    box = ribbon.bounding_box()
    for item, segment in zip(ribbon.get_by_role("listitem").all(), expected["segments"]):
        left = (item.bounding_box()["x"] - box["x"]) / box["width"]
        assert left == pytest.approx(segment["start"] / 5.1, abs=0.02)
    assert re.fullmatch(r"speech\.flac, 5\.1 s, scored in \d+ ms", page.inner_text("#state"))
    assert page.inner_text("#warnings") == ""
    assert "cc-by-nc-sa-4.0 (not for commercial use)" in page.inner_text("footer")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for control in (page.get_by_role("button", name="Record"), page.get_by_label("Audio file")):
        assert control.bounding_box()["height"] >= 44
    page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
    assert not [line for line in seen if line.startswith("error")]
    assert {urlsplit(line).hostname for line in seen if not line.startswith(("data:", "blob:"))} == {"127.0.0.1"}
    page.context.close()


def test_a_score_below_the_threshold_is_unsure(page):
    """With thresholds just below and above the lowest score of a segment, and above all."""
    scores = sorted(segment["score"] for segment in analyse(page, "noisy.wav")["segments"])
    for threshold, unsure in ((scores[0] - 1e-6, 0), (scores[0] + 1e-6, 1), (1.0, len(scores))):
        found = analyse(page, "noisy.wav", unsure_below=threshold)["segments"]
        assert sum(segment["unsure"] for segment in found) == unsure


def test_the_page_warns_and_says_what_is_wrong(page, folder):
    recording = page.get_by_label("Audio file")
    recording.set_input_files(folder / "narrow.wav")
    page.get_by_text("contains no speech above 4 kHz, but the model was trained on speech up to 7.8 kHz").wait_for()
    assert page.locator("#ribbon li").count() >= 2
    for name, message in (
        ("silent.wav", "silent.wav contains no speech: it is empty or silent."),
        ("text.wav", "text.wav cannot be read as audio; choose a WAV, FLAC, OGG or MP3 file."),
    ):
        recording.set_input_files(folder / name)
        page.get_by_text(message).wait_for()
        assert not page.locator("#ribbon").is_visible() and page.inner_text("#warnings") == ""
    recording.set_input_files(folder / "speech.flac")  # and goes on with the next one
    page.get_by_role("list", name="Emotions over time").wait_for()


def launch(browser, *arguments):
    """Another browser, whose microphone is a fake with these arguments."""
    arguments = ["--use-fake-device-for-media-stream", *arguments]
    return browser.browser_type.launch(executable_path=CHROMIUM, args=arguments)


def test_the_microphone_is_followed_and_scored(browser, url, folder):
    """A microphone that hears the example, over and over, at its own rate."""
    hears = f"--use-file-for-fake-audio-capture={folder / 'speech.wav'}"
    hearing = launch(browser, "--use-fake-ui-for-media-stream", hears)
    page, seen = visit(hearing, url)
    page.get_by_role("button", name="Record").click()
    page.get_by_text("Listening, ").wait_for()
    assert page.get_by_label("Audio file").is_disabled()
    page.wait_for_timeout(6000)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text(re.compile(r"Your recording, \d+\.\d s, scored in")).wait_for()
    assert {"calm", "surprised"} & set(page.get_by_role("listitem").all_inner_texts())
    page.get_by_role("button", name="Record").wait_for()
    assert page.get_by_label("Audio file").is_enabled()
    assert not [line for line in seen if line.startswith("error")]
    hearing.close()


def test_a_denied_microphone_is_one_clear_line(browser, url):
    denying = launch(browser, "--deny-permission-prompts")
    page, seen = visit(denying, url)
    page.get_by_role("button", name="Record").click()
    message = "The microphone is not available (Permission denied): allow it in the browser, or choose a recording."
    page.get_by_text(message).wait_for()
    assert page.get_by_role("button", name="Record").is_enabled() and page.get_by_label("Audio file").is_enabled()
    assert not [line for line in seen if line.startswith("error")]
    denying.close()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.onnx", "model.onnx is missing: export_onnx.py --output examples/web/model.onnx writes it."),
        ("ort.wasm.bundle.min.mjs", "onnxruntime-web is missing: examples/README.md says how to fetch it."),
    ],
)
def test_a_file_that_was_not_fetched_is_named(browser, url, folder, missing, message):
    kept = (folder / missing).rename(folder / "kept")
    try:
        page, _ = visit(browser, url)
        assert page.inner_text("#state") == message and page.locator(":disabled").count() == 2
        page.context.close()
    finally:
        kept.rename(folder / missing)
