"""URDU in miniature and, with one tiny sound under every published name, as a whole."""

import os
from collections import Counter

import pytest
from conftest import write_wav

from core.errors import InputError
from recipe.corpora import urdu

# Utterances of each speaker in the published folders, in the order of their numbers.
PUBLISHED = {
    "Angry": {"SM1": 22, "SM2": 28, "SM3": 2, "SM4": 48},
    "Happy": {
        **{"SF1": 12, "SF2": 2, "SF3": 2, "SF4": 4, "SF5": 4, "SF6": 14, "SF7": 6, "SF8": 2},
        **{"SM17": 2, "SM18": 2, "SM19": 2, "SM3": 2, "SM5": 8, "SM6": 10, "SM7": 28},
    },
    "Neutral": {"SF9": 4, "SM20": 10, "SM21": 4, "SM22": 2, "SM3": 8, "SM5": 72},
    "Sad": {"SF10": 2, "SF11": 4, "SM23": 6, "SM24": 38, "SM25": 40, "SM26": 2, "SM27": 4, "SM6": 4},
}


@pytest.fixture
def whole(tmp_path):
    """Every published name, all links to one sound."""
    sound = write_wav(tmp_path / "sound.wav", seconds=0.1)
    root = tmp_path / "URDU-Dataset"
    for folder, speakers in PUBLISHED.items():
        (root / folder).mkdir(parents=True)
        number = 0
        for speaker, count in speakers.items():
            for own in range(1, count + 1):
                number += 1
                os.link(sound, root / folder / f"{speaker}_F{own}_{folder[0]}0{number}.wav")
    (root / "README.md").write_text("# URDU-Dataset")
    return root


def test_the_published_corpus_is_complete(whole, capsys):
    rows = urdu.load(whole)
    assert len(rows) == 400 == sum(urdu.PUBLISHED_COUNTS.values())
    words = [urdu.LABELS[label] for label in rows["label"]]
    assert Counter(words) == urdu.PUBLISHED_COUNTS
    genders = dict(zip(rows["speaker"], rows["gender"]))
    assert Counter(genders.values()) == {"male": 18, "female": 11}
    row = next(row for row in rows if row["id"] == "SF6_F14_H038")
    assert (row["speaker"], row["gender"], urdu.LABELS[row["label"]]) == ("SF6", "female", "happy")
    emotions = Counter(speaker for speaker, _ in set(zip(rows["speaker"], words)))
    assert {speaker for speaker, count in emotions.items() if count > 1} == {"SM3", "SM5", "SM6"}
    assert "warning" not in capsys.readouterr().err
    assert len(urdu.load(whole.parent)) == 400


def test_a_missing_utterance_is_named(whole, capsys):
    (whole / "Sad" / "SM6_F4_S0100.wav").unlink()
    with pytest.raises(InputError, match=r"URDU: sad: 99 of 100 utterances; Sad/\*_S0100.wav is missing"):
        urdu.load(whole)
    assert len(urdu.load(whole, partial=True)) == 399
    assert "Sad/*_S0100.wav is missing" in capsys.readouterr().err


def test_hidden_and_foreign_files_do_not_count(tmp_path):
    write_wav(tmp_path / "Angry" / "SM1_F1_A01.wav")
    write_wav(tmp_path / "Angry" / "._SM1_F2_A02.wav")
    write_wav(tmp_path / "Angry" / "noise.wav")
    write_wav(tmp_path / "Happy" / "SF1" / "SF1_F1_H01.wav")  # a folder for each speaker, as its page describes
    assert sorted(urdu.load(tmp_path, partial=True)["id"]) == ["SF1_F1_H01", "SM1_F1_A01"]


def test_an_utterance_in_the_wrong_folder_is_refused(tmp_path):
    write_wav(tmp_path / "Happy" / "SM1_F1_A01.wav")
    with pytest.raises(InputError, match=r"SM1_F1_A01.wav: the name says angry, its folder happy"):
        urdu.load(tmp_path, partial=True)


def test_a_wrong_directory_says_what_was_looked_for(tmp_path):
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"no utterance of URDU; looked for files such as Angry/SM1_F1_A01.wav"):
            urdu.load(directory)
