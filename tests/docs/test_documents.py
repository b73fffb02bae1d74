"""The documentation is correct: links, numbers, file lengths and the example recording."""

import csv
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from documents import DOCUMENTS, read_blocks, read_links
from running import lines_of
from sklearn.metrics import balanced_accuracy_score

from core.json_files import read_json
from core.shipped import SHIPPED_MODELS

GENERATED_NAMES = ("CORPORA", "ENCODERS", "RESULTS", "PERFORMANCE", "RELIABILITY", "ROBUSTNESS")
GENERATED = [ROOT / "docs" / f"{name}.md" for name in GENERATED_NAMES]
RESULTS = ROOT / "docs" / "results"


def read_readme():
    """README.md with each run of blanks as one."""
    return " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("path", [*DOCUMENTS, *GENERATED, ROOT / "CHANGELOG.md"], ids=lambda path: path.stem)
def test_every_link_leads_somewhere(path):
    assert [link for link in read_links(path) if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_generated_blocks_begin_and_end(path):
    markers = re.findall(r"^<!-- (\w+):(begin|end) -->$", path.read_text(encoding="utf-8"), re.MULTILINE)
    names = [name for name, _ in markers[::2]]
    assert markers == [(name, edge) for name in names for edge in ("begin", "end")]
    assert len(set(names)) == len(names)


def test_the_readme_gives_the_measured_scores():
    rows = csv.DictReader((RESULTS / "ravdess-table3" / "scores.csv").open(encoding="utf-8"))
    row = next(row for row in rows if row["system"] == "CLS pooling + EAL + FUAL (proposed)")
    ua, low, high = (100 * float(row[f"best_pooled_ua{end}"]) for end in ("", "_low", "_high"))
    assert f"{ua:.1f} % UA [{low:.1f}, {high:.1f}]" in read_readme()


@pytest.mark.parametrize(("name", "digits"), [("base", 1), ("mini", 2)])
def test_the_readme_gives_the_size_of_each_model(name, digits):
    folder = SHIPPED_MODELS[name]
    parameters = read_json(folder / "results.json")["num_parameters"] / 1e6
    megabytes = (folder / "model.safetensors").stat().st_size / 1e6
    assert f"({parameters:.{digits}f} M parameters, {megabytes:.{digits - 1}f} MB)" in read_readme()


def test_the_readme_gives_the_scores_of_the_default_model_on_each_corpus():
    lines = [line for line in lines_of(SHIPPED_MODELS["base"] / "predictions.jsonl") if line["split"] == "test"]
    for name, corpus in (("RAVDESS", "ravdess"), ("EmoDB", "emodb"), ("nEMO", "nemo")):
        own = [(line["label"], line["prediction"]) for line in lines if line["corpus"] == corpus]
        assert f"{100 * balanced_accuracy_score(*zip(*own)):.1f} % on {name}" in read_readme()


def test_the_readme_gives_the_measured_scores_of_whisper():
    report = RESULTS / "ravdess-whisper_table3"
    rows = {row["system"]: row for row in csv.DictReader((report / "scores.csv").open(encoding="utf-8"))}
    row = rows["proposed + statistics of the frozen layers"]
    ua, low, high = (100 * float(row[f"best_pooled_ua{end}"]) for end in ("", "_low", "_high"))
    assert f"reach {ua:.1f} % UA [{low:.1f}, {high:.1f}] on the same folds" in read_readme()
    steps = {row["system"]: row for row in csv.DictReader((report / "steps.csv").open(encoding="utf-8"))}
    row = steps["CLS pooling + EAL + FUAL (proposed)"]
    gain, low, high = (100 * float(row[name]) for name in ("difference_ua", "low", "high"))
    assert f"change its UA by {gain:+.1f} points [{low:.1f}, {high:.1f}]" in read_readme()


def test_the_readme_gives_the_measured_score_of_logistic_regression():
    scores = (RESULTS / "acoustic-ravdess" / "scores.csv").open(encoding="utf-8")
    rows = {row["system"]: row for row in csv.DictReader(scores)}
    row = rows["whisper-base layers 2 to 6, logistic regression"]
    ua, low, high = (100 * float(row[f"best_pooled_ua{end}"]) for end in ("", "_low", "_high"))
    assert f"logistic regression on frozen layers {ua:.1f} % [{low:.1f}, {high:.1f}]" in read_readme()


def test_the_readme_gives_the_measured_limits():
    rows = read_json(RESULTS / "robustness.json")["rows"]
    ua = {(row["model"], row["condition"]): 100 * row["ua"] for row in rows if row["corpus"] == "all"}
    for model, sentence in (
        (
            "ser-align-base",
            "UA falls from {} to {} % on telephone speech (8 kHz) and to {} % in white noise at 10 dB",
        ),
        ("ser-align-mini", "falls from {} to {} and {} %"),
    ):
        scores = (f"{ua[model, name]:.1f}" for name in ("as recorded", "8 kHz, µ-law", "white noise, 10 dB"))
        assert sentence.format(*scores) in read_readme()


def test_the_readme_gives_the_measured_timeline():
    found = read_json(RESULTS / "diarization.json")
    together = next(model for model in found["models"] if model["model"] == "ser-align-base")["corpora"][-1]
    errors = []
    for condition in ("pauses", "no_pauses"):
        error = {row["method"]: 100 * row["error"] for row in together[condition]}
        windows = [value for method, value in error.items() if "sliding" in method]
        assert len(windows) == 3
        errors += [error["timeline"], min(windows)]
    sentence = "rate {:.0f} % (best of three sliding windows {:.0f} %), without pauses {:.0f} % ({:.0f} %)."
    assert sentence.format(*errors) in " ".join(read_readme().split())


# ------------------------------------------------------------------------------------------ the example recording


def test_the_example_is_short_and_of_an_actor_whom_the_model_has_not_heard():
    info = soundfile.info(ROOT / "examples" / "speech.flac")
    assert (info.samplerate, info.channels, info.format) == (16000, 1, "FLAC")
    assert 3 <= info.duration <= 8
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"`(03-01-[\d-]+)`", text)
    assert len(names) == 2
    for folder in SHIPPED_MODELS.values():
        tested = read_json(folder / "results.json")["speakers"]["test"]
        assert {name[-2:] for name in names} <= {speaker.removeprefix("ravdess/") for speaker in tested}
    assert "CC BY-NC-SA 4.0" in text and "https://doi.org/10.5281/zenodo.1188976" in text


@pytest.mark.slow
def test_its_script_makes_it_again(corpora, tmp_path):
    source = (ROOT / "examples" / "make_speech.py").read_text(encoding="utf-8")
    script = tmp_path / "make_speech.py"  # writes beside itself
    script.write_text(source, encoding="utf-8")
    subprocess.run([sys.executable, script, corpora / "ravdess"], check=True, capture_output=True)
    made, _ = soundfile.read(tmp_path / "speech.flac")
    kept, _ = soundfile.read(ROOT / "examples" / "speech.flac")
    assert np.abs(made - kept).max() < 1e-3


def test_the_citation_is_the_same_everywhere():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for folder in SHIPPED_MODELS.values():
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert read_blocks(readme, "bibtex") == read_blocks(card + "\n", "bibtex")
