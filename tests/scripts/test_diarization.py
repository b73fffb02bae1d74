"""The study of the timelines of saved models: a small run on real speech, and the table that it becomes."""

import pytest
from running import run_script

from core.json_files import read_json
from docs.build import diarization


@pytest.mark.slow
def test_a_small_run_on_real_speech(corpora, tmp_path, monkeypatch):
    argv = ["--model", "mini", "--data_dir", corpora, "--recordings", 1, "--windows", 2, 4]
    for part in ("test", "validation"):
        run_script("studies/diarization.py", *argv, "--part", part, "--results", tmp_path / f"{part}.json")
    found, validation = (read_json(tmp_path / f"{part}.json") for part in ("test", "validation"))
    (model,) = found["models"]
    corpus = model["corpora"][-1]
    assert (model["model"], corpus["corpus"], found["part"]) == ("ser-align-mini", "all", "test")
    assert validation["models"] != found["models"]
    rows = {row["method"]: row for row in corpus["no_pauses"]}
    assert {"timeline", "sliding_window_2", "sliding_window_4", "true_boundaries"} <= set(rows)
    for row in rows.values():
        assert row["error"] == pytest.approx(row["missed"] + row["false"] + row["confused"])
    assert rows["true_boundaries"]["missed"] == 0 and rows["timeline"]["error"] < rows["whole_file"]["error"]
    monkeypatch.setattr(diarization, "RESULTS", tmp_path / "test.json")
    (line,) = (line for line in diarization.build_diarization_block() if line.startswith("| mini"))
    timeline, window = (100 * rows[name]["error"] for name in ("timeline", "sliding_window_2"))
    assert f"| {timeline:.1f} |" in line and f"{100 * rows['true_boundaries']['error']:.1f} |" in line
    assert window >= min(100 * rows[f"sliding_window_{size}"]["error"] for size in (2, 4))


def test_the_best_window_is_compared_with_its_own_interval():
    def row(method: str, error: float, **difference: float) -> dict:
        return {"method": method, "error": error, "advantage": 0.0, "low": 0.0, "high": 0.0, **difference}

    rows = [
        row("timeline", 0.4),
        row("sliding_window_1", 0.55, advantage=0.15, low=0.1, high=0.2),
        row("sliding_window_2", 0.45, advantage=0.05, low=-0.01, high=0.12),
        row("true_boundaries", 0.3, advantage=-0.1, low=-0.2, high=-0.05),
    ]
    assert diarization.compare(rows) == ["40.0", "45.0", "+5.0 [-1.0, 12.0]"]
    assert diarization.compare([rows[0], row("sliding_window_1", 0.5, advantage=0.1)])[2] == "+10.0"
