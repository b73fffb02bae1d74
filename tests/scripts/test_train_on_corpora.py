"""train.py on filtered, relabelled and cross-corpus data, and on a dataset in `datasets` format."""

import json
from pathlib import Path

import pytest
from datasets import Dataset
from running import SHORT, lines_of, train

from recipe.corpora import load_corpus

pytestmark = pytest.mark.slow

OPTIONS = [*SHORT, "--stage", "1", "--num_validation_speakers", "2"]


def results_of(output):
    return json.loads((output / "stage1" / "results.json").read_text(encoding="utf-8"))


def test_labels_are_merged_and_speakers_selected(demo, tmp_path):
    label_map = {"angry": "high", "happy": "high", "sad": "low", "neutral": "low"}
    argv = ["--label_map", json.dumps(label_map), "--only", '{"gender": "female"}', "--num_folds", 3]
    train(*OPTIONS, *argv, "--data_dir", demo, "--output_dir", tmp_path)
    results = results_of(tmp_path)
    assert results["labels"] == ["high", "low"]
    lines = lines_of(tmp_path / "stage1" / "predictions.jsonl")
    assert {line["gender"] for line in lines} == {"female"} and set(lines[0]["probabilities"]) == {"high", "low"}
    counts = {name: sum(part.values()) for name, part in results["class_counts"].items()}
    assert sum(counts.values()) == 12 * 32


def test_one_corpus_trains_and_another_tests(demo, tmp_path):
    """Of the second corpus, a folder of three labels, two are common; its speakers are tested all."""
    rows = load_corpus("demo", str(demo))
    names = {"angry": "angry", "sad": "sad", "neutral": "calm"}
    folder = tmp_path / "folder"
    for row in rows.select(range(0, len(rows), 9)):
        word = rows.features["label"].names[row["label"]]
        if word in names:
            target = folder / names[word] / f"{row['id'].replace('/', '-')}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(row["audio"]["path"]).read_bytes())
    argv = ["--data_dir", demo, "--test_corpus", "folder", "--test_data_dir", folder]
    run = train(*OPTIONS, *argv, "--output_dir", tmp_path / "out")
    results = results_of(tmp_path / "out")
    assert results["labels"] == ["sad", "angry"] and results["test_corpus"] == "folder" and results["fold"] is None
    assert "demo -> folder: " in run.stdout
    tested = [
        line["id"] for line in lines_of(tmp_path / "out" / "stage1" / "predictions.jsonl") if line["split"] == "test"
    ]
    assert tested and all(name.startswith("folder/") for name in tested)
    other = ["--test_label_map", '{"calm": "quiet", "sad": "blue", "angry": "red"}']
    refused = train(*OPTIONS, *argv, *other, "--output_dir", tmp_path / "none", expect=1)
    assert "have no label in common: merge or rename some with label_map and test_label_map" in refused.stderr
    assert not (tmp_path / "none").exists() and "Traceback" not in refused.stderr


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_by_the_names_of_its_columns(demo, tmp_path, streaming, monkeypatch):
    """Audio embedded as bytes in parquet, other column names, label words."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = load_corpus("demo", str(demo))
    names = rows.features["label"].names
    chosen = rows.select(range(0, len(rows), 5))
    audio = [{"bytes": Path(row["audio"]["path"]).read_bytes(), "path": None} for row in chosen]
    columns = {"speech": audio, "emotion": [names[i] for i in chosen["label"]], "who": chosen["speaker"][:]}
    (tmp_path / "dataset").mkdir()
    Dataset.from_dict(columns).to_parquet(str(tmp_path / "dataset" / "data.parquet"))
    options = {"audio_column": "speech", "label_column": "emotion", "speaker_column": "who", "streaming": streaming}
    argv = ["--corpus", "hub", "--data_dir", tmp_path / "dataset", "--hub_options", json.dumps(options)]
    train(*OPTIONS, *argv, "--output_dir", tmp_path / "out")
    results = results_of(tmp_path / "out")
    assert results["labels"] == sorted(names)
    assert sum(sum(part.values()) for part in results["class_counts"].values()) == len(chosen)
    misspelt = [*argv[:-1], '{"label_colum": "emotion"}']
    refused = train(*OPTIONS, *misspelt, "--output_dir", tmp_path / "none", expect=1)
    assert "hub_options: 'label_colum' is not one of audio_column, label_column" in refused.stderr
    wrong = [*argv[:-1], json.dumps({**options, "label_column": "label"})]
    refused = train(*OPTIONS, *wrong, "--output_dir", tmp_path / "none", expect=1)
    assert "'label'" in refused.stderr and "emotion" in refused.stderr and "Traceback" not in refused.stderr
