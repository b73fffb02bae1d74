"""ESD in miniature: official names and transcript lines, invented sentences and audio."""

import os

import pytest
from conftest import write_wav

from core.errors import InputError
from recipe.corpora import esd

MANDARIN = "0001_000001\t今天天气很好。\t中立\r\n0001_000351\t今天天气很好。\t生气\r\n"
ENGLISH = "0011_000001\tThe kettle is on.\tNeutral\r\n0011_000351\tThe kettle's on.\tAngry\r\n"


@pytest.fixture
def root(tmp_path):
    """As released last: no folders train, evaluation, test."""
    root = tmp_path / "Emotional Speech Dataset (ESD)"
    names = ("Neutral/{}_000001", "Angry/{}_000351", "Happy/{}_000721", "Sad/{}_001100", "Surprise/{}_001750")
    for speaker, transcript, encoding in (("0001", MANDARIN, "gb2312"), ("0011", ENGLISH, "utf-8-sig")):
        for name in names:
            write_wav(root / speaker / f"{name.format(speaker)}.wav")
        (root / speaker / f"{speaker}.txt").write_bytes(transcript.encode(encoding))
    write_wav(root / "0001" / "Angry" / "._0001_000351.wav")
    write_wav(root / "0001" / "Angry" / "0001_001751.wav")  # a speaker has 1750 utterances
    (root / "ReadMe.txt").write_text("about the speakers")
    return root


def write_complete(directory, speakers, folders=False):
    audio = write_wav(directory.parent / "audio.wav")
    for speaker in speakers:
        lines = []
        for block, emotion in enumerate(("Neutral", "Angry", "Happy", "Sad", "Surprise")):
            for place in range(350):
                name = f"{speaker}_{350 * block + place + 1:06d}"
                split = "evaluation" if place < 20 else "test" if place < 50 else "train"
                folder = directory / speaker / emotion / (split if folders else "")
                folder.mkdir(parents=True, exist_ok=True)
                os.link(audio, folder / f"{name}.wav")
                lines.append(f"{name}\tSentence {place}.\t{emotion}")
        (directory / speaker / f"{speaker}.txt").write_text("\n".join(lines))


def texts(rows):
    return dict(zip(rows["id"], rows["text"]))


@pytest.mark.parametrize("inner", [".", ".."])
def test_esd_in_its_official_layout(root, inner):
    rows = esd.load(root / inner, partial=True)
    assert rows["id"][:] == [
        *("0001_000351", "0001_000721", "0001_000001", "0001_001100", "0001_001750"),
        *("0011_000351", "0011_000721", "0011_000001", "0011_001100", "0011_001750"),
    ]
    names = rows.features["label"].names
    assert names == esd.LABELS
    assert [names[i] for i in rows["label"]] == ["angry", "happy", "neutral", "sad", "surprised"] * 2
    assert rows["official_split"][:] == ["validation", "test", "validation", "test", "train"] * 2
    assert rows["speaker"][:] == ["0001"] * 5 + ["0011"] * 5
    assert rows["gender"][:] == ["female"] * 5 + ["male"] * 5
    assert rows["language"][:] == ["zh"] * 5 + ["en"] * 5
    assert texts(rows)["0001_000351"] == "今天天气很好。" and texts(rows)["0011_000351"] == "The kettle's on."
    assert texts(rows)["0011_001750"] == ""  # not in the transcript


def test_five_women_and_five_men_of_each_language():
    assert len(esd.MEN) == 10 and sum(int(speaker) <= 10 for speaker in esd.MEN) == 5


@pytest.mark.parametrize("encoding", ["gb2312", "utf-16", "utf-8", "utf-8-sig"])
def test_mandarin_transcripts_in_any_of_their_encodings(root, encoding):
    (root / "0001" / "0001.txt").write_bytes(MANDARIN.encode(encoding))
    assert texts(esd.load(root, partial=True))["0001_000001"] == "今天天气很好。"


@pytest.mark.parametrize(
    ("sentence", "encoding"),
    [
        ("The kettle\u2019s on.", "gb2312"),
        ("The kettle\u2019s on.", "cp1252"),
        ("The\xa0kettle on.", "latin-1"),
        ("The kettle\u2019s on.", "utf-16"),
    ],
)
def test_english_transcripts_in_any_of_their_encodings(root, sentence, encoding):
    line = f"0011_000001\t{sentence}\tNeutral\r\n"
    (root / "0011" / "0011.txt").write_bytes(line.encode(encoding))
    assert texts(esd.load(root, partial=True))["0011_000001"] == sentence.replace("\xa0", " ")


def test_a_transcript_line_with_spaces_is_read_and_a_damaged_one_is_named(root, capsys):
    lines = ["0011_000001 The kettle is on. Neutral", "", "Angry", "0011_000351", "0011_000721\tAll is sad"]
    (root / "0011" / "0011.txt").write_text("\r\n".join(lines))
    found = texts(esd.load(root, partial=True))
    assert found["0011_000001"] == "The kettle is on." and found["0011_000721"] == "All is sad"
    assert found["0011_000351"] == ""
    assert "0011.txt line 3 (and 1 more) is not 'id, sentence, emotion'" in capsys.readouterr().err


def test_folders_of_the_older_release_decide_on_the_split(tmp_path):
    write_wav(tmp_path / "0012" / "Sad" / "train" / "0012_001051.wav")
    write_wav(tmp_path / "0012" / "Sad" / "evaluation" / "0012_001052.wav")
    write_wav(tmp_path / "0012" / "Sad" / "test" / "0012_001400.wav")
    (tmp_path / "0012" / "0012.txt").write_text("0012_001400\tThe end.\tSad")
    rows = esd.load(tmp_path, partial=True)
    assert dict(zip(rows["id"], rows["official_split"])) == {
        "0012_001051": "train",
        "0012_001052": "validation",
        "0012_001400": "test",
    }
    assert {esd.LABELS[i] for i in rows["label"]} == {"sad"} and texts(rows)["0012_001400"] == "The end."


@pytest.mark.parametrize("folders", [False, True])
def test_a_complete_esd_passes_and_what_is_missing_is_named(tmp_path, monkeypatch, capsys, folders):
    """Two of the twenty speakers stand for all."""
    assert sum(esd.PUBLISHED_COUNTS.values()) == 35000
    monkeypatch.setattr(esd, "SPEAKERS", ["0001", "0011"])
    monkeypatch.setattr(esd, "PUBLISHED_COUNTS", {label: 700 for label in esd.LABELS})
    write_complete(tmp_path / "ESD", esd.SPEAKERS, folders)
    rows = esd.load(tmp_path / "ESD")
    assert len(rows) == 3500 and "warning" not in capsys.readouterr().err
    splits = rows["official_split"][:]
    assert [splits.count(name) for name in ("train", "validation", "test")] == [3000, 200, 300]
    assert texts(rows)["0011_000371"] == "Sentence 20."
    next((tmp_path / "ESD" / "0011" / "Angry").rglob("0011_000371.wav")).unlink()
    (tmp_path / "ESD" / "0001" / "0001.txt").unlink()
    message = (
        "differs from the published ESD: 0001/0001.txt is missing; 0011/Angry/0011_000371.wav is missing; "
        "angry: 699 of 700 utterances"
    )
    with pytest.raises(InputError, match=message):
        esd.load(tmp_path / "ESD")
    rows = esd.load(tmp_path / "ESD", partial=True)
    assert len(rows) == 3499 and texts(rows)["0001_000001"] == ""
    assert message in capsys.readouterr().err


def test_absent_speakers_are_named(root):
    with pytest.raises(InputError, match="ESD: no utterance of speaker 0002; no utterance of speaker 0003"):
        esd.load(root)


def test_a_wrong_directory_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"contains no ESD speech; looked for .*0001/Angry/0001_000351\.wav"):
        esd.load(tmp_path, partial=True)
