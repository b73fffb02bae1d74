"""The same audio twice in a corpus: copies under other names, and overlapping excerpts of one file."""

import os
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from conftest import write_wav

from core.audio import SAMPLING_RATE
from core.errors import InputError
from recipe.data import read_rows_alone, split_rows
from recipe.options import Arguments, DataArguments
from recipe.records import first_difference
from recipe.stage_folder import describe_run

SPEAKERS = ("anna", "ben", "eva", "tom")


@pytest.fixture
def corpus(tmp_path):
    """Two recordings of each of four speakers, and the lines of their list."""
    lines = []
    for number, speaker in enumerate(SPEAKERS):
        for index, label in enumerate(("angry", "calm")):
            write_wav(tmp_path / f"{speaker}_{label}.wav", 0.6, seed=2 * number + index)
            lines.append(f"{speaker}_{label}.wav,{label},{speaker}")
    return tmp_path, lines


def read(folder, lines, header="path,label,speaker"):
    (folder / "list.csv").write_text("\n".join([header, *lines]), encoding="utf-8")
    return DataArguments(corpus="folder", csv=str(folder / "list.csv"), num_folds=4)


def read_warnings(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


def copy(source, target):
    """The same samples in another format, as an archive or a shop converts them."""
    samples, rate = soundfile.read(source, dtype="int16")
    soundfile.write(target, samples, rate, subtype="PCM_16")


@pytest.mark.parametrize("name", ["copy.flac", "copy.wav"])
@pytest.mark.parametrize("label", ["angry", "calm"])
def test_a_copy_in_another_set_is_refused_with_both_names(corpus, name, label, capsys):
    folder, lines = corpus
    copy(folder / "anna_angry.wav", folder / name)
    data = read(folder, [*lines, f"{name},{label},ben"])
    rows = read_rows_alone(data)
    said = read_warnings(capsys)
    assert len(said) == (label == "calm")
    assert not said or "are the same recording and are labelled 'angry' and 'calm' (1 such" in said[0]
    refusals = [refusal for fold in range(1, 5) if (refusal := try_split(data, rows, fold)) is not None]
    assert len(refusals) >= 2  # each of the two speakers is tested once
    for message in refusals:
        assert f"{folder}/anna_angry.wav in " in message and f"{folder}/{name} in " in message
        assert "are the same recording (1 such pairs in total): scores on training data are meaningless" in message


def try_split(data, rows, fold):
    """What is said against a fold; None if anna and ben are in one set."""
    data = DataArguments(**{**vars(data), "fold": fold})
    try:
        split = split_rows(data, rows)
    except InputError as error:
        return str(error)
    assert any({"anna", "ben"} <= set(part["speaker"]) for part in split.values())


def test_copies_in_one_set_with_one_label_are_no_matter(corpus, capsys):
    folder, lines = corpus
    os.link(folder / "anna_calm.wav", folder / "again.wav")
    data = read(folder, [*lines, "again.wav,calm,anna"])
    split_rows(data, read_rows_alone(data))
    assert read_warnings(capsys) == []


def test_recordings_that_are_alike_are_not_copies(corpus, capsys):
    """One sample of another value, one sample more, and the same samples at another rate."""
    folder, lines = corpus
    samples, _ = soundfile.read(folder / "anna_angry.wav", dtype="int16")
    other = samples.copy()
    other[5000] += 1
    for name, values, rate in (
        ("ben_1.wav", other, SAMPLING_RATE),
        ("eva_1.wav", np.append(samples, np.int16(0)), SAMPLING_RATE),
        ("tom_1.wav", samples, 22050),
    ):
        soundfile.write(folder / name, values, rate, subtype="PCM_16")
        lines.append(f"{name},calm,{name[:3]}")
    data = read(folder, lines)
    split_rows(data, read_rows_alone(data))
    assert read_warnings(capsys) == []


HEADER = "path,label,speaker,start,end"
WHOLE = [f"{speaker}_{label}.wav,{label},{speaker},," for speaker in SPEAKERS for label in ("angry", "calm")]


@pytest.mark.parametrize(
    ("second", "is_said"),
    [
        ("talk.wav,calm,anna,1.2,2.2", True),
        ("talk.wav,calm,anna,0.4,3", True),
        ("talk.wav,calm,anna,1.4,1.6", True),
        ("talk.wav,calm,anna,,", True),
        ("talk.wav,angry,anna,1.2,2.2", False),
        ("talk.wav,calm,anna,1.9,2.9", False),
        ("talk.wav,calm,anna,2,3", False),
    ],
)
def test_overlapping_excerpts_of_two_labels_are_said(corpus, second, is_said, capsys):
    folder, _ = corpus
    write_wav(folder / "talk.wav", 3.0, seed=99)
    data = read(folder, [*WHOLE, "talk.wav,angry,anna,1,2", second], HEADER)
    rows = read_rows_alone(data)
    said = read_warnings(capsys)
    assert len(said) == is_said
    assert not said or ("talk.wav from 1 s to 2 s" in said[0] and " overlap and are labelled '" in said[0])
    assert not said or said[0].endswith("(1 such pairs in total): correct the times or the labels")
    split_rows(data, rows)


def test_a_copy_of_an_excerpt_is_a_copy(corpus):
    """As a user cuts it out of the long recording."""
    folder, lines = corpus
    write_wav(folder / "talk.wav", 3.0, seed=99)
    samples, rate = soundfile.read(folder / "talk.wav", dtype="int16")
    soundfile.write(folder / "cut.wav", samples[rate : 2 * rate], rate, subtype="PCM_16")
    lines = [f"{line},train,," for line in lines[:4]] + [f"{line},test,," for line in lines[4:]]
    added = ["talk.wav,angry,anna,train,1,2", "cut.wav,angry,tom,test,,"]
    data = read(folder, [*lines, *added], "path,label,speaker,split,start,end")
    with pytest.raises(InputError, match=r"talk\.wav from 1 s to 2 s in \w+ and .*cut\.wav in test are the same"):
        split_rows(data, read_rows_alone(data))


def test_other_audio_under_the_same_names_is_another_run(corpus):
    folder, lines = corpus

    def describe():
        data = read(folder, lines)
        return describe_run(1, Arguments(data=data), split_rows(data, read_rows_alone(data)))

    earlier = describe()
    assert first_difference(earlier, describe()) is None
    write_wav(folder / "tom_calm.wav", 0.6, seed=99)
    assert first_difference(earlier, describe()) == "other recordings under the same names"
    del earlier["audio"]  # as earlier releases wrote it
    assert first_difference(earlier, describe()) is None


def test_a_copy_is_dropped_where_speakers_are_shared(corpus, capsys):
    """RAVDESS has one. Of unseen speakers it is never in two sets; among utterances it could be."""
    folder, lines = corpus
    copy(folder / "anna_calm.wav", folder / "again.wav")
    data = replace(read(folder, [*lines, "again.wav,calm,anna"]), protocol="shared_speakers")
    split = split_rows(data, read_rows_alone(data))
    assert sum(map(len, split.values())) == len(lines)
    assert "dropped 1 of 9 utterances: copies of others, which may be in another set" in capsys.readouterr().err
