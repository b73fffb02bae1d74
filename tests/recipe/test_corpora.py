"""Corpora, written in miniature in their official layout and read back."""

from collections import Counter

import numpy as np
import pytest
import soundfile
from conftest import write_wav
from datasets import Dataset

from core.audio import read_audio
from core.errors import InputError
from recipe.corpora import demo, load_corpus, ravdess
from recipe.corpora.rows import count_speakers

pytestmark = pytest.mark.slow


def test_audio_of_any_rate_and_number_of_channels_becomes_16_khz_mono(tmp_path):
    """A 440 Hz tone at 48 kHz on the left, silence on the right: the mean is half the tone, still 440 Hz."""
    time = np.arange(48000) / 48000
    soundfile.write(tmp_path / "a.wav", np.stack([np.sin(2 * np.pi * 440 * time), 0 * time], 1), 48000)
    waveform = read_audio(tmp_path / "a.wav")
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert waveform.shape == (16000,) and waveform.dtype == np.float32
    np.testing.assert_allclose(waveform[500:-500], expected[500:-500], atol=1e-3)


def test_trimming_cuts_silence_at_the_ends_only(tmp_path):
    tone = np.sin(2 * np.pi * 200 * np.arange(16000) / 16000)
    gap = np.zeros(16000)
    soundfile.write(tmp_path / "a.flac", np.concatenate([gap, tone, gap, tone, gap]), 16000)
    trimmed = read_audio(tmp_path / "a.flac", trim_db=30)
    assert abs(len(trimmed) / 16000 - 3.0) < 0.15  # the trimmer works in frames of 128 ms
    assert len(read_audio(tmp_path / "a.flac")) == 80000


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read as audio"), (b"RIFF____WAVEfmt broken", "cannot be read as audio"), (None, "no such audio")],
)
def test_an_unreadable_file_is_named(tmp_path, content, message):
    path = tmp_path / "broken.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"broken.wav.*{message}"):
        read_audio(path)


def test_a_damaged_file_is_named(tmp_path):
    """The header is whole, the samples are not."""
    path = write_wav(tmp_path / "cut.flac", seconds=2.0)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(InputError, match=r"cut.flac is damaged .*; export it again"):
        read_audio(path)


def test_audio_that_is_empty_or_not_finite_is_refused(tmp_path):
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(InputError, match="contains no audio"):
        read_audio(tmp_path / "empty.wav")
    soundfile.write(tmp_path / "nan.wav", np.full(1000, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="not finite"):
        read_audio(tmp_path / "nan.wav")
    soundfile.write(tmp_path / "silent.wav", np.zeros(1000), 16000)
    assert len(read_audio(tmp_path / "silent.wav", trim_db=30)) == 1000


@pytest.fixture
def ravdess_dir(tmp_path):
    """Official names; 48 kHz WAV, one stereo, a FLAC; a song, a video and a hidden file that must not count."""
    root = tmp_path / "Audio_Speech_Actors_01-24"
    write_wav(root / "Actor_01" / "03-01-01-01-01-01-01.wav", rate=48000)
    write_wav(root / "Actor_01" / "03-01-05-02-02-01-01.wav", rate=48000, channels=2)
    write_wav(root / "Actor_02" / "03-01-08-01-02-02-02.flac")
    write_wav(root / "Actor_02" / "03-02-03-01-01-01-02.wav")  # channel 02: song
    write_wav(root / "Actor_02" / "01-01-03-01-01-01-02.wav")  # modality 01: audio and video
    write_wav(root / "Actor_02" / "._03-01-08-01-02-02-02.wav")
    write_wav(root / "nested" / "Actor_01" / "03-01-01-01-01-01-01.wav")  # the same file once more
    return tmp_path


def test_ravdess_in_its_official_layout(ravdess_dir, capsys):
    rows = load_corpus("ravdess", str(ravdess_dir), partial=True)
    assert rows["id"][:] == ["03-01-01-01-01-01-01", "03-01-05-02-02-01-01", "03-01-08-01-02-02-02"]
    assert [rows.features["label"].names[i] for i in rows["label"]] == ["neutral", "angry", "surprised"]
    assert rows["speaker"][:] == ["01", "01", "02"] and rows["gender"][:] == ["male", "male", "female"]
    assert rows["intensity"][:] == ["normal", "strong", "normal"]
    assert rows["text"][1] == "Dogs are sitting by the door"
    assert rows["duration"][:] == pytest.approx([0.5, 0.5, 0.5])
    warning = capsys.readouterr().err
    assert "differs from the published RAVDESS: no utterance of actor 03; no utterance of actor 04" in warning


def test_a_ravdess_whose_actors_are_links_is_read(ravdess_dir, tmp_path):
    (tmp_path / "corpus").mkdir()
    for actor in ("Actor_01", "Actor_02"):
        (tmp_path / "corpus" / actor).symlink_to(ravdess_dir / "Audio_Speech_Actors_01-24" / actor)
    assert len(load_corpus("ravdess", str(tmp_path / "corpus"), partial=True)) == 3


def test_a_wrong_ravdess_directory_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"contains no RAVDESS speech; looked for Actor_\*/03-01-\*.wav"):
        load_corpus("ravdess", str(tmp_path))
    with pytest.raises(InputError, match="--corpus ravdess needs --data_dir"):
        load_corpus("ravdess")


def test_real_ravdess_has_its_published_counts(corpora):
    rows = load_corpus("ravdess", str(corpora / "ravdess"))
    labels = np.array(rows["label"])
    assert len(rows) == 1440 and len(set(rows["speaker"])) == 24
    assert np.bincount(labels).tolist() == [96] + [192] * 7
    assert rows.features["label"].names == ravdess.LABELS
    assert sum(rows["duration"]) / 60 == pytest.approx(88.9, abs=0.2)
    assert set(Counter(rows["speaker"]).values()) == {60}


def test_a_folder_for_each_label(tmp_path, capsys):
    write_wav(tmp_path / "sad" / "a.wav")
    write_wav(tmp_path / "angry" / "b.flac")
    write_wav(tmp_path / "angry" / "deep" / "a.wav")
    (tmp_path / "angry" / "notes.txt").write_text("not audio")
    rows = load_corpus("folder", str(tmp_path))
    assert rows.features["label"].names == ["angry", "sad"]
    assert sorted(rows["id"]) == ["angry/b.flac", "angry/deep/a.wav", "sad/a.wav"]
    assert "names no speakers" in capsys.readouterr().err and len(set(rows["speaker"])) == 3


def test_a_csv_with_speakers_and_split_even_with_a_byte_order_mark_and_windows_lines(tmp_path):
    for name in ("a", "b", "c"):
        write_wav(tmp_path / "audio" / f"{name}.wav")
    lines = ["path,label,speaker,split", "audio/a.wav,sad,anna,train", "audio/b.wav,angry,anna,train"]
    lines += ["audio/c.wav,sad,ben,test", ""]
    csv = tmp_path / "my.csv"
    csv.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    rows = load_corpus("folder", csv=str(csv))
    assert rows["speaker"][:] == ["anna", "anna", "ben"] and rows["split"][:] == ["train", "train", "test"]


@pytest.mark.parametrize(
    ("csv", "message"),
    [
        ("file,label\na.wav,sad", "has no column 'path'; it has file, label"),
        ("path,label\na.wav,", "line 2: label is empty"),
        ("path,label,split\na.wav,sad,held", "line 2: split='held' is not one of train, validation, test"),
        ("path,label\na.wav,sad", "contains only the label 'sad'; at least two labels"),
        ("path,label\na.wav,sad\na.wav,angry", "utterance id 'a.wav' occurs more than once"),
    ],
)
def test_a_mistake_in_a_csv_is_one_clear_line(tmp_path, csv, message):
    write_wav(tmp_path / "a.wav")
    (tmp_path / "my.csv").write_text(csv)
    with pytest.raises(InputError, match=message):
        load_corpus("folder", csv=str(tmp_path / "my.csv"))


def test_ids_of_absolute_paths_name_no_directory_that_all_share(tmp_path):
    paths = [write_wav(tmp_path / "secret" / "corpus" / name) for name in ("anna/1.wav", "ben/1.wav")]
    lines = [f"{path},{label},{path.parent.name}" for path, label in zip(paths, ("sad", "angry"))]
    (tmp_path / "a.csv").write_text("\n".join(["path,label,speaker", *lines, "b.wav,sad,ben"]))
    write_wav(tmp_path / "b.wav")
    rows = load_corpus("folder", csv=str(tmp_path / "a.csv"))
    assert sorted(rows["id"]) == ["anna/1.wav", "b.wav", "ben/1.wav"]


@pytest.mark.parametrize("kind", ["above", "absolute", "link", "linked folder"])
def test_a_path_that_leads_out_of_the_corpus_is_refused_unless_it_is_allowed(tmp_path, kind):
    outside = write_wav(tmp_path / "private" / "x.wav")
    root = tmp_path / "corpus"
    write_wav(root / "a.wav")
    (root / "link.wav").symlink_to(outside)
    (root / "linked").symlink_to(outside.parent)
    paths = {"above": "../private/x.wav", "absolute": outside, "link": "link.wav", "linked folder": "linked/x.wav"}
    (root / "my.csv").write_text(f"path,label,speaker\na.wav,sad,anna\n{paths[kind]},angry,ben")
    with pytest.raises(InputError, match=r"my\.csv, line 3: .*x?\.wav is outside the corpus: .*--allow_outside_paths"):
        load_corpus("folder", csv=str(root / "my.csv"))
    rows = load_corpus("folder", csv=str(root / "my.csv"), allow_outside=True)
    assert len(rows) == 2


def test_a_folder_with_a_link_to_recordings_elsewhere_is_refused_unless_it_is_allowed(tmp_path):
    outside = write_wav(tmp_path / "private" / "x.wav")
    write_wav(tmp_path / "corpus" / "sad" / "a.wav")
    (tmp_path / "corpus" / "angry").symlink_to(outside.parent)
    with pytest.raises(InputError, match=r"angry/x\.wav is outside the corpus"):
        load_corpus("folder", str(tmp_path / "corpus"))
    assert len(load_corpus("folder", str(tmp_path / "corpus"), allow_outside=True)) == 2
    (tmp_path / "way").symlink_to(tmp_path / "corpus")  # the corpus itself may be named by a link
    (tmp_path / "corpus" / "angry").unlink()
    write_wav(tmp_path / "corpus" / "angry" / "b.wav")
    assert len(load_corpus("folder", str(tmp_path / "way"))) == 2


def test_a_csv_in_another_encoding_or_for_another_corpus_is_refused(tmp_path):
    (tmp_path / "my.csv").write_bytes("path,label\nä.wav,sad".encode("latin-1"))
    with pytest.raises(InputError, match=r"my\.csv is not UTF-8"):
        load_corpus("folder", csv=str(tmp_path / "my.csv"))
    with pytest.raises(InputError, match=r"--csv my\.csv requires --corpus folder, not demo"):
        load_corpus("demo", csv="my.csv")


def test_the_demo_corpus_is_deterministic_and_complete(tmp_path):
    first, second = load_corpus("demo", str(tmp_path / "one")), load_corpus("demo", str(tmp_path / "two"))
    assert len(first) == demo.NUM_SPEAKERS * 4 * demo.UTTERANCES_PER_EMOTION
    for row, again in zip(first, second):
        with open(row["audio"]["path"], "rb") as one, open(again["audio"]["path"], "rb") as two:
            assert one.read() == two.read()
    assert np.bincount(first["label"]).tolist() == [len(first) // 4] * 4


def test_the_demo_corpus_touches_no_directory_of_the_user(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="contains files that are not the demo corpus"):
        load_corpus("demo", str(tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_demo_emotions_differ_in_pitch_pace_and_loudness_as_they_should(tmp_path):
    """Measured on the audio by librosa, not read from the parameters."""
    import librosa

    rows = load_corpus("demo", str(tmp_path / "demo"))
    names = rows.features["label"].names
    pitch, level, duration = {}, {}, {}
    for row in rows:
        if row["speaker"] not in ("speaker_01", "speaker_02", "speaker_03"):
            continue
        waveform = read_audio(row["audio"]["path"])
        label = names[row["label"]]
        f0 = np.median(librosa.yin(waveform, fmin=60, fmax=500, sr=16000))
        pitch.setdefault((row["speaker"], label), []).append(f0)
        level.setdefault(label, []).append(20 * np.log10(waveform.std()))
        duration.setdefault(label, []).append(row["duration"])
    for speaker in ("speaker_01", "speaker_02", "speaker_03"):
        assert np.mean(pitch[speaker, "happy"]) > np.mean(pitch[speaker, "sad"])
    assert np.mean(level["angry"]) > np.mean(level["neutral"]) > np.mean(level["sad"])
    assert np.mean(duration["sad"]) > np.mean(duration["angry"])


def test_a_run_names_the_few_speakers_that_it_tests():
    """So that it is seen which speaker or session a fold is."""
    few, many = Dataset.from_dict({"speaker": ["b", "a", "b"]}), Dataset.from_dict({"speaker": list("abcdefg")})
    assert count_speakers(few) == " of   2 speakers (a, b)" and count_speakers(many) == " of   7 speakers"
    assert count_speakers(Dataset.from_dict({"speaker": ["a", "utterance:x"]})) == (
        " of   1 speaker (a), 1 of unknown speakers"
    )
