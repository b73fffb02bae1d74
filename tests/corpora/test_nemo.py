"""nEMO in miniature: official layout, invented audio; and the corpus itself, where it is."""

import os
from itertools import product

import numpy as np
import pytest
from conftest import write_wav
from making import make_split

from core.errors import InputError
from recipe.corpora import load_corpus, nemo

HEADER = "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage"
LINES = (
    "WR0_surprised_64.wav\tsurprised\tUcho, „dźwięki”.\tucho dźwięki\t        WR0\tmale\t23",
    "EB0_neutral_13.wav\tneutral\tInteresuje mnie.\tinteresuje mnie\t        EB0\tfemale\t27",
    "EB0_happiness_1.wav\thappiness\tTak!\ttak\t        EB0\tfemale\t27",
)


def write_corpus(root, *lines, suffix=".wav"):
    for line in lines:
        write_wav(root / "samples" / line.split("\t")[0].replace(".wav", suffix))
    (root / "data.tsv").write_text("\n".join([HEADER, *lines, ""]), encoding="utf-8")
    return root


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_nemo_in_its_official_layout_and_converted(tmp_path, suffix, capsys):
    rows = nemo.load(write_corpus(tmp_path, *LINES, suffix=suffix), partial=True)
    assert rows["id"][:] == ["WR0_surprised_64", "EB0_neutral_13", "EB0_happiness_1"]
    assert [nemo.LABELS[label] for label in rows["label"]] == ["surprised", "neutral", "happy"]
    assert rows["speaker"][:] == ["WR0", "EB0", "EB0"] and rows["gender"][:] == ["male", "female", "female"]
    assert rows["text"][0] == "Ucho, „dźwięki”." and rows["age"][:] == ["23", "27", "27"]
    assert "differs from the published nEMO: no utterance of speaker IC0" in capsys.readouterr().err


def test_a_complete_nemo_passes_and_a_missing_sample_is_named(tmp_path, capsys):
    audio = write_wav(tmp_path / "audio.wav")
    (tmp_path / "samples").mkdir()
    lines = []
    for word, label in nemo.EMOTIONS.items():
        for number, speaker in list(product(range(1, 91), nemo.SPEAKERS))[: nemo.PUBLISHED_COUNTS[label]]:
            lines.append(f"{speaker}_{word}_{number}.wav\t{word}\tTak.\ttak\t        {speaker}\tmale\t23")
            os.link(audio, tmp_path / "samples" / f"{speaker}_{word}_{number}.wav")
    (tmp_path / "data.tsv").write_text("\n".join([HEADER, *lines]))
    assert len(nemo.load(tmp_path)) == sum(nemo.PUBLISHED_COUNTS.values()) == 4481
    assert "warning" not in capsys.readouterr().err
    (tmp_path / "samples" / "EB0_fear_1.wav").unlink()
    with pytest.raises(InputError, match="published nEMO: samples/EB0_fear_1 is missing; fearful: 735 of 736"):
        nemo.load(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("EB0_rage_1.wav\trage\tTak.\ttak\tEB0\tfemale\t27", "line 2: emotion='rage' is not one of neutral"),
        ("XX0_fear_1.wav\tfear\tTak.\ttak\tXX0\tfemale\t27", "line 2: speaker_id='XX0', gender='female' is not"),
        ("EB0_fear_1.wav\tfear\tTak.\ttak\tEB0\t\t27", "line 2: speaker_id='EB0', gender='' is not"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        nemo.load(write_corpus(tmp_path, line), partial=True)


def test_a_wrong_directory_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"contains no nEMO; looked for data\.tsv"):
        nemo.load(tmp_path)
    (tmp_path / "data.tsv").write_text("\n".join([HEADER, *LINES]))
    with pytest.raises(InputError, match=r"samples contains none of the utterances in data\.tsv"):
        nemo.load(tmp_path)
    (tmp_path / "data.tsv").write_text("file_id\temotion\n")
    with pytest.raises(InputError, match=r"data\.tsv has no column 'raw_text'"):
        nemo.load(tmp_path)


@pytest.mark.slow
def test_real_nemo_has_its_published_counts_and_tests_each_speaker_once(corpora):
    if not (corpora / "nemo").is_dir():
        pytest.skip("real speech: no nemo/ there")
    rows = load_corpus("nemo", str(corpora / "nemo"))
    assert len(rows) == 4481 and sum(rows["duration"]) / 60 == pytest.approx(184.4, abs=0.1)
    assert np.bincount(rows["label"]).tolist() == list(nemo.PUBLISHED_COUNTS.values())
    genders = dict(zip(rows["speaker"], rows["gender"]))
    assert sorted(genders) == nemo.SPEAKERS and sorted(genders.values()) == ["female"] * 4 + ["male"] * 5
    for fold, speaker in enumerate(nemo.SPEAKERS, start=1):
        split = make_split(rows, "nemo", fold, protocol="leave_one_speaker_out")
        assert set(split["test"]["speaker"]) == {speaker} and len(set(split["train"]["speaker"])) == 6
