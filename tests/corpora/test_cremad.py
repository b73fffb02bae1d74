"""CREMA-D, written in miniature in its official layout and read back."""

import os
import random

import pytest
from conftest import write_wav

from core.errors import InputError
from recipe.corpora import cremad

DEMOGRAPHICS = (
    '"ActorID","Age","Sex","Race","Ethnicity"\r\n'
    '1001,51,"Male","Caucasian","Not Hispanic"\r\n'
    '1002,21,"Female","Caucasian","Not Hispanic"\r\n'
    '1040,42,"Male","Caucasian","Not Hispanic"\r\n'
)
VOTES = (
    '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote","meanEmoResp"\n'
    '"100001",0,0,0,1,9,0,"1001_IEO_NEU_XX",10,0.9,"N",71.7\n'
    '"100002",5,2,1,0,1,1,"1001_IEO_ANG_HI",10,0.5,"A",62\n'
    '"100003",0,0,2,0,0,6,"1040_ITH_SAD_XX",8,0.75,"S",62\n'
    '"107443",1,0,0,0,0,0,"ANG_HI_practice",1,1,"A",62\n'
    '"200001",0,0,0,10,0,0,"1001_IEO_NEU_XX",10,1,"H",71.7\n'
    '"300001",10,0,0,0,0,0,"1001_IEO_NEU_XX",10,1,"A",71.7\n'
)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 72876\n"


@pytest.fixture
def cremad_dir(tmp_path):
    """A clone with its tables, one utterance under its old wrong name, and audio that must not count."""
    root = tmp_path / "CREMA-D"
    for name in ("1001_IEO_NEU_XX", "1001_IEO_ANG_HI", "1002_DFA_FEA_XX", "1040_ITH_SAD_X"):
        write_wav(root / "AudioWAV" / f"{name}.wav")
    write_wav(root / "AudioWAV" / "._1001_IEO_ANG_HI.wav")
    write_wav(root / "AudioWAV" / "notes.wav")
    (root / "AudioMP3").mkdir()
    (root / "AudioMP3" / "1001_IEO_ANG_HI.mp3").write_text(POINTER)
    (root / "VideoDemographics.csv").write_bytes(b"\xef\xbb\xbf" + DEMOGRAPHICS.encode())
    (root / "processedResults").mkdir()
    (root / "processedResults" / "tabulatedVotes.csv").write_text(VOTES)
    return root


def test_the_official_layout(cremad_dir):
    rows = cremad.load(cremad_dir, partial=True)
    assert rows["id"][:] == ["1001_IEO_ANG_HI", "1001_IEO_NEU_XX", "1002_DFA_FEA_XX", "1040_ITH_SAD_XX"]
    assert [cremad.LABELS[label] for label in rows["label"]] == ["angry", "neutral", "fearful", "sad"]
    assert rows.features["label"].names == cremad.LABELS
    assert rows["speaker"][:] == ["1001", "1001", "1002", "1040"]
    assert rows["gender"][:] == ["male", "male", "female", "male"]
    assert rows["intensity"][:] == ["high", "unspecified", "unspecified", "unspecified"]
    assert rows["text"][:] == [
        *("It's eleven o'clock", "It's eleven o'clock", "Don't forget a jacket"),
        "I think I have a doctor's appointment",
    ]
    assert rows["duration"][:] == pytest.approx([0.5] * 4)


def test_votes_are_those_of_the_voice_alone(cremad_dir):
    votes = cremad.load(cremad_dir, partial=True)["label_distribution"][:]
    assert votes[0] == pytest.approx([0.1, 0, 0.1, 0.5, 0.1, 0.2])
    assert votes[1] == pytest.approx([0.9, 0.1, 0, 0, 0, 0])
    assert votes[2] == []
    assert votes[3] == pytest.approx([0, 0, 0.75, 0, 0.25, 0])


@pytest.mark.parametrize("windows", [False, True])
def test_votes_with_windows_line_ends_and_a_byte_order_mark(cremad_dir, windows):
    text = VOTES.replace("\n", "\r\n") if windows else VOTES
    (cremad_dir / "processedResults" / "tabulatedVotes.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    votes = cremad.load(cremad_dir, partial=True)["label_distribution"][1]
    assert votes == pytest.approx([0.9, 0.1, 0, 0, 0, 0])


def test_the_tables_are_optional(cremad_dir):
    (cremad_dir / "VideoDemographics.csv").unlink()
    (cremad_dir / "processedResults" / "tabulatedVotes.csv").unlink()
    rows = cremad.load(cremad_dir, partial=True)
    assert rows["gender"][:] == ["male", "male", "female", "male"]
    assert rows["label_distribution"][:] == [[], [], [], []]


def test_the_parent_and_the_audio_directory_will_do(cremad_dir):
    for directory in (cremad_dir.parent, cremad_dir / "AudioWAV"):
        rows = cremad.load(directory, partial=True)
        assert len(rows) == 4 and rows["label_distribution"][1]


def test_a_wrong_directory_says_what_was_looked_for(tmp_path, cremad_dir):
    (tmp_path / "empty" / "AudioWAV").mkdir(parents=True)
    for directory in (tmp_path / "empty", cremad_dir / "processedResults", tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"looked for files such as AudioWAV/1001_DFA_ANG_XX\.wav: give the dir"):
            cremad.load(directory)


def test_a_git_lfs_pointer_says_what_to_run(cremad_dir):
    (cremad_dir / "AudioWAV" / "1002_DFA_FEA_XX.wav").write_text(POINTER)
    with pytest.raises(InputError, match=r"1002_DFA_FEA_XX\.wav is a git-lfs pointer, not audio; run `git lfs pull`"):
        cremad.load(cremad_dir, partial=True)


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("processedResults/tabulatedVotes.csv", '"100002",5,', '"100002",five,', "line 3: '1001_IEO_ANG_HI' needs"),
        ("processedResults/tabulatedVotes.csv", '"100002",5,2,1,0,1,1', '"100002",0,0,0,0,0,0', "line 3: '1001_IEO_"),
        ("processedResults/tabulatedVotes.csv", '"100003"', '"3"', "line 4: '1040_ITH_SAD_XX' needs a number"),
        ("processedResults/tabulatedVotes.csv", '"fileName"', '"clip"', "has no column 'fileName'"),
        ("VideoDemographics.csv", '21,"Female"', '21,""', "line 3: ActorID='1002', Sex='' is not"),
        ("VideoDemographics.csv", '"Sex"', '"Gender"', "has no column 'Sex'"),
    ],
)
def test_a_malformed_table_is_named(cremad_dir, table, old, new, message):
    path = cremad_dir / table
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=rf"{path.name}[, ]+{message}.*; take the file from the CREMA-D repository"):
        cremad.load(cremad_dir, partial=True)


def test_a_missing_utterance_is_named(cremad_dir, monkeypatch, capsys):
    monkeypatch.setattr(cremad, "ACTORS", ["1001", "1002", "1040"])
    monkeypatch.setattr(cremad, "PUBLISHED_COUNTS", {"neutral": 1, "sad": 1, "angry": 1, "fearful": 1})
    assert len(cremad.load(cremad_dir)) == 4
    assert "warning" not in capsys.readouterr().err
    (cremad_dir / "AudioWAV" / "1001_IEO_ANG_HI.wav").unlink()
    expected = "published CREMA-D: AudioWAV/1001_IEO_ANG_HI.wav is missing; angry: 0 of 1 utterances"
    with pytest.raises(InputError, match=expected):
        cremad.load(cremad_dir)
    assert len(cremad.load(cremad_dir, partial=True)) == 3
    assert expected in capsys.readouterr().err


def test_a_miniature_is_an_error_unless_it_is_meant_to_be_partial(cremad_dir):
    with pytest.raises(InputError, match=r"no utterance of actor 1003; no utterance of actor 1004; .* and 89 more"):
        cremad.load(cremad_dir)


def test_a_complete_corpus_passes(tmp_path, capsys):
    """All combinations of the design, less as many as the published corpus lacks; all audio is one file."""
    audio = write_wav(tmp_path / "tone.wav", seconds=0.1)
    (tmp_path / "AudioWAV").mkdir()
    names = []
    for emotion in cremad.EMOTIONS:
        graded = ["XX"] if emotion == "NEU" else ["LO", "MD", "HI"]
        of_emotion = [f"{a}_IEO_{emotion}_{level}" for a in cremad.ACTORS for level in graded]
        of_emotion += [f"{a}_{s}_{emotion}_XX" for a in cremad.ACTORS for s in cremad.SENTENCES if s != "IEO"]
        names += of_emotion[: cremad.PUBLISHED_COUNTS[cremad.EMOTIONS[emotion]]]
    for name in names:
        os.link(audio, tmp_path / "AudioWAV" / f"{name}.wav")
    rows = cremad.load(tmp_path)
    assert len(rows) == 7442 and len(set(rows["speaker"])) == 91
    assert "warning" not in capsys.readouterr().err


def test_the_published_counts():
    assert sum(cremad.PUBLISHED_COUNTS.values()) == 7442
    assert len(cremad.SENTENCES) == 12 and len(cremad.ACTORS) == 91
    assert len(cremad.FEMALE_ACTORS) == 43 and set(cremad.ACTORS) >= cremad.FEMALE_ACTORS


def test_the_folds_partition_the_actors_with_both_genders_in_balance():
    assert sorted(actor for fold in cremad.TEST_ACTORS for actor in fold) == cremad.ACTORS
    assert [len(fold) for fold in cremad.TEST_ACTORS] == [19, 18, 18, 18, 18]
    assert [len(cremad.FEMALE_ACTORS & set(fold)) for fold in cremad.TEST_ACTORS] == [9, 9, 9, 8, 8]


def test_the_folds_can_be_drawn_again():
    women = sorted(cremad.FEMALE_ACTORS)
    men = [actor for actor in cremad.ACTORS if actor not in cremad.FEMALE_ACTORS]
    generator = random.Random(0)
    generator.shuffle(women)
    generator.shuffle(men)
    dealt = tuple(tuple(sorted((women + men)[fold::5])) for fold in range(5))
    assert dealt == cremad.TEST_ACTORS
