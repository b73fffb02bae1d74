"""EM2LDL, written in miniature with the header of its published table, and label distributions from other columns."""

import csv
import json

import numpy as np
import pytest
from conftest import write_wav
from datasets import Audio, Dataset
from making import make_split, speakers_of

from core.errors import InputError
from recipe.arguments import parse_arguments
from recipe.corpora import em2ldl, load_corpus
from recipe.corpora.folder import load_csv
from recipe.corpora.shares import find_majority, read_shares
from recipe.data import read_selected_rows
from recipe.options import DataArguments

HEADER = (
    "AudioID,ecstacy,joy,serenity,love,admiration,trust,acceptance,submission,terror,fear,apprehension,awe,amazement,"
    "surprise,distraction,disapproval,grief,sadness,pensiveness,remorse,loathing,disgust,boredom,contempt,rage,anger,"
    "annoyance,aggresiveness,vigilance,anticipation,interest,optimism,speaker ID,gender,age,ageClass,mbtiSingle,"
    "mbtiDouble,lang"
)
TYPES = ("in", "is", "en", "es")


def speak_noise(path, speaker, index):
    """Write an utterance; the weight of each emotion in it."""
    write_wav(path, seed=100 * speaker + index)
    return np.full(32, 0.3)


def write_table(root, speakers=8, per_speaker=2, speak=speak_noise, seed=0):
    """A miniature with shares of twenty raters; even speakers are male, and every third is Youth."""
    rng = np.random.default_rng(seed)
    lines, number = [], 0
    for speaker in range(speakers):
        of_speaker = ["male" if speaker % 2 == 0 else "female", "22", "Youth" if speaker % 3 == 0 else "Non-Youth"]
        of_speaker += ["i" if TYPES[speaker % 4][0] == "i" else "e", TYPES[speaker % 4], "ce"]
        for index in range(per_speaker):
            number += 1
            weights = speak(root / "audio" / f"{number:04d}_mbti_ce.wav", speaker, index)
            votes = rng.multinomial(20, rng.dirichlet(weights))
            shares = [f"{vote / 20:.9f}" for vote in votes]
            lines.append([number, *shares, f"speaker{speaker + 1}", *of_speaker])
    root.mkdir(exist_ok=True)
    with (root / em2ldl.TABLE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER.split(","), *lines])
    return lines


def edit(root, change):
    path = root / em2ldl.TABLE
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def test_the_published_table_is_read_with_its_spelling_and_its_speakers(tmp_path, capsys):
    lines = write_table(tmp_path)
    rows = em2ldl.load(tmp_path, partial=True)
    assert "lists 16 of 3998 utterances" in capsys.readouterr().err
    assert rows.features["label"].names == em2ldl.LABELS and len(set(em2ldl.LABELS)) == 32
    for row, line in zip(rows, lines):
        shares = np.array(line[1:33], dtype=float)
        np.testing.assert_allclose(row["label_distribution"], shares / shares.sum(), atol=1e-12)
        assert row["label"] == int(np.flatnonzero(shares == shares.max())[0])
        assert (row["speaker"], row["gender"]) == (line[33], line[34]) and row["id"] == f"{line[0]:04d}"
        assert [row[name] for name in ("age_class", "mbti_single", "mbti_double", "language")] == line[36:]
        assert row["audio"]["path"].endswith(f"{line[0]:04d}_mbti_ce.wav")
    with pytest.raises(InputError, match=r"differs from the published EM2LDL: .* lists 16 of 3998"):
        em2ldl.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("ecstacy", "bliss"), "has no column 'ecstasy'"),
        (lambda text: text.replace("\n2,", "\ntwo,"), "line 3: AudioID='two' is not a number"),
        (lambda text: text.replace(",male,", ",m,", 1), "line 2: gender='m' is not female or male"),
        (lambda text: text.replace("0.0", "-0.1", 1), "line 2, .*'-0.1.*' is not a number of at least 0"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(tmp_path, change, message):
    write_table(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(InputError, match=message) as refused:
        em2ldl.load(tmp_path, partial=True)
    assert "\n" not in str(refused.value)


def test_two_files_of_one_number_and_a_folder_without_a_table_are_refused(tmp_path):
    write_table(tmp_path)
    write_wav(tmp_path / "more" / "1.wav")
    with pytest.raises(InputError, match="have the same AudioID: keep one of them"):
        em2ldl.load(tmp_path, partial=True)
    with pytest.raises(InputError, match=f"contains no {em2ldl.TABLE}"):
        em2ldl.load(tmp_path / "more", partial=True)


@pytest.mark.parametrize(("column", "folds"), [("gender", 2), ("age_class", 2), ("mbti_double", 4)])
def test_each_group_of_speakers_is_tested_once_by_models_that_heard_none_of_it(tmp_path, column, folds):
    write_table(tmp_path)
    rows = em2ldl.load(tmp_path, partial=True).remove_columns("label_distribution")
    rows = rows.remove_columns("label").add_column("label", [0, 1] * 8, feature=rows.features["label"])
    rows = rows.cast_column("label", type(rows.features["label"])(names=["a", "b"]))
    group_of = dict(zip(rows["speaker"], rows[column]))
    tested = []
    options = {"protocol": "leave_one_group_out", "group_column": column}
    for fold in range(1, folds + 1):
        speakers = speakers_of(make_split(rows, "em2ldl", fold, num_validation_speakers=1, **options))
        (group,) = {group_of[speaker] for speaker in speakers["test"]}
        assert group not in {group_of[speaker] for speaker in speakers["train"] | speakers["validation"]}
        tested.append(group)
    assert tested == sorted(set(rows[column]))
    with pytest.raises(InputError, match=f"--fold {folds + 1} is not one of the {folds} folds"):
        make_split(rows, "em2ldl", folds + 1, **options)
    with pytest.raises(InputError, match="--group_column lang: em2ldl has no such column; its columns are"):
        make_split(rows, "em2ldl", protocol="leave_one_group_out", group_column="lang")
    mixed = rows.remove_columns(column).add_column(column, ["x", "y"] * 8)
    with pytest.raises(InputError, match="speaker 'speaker1' has both 'x' and 'y'"):
        make_split(mixed, "em2ldl", **options)


# ------------------------------------------------------------------------------------------------ other sources


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"a": "1", "b": "-1"}, "line 2, b: '-1' is not a number of at least 0"),
        ({"a": "1", "b": ""}, "line 2, b is missing"),
        ({"a": None, "b": "1"}, "line 2, a is missing"),
        ({"a": float("nan"), "b": 1}, "line 2, a is missing"),
        ({"a": "many", "b": "1"}, "line 2, a: 'many' is not a number"),
        ({"a": "inf", "b": "1"}, "line 2, a: 'inf' is not a number"),
        ({"a": True, "b": "1"}, "line 2, a: 'True' is not a number"),
        ({"a": "0", "b": "0.0"}, r"line 2: all 2 classes \(a, b, ...\) are 0"),
    ],
)
def test_votes_that_are_none_are_refused(cells, message):
    with pytest.raises(InputError, match=f"^list.csv, {message}"):
        read_shares(cells, "list.csv, line 2")


def test_votes_become_shares_and_the_first_of_equal_ones_is_the_majority():
    assert read_shares({"a": "3", "b": 1, "c": "0"}, "") == [0.75, 0.25, 0.0]
    assert find_majority([0.2, 0.4, 0.4]) == 1
    assert find_majority([0.4, 0.1 + 0.2 + 0.1, 0.2]) == 0 and find_majority([0.1 + 0.2, 0.3, 0.4]) == 2


def write_votes(root, header, *lines):
    for name in "abcd":
        write_wav(root / f"{name}.wav", seed=ord(name))
    path = root / "votes.csv"
    path.write_text("\n".join([header, *lines]), encoding="utf-8")
    return path


def read(path, *columns):
    return read_selected_rows(
        DataArguments(corpus="folder", csv=str(path), targets="distribution", distribution_columns=list(columns))
    )


def test_columns_of_a_csv_that_are_named_like_its_labels_are_the_votes(tmp_path, capsys):
    lines = ("a.wav,1,Sad,3,1,4", "b.wav,2,Angry,1,1,4", "c.wav,3,Sad,0,2,4", "d.wav,4,Sad,9,1,5")
    path = write_votes(tmp_path, "path,speaker,label,sad,ANGRY,age", *lines)
    rows = read(path)
    assert rows.features["label"].names == ["Angry", "Sad"]
    assert rows["label_distribution"][:] == [[0.25, 0.75], [0.5, 0.5], [1.0, 0.0], [0.1, 0.9]]
    assert rows["label"][:] == [1, 0, 0, 1]  # the tie goes to the first class, and votes outweigh the label
    said = capsys.readouterr().err
    assert "unused column: age" in said and "most votes of 1 of 4 utterances are for another class" in said
    assert "label_distribution" not in read_selected_rows(DataArguments(corpus="folder", csv=str(path))).column_names


def test_named_columns_need_no_label_and_are_the_classes_in_this_order(tmp_path):
    path = write_votes(tmp_path, "path,speaker,joy,Grief,Awe", "a.wav,1,0,3,1", "b.wav,2,5,0,0", "c.wav,3,0,1,1")
    rows = read(path, "joy", "Grief", "Awe")
    assert rows.features["label"].names == ["joy", "Grief", "Awe"]
    assert rows["label_distribution"][:] == [[0, 0.75, 0.25], [1, 0, 0], [0, 0.5, 0.5]]
    assert rows["label"][:] == [1, 0, 1]
    for columns, message in (
        ((), "votes.csv has no column 'label'"),
        (("joy", "fear"), "votes.csv has no column 'fear' with the votes for this class"),
        (("joy", "speaker"), "no column 'speaker' with the votes"),
        (("joy", "Joy"), "are not two different classes"),
    ):
        with pytest.raises(InputError, match=message):
            read(path, *columns)
    labelled = write_votes(tmp_path, "path,label,joy,grief", "a.wav,joy,1,0", "b.wav,awe,1,2")
    with pytest.raises(InputError, match=r"has no column 'awe' with the votes for this class: add it, or name"):
        read(labelled)
    with pytest.raises(InputError, match="has the label 'awe', but no such column of votes"):
        read(labelled, "joy", "grief")
    with pytest.raises(InputError, match=r"votes.csv, line 3, grief: 'x' is not a number of at least 0"):
        load_csv(write_votes(tmp_path, "path,joy,grief", "a.wav,1,1", "b.wav,1,x"), tmp_path, classes=["joy", "grief"])


def test_columns_of_a_hub_dataset(tmp_path):
    for name in "abc":
        write_wav(tmp_path / f"{name}.wav")
    columns = {"audio": ["a.wav", "b.wav", "c.wav"], "sad": [1, 0, 2], "joy": [3, 2, 2], "who": ["x", "y", "z"]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "train.parquet")
    data = DataArguments(
        corpus="hub",
        data_dir=str(tmp_path),
        targets="distribution",
        distribution_columns=["sad", "joy"],
        hub_options={"speaker_column": "who"},
    )
    rows = read_selected_rows(data)
    assert rows["label_distribution"][:] == [[0.25, 0.75], [0, 1], [0.5, 0.5]]
    assert rows["label"][:] == [1, 1, 0] and rows["speaker"][:] == ["x", "y", "z"]
    assert rows.features["audio"] == Audio(decode=False)
    for change, message in (
        ({"distribution_columns": ["sad", "awe"]}, "has no column 'awe'"),
        ({"distribution_columns": []}, "needs --distribution_columns, the columns of the dataset"),
        ({"hub_options": {"label_column": "sad"}}, "label_column has no use with --distribution_columns"),
    ):
        with pytest.raises(InputError, match=message):
            read_selected_rows(DataArguments(**{**vars(data), **change}))


def test_merged_classes_add_up_and_unvoted_utterances_are_dropped(tmp_path, monkeypatch, capsys):
    lines = ("a.wav,1,3,3,4,0", "b.wav,2,0,1,0,1", "c.wav,3,0,0,1,9", "d.wav,4,1,1,1,0")
    path = write_votes(tmp_path, "path,speaker,happy,excited,sad,other", *lines)
    names = ["happy", "excited", "sad", "other"]
    data = DataArguments(corpus="folder", csv=str(path), targets="distribution", distribution_columns=names)
    data.label_map = {"happy": "happy", "excited": "happy", "sad": "sad"}
    rows = read_selected_rows(data)
    assert [name[0] for name in rows["id"]] == ["a", "b", "d"]  # most votes of c are for a class that is dropped
    np.testing.assert_allclose(rows["label_distribution"][:], [[0.6, 0.4], [1, 0], [2 / 3, 1 / 3]])
    assert rows["label"][:] == [0, 0, 0]  # of a, sad had the most votes before happy and excited were one
    emptied = load_csv(path, tmp_path, classes=names)
    votes = [[], *emptied["label_distribution"][1:]]
    emptied = emptied.remove_columns("label_distribution").add_column("label_distribution", votes)
    monkeypatch.setattr("recipe.data.load_corpus", lambda *_: emptied)
    assert len(read_selected_rows(DataArguments(corpus="iemocap", targets="distribution"))) == 3
    assert "iemocap: 1 of 4 utterances have no votes and are dropped" in capsys.readouterr().err


def test_options_that_make_no_sense_together_are_refused(tmp_path):
    for argv, message in (
        (["--distribution_columns", "a", "b"], "--distribution_columns requires --targets distribution"),
        (["--group_column", "gender"], "--group_column requires --protocol leave_one_group_out"),
        (["--protocol", "leave_one_group_out"], "requires --group_column, such as gender"),
    ):
        with pytest.raises(InputError, match=message):
            parse_arguments(argv, "")
    write_wav(tmp_path / "angry" / "a.wav")
    with pytest.raises(InputError, match=r"needs the votes for each utterance: list them in --csv"):
        load_corpus("folder", str(tmp_path), distribution_columns=[])
    write_wav(tmp_path / "sad" / "b.wav")
    data = DataArguments(corpus="demo", data_dir=str(tmp_path / "demo"), targets="distribution")
    with pytest.raises(InputError, match=r"demo has no votes here: add their table .* or use one of the corpora"):
        read_selected_rows(data)
    entries = json.dumps([{"corpus": "folder", "name": n, "distribution_columns": ["a", "b"]} for n in "xy"])
    given = parse_arguments(["--corpora", entries, "--targets", "distribution"], "")[1].data
    assert given.corpora[0]["distribution_columns"] == ["a", "b"]
