"""EmoDB in miniature: official names, invented audio."""

import os
from itertools import product

import numpy as np
import pytest
from conftest import write_wav

from core.errors import InputError
from recipe.corpora import emodb, load_corpus


@pytest.fixture
def root(tmp_path):
    for name in ("03a01Wa", "08b02Lb", "10a04Ea", "11b10Ad", "13a07Fb", "14b03Tb", "16b01Na"):
        write_wav(tmp_path / "emodb" / "wav" / f"{name}.wav")
    write_wav(tmp_path / "emodb" / "wav" / "._03a01Wa.wav")
    write_wav(tmp_path / "emodb" / "wav" / "03a03Wa.wav")  # there is no sentence a03
    (tmp_path / "emodb" / "erkennung.txt").write_text("Satz erkannt natuerlich")
    return tmp_path / "emodb"


def write_complete(directory):
    """All counts as published; names from the speakers, sentences and versions in turn."""
    directory.mkdir(parents=True)
    audio = write_wav(directory.parent / "audio.wav")
    letters = {label: letter for letter, label in emodb.EMOTIONS.items()}
    for label, count in emodb.PUBLISHED_COUNTS.items():
        for sentence, version, speaker in list(product(emodb.SENTENCES, "ab", emodb.GENDERS))[:count]:
            os.link(audio, directory / f"{speaker}{sentence}{letters[label]}{version}.wav")


@pytest.mark.parametrize("inner", [".", "wav", ".."])
def test_emodb_in_its_official_layout(root, inner, capsys):
    rows = emodb.load(root / inner, partial=True)
    assert rows["id"][:] == ["03a01Wa", "08b02Lb", "10a04Ea", "11b10Ad", "13a07Fb", "14b03Tb", "16b01Na"]
    names = rows.features["label"].names
    assert names == emodb.LABELS
    assert [names[i] for i in rows["label"]] == ["angry", "bored", "disgust", "fearful", "happy", "sad", "neutral"]
    assert rows["speaker"][:] == ["03", "08", "10", "11", "13", "14", "16"]
    assert rows["gender"][:] == ["male", "female", "male", "male", "female", "female", "female"]
    assert rows["text"][0] == "Der Lappen liegt auf dem Eisschrank."
    assert rows["text"][2] == "Heute abend könnte ich es ihm sagen."
    assert set(rows["style"]) == {"scripted"}
    assert "warning: " in capsys.readouterr().err


def test_five_women_and_five_men():
    assert sorted(emodb.GENDERS.values()) == ["female"] * 5 + ["male"] * 5


def test_an_incomplete_emodb_is_refused(root):
    with pytest.raises(InputError, match=r"published EmoDB: no utterance of speaker 09; .*12; .*15; neutral: 1 of 79"):
        emodb.load(root)


def test_a_complete_emodb_passes_and_a_missing_file_is_counted(tmp_path, capsys):
    write_complete(tmp_path / "wav")
    rows = emodb.load(tmp_path)
    assert len(rows) == sum(emodb.PUBLISHED_COUNTS.values()) == 535 and len(set(rows["speaker"])) == 10
    assert "warning" not in capsys.readouterr().err
    (tmp_path / "wav" / "03a01Wa.wav").unlink()
    with pytest.raises(InputError, match=r"differs from the published EmoDB: angry: 126 of 127 utterances\. Complete"):
        emodb.load(tmp_path)
    assert len(emodb.load(tmp_path, partial=True)) == 534
    assert "angry: 126 of 127 utterances" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_wrong_directory_says_what_was_looked_for(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        InputError, match=r"contains no EmoDB speech; looked for .*wav/03a01Wa\.wav.*give the directory"
    ):
        emodb.load(tmp_path / name, partial=True)


@pytest.mark.slow
def test_real_emodb_has_its_published_counts(corpora):
    """Stored as FLAC, under the official names."""
    if not (corpora / "emodb").is_dir():
        pytest.skip("real speech: no emodb/ there")
    rows = load_corpus("emodb", str(corpora / "emodb"))
    assert len(rows) == 535 and sum(rows["duration"]) / 60 == pytest.approx(17.8, abs=0.1)
    assert np.bincount(rows["label"]).tolist() == list(emodb.PUBLISHED_COUNTS.values())
    assert dict(zip(rows["speaker"], rows["gender"])) == emodb.GENDERS
