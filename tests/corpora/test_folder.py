"""A user's own recordings, in the folders and lists that people have."""

import json
import unicodedata
from collections import Counter

import numpy as np
import pytest
import soundfile
from conftest import write_wav
from making import make_split
from running import lines_of, train

from core.audio import Excerpt, read_audio
from core.errors import InputError
from recipe.broken import check_audio
from recipe.corpora import load_corpus
from recipe.corpora.folder import load_csv
from recipe.corpora.rows import read_excerpts, sort_labels
from recipe.relabelling import select_utterances


def write_tree(root, *paths):
    for index, path in enumerate(paths):
        write_wav(root / path, 0.1, seed=index)
    return str(root)


def labelled(rows):
    names = rows.features["label"].names
    return {row["id"]: names[row["label"]] for row in rows}


# ------------------------------------------------------------------------------------------------ folders


@pytest.mark.parametrize("order", ["{part}/{label}/{n}.wav", "{label}/{part}/{n}.wav"])
def test_folders_for_train_val_and_test_are_the_split_and_no_classes(tmp_path, order):
    cells = [(part, label, n) for part in ("Train", "VAL", "test") for label in ("angry", "happy") for n in "12"]
    root = write_tree(tmp_path, *(order.format(part=part, label=label, n=n) for part, label, n in cells))
    rows = load_corpus("folder", root)
    assert rows.features["label"].names == ["angry", "happy"]
    assert Counter(rows["split"]) == {"train": 4, "validation": 4, "test": 4}
    assert {label for utterance, label in labelled(rows).items() if "angry" in utterance} == {"angry"}
    split = make_split(rows, "folder")
    for name, folder in (("train", "Train/"), ("validation", "VAL/"), ("test", "test/")):
        assert len(split[name]) == 4 and all(folder in utterance for utterance in split[name]["id"])


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("training", "dev", "eval"), {"train", "validation", "test"}),
        (("train", "eval", "test"), {"train", "validation", "test"}),
        (("train", "valid", "test"), {"train", "validation", "test"}),
        (("train", "test"), {"train", "test"}),
        (("train", "eval"), {"train", "test"}),
    ],
)
def test_parts_are_known_by_their_usual_names(tmp_path, parts, expected):
    root = write_tree(tmp_path, *(f"{part}/{label}/{n}.wav" for part in parts for label in "ab" for n in range(6)))
    rows = load_corpus("folder", root)
    assert set(rows["split"]) == expected
    assert dict.fromkeys(make_split(rows, "folder")) == dict.fromkeys(("train", "validation", "test"))


def test_a_train_folder_alone_is_split_as_a_folder_without_parts(tmp_path, capsys):
    rows = load_corpus("folder", write_tree(tmp_path, "train/angry/1.wav", "train/happy/2.wav"))
    assert "split" not in rows.column_names and rows.features["label"].names == ["angry", "happy"]
    assert "contains only the part train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (("train/a/1.wav", "train/b/1.wav", "val/a/1.wav"), "has the parts train, val and no test part"),
        (("dev/a/1.wav", "test/b/1.wav"), "has the parts dev, test and no train part"),
        (("train/a/1.wav", "dev/b/1.wav", "val/b/2.wav"), "dev and val both name the validation part"),
        (("train/1.wav", "test/2.wav"), "not every file is in a part and in a label"),
        (("train/a/1.wav", "angry/2.wav"), "train names a part of a split, but not every file"),
        (("angry/train/1.wav", "happy/2.wav"), "train names a part of a split, but not every file"),
        (("anna/angry/1.wav", "ben/happy/1.wav"), "either anna or angry could be the label of the audio in anna/angry"),
        (("train/anna/angry/1.wav", "test/ben/sad/1.wav"), "either anna or angry could be the label"),
    ],
)
def test_folders_that_do_not_tell_the_labels_are_refused_with_the_layouts_that_are_read(tmp_path, paths, message):
    with pytest.raises(InputError, match=message) as error:
        load_corpus("folder", write_tree(tmp_path, *paths))
    if "could be" in message or "not every" in message:
        assert "use DIR/angry/a.wav and, with the parts of a split, DIR/train/angry/a.wav" in str(error.value)


def test_a_recording_beside_the_label_folders_is_named(tmp_path, capsys):
    load_corpus("folder", write_tree(tmp_path, "angry/1.wav", "happy/1.wav", "stray.wav"))
    assert "stray.wav is not in a label folder and is ignored (1 such files)" in capsys.readouterr().err


def test_one_recording_linked_under_two_labels_is_refused(tmp_path):
    write_tree(tmp_path, "angry/1.wav", "happy/2.wav")
    (tmp_path / "happy" / "same.wav").symlink_to(tmp_path / "angry" / "1.wav")
    with pytest.raises(InputError, match=r"same\.wav is labelled both 'angry' and 'happy'"):
        load_corpus("folder", str(tmp_path))


# ------------------------------------------------------------------------------------------------ names


def test_the_same_name_in_two_unicode_forms_is_one_class_and_one_speaker(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "colère") for form in ("NFC", "NFD"))
    rows = load_corpus("folder", write_tree(tmp_path, f"{composed}/1.wav", f"{decomposed}/1.wav", "joie/1.wav"))
    assert rows.features["label"].names == [composed, "joie"] and len(rows) == 3
    lines = ["path,label,speaker", f"joie/1.wav,joie,{composed}", f"{composed}/1.wav,{decomposed},{decomposed}"]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    rows = load_corpus("folder", csv=str(tmp_path / "a.csv"))
    assert set(rows["speaker"]) == {composed} and rows.features["label"].names == [composed, "joie"]
    assert set(labelled(select_utterances(rows, {}, {decomposed: "anger", "joie": "joy"})).values()) == {"anger", "joy"}


def test_labels_that_differ_in_case_are_refused_and_label_map_merges_them(tmp_path):
    rows = load_corpus("folder", write_tree(tmp_path, "Angry/1.wav", "angry/2.wav", "sad/1.wav"))
    with pytest.raises(
        InputError, match=r"labels 'Angry' and 'angry' differ only in case, spaces, quotes or .* label_map"
    ):
        select_utterances(rows, {}, {})
    merged = select_utterances(rows, {}, {"Angry": "angry", "angry": "angry", "sad": "sad"})
    assert merged.features["label"].names == ["angry", "sad"] and sorted(merged["label"]) == [0, 0, 1]


@pytest.mark.parametrize(
    ("labels", "similar"),
    [
        (("1", "1.0", "2"), "'1' and '1.0'"),
        (("2", "1", "01"), "'01' and '1'"),
        (("-1", "1", "-1.00"), "'-1' and '-1.00'"),
        (("angry", "'angry'", "sad"), "\"'angry'\" and 'angry'"),
        (("sad", "\u201cangry\u201d", "angry"), "'angry' and '\u201cangry\u201d'"),
        (("1", "10", "1.5"), None),
        (("a1", "a01", "1a"), None),
    ],
)
def test_labels_that_are_one_written_in_two_ways_are_refused(tmp_path, labels, similar):
    write_tree(tmp_path, "0.wav", "1.wav", "2.wav")
    lines = [f"{number}.wav,{label}" for number, label in enumerate(labels)]
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *lines]), encoding="utf-8")
    rows = load_corpus("folder", csv=str(tmp_path / "a.csv"))
    assert len(rows.features["label"].names) == 3
    if similar is None:
        select_utterances(rows, {}, {})
    else:
        with pytest.raises(InputError) as error:
            select_utterances(rows, {}, {})
        assert f"the labels {similar} differ only in case, spaces, quotes or the way a number" in str(error.value)


def test_quotes_after_a_comma_and_a_space_are_those_of_the_table(tmp_path):
    write_tree(tmp_path, "0.wav", "1, of 2.wav", "2.wav")
    (tmp_path / "a.csv").write_text('path, label\n"0.wav", "angry"\n"1, of 2.wav", angry\n2.wav,sad', encoding="utf-8")
    rows = load_corpus("folder", csv=str(tmp_path / "a.csv"))
    assert labelled(rows) == {"0.wav": "angry", "1, of 2.wav": "angry", "2.wav": "sad"}


def test_speakers_that_differ_in_case_are_named(tmp_path, capsys):
    write_tree(tmp_path, "1.wav", "2.wav")
    (tmp_path / "a.csv").write_text("path,label,speaker\n1.wav,a,Anna\n2.wav,b,anna")
    load_corpus("folder", csv=str(tmp_path / "a.csv"))
    assert "the speakers 'Anna' and 'anna' differ only in case, spaces, quotes or" in capsys.readouterr().err


def test_labels_are_in_natural_order(tmp_path):
    rows = load_corpus("folder", write_tree(tmp_path, *(f"{number}/x.wav" for number in (10, 0, 2, 1))))
    assert rows.features["label"].names == ["0", "1", "2", "10"]
    assert sort_labels(["a10", "a2", "-1", "1.5", "sad", "-0.5", "Angry"]) == [
        *("-1", "-0.5", "1.5", "Angry", "a2", "a10", "sad")
    ]


# ------------------------------------------------------------------------------------------------ excerpts


@pytest.fixture
def talk(tmp_path):
    """Three seconds at 44.1 kHz, stereo, whose level tells the second: 0.1, 0.2, 0.3."""
    level = np.repeat([0.1, 0.2, 0.3], 44100)
    tone = level * np.sin(2 * np.pi * 441 * np.arange(3 * 44100) / 44100)
    soundfile.write(tmp_path / "talk.flac", np.stack([tone, tone], axis=1), 44100)
    return tmp_path


def write_list(folder, *lines):
    (folder / "list.csv").write_text("\n".join(lines))
    return str(folder / "list.csv")


@pytest.mark.parametrize(
    "lines",
    [
        ("path,label,start,end", "talk.flac,sad,0,1", "talk.flac,angry,1.0,2", "talk.flac,calm,2,"),
        ("path,label,offset,duration", "talk.flac,sad,0,1", "talk.flac,angry,1,1", "talk.flac,calm,2,1.0"),
        ("path,label,Start,End,duration", "talk.flac,sad,,1,1", "talk.flac,angry,1,2,1", "talk.flac,calm,2,3.02,1.02"),
    ],
)
def test_a_list_with_start_and_end_cuts_the_excerpts(talk, lines):
    rows = load_corpus("folder", csv=write_list(talk, *lines))
    assert rows["duration"][:] == pytest.approx([1, 1, 1])
    assert rows["id"][0].startswith("talk.flac#t=0,1") and rows["id"][1] == "talk.flac#t=1,2"
    waveforms = [read_audio(excerpt) for excerpt in read_excerpts(rows[:])]
    assert [len(waveform) for waveform in waveforms] == [16000] * 3
    levels = [np.abs(waveform[1000:-1000]).max() for waveform in waveforms]
    np.testing.assert_allclose(levels, [0.1, 0.2, 0.3], atol=0.005)
    assert not any(check.broken for check in check_audio(rows).values())
    assert len(set(rows["speaker"])) == 1  # nothing says that they are two people


def test_an_excerpt_is_that_part_of_the_whole_recording(tmp_path):
    path = write_wav(tmp_path / "a.wav", 2.0)
    whole = read_audio(path)
    np.testing.assert_array_equal(read_audio(Excerpt(str(path), 0.5, 1.25)), whole[8000:20000])
    np.testing.assert_array_equal(read_audio(Excerpt(str(path), 1.5)), whole[24000:])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("path,label,start,end", "talk.flac,a,0,1", "talk.flac,b,1,3.5"), r"from 1 s to 3\.5 s .* which lasts 3 s"),
        (("path,label,start,end", "talk.flac,a,0,1", "talk.flac,b,4,"), "from 4 s to its end .* which lasts 3 s"),
        (("path,label,start,end", "talk.flac,a,2,1"), "ends at 1 s, not after its start at 2 s: swap or correct them"),
        (("path,label,start,end", "talk.flac,a,0,1", "talk.flac,b,1,1.001"), r"lasts 0\.001 s, .* at least 0\.05 s"),
        (("path,label,start_time,end_time", "talk.flac,a,0,1"), "has the column start_time: name it start if it is"),
        (("path,label,start,end_sec", "talk.flac,a,0,1"), "has the column end_sec: name it end if it is in seconds"),
        (("path,label", "angry,talk.flac"), "line 2: the label 'talk.flac' is the name .* swap the columns path and"),
        (("path,label,start,end", "talk.flac,a,0:01,2"), "line 2: start='0:01' is not a number of seconds"),
        (("path,label,start,end", "talk.flac,a,-1,2"), "line 2: start='-1' is not a number of seconds"),
        (("path,label,start,offset", "talk.flac,a,1,1"), "has both start and offset"),
        (("path,label,start,end,duration", "talk.flac,a,1,2,2"), r"line 2: end=2 is not start \+ duration = 3"),
        (("path,label,start,end", "talk.flac,a,0,1", "talk.flac,b,0,1"), "id 'talk.flac#t=0,1' occurs more than once"),
        (("path,label,start,end,id", "talk.flac,a,0,1,x", "talk.flac,b,0.0,1,y"), "labelled both 'a' and 'b'"),
        (("path,label,id", "talk.flac,a,x", "talk.flac,b,y"), "talk.flac is labelled both 'a' and 'b'"),
        (("path,label,label", "talk.flac,a,b"), "has 'label' more than once"),
        (("path,label", "talk, one.flac,a"), "line 2 has more cells than the header: put quotes"),
    ],
)
def test_a_mistake_in_the_times_of_a_list_is_one_clear_line(talk, lines, message):
    with pytest.raises(InputError, match=message):
        load_corpus("folder", csv=write_list(talk, *lines))


def test_columns_that_nothing_reads_are_named_once(talk, capsys):
    lines = [f"talk.flac,{label},{start},{start + 1},x,1" for label, start in (("a", 0), ("b", 1))]
    load_corpus("folder", csv=write_list(talk, "Path,LABEL,start,end,mood,age", *lines))
    assert capsys.readouterr().err.count("unused columns: age, mood") == 1
    write_wav(talk / "b.wav")
    rows = load_corpus("folder", csv=write_list(talk, "path,label,duration", "talk.flac,a,9", "b.wav,b,9"))
    assert rows["duration"][:] == pytest.approx([3, 0.5])  # it describes the files
    assert "unused column: duration" in capsys.readouterr().err


def test_a_conversation_may_train_on_one_speaker_and_test_the_other_but_not_on_the_same_seconds(talk):
    header = "path,label,speaker,split,start,end"
    lines = [f"talk.flac,{label},anna,train,{start},{start + 0.4}" for label, start in (("a", 0), ("b", 0.5))]
    lines += [f"talk.flac,{label},eva,validation,{start},{start + 0.4}" for label, start in (("a", 1), ("b", 1.5))]
    tested = ["talk.flac,a,ben,test,1.8,2.3", "talk.flac,b,ben,test,2.4,2.8"]  # ben interrupts eva for 0.1 s
    split = make_split(load_corpus("folder", csv=write_list(talk, header, *lines, *tested)), "folder")
    assert len(split["test"]) == 2
    tested[0] = "talk.flac,a,ben,test,1.55,1.9"
    rows = load_corpus("folder", csv=write_list(talk, header, *lines, *tested))
    with pytest.raises(InputError, match=r"file '.*talk\.flac' is in both validation and test, as .* from 1\.5 s"):
        make_split(rows, "folder")


@pytest.mark.slow
def test_a_user_trains_on_excerpts_of_long_recordings(tmp_path):
    """Also from the cache of features, whose entries must not be those of the whole file."""
    lines = ["path,label,speaker,start,end"]
    for index, speaker in enumerate(("anna", "ben", "eva", "tom", "zoe")):
        write_wav(tmp_path / f"{speaker}.wav", 2.0, seed=index)
        for number in range(4):
            lines.append(f"{speaker}.wav,{('angry', 'calm')[number % 2]},{speaker},{number / 2},{number / 2 + 0.4}")
    shape = {"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"intermediate_size": 32, "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "layerdrop": 0.0}
    shape |= {"num_conv_pos_embedding_groups": 2}
    argv = ["--corpus", "folder", "--csv", write_list(tmp_path, *lines), "--stage", "1", "--max_steps", "2"]
    argv += ["--encoder", "none", "--encoder_config", json.dumps(shape), "--num_epochs", "2", "--batch_size", "4"]
    argv += ["--feature_cache_dir", tmp_path / "features", "--output_dir", tmp_path / "out", "--use_cpu"]
    train(*argv)
    results = json.loads((tmp_path / "out" / "stage1" / "results.json").read_text())
    assert sum(results["hours"].values()) * 3600 == pytest.approx(20 * 0.4)
    cached = list((tmp_path / "features").glob("*.npy"))
    assert len(cached) == 20 and {np.load(path).shape[0] for path in cached} == {19}  # 0.4 s in frames of 20 ms
    ids = {line["id"] for line in lines_of(tmp_path / "out" / "stage1" / "predictions.jsonl")}
    assert any(name.endswith(".wav#t=1.5,1.9") for name in ids)
    moved = [line.replace(",0.0,0.4", ",0.1,0.4") for line in lines]
    refused = train(*argv[:3], write_list(tmp_path, *moved), *argv[4:], expect=1)
    assert "was trained with different utterances or a different split" in refused.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04\x00\x00", "is not text, such as a workbook under another name: export it as CSV"),
        (b"path;label\na.wav;angry\n", "separate them with commas"),
        (b"path\tlabel\na.wav\tangry\n", "separate them with commas"),
        (b'path,label\na.wav,angry\n"b.wav,happy\nc.wav,sad\n', "line 3: unexpected end of data: close the quotes"),
    ],
)
def test_a_list_that_a_spreadsheet_did_not_export_as_csv_is_one_clear_line(tmp_path, content, message):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        load_csv(tmp_path / "list.csv", tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_label_that_stands_for_a_missing_value_is_named(tmp_path, capsys):
    for label in ("angry", "NaN"):
        for name in ("a", "b"):
            soundfile.write(tmp_path / f"{label}_{name}.wav", np.full(1600, 0.1), 16000)
    lines = [f"{label}_{name}.wav,{label},{name}" for label in ("angry", "NaN") for name in ("a", "b")]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,speaker", *lines]), encoding="utf-8")
    load_csv(tmp_path / "list.csv", tmp_path)
    assert "has the label 'NaN', which often stands for a missing value" in capsys.readouterr().err


def test_a_label_with_a_line_break_is_refused_and_one_of_several_code_points_is_not(tmp_path):
    for name in ("a", "b", "c"):
        write_wav(tmp_path / f"{name}.wav")
    csv = tmp_path / "list.csv"
    csv.write_text('path,label\na.wav,"an\ngry"\nb.wav,happy\nc.wav,sad\n')
    with pytest.raises(InputError, match=r"has the label 'an\\ngry' with a line break: remove it"):
        load_csv(csv, tmp_path)
    csv.write_text(
        "path,label\na.wav,\U0001f469\u200d\U0001f680\nb.wav,\u0645\u06cc\u200c\u0634\u0627\u062f\nc.wav,sad\n",
        encoding="utf-8",
    )
    assert set(load_csv(csv, tmp_path).features["label"].names) == {
        "\U0001f469\u200d\U0001f680",
        "\u0645\u06cc\u200c\u0634\u0627\u062f",
        "sad",
    }


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        ("begin,end", ["1,2", "1,2"], "has the column begin: name it start if it is in seconds, or remove it"),
        ("speaker,gender", ["anna,female", "anna,male"], "speaker 'anna' is both female and male"),
    ],
)
def test_columns_that_would_change_the_rows_in_silence_are_refused(tmp_path, header, lines, message):
    for name in ("a", "b"):
        write_wav(tmp_path / f"{name}.wav")
    rows = [f"{name}.wav,{label},{rest}" for name, label, rest in zip("ab", ("angry", "sad"), lines)]
    (tmp_path / "list.csv").write_text("\n".join([f"path,label,{header}", *rows]), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_csv(tmp_path / "list.csv", tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_speaker_that_stands_for_an_unknown_one_is_named(tmp_path, capsys):
    for name in ("a", "b"):
        write_wav(tmp_path / f"{name}.wav")
    (tmp_path / "list.csv").write_text("path,label,speaker\na.wav,angry,nan\nb.wav,sad,anna\n", encoding="utf-8")
    load_csv(tmp_path / "list.csv", tmp_path)
    assert "has the speaker 'nan', whose utterances are taken as one person's" in capsys.readouterr().err
