"""MELD in miniature: its label files and folders as they unpack, invented sentences."""

import os
import subprocess

import pytest
from conftest import write_wav

from core.errors import InputError
from recipe.corpora import meld

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
TIMES = '"00:16:16,059","00:16:21,731"'
TRAIN = [
    f'1,"Well, that\u2019s it. He said ""no"".",Chandler,anger,negative,0,0,8,21,{TIMES}',
    f"2,Really?,The Interviewer,surprise,positive,0,1,8,21,{TIMES}",
    f"5,Lost in the archive.,Monica,neutral,neutral,125,3,4,7,{TIMES}",
]
DEV = [
    f"1,Oh my God,Phoebe,fear,negative,0,0,4,7,{TIMES}",
    f"2,Never cut.,Phoebe,neutral,neutral,110,7,6,11,{TIMES}",
]
TEST = [f"1,We won!,Joey,joy,positive,0,0,1,2,{TIMES}", f"2,Yuck.,All,disgust,negative,0,1,1,2,{TIMES}"]


def write_table(path, lines, encoding="utf-8", newline="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((newline.join([HEADER, *lines]) + newline).encode(encoding))


@pytest.fixture
def root(tmp_path):
    """As MELD.Raw unpacks; WAV, FLAC and MP3 in place of the videos; unlabelled and hidden clips that do not count."""
    root = tmp_path / "MELD.Raw"
    write_table(root / "train_sent_emo.csv", TRAIN)
    write_table(root / "dev_sent_emo.csv", DEV, "utf-8-sig", "\r\n")
    write_table(root / "test_sent_emo.csv", TEST)
    write_wav(root / "train_splits" / "dia0_utt0.wav")
    write_wav(root / "train_splits" / "dia0_utt1.flac")
    (root / "train_splits" / "dia0_utt0.mp4").write_bytes(b"video")
    write_wav(root / "train_splits" / "._dia0_utt1.wav")
    write_wav(root / "dev_splits_complete" / "dia0_utt0.mp3")
    write_wav(root / "dev_splits_complete" / "dia66_utt9.wav")
    write_wav(root / "output_repeated_splits_test" / "dia0_utt0.wav")
    write_wav(root / "output_repeated_splits_test" / "dia0_utt1.wav")
    write_wav(root / "output_repeated_splits_test" / "final_videos_testdia0_utt1.wav")
    return root


def test_meld_in_its_official_layout(root):
    rows = meld.load(root, partial=True)
    assert rows["id"][:] == [
        "train_dia0_utt0",
        "train_dia0_utt1",
        "validation_dia0_utt0",
        "test_dia0_utt0",
        "test_dia0_utt1",
    ]
    assert [meld.LABELS[i] for i in rows["label"]] == ["angry", "surprised", "fearful", "happy", "disgust"]
    assert rows["speaker"][:] == ["Chandler", "The Interviewer", "Phoebe", "Joey", "All"]
    assert rows["gender"][:] == ["male", "", "female", "male", ""]
    assert rows["session"][:] == ["8-21", "8-21", "4-7", "1-2", "1-2"]
    assert rows["text"][0] == 'Well, that\u2019s it. He said "no".'
    assert rows["official_split"][:] == ["train", "train", "validation", "test", "test"]
    assert "split" not in rows.column_names
    assert rows["audio"][1]["path"].endswith("train_splits/dia0_utt1.flac")
    assert len(meld.load(root.parent, partial=True)) == 5


@pytest.mark.parametrize(
    "content",
    [
        "that\u2019s".encode("cp1252"),
        "that\x92s".encode(),  # windows-1252 that was taken for Latin-1 and saved as UTF-8
    ],
)
def test_apostrophes_of_every_published_encoding_are_read(root, content):
    path = root / "train_sent_emo.csv"
    path.write_bytes(path.read_bytes().replace("that\u2019s".encode(), content))
    assert meld.load(root, partial=True)["text"][0] == 'Well, that\u2019s it. He said "no".'


def test_the_folders_of_the_single_archives_and_of_the_repository_are_found(root):
    (root / "data" / "MELD").mkdir(parents=True)
    for split, (table, folder) in meld.SPLITS.items():
        (root / table).rename(root / "data" / "MELD" / table)
        (root / split).mkdir()
        (root / folder).rename(root / split / folder)
    assert len(meld.load(root, partial=True)) == 5


def test_missing_clips_are_named_and_those_that_were_never_there_are_not(root, monkeypatch, capsys):
    counts = {split: {} for split in meld.SPLITS}
    monkeypatch.setattr(meld, "PUBLISHED_SPLIT_COUNTS", counts)
    assert len(meld.load(root)) == 5  # dia125_utt3 and dia110_utt7 are missing everywhere
    (root / "output_repeated_splits_test" / "dia0_utt1.wav").unlink()
    with pytest.raises(InputError, match=r"MELD: output_repeated_splits_test/dia0_utt1.wav is missing\. Complete it"):
        meld.load(root)
    assert len(meld.load(root, partial=True)) == 4
    assert "dia0_utt1.wav is missing" in capsys.readouterr().err
    write_wav(root / "train_splits" / "dia125_utt3.wav")  # cut anew by the user
    assert "train_dia125_utt3" in meld.load(root, partial=True)["id"]


def test_an_incomplete_label_file_is_named_by_part_and_class(root):
    with pytest.raises(InputError, match="train neutral: 1 of 4710 utterances; train happy: 0 of 1743"):
        meld.load(root)


def test_published_counts_are_those_of_the_paper():
    totals = {split: sum(counts.values()) for split, counts in meld.PUBLISHED_SPLIT_COUNTS.items()}
    assert totals == {"train": 9989, "validation": 1109, "test": 2610}
    assert sum(meld.PUBLISHED_COUNTS.values()) == 13708
    assert meld.PUBLISHED_COUNTS["happy"] == 2308


def test_videos_alone_give_the_one_command_that_takes_the_sound_out(root, tmp_path):
    """The command is run with a stand-in for ffmpeg that copies."""
    folder = root / "output_repeated_splits_test"
    for path in folder.glob("*.wav"):
        path.rename(path.with_suffix(".mp4"))
    with pytest.raises(InputError, match="contains videos only") as caught:
        meld.load(root)
    command = str(caught.value).partition("once: ")[2]
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor last; do :; done\ncp "$5" "$last"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(command, shell=True, check=True, env={**os.environ, "PATH": path})
    assert (folder / "dia0_utt1.wav").is_file() and not (folder / "final_videos_testdia0_utt1.wav").exists()


def test_a_wrong_directory_says_what_is_needed(tmp_path, root):
    with pytest.raises(InputError, match=r"contains no train_sent_emo.csv; give the directory that contains"):
        meld.load(tmp_path / "nowhere")
    for path in (root / "dev_splits_complete").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="dev_splits_complete is empty; unpack"):
        meld.load(root, partial=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"3,Hm,Ross,bored,neutral,0,2,8,21,{TIMES}", r"train_sent_emo.csv, line 5: Emotion='bored' is not one of"),
        (f"3,Hm,Ross,joy,neutral,0,x,8,21,{TIMES}", r"line 5: Utterance_ID='x' is not a number"),
        ("3,Hm,Ross", r"line 5: Emotion='' is not one of neutral, joy"),
    ],
)
def test_a_malformed_line_is_named(root, line, message):
    write_table(root / "train_sent_emo.csv", [*TRAIN, line])
    with pytest.raises(InputError, match=message):
        meld.load(root, partial=True)


def test_another_table_is_refused(root):
    (root / "train_sent_emo.csv").write_text("Utterance,Label\nHm,joy\n")
    with pytest.raises(InputError, match=r"has no column 'Speaker'; it has Utterance, Label"):
        meld.load(root)
