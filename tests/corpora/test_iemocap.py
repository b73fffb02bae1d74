"""IEMOCAP, written in miniature in its official layout and read back."""

import os
from collections import Counter

import pytest
from conftest import ROOT, write_wav
from making import make_split

from core.errors import InputError
from recipe.arguments import parse_arguments
from recipe.corpora import iemocap, load_corpus
from recipe.corpora.rows import count_classes
from recipe.relabelling import select_utterances

pytestmark = pytest.mark.slow

IMPRO = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
C-E2:	Neutral;	()
C-E3:	Neutral;	()
C-E4:	Neutral; Anger;	()
C-F1:	Sadness;	(curious)
A-E3:	val 3; act 2; dom  2;	()
A-F1:	val 3; act 2; dom  1;	()

[7.5712 - 10.4750]	Ses01F_impro01_M003	xxx	[2.0000, 3.5000, 5.0000]
C-E1:	Other;	(bored; a bit (really) tired)
C-E3:	Frustration;	()
C-E4:	Excited; Happiness; Surprise;	()
C-M1:	Neutral state;	()
A-E3:	val 2; act 3; dom  3;	()

"""
SCRIPT = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[13.2100 - 14.8800]	Ses03M_script01_1_F012	hap	[4.3333, 3.0000, 2.6667]
C-E1:	Happiness;	()
C-E2:	Happiness;	()
C-E5:	Neutral state;	()

[15.0000 - 16.0000]	Ses03M_script01_1_M000	dis	[1.5000, 3.0000, 3.0000]
C-E1:	Disgust;	()

"""


def evaluation(root, dialogue):
    return root / f"Session{dialogue[4]}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


@pytest.fixture
def iemocap_dir(tmp_path):
    """Two dialogues; one label file with Windows line ends and a byte order mark; much that must not be read."""
    root = tmp_path / "IEMOCAP_full_release"
    write(evaluation(root, "Ses01F_impro01"), IMPRO)
    write(evaluation(root, "Ses03M_script01_1"), SCRIPT.replace("\n", "\r\n"), "utf-8-sig")
    write(evaluation(root, "Ses01F_impro01").with_name("._Ses01F_impro01.txt"), "\0\0Mac OS X")
    for folder in ("Categorical", "Attribute", "Self-evaluation"):
        path = root / "Session1" / "dialog" / "EmoEvaluation" / folder / "Ses01F_impro01_e2_cat.txt"
        write(path, "Ses01F_impro01_F000 :Neutral state; ()\n[broken")
    transcripts = (
        "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\r\n"
        "M: [BREATHING]\r\n"
        "Ses01F_impro01_MXX0 [007.0000-007.5000]: [LAUGHTER]\r\n"
        "Ses01F_impro01_M003 [007.5712-010.4750]: Caf\xe9: yes.\r\n"
    )
    write(root / "Session1" / "dialog" / "transcriptions" / "Ses01F_impro01.txt", transcripts)
    for name in ("Ses01F_impro01_F000", "Ses01F_impro01_M003", "Ses03M_script01_1_F012", "Ses03M_script01_1_M000"):
        write_wav(root / f"Session{name[4]}" / "sentences" / "wav" / name.rsplit("_", 1)[0] / f"{name}.wav")
    write_wav(root / "Session1" / "sentences" / "wav" / "Ses01F_impro01" / "._Ses01F_impro01_F000.wav")
    return root


def shares(row):
    return {label: share for label, share in zip(iemocap.LABELS, row["label_distribution"]) if share}


def test_the_official_layout(iemocap_dir):
    rows = iemocap.load(iemocap_dir, partial=True)
    assert rows["id"][:] == [
        *("Ses01F_impro01_F000", "Ses01F_impro01_M003", "Ses03M_script01_1_F012", "Ses03M_script01_1_M000")
    ]
    assert [iemocap.LABELS[label] for label in rows["label"]] == ["neutral", "no_agreement", "happy", "disgust"]
    assert rows.features["label"].names == iemocap.LABELS
    assert rows["speaker"][:] == ["1F", "1M", "3F", "3M"]
    assert rows["gender"][:] == ["female", "male", "female", "male"]
    assert rows["session"][:] == ["1", "1", "3", "3"]
    assert rows["style"][:] == ["improvised", "improvised", "scripted", "scripted"]
    assert rows["text"][:] == ["Excuse me.", "Caf\xe9: yes.", "", ""]
    assert rows["valence"][:] == [2.5, 2.0, 4.3333, 1.5]
    assert rows["arousal"][:] == [2.5, 3.5, 3.0, 3.0]
    assert rows["dominance"][:] == [2.5, 5.0, 2.6667, 3.0]
    assert rows["duration"][:] == pytest.approx([0.5] * 4)


def test_votes_leave_the_speakers_out_and_share_one_vote_among_several_emotions(iemocap_dir):
    first, second, third, fourth = iemocap.load(iemocap_dir, partial=True)
    assert shares(first) == pytest.approx({"neutral": 2.5 / 3, "angry": 0.5 / 3})
    assert shares(second) == pytest.approx(
        {"other": 1 / 3, "frustrated": 1 / 3, "excited": 1 / 9, "happy": 1 / 9, "surprised": 1 / 9}
    )
    assert shares(third) == pytest.approx({"happy": 2 / 3, "neutral": 1 / 3})
    assert shares(fourth) == {"disgust": 1.0}


def test_an_utterance_without_votes_has_an_empty_distribution(iemocap_dir):
    path = evaluation(iemocap_dir, "Ses01F_impro01")
    path.write_text("".join(line for line in IMPRO.splitlines(True) if not line.startswith("C-E")))
    assert iemocap.load(iemocap_dir, partial=True)["label_distribution"][:2] == [[], []]


ALIGNMENT = """   SFrm  EFrm   SegAScr Word
     0     9      -512 <s>
    10    24   -231114 EXCUSE(2)
    25    30    -10302 <sil>
    31    44    -98121 ME
    45    49      -871 </s>
Total score:     -340920
"""


def test_word_times_are_those_of_the_forced_alignment_where_it_has_the_words_of_the_transcript(iemocap_dir):
    assert "words" not in iemocap.load(iemocap_dir, partial=True).column_names
    folder = iemocap_dir / "Session1" / "sentences" / "ForcedAlignment" / "Ses01F_impro01"
    write(folder / "Ses01F_impro01_F000.wdseg", ALIGNMENT)
    write(folder / "Ses01F_impro01_M003.wdseg", ALIGNMENT.replace("<sil>", "UH"))  # three words for two
    rows = iemocap.load(iemocap_dir, partial=True)
    words = [{"word": "Excuse", "start": 0.1, "end": 0.25}, {"word": "me.", "start": 0.31, "end": 0.45}]
    assert rows["words"][:] == [words, [], [], []]
    assert rows["text"][:] == ["Excuse me.", "Caf\xe9: yes.", "", ""]


def test_a_damaged_character_in_a_comment_does_no_harm(iemocap_dir):
    path = evaluation(iemocap_dir, "Ses01F_impro01")
    path.write_bytes(IMPRO.replace("curious", "blas\xe9").encode("latin-1"))
    assert len(iemocap.load(iemocap_dir, partial=True)) == 4


def test_the_parent_directory_will_do(iemocap_dir):
    assert len(iemocap.load(iemocap_dir.parent, partial=True)) == 4


def test_a_wrong_directory_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"looked for Session\*/dialog/EmoEvaluation/.*Session1 to Session5"):
        iemocap.load(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("neu	[2.5000, 2.5000, 2.5000]", "neu	[2.5000, 2.5000]", 3),
        ("	neu	", "	joy	", 3),
        ("Ses01F_impro01_M003", "Ses01F_impro01", 11),
        ("Neutral; Anger;", "Neutral; Rage;", 6),
        ("C-E3:	Frustration;	()", "C-E3:	()", 13),
        ("\n\n[6.2901", "\nC-E1:	Anger;	()\n[6.2901", 2),
    ],
)
def test_a_malformed_line_is_named(iemocap_dir, old, new, line):
    assert old in IMPRO
    evaluation(iemocap_dir, "Ses01F_impro01").write_text(IMPRO.replace(old, new))
    with pytest.raises(InputError, match=rf"Ses01F_impro01\.txt, line {line}: .*; unpack the file again"):
        iemocap.load(iemocap_dir, partial=True)


def test_a_miniature_is_an_error_unless_it_is_meant_to_be_partial(iemocap_dir, capsys):
    (iemocap_dir / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M003.wav").unlink()
    expected = (
        "differs from the published IEMOCAP: no label file of session 2; no label file of session 4; "
        "no label file of session 5; Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M003.wav is missing; "
        "neutral: 1 of 1708 utterances; and "
    )
    with pytest.raises(InputError, match=expected):
        iemocap.load(iemocap_dir)
    assert len(iemocap.load(iemocap_dir, partial=True)) == 3
    assert expected in capsys.readouterr().err


def test_the_published_counts_agree_with_each_other():
    counts = iemocap.PUBLISHED_COUNTS
    assert sum(counts.values()) == 10039
    four = (counts["angry"], counts["happy"] + counts["excited"], counts["sad"], counts["neutral"])
    assert four == (1103, 1636, 1084, 1708) and sum(four) == 5531
    groups = iemocap.FOUR_CLASS_COUNTS
    sessions = [groups[f"session {n}"] for n in range(1, 6)]
    assert tuple(map(sum, zip(*sessions))) == four
    for number, session in enumerate(sessions, start=1):
        speakers = zip(groups[f"speaker {number}F"], groups[f"speaker {number}M"])
        assert tuple(map(sum, speakers)) == session


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """As many utterances of each class as published, for each speaker; all audio is one file."""
    root = tmp_path_factory.mktemp("complete")
    audio = write_wav(root / "tone.wav", seconds=0.1)
    codes = {label: code for code, label in iemocap.CODES.items()}
    left = Counter(iemocap.PUBLISHED_COUNTS)
    labels = {}
    for group, counts in iemocap.FOUR_CLASS_COUNTS.items():
        if group.startswith("session"):
            continue
        speaker = labels[group.removeprefix("speaker ")] = []
        for name, count in zip(iemocap.FOUR_CLASSES, counts):
            happy = min(count, left["happy"]) if name == iemocap.HAPPY_OR_EXCITED else 0
            speaker += ["happy"] * happy + ["excited" if name == iemocap.HAPPY_OR_EXCITED else name] * (count - happy)
            left["happy"] -= happy
    for name in ("fearful", "disgust", "surprised", "frustrated", "other", "no_agreement"):
        labels["2M"] += [name] * left[name]
    for speaker, names in labels.items():
        dialogue = f"Ses0{speaker[0]}{speaker[1]}_impro01"
        utterances = [f"{dialogue}_{speaker[1]}{number:04d}" for number in range(len(names))]
        lines = [f"[0.0000 - 1.0000]\t{u}\t{codes[n]}\t[2.5, 2.5, 2.5]\n" for u, n in zip(utterances, names)]
        write(evaluation(root, dialogue), "".join(lines))
        folder = root / f"Session{speaker[0]}" / "sentences" / "wav" / dialogue
        folder.mkdir(parents=True)
        for utterance in utterances:
            os.link(audio, folder / f"{utterance}.wav")
    return root


def test_a_complete_corpus_passes(complete, capsys):
    rows = iemocap.load(complete)
    assert len(rows) == 10039 and len(set(rows["speaker"])) == 10
    assert "warning" not in capsys.readouterr().err


def test_one_missing_file_of_a_complete_corpus_is_all_that_is_named(complete):
    name = "Session4/sentences/wav/Ses04F_impro01/Ses04F_impro01_F0007.wav"
    (complete / name).rename(complete / "aside.wav")
    try:
        with pytest.raises(InputError, match=f"published IEMOCAP: {name} is missing. Complete it"):
            iemocap.load(complete)
    finally:
        (complete / "aside.wav").rename(complete / name)


def test_an_utterance_of_the_wrong_speaker_is_noticed(complete):
    """The classes add up, the speakers do not: only the counts for each speaker can tell."""
    path = evaluation(complete, "Ses05F_impro01")
    whole = path.read_text()
    path.write_text(whole.replace("_F0000\tang", "_M9999\tang"))
    write_wav(complete / "Session5/sentences/wav/Ses05F_impro01/Ses05F_impro01_M9999.wav")
    expected = "speaker 5F angry: 77 of 78 utterances; speaker 5M angry: 93 of 92 utterances"
    try:
        with pytest.raises(InputError, match=f"published IEMOCAP: {expected}. Complete it"):
            iemocap.load(complete)
    finally:
        path.write_text(whole)


def test_the_papers_protocol_on_the_complete_corpus(complete):
    """Four classes, 5,531 utterances; of each session the man's validate and the woman's test."""
    args = parse_arguments(["--config", str(ROOT / "run_configs/iemocap/base.yaml")], "")[1].data
    rows = select_utterances(load_corpus("iemocap", str(complete)), args.only, args.label_map)
    assert len(rows) == 5531 and count_classes(rows) == {"angry": 1103, "happy": 1636, "sad": 1084, "neutral": 1708}
    for session in range(1, 6):
        split = make_split(rows, "iemocap", fold=session)
        for part, gender in (("validation", "M"), ("test", "F")):
            expected = iemocap.FOUR_CLASS_COUNTS[f"speaker {session}{gender}"]
            assert tuple(count_classes(split[part]).values()) == expected
        assert sum(len(part) for part in split.values()) == 5531


def test_utterances_converted_to_flac_are_read(iemocap_dir):
    path = iemocap_dir / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M003.wav"
    path.unlink()
    write_wav(path.with_suffix(".flac"))
    rows = iemocap.load(iemocap_dir, partial=True)
    assert len(rows) == 4 and str(path.with_suffix(".flac")) in [audio["path"] for audio in rows["audio"]]
