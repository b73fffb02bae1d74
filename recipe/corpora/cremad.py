"""CREMA-D (audio): 7,442 utterances, 5.3 hours, 91 actors, 6 emotions, 12 sentences.

Acted American English by 43 women and 48 men, aged 20 to 74. The label is the intended emotion, taken from the file
name, not the perceived one: neutral (1,087 utterances); happy, sad, angry, fearful and disgust (1,271 each). One
sentence (IEO) is spoken at three intensities, the others at an unspecified one.

`label_distribution` is the share of votes by listeners who heard only the voice, about nine for each utterance, from
processedResults/tabulatedVotes.csv. Votes on the face and on the video are ignored. Without that table,
`label_distribution` is empty. The actors' gender comes from VideoDemographics.csv, or else from a list in the reader.

Known errors in the published audio: 1040_ITH_SAD_XX was named 1040_ITH_SAD_X for years (both are read as
1040_ITH_SAD_XX), and 1076_MTI_SAD_XX is silent.

Where: https://github.com/CheyneyComputerScience/CREMA-D. Clone it with git-lfs and give the directory that contains
AudioWAV. Licence: Open Database License 1.0, contents under the Database Contents License 1.0.

Citation: Cao H, Cooper DG, Keutmann MK, Gur RC, Nenkova A, Verma R (2014). CREMA-D: Crowd-sourced Emotional
Multimodal Actors Dataset. IEEE Transactions on Affective Computing 5(4): 377-390.
https://doi.org/10.1109/TAFFC.2014.2336244
"""

import csv
import re
from collections import Counter
from pathlib import Path
from typing import Any

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import compare_counts, find_audio_files, make_rows, report_differences

LICENSE = "odbl"
DESCRIPTION = (
    "CREMA-D (Cao et al. 2014, https://github.com/CheyneyComputerScience/CREMA-D, Open Database License 1.0): acted "
    "American English, twelve sentences, 91 actors, labelled with the intended emotion. Expect lower accuracy on "
    "spontaneous speech, other sentences, accents and languages, and on noisy recordings."
)
LABELS = ["neutral", "happy", "sad", "angry", "fearful", "disgust"]
PUBLISHED_COUNTS = {label: 1087 if label == "neutral" else 1271 for label in LABELS}

EMOTIONS = dict(zip(("NEU", "HAP", "SAD", "ANG", "FEA", "DIS"), LABELS))
INTENSITIES = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified"}
SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
ACTORS = [str(actor) for actor in range(1001, 1092)]
# fmt: off
FEMALE_ACTORS = {str(actor) for actor in (
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025,
    1028, 1029, 1030, 1037, 1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060,
    1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082, 1084, 1089, 1091,
)}

# Test actors of five folds; ours, since no split is published. They were drawn once: the women, then the men, each
# sorted and shuffled with seed 0 (one random.Random for both), were assigned to the folds in turn.
TEST_ACTORS = (
    ("1001", "1004", "1013", "1016", "1017", "1021", "1023", "1028", "1035", "1040",
     "1043", "1045", "1046", "1059", "1060", "1068", "1069", "1076", "1079"),
    ("1009", "1012", "1018", "1020", "1025", "1026", "1034", "1036", "1051",
     "1054", "1055", "1070", "1071", "1075", "1080", "1081", "1086", "1089"),
    ("1005", "1006", "1008", "1010", "1024", "1032", "1033", "1039", "1041",
     "1053", "1062", "1063", "1065", "1073", "1082", "1083", "1084", "1085"),
    ("1002", "1003", "1011", "1014", "1022", "1027", "1030", "1031", "1037",
     "1044", "1048", "1049", "1056", "1064", "1067", "1072", "1090", "1091"),
    ("1007", "1015", "1019", "1029", "1038", "1042", "1047", "1050", "1052",
     "1057", "1058", "1061", "1066", "1074", "1077", "1078", "1087", "1088"),
)
# fmt: on

# actor _ sentence _ emotion _ intensity
NAME = re.compile(f"(10\\d\\d)_({'|'.join(SENTENCES)})_({'|'.join(EMOTIONS)})_({'|'.join(INTENSITIES)})")
MISNAMED = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}

VOTES = Path("processedResults", "tabulatedVotes.csv")
VOTE_COLUMNS = dict(zip(LABELS, "NHSAFD"))
DEMOGRAPHICS = "VideoDemographics.csv"
GENDERS = {"Female": "female", "Male": "male"}
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that contains AudioWAV; `intensity` is low, medium, high or unspecified.

    Raises:
        InputError: the directory contains no CREMA-D audio, or git-lfs pointers instead of it, a table cannot be read,
            or utterances are missing and `partial` is not set.
    """
    root = _root(Path(data_dir))
    votes = _votes(root)
    genders = _genders(root)
    rows = []
    for path in find_audio_files(root / "AudioWAV"):
        utterance = MISNAMED.get(path.stem, path.stem)
        name = NAME.fullmatch(utterance)
        if name is None:
            continue
        _refuse_pointer(path, root)
        rows.append(
            {
                "id": utterance,
                "audio": path,
                "label": EMOTIONS[name[3]],
                "speaker": name[1],
                "gender": genders.get(name[1], ""),
                "text": SENTENCES[name[2]],
                "intensity": INTENSITIES[name[4]],
                "label_distribution": votes.get(utterance, []),
            }
        )
    if not rows:
        raise _no_audio(data_dir)
    report_differences("CREMA-D", data_dir, _differences(rows, votes), partial)
    return make_rows(rows, LABELS)


def _no_audio(data_dir: str | Path) -> InputError:
    return InputError(
        f"{data_dir} contains no CREMA-D audio; looked for files such as AudioWAV/1001_DFA_ANG_XX.wav: "
        "give the directory that contains AudioWAV"
    )


def _root(data_dir: Path) -> Path:
    inside = [data_dir.parent] if data_dir.name == "AudioWAV" else []
    for root in (*inside, data_dir, *sorted(data_dir.glob("CREMA-D*"))):
        if (root / "AudioWAV").is_dir():
            return root
    raise _no_audio(data_dir)


def _refuse_pointer(path: Path, root: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise InputError(f"{path} is a git-lfs pointer, not audio; run `git lfs pull` in {root}")


def _table(path: Path, columns: list[str]) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells of each line."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restval="")
        absent = [name for name in columns if name not in (reader.fieldnames or [])]
        if absent:
            raise InputError(f"{path} has no column {absent[0]!r}; take the file from the CREMA-D repository again")
        return [(reader.line_num, line) for line in reader]


def _votes(root: Path) -> dict[str, list[float]]:
    """For each utterance, the share of voice-only votes for each label; empty if the table is missing."""
    path = root / VOTES
    if not path.is_file():
        return {}
    votes = {}
    for number, line in _table(path, ["", "fileName", *VOTE_COLUMNS.values()]):
        cells = [line[column] for column in VOTE_COLUMNS.values()]
        # 100000 * modality + number of the clip, where modality is 1 for the voice, 2 the face, 3 both
        modality = re.fullmatch(r"([123])\d{5}", line[""])
        if modality is None or not all(cell.isdecimal() for cell in cells) or not any(map(int, cells)):
            raise InputError(
                f"{path}, line {number}: {line['fileName']!r} needs a number such as 100001 and counts of votes in "
                f"{', '.join(sorted(VOTE_COLUMNS.values()))}; take the file from the CREMA-D repository again"
            )
        if modality[1] == "1":
            votes[line["fileName"]] = [int(cell) / sum(map(int, cells)) for cell in cells]
    return votes


def _genders(root: Path) -> dict[str, str]:
    """Gender of each actor, from the corpus's table if it is there."""
    path = root / DEMOGRAPHICS
    if not path.is_file():
        return {actor: "female" if actor in FEMALE_ACTORS else "male" for actor in ACTORS}
    genders = {}
    for number, line in _table(path, ["ActorID", "Sex"]):
        if line["ActorID"] not in ACTORS or line["Sex"] not in GENDERS:
            raise InputError(
                f"{path}, line {number}: ActorID={line['ActorID']!r}, Sex={line['Sex']!r} is not one of {ACTORS[0]} "
                f"to {ACTORS[-1]} and one of {', '.join(GENDERS)}; take the file from the CREMA-D repository again"
            )
        genders[line["ActorID"]] = GENDERS[line["Sex"]]
    return genders


def _differences(rows: list[dict[str, Any]], votes: dict[str, list[float]]) -> list[str]:
    found = {row["id"] for row in rows}
    actors = {row["speaker"] for row in rows}
    absent = [f"no utterance of actor {actor}" for actor in ACTORS if actor not in actors]
    missing = [
        f"AudioWAV/{utterance}.wav is missing"
        for utterance in votes
        if utterance not in found and NAME.fullmatch(utterance) and utterance[:4] in actors
    ]
    return absent + missing + compare_counts(Counter(row["label"] for row in rows), PUBLISHED_COUNTS)
