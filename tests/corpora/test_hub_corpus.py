"""Datasets built here, on disk, in every form that the Hub knows; nothing is fetched."""

import io
import json
import zipfile

import datasets
import numpy as np
import pytest
import soundfile
from conftest import write_wav
from datasets import Audio, ClassLabel, Dataset, DatasetDict, IterableDataset, concatenate_datasets
from making import make_split

from core.audio import read_audio
from core.errors import InputError
from recipe.broken import check_recording
from recipe.corpora import hub
from recipe.corpora.rows import UNKNOWN_SPEAKER, read_excerpts

NAMES = ["sad", "angry"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The library prepares its tables in a directory of the test."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "library"))


def encoded(seed: int, format: str = "WAV") -> bytes:
    content = io.BytesIO()
    soundfile.write(content, 0.1 * np.random.default_rng(seed).standard_normal(1600), 16000, format=format)
    return content.getvalue()


def table(start: int = 0, count: int = 4, speakers: str = "ab", format: str = "WAV") -> Dataset:
    """`count` utterances with embedded audio, labels and speakers in turn, and a column that is not needed."""
    audio = [{"bytes": encoded(start + i, format), "path": f"{start + i}.{format.lower()}"} for i in range(count)]
    columns = {
        "audio": audio,
        "label": [i % 2 for i in range(count)],
        "voice": [speakers[i % len(speakers)] for i in range(count)],
        "comment": ["not needed"] * count,
    }
    rows = Dataset.from_dict(columns).cast_column("audio", Audio(decode=False))
    return rows.cast_column("label", ClassLabel(names=NAMES))


def words(rows: Dataset) -> list[str]:
    return [rows.features["label"].names[i] for i in rows["label"]]


def stored(rows: Dataset) -> list[bytes]:
    contents = []
    for audio in rows["audio"]:
        with open(audio["path"], "rb") as file:
            contents.append(file.read())
    return contents


@pytest.fixture
def parquet(tmp_path):
    """Training in two files, validation and test, no speaker shared; as `push_to_hub` lays them out."""
    root = tmp_path / "speech" / "data"
    root.mkdir(parents=True)
    table(0, 4, "ab").to_parquet(root / "train-00000-of-00002.parquet")
    table(10, 3, "ab").to_parquet(root / "train-00001-of-00002.parquet")
    table(20, 2, "c").to_parquet(root / "validation-00000-of-00001.parquet")
    table(30, 2, "d").to_parquet(root / "test-00000-of-00001.parquet")
    return str(root.parent)


TRAIN_SEEDS = [0, 1, 2, 3, 10, 11, 12]
SEEDS = [*TRAIN_SEEDS, 20, 21, 30, 31]


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_with_embedded_audio(parquet, tmp_path, streaming):
    rows = hub.load(parquet, tmp_path / "cache", speaker_column="voice", streaming=streaming)
    assert rows.features["label"].names == NAMES
    assert words(rows) == ["sad", "angry", "sad", "angry", "sad", "angry", "sad", *["sad", "angry"] * 2]
    assert rows["speaker"][:] == [*"abab", *"aba", *"cc", *"dd"]
    assert rows["split"][:] == ["train"] * 7 + ["validation"] * 2 + ["test"] * 2
    assert rows["id"][0] == "train-000000" and rows["id"][-1] == "test-000001"
    assert stored(rows) == [encoded(seed) for seed in SEEDS]
    assert rows["duration"][0] == pytest.approx(0.1)
    assert {name: len(part) for name, part in make_split(rows, "hub").items()} == {
        "train": 7,
        "validation": 2,
        "test": 2,
    }


def test_audio_is_written_once_and_in_its_own_format(parquet, tmp_path):
    cache = tmp_path / "cache"
    paths = [audio["path"] for audio in hub.load(parquet, cache)["audio"]]
    times = {path: path.stat().st_mtime_ns for path in (cache / "audio").rglob("*.wav")}
    assert len(times) == 11
    assert [audio["path"] for audio in hub.load(parquet, cache, streaming=True)["audio"]] == paths
    assert {path: path.stat().st_mtime_ns for path in (cache / "audio").rglob("*") if path.is_file()} == times
    table(format="FLAC").save_to_disk(tmp_path / "flac")
    assert hub.load(str(tmp_path / "flac"), cache)["audio"][0]["path"].endswith(".flac")


def test_a_single_part_has_no_split_column(parquet, tmp_path):
    for streaming in (False, True):
        rows = hub.load(parquet, tmp_path / "cache", speaker_column="voice", split="train", streaming=streaming)
        assert rows["id"][:] == [f"train-{i:06d}" for i in range(7)]
        assert not {"split", "official_split", "part"} & set(rows.column_names)


def test_what_save_to_disk_wrote(tmp_path):
    table().save_to_disk(tmp_path / "one")
    rows = hub.load(str(tmp_path / "one"), tmp_path / "cache", speaker_column="voice", streaming=True)
    assert len(rows) == 4 and "split" not in rows.column_names and rows["id"][0] == "train-000000"
    DatasetDict(train=table(), dev=table(10, 2, "c"), test=table(20, 2, "d")).save_to_disk(tmp_path / "parts")
    rows = hub.load(str(tmp_path / "parts"), tmp_path / "cache", speaker_column="voice")
    assert rows["split"][:] == ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
    assert len(hub.load(str(tmp_path / "parts"), tmp_path / "cache", split="dev")) == 2
    with pytest.raises(InputError, match=r"parts has no part 'valid'; it has train, dev, test"):
        hub.load(str(tmp_path / "parts"), tmp_path / "cache", split="valid")


def test_audio_that_would_be_decoded_is_not(tmp_path):
    """A column to be decoded, as every dataset of the Hub has one; and a second one that is not asked for."""
    rows = table().cast_column("audio", Audio())
    second = rows.select_columns("audio").rename_column("audio", "other")
    concatenate_datasets([rows, second], axis=1).save_to_disk(tmp_path / "decoding")
    assert stored(hub.load(str(tmp_path / "decoding"), tmp_path / "cache")) == [encoded(seed) for seed in range(4)]


def test_other_column_names_and_plain_bytes(tmp_path):
    rows = Dataset.from_dict({"wav": [encoded(0), encoded(1)], "emotion": ["sad ", "angry"], "who": [7, 8]})
    rows.save_to_disk(tmp_path / "plain")
    read = hub.load(str(tmp_path / "plain"), tmp_path / "cache", "wav", "emotion", "who")
    assert read.features["label"].names == ["angry", "sad"] and words(read) == ["sad", "angry"]
    assert read["speaker"][:] == ["7", "8"] and stored(read) == [encoded(0), encoded(1)]


@pytest.mark.parametrize("streaming", [False, True])
def test_csv_with_paths_from_its_own_directory(tmp_path, streaming):
    root = tmp_path / "table"
    write_wav(root / "wav" / "a.wav")
    elsewhere = write_wav(tmp_path / "elsewhere" / "b.wav")
    root.joinpath("train.csv").write_text(f"file,label\nwav/a.wav,sad\n{elsewhere},angry\n")
    options = {"audio_column": "file", "streaming": streaming}
    rows = hub.load(str(root), tmp_path / "cache", **options, allow_outside=True)
    assert [audio["path"] for audio in rows["audio"]] == [str(root / "wav" / "a.wav"), str(elsewhere)]
    with pytest.raises(InputError, match=r"table \(train\), row 2: .*b\.wav is outside the corpus: .*--allow_outside"):
        hub.load(str(root), tmp_path / "cache", **options)
    root.joinpath("train.csv").write_text("file,label\nwav/a.wav,sad\nlost.wav,angry\n")
    with pytest.raises(InputError, match=r"table \(train\), row 2: lost.wav: no such audio file"):
        hub.load(str(root), tmp_path / "cache", **options)


def test_a_path_with_a_protocol_is_fetched(tmp_path):
    path = write_wav(tmp_path / "a.wav")
    Dataset.from_dict({"audio": [f"file://{path}"] * 2, "label": ["x", "y"]}).save_to_disk(tmp_path / "urls")
    rows = hub.load(str(tmp_path / "urls"), tmp_path / "cache", allow_outside=True)
    assert stored(rows)[0] == path.read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        *("../a.wav", "{outside}", "link.wav", "file://{outside}", "http://127.0.0.1:9/a.wav"),
        *("zip://a.wav::../a.zip", "zip://a.wav::https://127.0.0.1:9/a.zip", "hf://datasets/other/name/a.wav"),
    ],
)
def test_a_row_that_leads_out_of_the_dataset_is_refused(tmp_path, path):
    outside = write_wav(tmp_path / "a.wav")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "link.wav").symlink_to(outside)
    path = path.format(outside=outside)
    Dataset.from_dict({"audio": [path] * 2, "label": ["x", "y"]}).save_to_disk(tmp_path / "own")
    with pytest.raises(InputError, match=r"own \(train\), row 1: .*--allow_outside_paths") as error:
        hub.load(str(tmp_path / "own"), tmp_path / "cache")
    assert "\n" not in str(error.value) and not (tmp_path / "cache" / "audio").exists()


def test_an_archive_within_the_dataset_is_read(tmp_path):
    path = write_wav(tmp_path / "a.wav")
    (tmp_path / "own").mkdir()
    with zipfile.ZipFile(tmp_path / "own" / "a.zip", "w") as archive:
        archive.write(path, "a.wav")
    url = f"zip://a.wav::{tmp_path}/own/a.zip"
    Dataset.from_dict({"audio": [url] * 2, "label": ["x", "y"]}).save_to_disk(tmp_path / "own")
    assert stored(hub.load(str(tmp_path / "own"), tmp_path / "cache"))[0] == path.read_bytes()


def test_numbers_without_names_are_their_own_names(tmp_path, capsys):
    rows = Dataset.from_dict({"audio": [encoded(i) for i in range(3)], "label": [10, 9, 9]})
    rows.save_to_disk(tmp_path / "numbers")
    read = hub.load(str(tmp_path / "numbers"), tmp_path / "cache")
    assert read.features["label"].names == ["9", "10"] and words(read) == ["10", "9", "9"]
    assert "has numbers without names as classes; they are called 9, 10" in capsys.readouterr().err


def test_rows_without_a_label_are_left_out_and_classes_without_rows_too(tmp_path, capsys):
    rows = table().remove_columns("label").add_column("label", [2, -1, None, 0])
    rows = rows.cast_column("label", ClassLabel(names=["sad", "unused", "angry"]))
    rows.save_to_disk(tmp_path / "gaps")
    read = hub.load(str(tmp_path / "gaps"), tmp_path / "cache")
    assert read["id"][:] == ["train-000000", "train-000003"]
    assert read.features["label"].names == ["sad", "angry"] and words(read) == ["angry", "sad"]
    assert "2 of 4 rows have no label and are dropped" in capsys.readouterr().err


def test_unknown_speakers_are_marked_and_said(tmp_path, capsys):
    rows = table().remove_columns("voice").add_column("voice", ["a", None, "", "b"])
    rows.save_to_disk(tmp_path / "some")
    read = hub.load(str(tmp_path / "some"), tmp_path / "cache", speaker_column="voice")
    assert read["speaker"][:] == ["a", f"{UNKNOWN_SPEAKER}train-000001", f"{UNKNOWN_SPEAKER}train-000002", "b"]
    assert "'voice' is empty in 2 of 4 rows. The same voice can be" in capsys.readouterr().err
    assert all(s.startswith(UNKNOWN_SPEAKER) for s in hub.load(str(tmp_path / "some"), tmp_path / "cache")["speaker"])
    assert "some: no speaker column. The same voice can be" in capsys.readouterr().err


def test_parts_that_share_speakers_are_kept_as_official_split(tmp_path, capsys):
    DatasetDict(train=table(0, 4, "abc"), test=table(10, 2, "c")).save_to_disk(tmp_path / "shared")
    rows = hub.load(str(tmp_path / "shared"), tmp_path / "cache", speaker_column="voice")
    assert rows["official_split"][:] == ["train"] * 4 + ["test"] * 2 and "split" not in rows.column_names
    assert "its parts (train, test) share 1 speaker; they become official_split" in capsys.readouterr().err


def test_parts_that_are_no_split_are_kept_as_official_split(tmp_path, capsys):
    DatasetDict(train=table(0, 4, "ab"), validation=table(10, 2, "c")).save_to_disk(tmp_path / "two")
    rows = hub.load(str(tmp_path / "two"), tmp_path / "cache", speaker_column="voice")
    assert rows["official_split"][:] == ["train"] * 4 + ["validation"] * 2 and "split" not in rows.column_names
    assert "are not train, validation and test" in capsys.readouterr().err


@pytest.fixture
def read_rows(monkeypatch):
    """How many rows were taken out of streams; a number in `stop` interrupts after so many."""
    count = {"rows": 0, "stop": None}
    iterate = IterableDataset.__iter__

    def counting(self):
        for row in iterate(self):
            if count["rows"] == count["stop"]:
                raise ConnectionError("the line is dead")
            count["rows"] += 1
            yield row

    monkeypatch.setattr(IterableDataset, "__iter__", counting)
    return count


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 6])
def test_an_interrupted_stream_goes_on_where_it_stopped(parquet, tmp_path, read_rows, stop):
    """Before, at and after the end of the first of two files."""
    arguments = {"cache_dir": tmp_path / "cache", "split": "train", "speaker_column": "voice", "streaming": True}
    read_rows["stop"] = stop
    with pytest.raises(InputError, match=r"speech \(train\): reading failed \(the line is dead\); run it again"):
        hub.load(parquet, **arguments)
    read_rows["stop"] = None
    rows = hub.load(parquet, **arguments)
    assert read_rows["rows"] == 7
    assert stored(rows) == [encoded(seed) for seed in TRAIN_SEEDS] and rows["speaker"][:] == [*"abab", *"aba"]
    assert hub.load(parquet, **arguments)["id"][:] == rows["id"][:] and read_rows["rows"] == 7


def test_a_line_of_the_list_that_was_cut_off_is_read_again(parquet, tmp_path, read_rows):
    arguments = {"cache_dir": tmp_path / "cache", "split": "train", "streaming": True}
    hub.load(parquet, **arguments, limit=3)
    (journal,) = (tmp_path / "cache" / "streams").glob("*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-20])
    rows = hub.load(parquet, **arguments)
    assert read_rows["rows"] == 3 + 5 and stored(rows) == [encoded(seed) for seed in TRAIN_SEEDS]
    assert [json.loads(line).get("row", {}).get("id") for line in journal.open()] == [*rows["id"], None]


def test_a_stream_is_read_anew_where_its_audio_is_gone_or_the_dataset_has_changed(parquet, tmp_path, read_rows):
    arguments = {"cache_dir": tmp_path / "cache", "split": "test", "streaming": True}
    rows = hub.load(parquet, **arguments)
    (tmp_path / "cache" / "audio" / rows["audio"][0]["path"]).unlink()
    assert stored(hub.load(parquet, **arguments)) == [encoded(30), encoded(31)] and read_rows["rows"] == 4
    table(40, 3, "d").to_parquet(f"{parquet}/data/test-00000-of-00001.parquet")
    assert stored(hub.load(parquet, **arguments)) == [encoded(40), encoded(41), encoded(42)]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_limit_takes_the_first_rows_of_each_part(parquet, tmp_path, read_rows, streaming):
    arguments = {"cache_dir": tmp_path / "cache", "speaker_column": "voice", "streaming": streaming}
    rows = hub.load(parquet, **arguments, limit=3)
    assert rows["split"][:] == ["train"] * 3 + ["validation"] * 2 + ["test"] * 2
    assert read_rows["rows"] == (7 if streaming else 0)
    assert len(hub.load(parquet, **arguments, limit=2)) == 6 and len(hub.load(parquet, **arguments)) == 11
    assert read_rows["rows"] == (11 if streaming else 0)
    with pytest.raises(InputError, match="limit=0 is not a number of rows"):
        hub.load(parquet, **arguments, limit=0)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"audio_column": "wav"}, r"has no column 'wav'; it has audio, label, voice, comment"),
        ({"label_column": "emotion"}, r"has no column 'emotion'"),
        ({"speaker_column": "speaker"}, r"has no column 'speaker'"),
        ({"split": "dev"}, r"Unknown split .dev|Bad split: dev"),
        ({"config": "large"}, r"cannot be opened as a dataset \(BuilderConfig 'large' not found"),
        ({"label_column": "comment"}, r"only the label 'not needed' in 11 rows; at least two are needed"),
        (
            {"audio_column": "label", "label_column": "voice"},
            r"\(train\), row 1: column 'label' contains neither encoded audio nor a path",
        ),
        ({"audio_column": "comment"}, r"row 1: not needed: no such audio file"),
        ({"label_column": "audio"}, r"columns audio, audio must be different; it has audio, label"),
    ],
)
def test_a_mistake_is_one_clear_line(parquet, tmp_path, columns, message, streaming):
    with pytest.raises(InputError, match=message) as caught:
        hub.load(parquet, tmp_path / "cache", streaming=streaming, **columns)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("streaming", [False, True])
def test_a_name_that_leads_nowhere_is_one_clear_line(tmp_path, streaming, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    for name in ("owner/speech", str(tmp_path / "empty"), str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match=r"cannot be opened as a dataset \(.*give a Hub name") as caught:
            hub.load(name, tmp_path / "cache", streaming=streaming)
        assert "\n" not in str(caught.value)


def test_folders_of_audio_are_sent_to_their_own_corpus(tmp_path):
    for label in NAMES:
        write_wav(tmp_path / "folders" / label / "a.wav")
    for streaming in (False, True):
        try:
            assert len(hub.load(str(tmp_path / "folders"), tmp_path / "cache", streaming=streaming)) == 2
        except InputError as error:
            assert "--corpus folder" in str(error)


def test_labels_that_are_no_classes_are_refused(tmp_path):
    Dataset.from_dict({"audio": [encoded(0), encoded(1)], "label": [1.0, 2.5]}).save_to_disk(tmp_path / "ratings")
    with pytest.raises(InputError, match=r"ratings \(train\), row 2, label: '2.5' is neither a word nor an integer"):
        hub.load(str(tmp_path / "ratings"), tmp_path / "cache")


def test_a_file_that_is_no_audio_is_named(tmp_path):
    Dataset.from_dict({"audio": [b"text", b"words"], "label": NAMES}).save_to_disk(tmp_path / "broken")
    rows = hub.load(str(tmp_path / "broken"), tmp_path / "cache")
    for row in rows:
        assert "cannot be read as audio" in check_recording(row["audio"]["path"]).broken


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_are_excerpts_are_cut_where_their_columns_are_named(tmp_path, streaming, capsys):
    root = tmp_path / "set"
    write_wav(root / "talk.wav", 2.0)
    lines = ["audio,label,start,end", "talk.wav,calm,0,0.5", "talk.wav,angry,0.5,1.25", "talk.wav,calm,1.5,"]
    (root / "train.csv").write_text("\n".join(lines))
    rows = hub.load(str(root), tmp_path / "cache", streaming=streaming)
    assert rows["duration"][:] == [2.0] * 3 and "start" not in rows.column_names
    assert "the columns start, end are not used, so each row is a whole recording" in capsys.readouterr().err
    named = {"start_column": "start", "end_column": "end", "streaming": streaming}
    rows = hub.load(str(root), tmp_path / "cache", **named)
    assert rows["duration"][:] == pytest.approx([0.5, 0.75, 0.5])
    whole = read_audio(root / "talk.wav")
    assert [read_audio(excerpt).tolist() for excerpt in read_excerpts(rows[:])] == [
        whole[first:last].tolist() for first, last in ((0, 8000), (8000, 20000), (24000, 32000))
    ]
    assert "are not used" not in capsys.readouterr().err and len(set(rows["speaker"])) == 1
    (root / "train.csv").write_text("\n".join([*lines, "talk.wav,angry,1,9"]))
    with pytest.raises(InputError, match=r"from 1 s to 9 s \(train-000003\) is not within the file, which lasts 2 s"):
        hub.load(str(root), tmp_path / "cache", **named)


def test_parts_are_known_by_their_usual_names_and_labels_sorted_as_people_do(tmp_path):
    parts = {
        name: table(start, 4, voice)
        for start, (name, voice) in zip((0, 10, 20), (("train", "a"), ("val", "b"), ("eval", "c")))
    }
    named = {
        name: part.remove_columns("label").add_column("label", ["10", "9", "10", "9"]) for name, part in parts.items()
    }
    DatasetDict(named).save_to_disk(tmp_path / "parts")
    rows = hub.load(str(tmp_path / "parts"), tmp_path / "cache", speaker_column="voice")
    assert set(rows["split"]) == {"train", "validation", "test"} and rows.features["label"].names == ["9", "10"]
