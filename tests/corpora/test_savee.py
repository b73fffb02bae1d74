"""SAVEE in miniature: official names, invented audio."""

import os

import pytest
from conftest import write_wav

from core.errors import InputError
from recipe.corpora import savee


@pytest.fixture
def root(tmp_path):
    audio = tmp_path / "AudioData"
    for name in ("DC/a01", "DC/d03", "JE/f15", "JE/h02", "JK/n30", "KL/sa04", "KL/su05"):
        write_wav(audio / f"{name}.wav", rate=44100)
    write_wav(audio / "DC" / "._a01.wav")
    write_wav(audio / "other" / "a01.wav")  # not a speaker
    write_wav(audio / "AudioData" / "DC" / "a01.wav")  # the same utterance once more
    (audio / "Info.txt").write_text("about the speakers")
    return tmp_path


def write_complete(directory):
    directory.mkdir(parents=True)
    audio = write_wav(directory.parent / "audio.wav")
    for speaker in ("DC", "JE", "JK", "KL"):
        (directory / speaker).mkdir()
        for code, takes in {"a": 15, "d": 15, "f": 15, "h": 15, "n": 30, "sa": 15, "su": 15}.items():
            for take in range(1, takes + 1):
                os.link(audio, directory / speaker / f"{code}{take:02d}.wav")


@pytest.mark.parametrize("inner", [".", "AudioData"])
def test_savee_in_its_official_layout(root, inner):
    rows = savee.load(root / inner, partial=True)
    found = {row["id"]: rows.features["label"].names[row["label"]] for row in rows}
    assert found == {
        "DC_a01": "angry",
        "DC_d03": "disgust",
        "JE_f15": "fearful",
        "JE_h02": "happy",
        "JK_n30": "neutral",
        "KL_sa04": "sad",
        "KL_su05": "surprised",
    }
    assert sorted(rows["speaker"]) == ["DC", "DC", "JE", "JE", "JK", "KL", "KL"]
    assert set(rows["gender"]) == {"male"} and rows.features["label"].names == savee.LABELS


def test_savee_in_a_flat_folder(tmp_path):
    for name in ("DC_a01", "JE_n07", "KL_sa04", "KL_su11", "._KL_su11", "XX_a01", "a01"):
        write_wav(tmp_path / "ALL" / f"{name}.wav")
    rows = savee.load(tmp_path, partial=True)
    assert rows["id"][:] == ["DC_a01", "JE_n07", "KL_sa04", "KL_su11"]
    assert rows["speaker"][:] == ["DC", "JE", "KL", "KL"]
    assert [rows.features["label"].names[i] for i in rows["label"]] == ["angry", "neutral", "sad", "surprised"]


def test_a_complete_savee_passes_and_a_missing_file_is_named(tmp_path, capsys):
    write_complete(tmp_path / "AudioData")
    assert len(savee.load(tmp_path)) == sum(savee.PUBLISHED_COUNTS.values()) == 480
    assert "warning" not in capsys.readouterr().err
    (tmp_path / "AudioData" / "JK" / "sa03.wav").unlink()
    message = "differs from the published SAVEE: JK/sa03.wav is missing; sad: 59 of 60 utterances"
    with pytest.raises(InputError, match=message):
        savee.load(tmp_path)
    rows = savee.load(tmp_path, partial=True)
    assert len(rows) == 479 and "JK_sa03" not in rows["id"][:]
    assert message in capsys.readouterr().err


def test_an_absent_speaker_is_named_once(tmp_path):
    write_complete(tmp_path / "AudioData")
    for path in (tmp_path / "AudioData" / "KL").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="SAVEE: no utterance of speaker KL; neutral: 90 of 120 utterances"):
        savee.load(tmp_path)


def test_a_wrong_directory_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"contains no SAVEE speech; looked for files such as AudioData/DC/a01\.wav"):
        savee.load(tmp_path, partial=True)
