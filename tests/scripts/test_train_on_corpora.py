"""train.py on filtered, relabelled and cross-corpus data, and on a dataset in `datasets` format."""

import csv
import itertools
import json
from itertools import product
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, write_wav
from datasets import Dataset
from huggingface_hub import ModelCard
from running import BRIEF, SHORT, SPEAKERS, lines_of, run_script, train
from sklearn.metrics import recall_score

from recipe.corpora import load_corpus

pytestmark = pytest.mark.slow

OPTIONS = ["--stage", "1", "--num_validation_speakers", "2"]


def results_of(output):
    return json.loads((output / "stage1" / "results.json").read_text(encoding="utf-8"))


def test_labels_are_merged_and_speakers_selected(demo, tmp_path):
    label_map = {"angry": "high", "happy": "high", "sad": "low", "neutral": "low"}
    only = json.dumps({"gender": "female", "speaker": SPEAKERS[1::2]})
    argv = ["--label_map", json.dumps(label_map), "--only", only, "--num_folds", 3]
    train(*BRIEF, *OPTIONS, *argv, "--data_dir", demo, "--output_dir", tmp_path)
    results = results_of(tmp_path)
    assert results["labels"] == ["high", "low"]
    lines = lines_of(tmp_path / "stage1" / "predictions.jsonl")
    assert {line["gender"] for line in lines} == {"female"} and set(lines[0]["probabilities"]) == {"high", "low"}
    counts = {name: sum(part.values()) for name, part in results["class_counts"].items()}
    assert sum(counts.values()) == 5 * 32


def test_one_corpus_trains_and_another_tests(demo, tmp_path):
    """Of the second corpus, a folder of three labels, two are common; its speakers, who are others, are tested all."""
    rows = load_corpus("demo", str(demo))
    names = {"angry": "angry", "sad": "sad", "neutral": "calm"}
    folder = tmp_path / "folder"
    for row in rows.select(range(0, len(rows), 9)):
        word = rows.features["label"].names[row["label"]]
        if word in names and row["speaker"] not in SPEAKERS:
            target = folder / names[word] / f"{row['id'].replace('/', '-')}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(row["audio"]["path"]).read_bytes())
    argv = ["--data_dir", demo, "--test_corpus", "folder", "--test_data_dir", folder]
    run = train(*SHORT, *OPTIONS, *argv, "--output_dir", tmp_path / "out")
    results = results_of(tmp_path / "out")
    assert results["labels"] == ["sad", "angry"] and results["test_corpus"] == "folder" and results["fold"] is None
    assert "demo -> folder: " in run.stdout
    tested = [
        line["id"] for line in lines_of(tmp_path / "out" / "stage1" / "predictions.jsonl") if line["split"] == "test"
    ]
    assert tested and all(name.startswith("folder/") for name in tested)
    other = ["--test_label_map", '{"calm": "quiet", "sad": "blue", "angry": "red"}']
    refused = train(*SHORT, *OPTIONS, *argv, *other, "--output_dir", tmp_path / "none", expect=1)
    assert "have no label in common: merge or rename some with label_map or test_label_map" in refused.stderr
    assert not (tmp_path / "none").exists() and "Traceback" not in refused.stderr


@pytest.fixture(scope="module")
def miniatures(tmp_path_factory):
    """RAVDESS, EmoDB and nEMO in their official layouts, each with three or four speakers and invented audio."""
    folder = tmp_path_factory.mktemp("corpora")
    seeds = itertools.count()
    for actor, emotion, sentence in product(range(1, 5), (1, 4, 5, 6), (1, 2)):
        name = f"03-01-{emotion:02d}-01-{sentence:02d}-01-{actor:02d}.wav"
        write_wav(folder / "ravdess" / f"Actor_{actor:02d}" / name, 0.3, seed=next(seeds))
    for speaker, letter, sentence in product(("03", "08", "09", "10"), "NTWL", ("a01", "b02")):
        write_wav(folder / "emodb" / "wav" / f"{speaker}{sentence}{letter}a.wav", 0.3, seed=next(seeds))
    lines = ["file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage"]
    for speaker, emotion, number in product(("EB0", "IC0", "MK0"), ("neutral", "anger", "sadness"), range(4)):
        name = f"{speaker}_{emotion}_{number}.wav"
        write_wav(folder / "nemo" / "samples" / name, 0.3, seed=next(seeds))
        lines.append(f"{name}\t{emotion}\tTak!\ttak\t{speaker}\tfemale\t27")
    (folder / "nemo" / "data.tsv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


ENTRIES = [
    {"corpus": "ravdess", "protocol": "leave_one_speaker_out"},
    {"corpus": "emodb", "label_map": {"neutral": "neutral", "sad": "sad", "angry": "angry"}, "num_folds": 2},
    {"corpus": "nemo", "use": "train"},
]
JOINT = ["--corpora", json.dumps(ENTRIES), "--partial_corpus", "--num_validation_speakers", 1]


def test_a_model_is_trained_on_three_corpora_and_scored_on_each(miniatures, tmp_path):
    config = yaml.safe_load((ROOT / BRIEF[1]).read_text()) | {"corpora": ENTRIES}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    argv = ["--config", tmp_path / "run.yaml", *BRIEF[2:], *JOINT[2:], "--corpus_temperature", 0, "--watch_test"]
    dirs = {name: str(miniatures / name) for name in ("ravdess", "emodb", "nemo")}
    run = train(*argv, "--stage", 1, "--data_dirs", json.dumps(dirs), "--output_dir", tmp_path / "out")
    assert "ravdess + emodb + nemo: 92 utterances" in run.stdout and "  best on emodb  " in run.stdout
    results, lines = results_of(tmp_path / "out"), lines_of(tmp_path / "out" / "stage1" / "predictions.jsonl")
    assert results["labels"] == ["neutral", "sad", "angry", "fearful"]
    speakers = {name: set(results["speakers"][name]) for name in ("train", "validation", "test")}
    assert speakers["test"] == {"ravdess/01", *(s for s in speakers["test"] if s.startswith("emodb/"))}
    assert {speaker for speaker in set().union(*speakers.values()) if "nemo" in speaker} <= speakers["train"]
    assert all(line["id"].startswith(f"{line['corpus']}/") for line in lines)
    for part in ("validation", "test"):
        scores = results["scores"]["best"][part]
        assert set(scores["corpora"]) == {"emodb", "ravdess"}
        for corpus, of_one in scores["corpora"].items():
            chosen = [line for line in lines if line["split"] == part and line["corpus"] == corpus]
            expected = recall_score(
                [line["label"] for line in chosen],
                [line["prediction"] for line in chosen],
                labels=sorted({line["label"] for line in chosen}),
                average="macro",
                zero_division=0,
            )
            assert of_one["ua"] == pytest.approx(expected) and of_one["num_utterances"] == len(chosen)
    assert results["history"][-1]["ua"] == pytest.approx(
        (results["history"][-1]["ua/emodb"] + results["history"][-1]["ua/ravdess"]) / 2
    )
    card = ModelCard.load(tmp_path / "out" / "stage1" / "README.md")
    assert (
        card.data.license == "other" and "emodb: `cc0-1.0`" in card.text and "Confusion matrix on ravdess" in card.text
    )
    assert {result.dataset_type for result in card.data.eval_results} == {"emodb", "ravdess"}
    assert str(miniatures) not in card.content + (tmp_path / "out" / "stage1" / "results.json").read_text()


def test_the_matrix_of_corpora_has_a_score_for_each_pair(miniatures, tmp_path):
    entries = [*ENTRIES[:2], {"corpus": "nemo", "protocol": "leave_one_speaker_out"}]
    content = {
        "title": "pairs",
        "config": BRIEF[1],
        "folds": [1, 4],  # tests ravdess; trains on ravdess alone
        "stage": 1,
        "options": {"corpora": entries, "protocol": "cross_corpus", "common_labels": True},
        "variants": {"attentive": {}},
    }
    (tmp_path / "matrix.yaml").write_text(yaml.safe_dump(content))
    argv = ["--config", tmp_path / "matrix.yaml", "--output_dir", tmp_path / "out", *BRIEF[2:], *JOINT[2:]]
    run_script("experiment.py", *argv, "--data_dir", miniatures)
    rows = list(csv.DictReader((tmp_path / "out" / "matrix" / "corpora.csv").open()))
    pairs = {(row["trained_on"], row["tested_on"]): row for row in rows}
    assert set(pairs) == {
        ("emodb + nemo", "ravdess"),
        *(("ravdess", tested) for tested in ("ravdess", "emodb", "nemo")),
    }
    row = pairs["ravdess", "nemo"]
    lines = lines_of(tmp_path / "out" / "fold4-seed0" / "attentive" / "stage1" / "predictions.jsonl")
    chosen = [line for line in lines if line["split"] == "test" and line["corpus"] == "nemo"]
    among = [max(("neutral", "sad", "angry"), key=line["probabilities"].get) for line in chosen]
    labels = [line["label"] for line in chosen]
    assert row["labels"] == "neutral sad angry" and int(row["utterances"]) == len(chosen) == 36
    assert float(row["ua"]) == pytest.approx(recall_score(labels, among, average="macro"))
    report = (tmp_path / "out" / "matrix" / "report.md").read_text()
    assert "attentive, across corpora" in report and "| | emodb | nemo | ravdess |" in report


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
    train(*BRIEF, *OPTIONS, *argv, "--output_dir", tmp_path / "out")
    results = results_of(tmp_path / "out")
    assert results["labels"] == sorted(names)
    assert sum(sum(part.values()) for part in results["class_counts"].values()) == len(chosen)
    misspelt = [*argv[:-1], '{"label_colum": "emotion"}']
    refused = train(*BRIEF, *OPTIONS, *misspelt, "--output_dir", tmp_path / "none", expect=1)
    assert "hub_options: 'label_colum' is not one of audio_column, label_column" in refused.stderr
    wrong = [*argv[:-1], json.dumps({**options, "label_column": "label"})]
    refused = train(*BRIEF, *OPTIONS, *wrong, "--output_dir", tmp_path / "none", expect=1)
    assert "'label'" in refused.stderr and "emotion" in refused.stderr and "Traceback" not in refused.stderr
