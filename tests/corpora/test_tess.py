"""TESS in miniature: official names, invented audio."""

import os
from itertools import product
from string import ascii_lowercase

import pytest
from conftest import write_wav

from core.errors import InputError
from recipe.corpora import tess

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "ps", "sad")


def write_flat(directory, words):
    """As the repository gives it: single files, without folders; one of them misnamed."""
    directory.mkdir(parents=True)
    audio = write_wav(directory.parent / "audio.wav", rate=24414)
    for speaker, word, emotion in product(("OAF", "YAF"), words, EMOTIONS):
        slip = (speaker, word, emotion) == ("OAF", "bite", "neutral")
        os.link(audio, directory / f"{'OA' if slip else speaker}_{word}_{emotion}.wav")


def test_tess_as_single_files(tmp_path):
    write_flat(tmp_path / "tess", ["back", "bite"])
    write_wav(tmp_path / "tess" / "._OAF_back_sad.wav")
    write_wav(tmp_path / "tess" / "OAF_back_bored.wav")  # not an emotion of TESS
    rows = tess.load(tmp_path, partial=True)
    assert len(rows) == 28 and rows.features["label"].names == tess.LABELS
    by_id = {row["id"]: row for row in rows}
    labels = {name: tess.LABELS[by_id[f"YAF_back_{name}"]["label"]] for name in EMOTIONS}
    assert labels == {
        "angry": "angry",
        "disgust": "disgust",
        "fear": "fearful",
        "happy": "happy",
        "neutral": "neutral",
        "ps": "surprised",
        "sad": "sad",
    }
    assert by_id["YAF_back_ps"]["speaker"] == "YAF" and by_id["OAF_back_ps"]["speaker"] == "OAF"
    assert set(rows["gender"]) == {"female"} and by_id["OAF_back_sad"]["text"] == "Say the word back"


def test_the_misnamed_file_belongs_to_oaf(tmp_path):
    write_flat(tmp_path / "tess", ["bite"])
    rows = tess.load(tmp_path, partial=True)
    row = next(row for row in rows if row["id"] == "OAF_bite_neutral")
    assert row["audio"]["path"].endswith("OA_bite_neutral.wav")
    assert row["speaker"] == "OAF" and tess.LABELS[row["label"]] == "neutral"


def test_tess_in_folders_nested_twice(tmp_path):
    for copy in ("TESS Toronto emotional speech set data", "TESS Toronto emotional speech set data/TESS Toronto"):
        write_wav(tmp_path / copy / "OAF_Fear" / "OAF_back_fear.wav")
        write_wav(tmp_path / copy / "OAF_Pleasant_surprise" / "OAF_back_ps.wav")
        write_wav(tmp_path / copy / "YAF_pleasant_surprised" / "YAF_back_ps.wav")
    rows = tess.load(tmp_path, partial=True)
    assert sorted(rows["id"]) == ["OAF_back_fear", "OAF_back_ps", "YAF_back_ps"]


def test_a_complete_tess_passes_and_a_missing_file_is_counted(tmp_path, capsys):
    words = ["bite", *("".join(pair) for pair in list(product(ascii_lowercase, repeat=2))[:199])]
    write_flat(tmp_path / "tess", words)
    assert len(tess.load(tmp_path)) == sum(tess.PUBLISHED_COUNTS.values()) == 2800
    assert "warning" not in capsys.readouterr().err
    (tmp_path / "tess" / "YAF_bite_ps.wav").unlink()
    with pytest.raises(InputError, match="differs from the published TESS: YAF surprised: 199 of 200 utterances"):
        tess.load(tmp_path)
    assert len(tess.load(tmp_path, partial=True)) == 2799
    assert "YAF surprised: 199 of 200 utterances" in capsys.readouterr().err


def test_an_absent_speaker_is_named(tmp_path):
    write_wav(tmp_path / "OAF_back_fear.wav")
    with pytest.raises(InputError, match=r"OAF neutral: 0 of 200 utterances; .*; and \d more"):
        tess.load(tmp_path)
    (tmp_path / "OAF_back_fear.wav").rename(tmp_path / "YAF_back_fear.wav")
    with pytest.raises(InputError, match="TESS: no utterance of speaker OAF; YAF neutral: 0 of 200"):
        tess.load(tmp_path)


def test_a_wrong_directory_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"contains no TESS speech; looked for .*OAF_back_angry\.wav"):
        tess.load(tmp_path, partial=True)
