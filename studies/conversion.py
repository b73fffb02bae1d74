"""Measure whether voice conversion keeps the emotion and changes the speaker.

    python -m studies.conversion --data_dir RAVDESS
    python -m studies.conversion --data_dir RAVDESS --convert_command 'python convert.py {source} {reference} {output}'

The utterances of the RAVDESS actors whom ser-align-base was not trained on are converted to the voices of one another.
ser-align-base, which has heard neither these voices nor converted speech, scores the emotion. F0 is measured by YIN,
not by what converts. A logistic regression on the statistics of ser-align-base's frozen layers, which are those of
whisper-base, names the speaker: it is fitted to one sentence as recorded, and tested on the other.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from core.audio import read_audio
from core.json_files import read_json
from core.librosa_loading import load_librosa
from core.loading import load_model
from core.shipped import SHIPPED_MODELS
from fields_ser_align import SAMPLING_RATE
from recipe.conversion import check_command, convert, describe_voice, run_command
from studies.limits import EMOTIONS
from studies.reporting import RELIABILITY, write_study

TRIM_DB = 40.0
BASE_MODEL = SHIPPED_MODELS["base"]
FIRST_REPETITION = "03-01-*-*-*-01-*"
VERSIONS = ("as recorded", "in their own voice", "in another voice")


class Utterance(NamedTuple):
    """An utterance, (samples,) at 16 kHz, and what its file name says of it."""

    waveform: np.ndarray
    label: str
    actor: str
    sentence: str


def read_utterances(data_dir: Path) -> list[Utterance]:
    """The first repetitions of the actors whom ser-align-base was not trained on, who all say the same sentences."""
    speakers = read_json(BASE_MODEL / "results.json")["speakers"]
    actors = sorted(name[8:] for part in ("validation", "test") for name in speakers[part] if name[:8] == "ravdess/")
    files = sorted(path for actor in actors for path in data_dir.glob(f"Actor_{actor}/{FIRST_REPETITION}"))
    if not files:
        sys.exit(f"error: {data_dir} has no Actor_{actors[0]}; give the directory of Actor_01 to Actor_24")
    return [
        Utterance(read_audio(path, TRIM_DB), EMOTIONS[int(path.name[6:8]) - 1], path.stem[-2:], path.name[12:14])
        for path in files
    ]


def choose_targets(utterances: list[Utterance]) -> list[str]:
    """The actor of each converted utterance: the others in turn."""
    actors = sorted({each.actor for each in utterances})
    others = {actor: [other for other in actors if other != actor] for actor in actors}
    return [others[each.actor][number % len(others[each.actor])] for number, each in enumerate(utterances)]


def convert_all(utterances: list[Utterance], targets: list[str], command: str | None) -> list[np.ndarray]:
    if command is not None:
        references = {each.actor: each.waveform for each in utterances}
        return [run_command(command, each.waveform, references[to]) for each, to in zip(tqdm(utterances), targets)]
    voices = {
        actor: describe_voice(each.waveform for each in utterances if each.actor == actor) for actor in set(targets)
    }
    return [convert(each.waveform, voices[each.actor], voices[to]) for each, to in zip(tqdm(utterances), targets)]  # type: ignore[arg-type]


@torch.no_grad()
def listen(waveforms: list[np.ndarray]) -> tuple[list[str], np.ndarray]:
    """What ser-align-base answers, and the statistics of its frozen layers, (utterances, features)."""
    model, extractor = load_model(str(BASE_MODEL), option="")
    extract: Any = extractor
    answers, statistics = [], []
    for waveform in tqdm(waveforms, leave=False):
        inputs = extract(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt", is_trimmed=True)
        answers.append(model.config.id2label[int(model(**inputs).logits.argmax())])
        statistics.append(model.compute_statistics(**inputs)[0].numpy())
    return answers, np.array(statistics)


def measure_pitch(waveforms: list[np.ndarray]) -> float:
    """The median F0 of the louder half of the frames in semitones above 1 Hz, by YIN."""
    librosa, found = load_librosa(), []
    for waveform in waveforms:
        level = librosa.feature.rms(y=waveform, frame_length=1024, hop_length=256)[0]
        f0 = librosa.yin(waveform, fmin=65, fmax=600, sr=SAMPLING_RATE, frame_length=1024, hop_length=256)
        found.append(f0[: len(level)][level[: len(f0)] >= np.median(level)])
    return float(12 * np.log2(np.median(np.concatenate(found))))


def name_speakers(
    utterances: list[Utterance], targets: list[str], statistics: dict[str, np.ndarray]
) -> list[dict[str, str]]:
    """Rows: whose voice a classifier of the speakers hears in the sentence that it was not fitted to."""
    first = np.array([each.sentence == "01" for each in utterances])
    actors = np.array([each.actor for each in utterances])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    classifier.fit(statistics["as recorded"][first], actors[first])
    rows = []
    for version in VERSIONS:
        named = classifier.predict(statistics[version][~first])
        shares = [100 * np.mean(named == wanted[~first]) for wanted in (actors, np.array(targets))]
        measured = f"{shares[0]:.0f} % the speaker" + (
            f", {shares[1]:.0f} % the target" if version == VERSIONS[2] else ""
        )
        rows.append(
            {"what": f"{version}: speaker named", "measured": f"{measured}; chance {100 / len(set(actors)):.0f} %"}
        )
    return rows


def compare_pitch(utterances: list[Utterance], targets: list[str], converted: list[np.ndarray]) -> list[dict[str, str]]:
    """A row: how far the median F0 of each pair of speakers is from that of its target and of its source."""
    actors = sorted({each.actor for each in utterances})
    own = {actor: measure_pitch([each.waveform for each in utterances if each.actor == actor]) for actor in actors}
    away = []
    for source in actors:
        for target in actors:
            chosen = [n for n, each in enumerate(utterances) if (each.actor, targets[n]) == (source, target)]
            if chosen:
                expected = own[target] + measure_pitch([utterances[n].waveform for n in chosen]) - own[source]
                found = measure_pitch([converted[n] for n in chosen])
                away.append((abs(found - expected), abs(own[target] - own[source])))
    near, far = np.median(away, axis=0)
    measured = f"{near:.1f} semitones from what the target's voice would have; the two speakers differ by {far:.1f}"
    return [{"what": "in another voice: median F0, median over pairs of speakers", "measured": measured}]


def describe_emotions(
    utterances: list[Utterance], targets: list[str], answers: dict[str, list[str]], women: set[str]
) -> list[dict[str, str]]:
    """Rows: UA of each version, how many answers stay, and UA of conversions within and across genders."""
    labels = np.array(["neutral" if each.label == "calm" else each.label for each in utterances])  # as base learned it
    same = np.array([(each.actor in women) == (to in women) for each, to in zip(utterances, targets)])
    before, rows = np.array(answers[VERSIONS[0]]), []
    for version in VERSIONS:
        found = np.array(answers[version])
        measured = f"UA {100 * balanced_accuracy_score(labels, found):.1f} %"
        if version != VERSIONS[0]:
            measured += f"; {100 * np.mean(found == before):.0f} % of the answers stay"
        if version == VERSIONS[2]:
            parts = [balanced_accuracy_score(labels[part], found[part]) for part in (same, ~same)]
            measured += f"; to the same gender UA {100 * parts[0]:.1f} %, to the other {100 * parts[1]:.1f} %"
        rows.append({"what": f"{version}: emotion", "measured": measured})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, type=Path, metavar="RAVDESS", help="holds Actor_01 to Actor_24")
    parser.add_argument("--convert_command", metavar="COMMAND", help="what converts; by default WORLD")
    options = parser.parse_args()
    if options.convert_command:
        check_command(options.convert_command)
    utterances = read_utterances(options.data_dir)
    actors, targets = [each.actor for each in utterances], choose_targets(utterances)
    waveforms = {
        VERSIONS[0]: [each.waveform for each in utterances],
        VERSIONS[1]: convert_all(utterances, actors, options.convert_command),
        VERSIONS[2]: convert_all(utterances, targets, options.convert_command),
    }
    heard = {version: listen(each) for version, each in waveforms.items()}
    answers = {version: names for version, (names, _) in heard.items()}
    statistics = {version: arrays for version, (_, arrays) in heard.items()}
    women = {actor for actor in actors if int(actor) % 2 == 0}
    rows = [
        *describe_emotions(utterances, targets, answers, women),
        *name_speakers(utterances, targets, statistics),
        *compare_pitch(utterances, targets, waveforms[VERSIONS[2]]),
    ]
    by = "a command" if options.convert_command else "WORLD"
    notes = (
        f"{len(utterances)} utterances of {len(set(actors))} actors, {len(women)} of them women, by {by}. *In their "
        "own voice* is what the converter makes of speech that it need not change. The classifier of the speakers is "
        "fitted to one sentence and tested on the other."
    )
    command = "python -m studies.conversion --data_dir RAVDESS"
    write_study(RELIABILITY / "conversion.json", "Voice conversion", command, rows, notes)


if __name__ == "__main__":
    main()
