"""MSP-Podcast in miniature: published names, columns and vote lines, invented content."""

import pytest
from conftest import write_wav
from datasets import ClassLabel
from making import make_split

from core.errors import InputError
from recipe.corpora import msp_podcast
from recipe.corpora.rows import UNKNOWN_SPEAKER

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
LINES = [
    "MSP-PODCAST_0001_0008.wav,N,2.200000,4.000000,2.600000,127,Male,Train",
    "MSP-PODCAST_0001_0019.wav,A,5.4,2.0,5.0,Unknown,Unknown,Train",
    "MSP-PODCAST_0002_0033_0001.wav,X,4.0,4.5,4.0,8,Female,Development",
    "MSP-PODCAST_0003_0010.wav,U,6.0,6.5,5.0,12,Female,Test1",
    "MSP-PODCAST_0004_0010.wav,H,6.0,6.5,5.0,12,Female,Test2",
]
TRAINING, UNKNOWN, VALIDATION, TEST = (line.partition(".wav")[0] for line in LINES[:4])
VOTES = [
    '0001_0008.wav,"WORKER00000001; Neutral; Neutral,Confused; A:1.000000; V:4.000000; D:1.000000;"',
    '0001_0008.wav,"WORKER00000002; Other-Curious; ; A:3.000000; V:4.000000; D:4.000000;"',
    '0002_0033_0001.wav,"WORKER00000001; Surprise; Surprise; A:3.000000; V:4.000000; D:4.000000;"',
]


def write(path, lines):
    """As Windows writes it: byte order mark, \\r\\n."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "MSP-PODCAST-Publish-2.0"
    write(root / "Labels" / "labels_consensus.csv", [HEADER, *LINES])
    write(root / "Labels" / "labels_detailed.csv", ["FileName,EmoDetail", *("MSP-PODCAST_" + line for line in VOTES)])
    write(root / "Transcripts" / f"{TEST}.txt", ["no way!"])
    for name in (TRAINING, UNKNOWN, VALIDATION, TEST):
        write_wav(root / "Audios" / f"{name}.wav")
    write_wav(root / "Audios" / f"._{TEST}.wav")
    write_wav(root / "Audios" / "MSP-PODCAST_test3_0001.wav")
    return root


def test_msp_podcast_in_its_official_layout(root):
    rows = msp_podcast.load(root)
    assert rows["id"][:] == [TRAINING, UNKNOWN, VALIDATION, TEST]
    assert [msp_podcast.LABELS[i] for i in rows["label"]] == ["neutral", "angry", "no_agreement", "surprised"]
    assert rows["speaker"][:] == ["127", UNKNOWN_SPEAKER + UNKNOWN, "8", "12"]
    assert rows["gender"][:] == ["male", "", "female", "female"]
    assert rows["split"][:] == ["train", "train", "validation", "test"]
    assert (rows["arousal"][0], rows["valence"][0], rows["dominance"][0]) == (2.2, 4.0, 2.6)
    assert rows["text"][:] == ["", "", "", "no way!"]
    votes = dict(zip(msp_podcast.LABELS, rows["label_distribution"][0]))
    assert votes == {label: 0.5 if label in ("neutral", "other") else 0.0 for label in msp_podcast.LABELS}
    assert rows["label_distribution"][1] == []
    assert rows["label_distribution"][2][msp_podcast.LABELS.index("surprised")] == 1.0
    assert len(msp_podcast.load(root.parent)) == len(msp_podcast.load(root / "Labels")) == 4


def test_the_published_split_is_taken_even_with_speakers_that_are_not_known(root):
    """Each class must be in training, so all turns are angry here."""
    lines = [line.replace(",N,", ",A,").replace(",X,", ",A,").replace(",U,", ",A,") for line in LINES]
    write(root / "Labels" / "labels_consensus.csv", [HEADER, *lines])
    rows = msp_podcast.load(root)
    rows = rows.remove_columns("label").add_column("label", [0] * len(rows))
    split = make_split(rows.cast_column("label", ClassLabel(names=["angry"])), "msp_podcast")
    assert {name: len(part) for name, part in split.items()} == {"train": 2, "validation": 1, "test": 1}


def test_votes_in_the_other_published_layout_and_no_votes(root):
    path = root / "Labels" / "labels_detailed.csv"
    header = "FileName,Workers,EmoClass_Major,EmoClass_Second,EmoAct,EmoVal,EmoDom"
    write(path, [header, f'{TRAINING}.wav,WORKER00000001,Fear,"Fear,Sad",1,2,3'])
    assert msp_podcast.load(root)["label_distribution"][0][msp_podcast.LABELS.index("fearful")] == 1.0
    path.unlink()
    assert msp_podcast.load(root)["label_distribution"][:] == [[], [], [], []]


def test_an_older_release_spells_its_names_otherwise(root):
    (root / "Labels" / "labels_consensus.csv").unlink()
    lines = [line.replace("Development", "Validation") for line in LINES]
    write(root / "Labels" / "labels_concensus.csv", [HEADER, *lines])
    (root / "Audios").rename(root / "Audio")
    assert msp_podcast.load(root)["split"][2] == "validation"


def test_a_missing_file_is_named(root, capsys):
    (root / "Audios" / f"{TEST}.wav").unlink()
    with pytest.raises(InputError, match=rf"published MSP-Podcast: Audios/{TEST}.wav is missing\. Complete it"):
        msp_podcast.load(root)
    assert len(msp_podcast.load(root, partial=True)) == 3
    assert f"Audios/{TEST}.wav is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.wav,Q,1,1,1,1,Male,Train", r"labels_consensus.csv, line 7: EmoClass='Q' is not one of A, S, H"),
        ("a.wav,N,1,1,1,1,Male,Test9", r"line 7: Split_Set='Test9' is not one of Train, Development"),
        ("a.wav,N,8,1,1,1,Male,Train", r"line 7: EmoAct='8' is not a number from 1 to 7"),
        ("a.wav,N,high,1,1,1,Male,Train", r"line 7: EmoAct='high' is not a number from 1 to 7"),
        ("a.wav,N,1", r"line 7: Split_Set='' is not one of Train"),
    ],
)
def test_a_malformed_line_is_named(root, line, message):
    write(root / "Labels" / "labels_consensus.csv", [HEADER, *LINES, line])
    with pytest.raises(InputError, match=message):
        msp_podcast.load(root, partial=True)


def test_a_malformed_vote_is_named(root):
    write(root / "Labels" / "labels_detailed.csv", ["FileName,EmoDetail", f"{TEST}.wav,WORKER00000001"])
    with pytest.raises(InputError, match=r"labels_detailed.csv, line 2: no emotion found"):
        msp_podcast.load(root)


def test_a_wrong_directory_or_table_says_what_was_looked_for(root, tmp_path):
    for directory in (tmp_path / "nowhere", root / "Labels" / "deeper"):
        with pytest.raises(InputError, match=r"contains no MSP-Podcast; looked for Labels/labels_consensus.csv"):
            msp_podcast.load(directory)
    for path in (root / "Audios").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="Audios contains no audio; unpack Audios there"):
        msp_podcast.load(root, partial=True)
    write(root / "Labels" / "labels_consensus.csv", ["FileName,EmoClass"])
    with pytest.raises(InputError, match="has no column 'EmoVal'; it has FileName, EmoClass"):
        msp_podcast.load(root)
