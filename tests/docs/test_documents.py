"""The documentation is correct: links, numbers, file lengths and the example recording."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from documents import DOCUMENTS, read_blocks, read_links

from studies.disturbances import AS_RECORDED, WHITE_NOISE
from studies.limits import TELEPHONE

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
    assert read_readme().count(f"{ua:.1f} % UA") == 2
    assert f"**{ua:.1f} % UA** [{low:.1f}, {high:.1f}]" in read_readme()
    results = json.loads((ROOT / "models" / "ser-align-mini" / "results.json").read_text(encoding="utf-8"))
    assert f"{results['num_parameters'] / 1e6:.2f} M parameters" in read_readme()
    assert f"({(ROOT / 'models/ser-align-mini/model.safetensors').stat().st_size / 1e6:.1f} MB)" in read_readme()


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


def test_the_readme_gives_the_measured_limits():
    ua = json.loads((RESULTS / "reliability" / "limits.json").read_text(encoding="utf-8"))["ua"]
    recorded, telephone, noise = (100 * ua[name] for name in (AS_RECORDED, TELEPHONE, WHITE_NOISE))
    assert f"falls from {recorded:.1f} to {telephone:.1f} %" in read_readme()
    assert f"white noise at 20 dB SNR lowers it to {noise:.1f} %" in read_readme()


def test_the_readme_gives_the_measured_timeline():
    rows = list(csv.DictReader((RESULTS / "ravdess-timeline" / "diarization.csv").open(encoding="utf-8")))
    error = {row["method"]: 100 * float(row["error"]) for row in rows if row["condition"] == "pauses"}
    windows = [value for method, value in error.items() if "sliding" in method]
    assert len(windows) == 6
    assert f"{error['timeline']:.0f} %, compared with {min(windows):.0f} % for the best of six sliding" in read_readme()


# ------------------------------------------------------------------------------------------ the example recording


def test_the_example_is_short_and_of_an_actor_whom_the_model_has_not_heard():
    info = soundfile.info(ROOT / "examples" / "speech.flac")
    assert (info.samplerate, info.channels, info.format) == (16000, 1, "FLAC")
    assert 3 <= info.duration <= 8
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"`(03-01-[\d-]+)`", text)
    speakers = json.loads((ROOT / "models/ser-align-mini/results.json").read_text(encoding="utf-8"))["speakers"]
    assert len(names) == 2
    assert {name[-2:] for name in names} <= set(speakers["test"])
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
    card = (ROOT / "models" / "ser-align-mini" / "README.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert read_blocks(readme, "bibtex") == read_blocks(card + "\n", "bibtex")
