"""EmoDB, the Berlin Database of Emotional Speech: 535 utterances, 0.4 hours, 10 speakers, 7 classes, 10 sentences.

Acted German by five women and five men, recorded at 16 kHz in an anechoic chamber at TU Berlin. The corpus keeps only
utterances whose emotion was recognised by at least 80 % of the listeners, so the classes differ in size: angry
(127 utterances), bored (81), neutral (79), happy (71), fearful (69), sad (62), disgust (46).

Where: http://emodb.bilderbar.info/download/download.zip. Unpack it and give the directory that contains wav/.
Licence: the corpus page asks for a citation; audEERING's collection of public datasets lists it as CC0 1.0.

Citation: Burkhardt F, Paeschke A, Rolfes M, Sendlmeier WF, Weiss B (2005). A database of German emotional speech.
Interspeech 2005, 1517-1520. https://doi.org/10.21437/Interspeech.2005-446
"""

import re
from collections import Counter
from pathlib import Path

from datasets import Dataset

from core.errors import InputError
from recipe.corpora.rows import compare_counts, find_audio_files, make_rows, report_differences

LICENSE = "cc0-1.0"
DESCRIPTION = (
    "EmoDB (Burkhardt et al. 2005, http://emodb.bilderbar.info, listed as CC0 1.0): acted German, ten sentences, ten "
    "speakers, recorded in an anechoic chamber and selected for clear emotions. Expect lower accuracy on "
    "spontaneous speech, other sentences and languages, and on noisy recordings."
)
LABELS = ["neutral", "happy", "sad", "angry", "fearful", "disgust", "bored"]
PUBLISHED_COUNTS = {"neutral": 79, "happy": 71, "sad": 62, "angry": 127, "fearful": 69, "disgust": 46, "bored": 81}
# First letter of the German word: Wut, Langeweile, Ekel, Angst, Freude, Trauer, neutral.
EMOTIONS = {"W": "angry", "L": "bored", "E": "disgust", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral"}
GENDERS = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}

# speaker - sentence - emotion - version
NAME = re.compile(rf"({'|'.join(GENDERS)})({'|'.join(SENTENCES)})([{''.join(EMOTIONS)}])([a-z]?)")


def load(data_dir: str | Path, partial: bool = False) -> Dataset:
    """Read the directory that contains wav/, or wav/ itself.

    Raises:
        InputError: the directory is missing or contains no EmoDB file, or utterances are missing and `partial` is not
            set.
    """
    rows: dict[str, dict] = {}
    for path in find_audio_files(Path(data_dir)):
        name = NAME.fullmatch(path.stem)
        if name is None:
            continue
        row = {
            "id": path.stem,
            "audio": path,
            "label": EMOTIONS[name[3]],
            "speaker": name[1],
            "gender": GENDERS[name[1]],
            "text": SENTENCES[name[2]],
            "style": "scripted",
        }
        rows.setdefault(path.stem, row)
    if not rows:
        raise InputError(
            f"{data_dir} contains no EmoDB speech; looked for files such as wav/03a01Wa.wav below it: "
            "give the directory that contains wav/"
        )
    report_differences("EmoDB", data_dir, _differences(list(rows.values())), partial)
    return make_rows(list(rows.values()), LABELS)


def _differences(rows: list[dict]) -> list[str]:
    speakers = {row["speaker"] for row in rows}
    absent = [f"no utterance of speaker {speaker}" for speaker in GENDERS if speaker not in speakers]
    return absent + compare_counts(Counter(row["label"] for row in rows), PUBLISHED_COUNTS)
