"""Compare explanations of a model's predictions, and the voice in what they find with what the literature expects.

    python -m studies.explanation --model base --data_dir CORPORA

CORPORA contains the folders ravdess, emodb and nemo. Follows Nasr, Ren and Johnson (2025, arXiv 2511.11691): the five
stretches of 150 ms that count most are described by acoustic cues. On utterances of test speakers, this measures

- which saliency finds what the model uses: the label's probability while the stretches that count most are removed
  (deletion), and while only these are left (insertion);
- how the cues of the salient stretches (eGeMAPS, by openSMILE) differ from the whole utterance, and from the
  speaker's neutral speech;
- whether these differences have the direction that reviews of the literature expect, more often than those of random
  stretches.

Needs requirements-opensmile.txt and requirements-explanation.txt. An interrupted study continues. Writes
docs/results/explanation.json, from which `python -m docs.build.make` builds docs/EXPLANATION.md.
"""

import argparse
import hashlib
import sys
import warnings
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm import tqdm

from core.audio import read_audio
from core.errors import InputError, error_line
from core.json_files import read_json, write_json
from core.loading import load_model
from core.shipped import find_model
from experiments.robustness import read_split
from inference.saliency import METHODS, STEP, count_steps, measure_saliency
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.corpora.rows import read_excerpts
from recipe.feature_cache import hash_content
from recipe.results import library_versions
from recipe.run import quiet_libraries
from recipe.statistics import mean_interval
from recording_ser_align import SAMPLING_RATE
from speech_ser_align import trim

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "explanation.json"
SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # of the steps that are removed or left
NUM_SALIENT = 5  # stretches of 150 ms, as in the paper
NUM_RANDOM = 3  # random orders, whose results are averaged
RANDOM = "random"
# Column of eGeMAPSv02's low-level descriptors, unit, and whether it is 0 where there is no voice. The paper's six cues.
CUES = {
    "loudness": ("Loudness_sma3", "sone", False),
    "pitch": ("F0semitoneFrom27.5Hz_sma3nz", "semitones", True),
    "jitter": ("jitterLocal_sma3nz", "", True),
    "shimmer": ("shimmerLocaldB_sma3nz", "dB", True),
    "harmonics_to_noise": ("HNRdBACF_sma3nz", "dB", True),
    "slope_500_1500": ("slope500-1500_sma3", "dB/Hz", False),
}
# Directions on which Juslin and Laukka (2003, table 7 and 11) and Scherer (2003, table 2) agree, relative to neutral.
EXPECTED = {
    "angry": {"loudness": 1, "pitch": 1, "slope_500_1500": 1},
    "happy": {"loudness": 1, "pitch": 1},
    "sad": {"loudness": -1, "pitch": -1, "slope_500_1500": -1},
    "fearful": {"pitch": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base", help="base, mini, or a folder that train.py wrote")
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="directory of the folders of the corpora")
    parser.add_argument("--per_speaker", type=int, default=20, help="utterances of each test speaker")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/explanation"), help="where lines are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to write")
    given = parser.parse_args()
    check_libraries()
    quiet_libraries()
    folder = find_model(given.model)
    rows = read_test_rows(folder, given.data_dir, given.per_speaker)
    lines = measure_all(folder, rows, given.output_dir)
    command = f"python -m studies.explanation --model {given.model} --data_dir CORPORA"
    write_json(given.results, {"command": command, **summarize(lines), "versions": library_versions()})
    print(f"The results are in {given.results}.")


def check_libraries() -> None:
    """Raise InputError if openSMILE or captum is not installed."""
    for name, extra in (("opensmile", "opensmile"), ("captum", "explanation")):
        if find_spec(name) is None:
            raise InputError(f"this needs {name}, which is not installed: pip install -r requirements-{extra}.txt")


def read_test_rows(folder: str, data_dir: str, per_speaker: int) -> Dataset:
    """Utterances of each test speaker, of all labels in turn."""
    rows = read_split(folder, argparse.Namespace(data_dir=data_dir, data_dirs={}))["test"]
    by_place: dict[tuple[str, int], list[int]] = defaultdict(list)
    for index, (speaker, label) in enumerate(zip(rows["speaker"], rows["label"])):
        by_place[speaker, label].append(index)
    rng = np.random.default_rng(0)
    chosen: list[int] = []
    for speaker in sorted(set(rows["speaker"])):
        queues = [rng.permutation(of_label) for place, of_label in sorted(by_place.items()) if place[0] == speaker]
        in_turn = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
        chosen += sorted(int(index) for index in in_turn[:per_speaker])
    return rows.select(chosen)


# -------------------------------------------------------------------------------------------- measuring


def measure_all(folder: str, rows: Dataset, output_dir: Path) -> list[dict[str, Any]]:
    """Measure each utterance; what an earlier run of the same weights measured is read."""
    kept = output_dir / hash_content(f"{folder}/model.safetensors")[:16]
    kept.mkdir(parents=True, exist_ok=True)
    recognize = load_plain_pipeline(folder)
    names = rows.features["label"].names
    lines = []
    for row, excerpt in zip(tqdm(rows, desc="utterances"), read_excerpts(rows[:])):
        path = kept / f"{hashlib.sha256(row['id'].encode()).hexdigest()[:32]}.json"
        if not path.is_file():
            _, waveform = trim(read_audio(excerpt), recognize.feature_extractor.trim_db)  # type: ignore[union-attr]
            write_json(path, measure_utterance(recognize, waveform))
        lines.append({**read_json(path), "speaker": row["speaker"], "label": names[row["label"]]})
    return lines


def load_plain_pipeline(folder: str) -> SpeechEmotionRecognitionPipeline:
    """A pipeline with the library's own layers: the faster ones of `load_pipeline` have no gradients."""
    model, extractor = load_model(folder)
    return SpeechEmotionRecognitionPipeline(model=model, feature_extractor=extractor, device="cpu")


def measure_utterance(recognize: SpeechEmotionRecognitionPipeline, waveform: np.ndarray) -> dict[str, Any]:
    """The curves of each saliency, and the cues in the whole utterance and in its salient stretches."""
    label = int(recognize.score_waveforms([waveform])["probabilities"][0].argmax())
    steps = count_steps(len(waveform))
    rng = np.random.default_rng([steps, len(waveform)])
    orders: dict[str, list[np.ndarray]] = {
        method: [np.argsort(-measure_saliency(recognize, waveform, label, method), kind="stable")] for method in METHODS
    }
    orders[RANDOM] = [rng.permutation(steps) for _ in range(NUM_RANDOM)]
    descriptors = measure_descriptors(waveform)
    return {
        "curves": {
            method: average([measure_curves(recognize, waveform, order, label) for order in of_method])
            for method, of_method in orders.items()
        },
        "clip": average_cues(descriptors, np.ones(steps, bool)),
        "salient": {
            method: average([average_cues(descriptors, choose(order, steps)) for order in of_method])
            for method, of_method in orders.items()
        },
    }


def average(dictionaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Average the values of dictionaries, which are numbers or lists; None where all are None."""
    averaged = {}
    for name in dictionaries[0]:
        values = [each[name] for each in dictionaries if each[name] is not None]
        averaged[name] = np.mean(values, axis=0).tolist() if values else None
    return averaged


def choose(order: np.ndarray, steps: int) -> np.ndarray:
    """Mask of the first steps of an order, (steps,)."""
    mask = np.zeros(steps, bool)
    mask[order[:NUM_SALIENT]] = True
    return mask


def measure_curves(
    recognize: SpeechEmotionRecognitionPipeline, waveform: np.ndarray, order: np.ndarray, label: int
) -> dict[str, list[float]]:
    """The label's probability without the first steps of an order (deletion) and with only these (insertion)."""
    steps = len(order)
    kept = []
    for share in SHARES:
        count = min(max(1, round(share * steps)), steps - 1) if steps > 1 else 1
        removed = np.zeros(steps, bool)
        removed[order[:count]] = True
        kept += [cut(waveform, ~removed), cut(waveform, removed)]
    found = [float(recognize.score_waveforms([each])["probabilities"][0, label]) for each in kept]
    return {"deletion": found[::2], "insertion": found[1::2]}


def cut(waveform: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The steps of a waveform, (samples,), that are kept, joined, and at least one step with the silence after it."""
    left = waveform[np.repeat(kept, STEP)[: len(waveform)]]
    return np.pad(left, (0, max(0, STEP - len(left))))


# ------------------------------------------------------------------------------------------------- cues


def measure_descriptors(waveform: np.ndarray) -> dict[str, np.ndarray]:
    """eGeMAPS low-level descriptors every 10 ms: each (frames,), NaN where there is no voice to measure."""
    import opensmile

    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
    )
    table = smile.process_signal(waveform, SAMPLING_RATE)
    found = {}
    for name, (column, _, is_voiced) in CUES.items():
        values = table[column].to_numpy(np.float64)
        found[name] = np.where(values == 0, np.nan, values) if is_voiced else values
    return found


def average_cues(descriptors: dict[str, np.ndarray], steps: np.ndarray) -> dict[str, float | None]:
    """The mean of each descriptor over the frames whose centre lies in one of the steps, (steps,); None without any."""
    averaged: dict[str, float | None] = {}
    for name, values in descriptors.items():
        centres = ((np.arange(len(values)) + 1) * SAMPLING_RATE // 100) // STEP  # frames last 20 ms
        inside = steps[np.minimum(centres, len(steps) - 1)]
        averaged[name] = None if np.isnan(values[inside]).all() else float(np.nanmean(values[inside]))
    return averaged


# -------------------------------------------------------------------------------------------- summarizing


def summarize(lines: list[dict[str, Any]]) -> dict[str, Any]:
    neutral = average_neutral(lines)
    return {
        "speakers": len({line["speaker"] for line in lines}),
        "utterances": len(lines),
        "shares": SHARES,
        "salient": NUM_SALIENT,
        "curves": [summarize_curves(lines, method) for method in (*METHODS, RANDOM)],
        "cues": [row for label in EXPECTED for row in summarize_cues(lines, neutral, label)],
        "agreement": [
            summarize_agreement(lines, neutral, method, reference)
            for method in METHODS
            for reference in ("clip", "neutral")
        ],
    }


def average_neutral(lines: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """The cues of the neutral utterances of each speaker who has any."""
    by_speaker = defaultdict(list)
    for line in lines:
        if line["label"] == "neutral":
            by_speaker[line["speaker"]].append(line["clip"])
    return {speaker: average(cues) for speaker, cues in by_speaker.items()}


def summarize_curves(lines: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """Mean curves, their means over the shares, and how much better than random these are, over speakers."""
    row: dict[str, Any] = {"method": method}
    for kind, sign in (("deletion", -1), ("insertion", 1)):
        curves = np.array([line["curves"][method][kind] for line in lines])
        better = sign * (curves - np.array([line["curves"][RANDOM][kind] for line in lines])).mean(axis=1)
        row[kind] = curves.mean(axis=0).tolist()
        row[f"{kind}_mean"] = float(curves.mean())
        row[f"{kind}_better"] = float(better.mean())
        row[f"{kind}_interval"] = mean_interval(group(lines, better)) if method != RANDOM else None
    return row


def group(lines: list[dict[str, Any]], values: np.ndarray) -> list[list[float]]:
    """Values of utterances by speaker."""
    by_speaker = defaultdict(list)
    for line, value in zip(lines, values):
        by_speaker[line["speaker"]].append(float(value))
    return list(by_speaker.values())


def find_difference(
    line: dict[str, Any], neutral: dict[str, dict[str, float | None]], method: str, reference: str, cue: str
) -> float | None:
    """A cue in the salient stretches of an utterance minus that of the reference; None if one is unknown."""
    other = line["clip"] if reference == "clip" else neutral.get(line["speaker"], {})
    pair = line["salient"][method][cue], other.get(cue)
    return None if None in pair else pair[0] - pair[1]


def summarize_cues(
    lines: list[dict[str, Any]], neutral: dict[str, dict[str, float | None]], label: str
) -> list[dict[str, Any]]:
    """Mean and standard deviation of each cue's difference, for the utterances of a label, by reference."""
    own = [line for line in lines if line["label"] == label]
    rows = []
    for cue, (_, unit, _) in CUES.items():
        row: dict[str, Any] = {"label": label, "cue": cue, "unit": unit, "expected": EXPECTED[label].get(cue)}
        for reference in ("clip", "neutral"):
            differences = (find_difference(line, neutral, "occlusion", reference, cue) for line in own)
            known = [difference for difference in differences if difference is not None]
            row[reference] = {"mean": float(np.mean(known)), "sd": float(np.std(known))} if known else None
        rows.append(row)
    return rows


def summarize_agreement(
    lines: list[dict[str, Any]], neutral: dict[str, dict[str, float | None]], method: str, reference: str
) -> dict[str, Any]:
    """The share of expected directions that the salient stretches have, beside that of random stretches."""
    found: dict[str, list[float]] = {method: [], RANDOM: []}
    scored = []
    for line in (line for line in lines if line["label"] in EXPECTED):
        expected = EXPECTED[line["label"]]
        shares = []
        for name in found:
            differences = {cue: find_difference(line, neutral, name, reference, cue) for cue in expected}
            known = [np.sign(value) == expected[cue] for cue, value in differences.items() if value is not None]
            shares.append(float(np.mean(known)) if known else None)
        if None not in shares:
            scored.append(line)
            for name, share in zip(found, shares):
                found[name].append(share)  # type: ignore[arg-type]
    difference = np.array(found[method]) - np.array(found[RANDOM])
    return {
        "method": method,
        "reference": reference,
        "utterances": len(scored),
        "agreement": float(np.mean(found[method])),
        "random": float(np.mean(found[RANDOM])),
        "difference": float(difference.mean()),
        "interval": mean_interval(group(scored, difference)),
    }


if __name__ == "__main__":
    try:
        warnings.simplefilter("ignore")  # of recordings: the pieces are short
        main()
    except InputError as error:
        sys.exit(error_line(error))
