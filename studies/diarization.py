"""How well the timeline of saved models finds where one emotion ends and another begins, on each of their corpora.

    python -m studies.diarization --model mini base --data_dir CORPORA

CORPORA contains the folders of the corpora that the models were trained on. Recordings of six utterances of one test
speaker, with different emotions one after the other, are made with the utterances' own pauses and without any; the
metric is the emotion diarization error rate (experiments/diarization.py). Sliding windows of several lengths see the
same recordings. `--part validation` measures on validation speakers instead, to choose a setting of the timeline.

Writes docs/results/diarization.json, from which `python -m docs.build.make` fills in docs/INFERENCE.md.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm import tqdm

from core.audio import read_audio
from core.errors import InputError, error_line
from core.json_files import write_json
from core.loading import load_pipeline
from experiments.diarization_report import CONDITIONS, build_diarization_table, measure_errors
from experiments.robustness import name_models, read_split
from pipeline_ser_align import SpeechEmotionRecognitionPipeline
from recipe.corpora.rows import read_excerpts
from recipe.results import library_versions
from recipe.run import quiet_libraries

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "diarization.json"
UTTERANCES = 6  # of a recording
WINDOWS = [1.5, 2.0, 3.0]  # seconds
ALL = "all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True, help="base, mini, or folders that train.py wrote")
    parser.add_argument("--data_dir", required=True, metavar="DIR", help="directory of the folders of the corpora")
    parser.add_argument("--recordings", type=int, default=10, help="the most of each speaker and condition")
    parser.add_argument("--part", choices=("validation", "test"), default="test", help="whose speakers")
    parser.add_argument("--windows", type=float, nargs="+", default=WINDOWS, help="seconds of the sliding windows")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON file to write")
    given = parser.parse_args()
    quiet_libraries()
    settings = {"utterances": UTTERANCES, "windows": given.windows, "recordings": given.recordings}
    models = []
    for folder, name in name_models(given.model).items():
        split = read_split(folder, argparse.Namespace(data_dir=given.data_dir, data_dirs={}))
        recognize = load_pipeline(folder)
        errors = measure_speakers(recognize, split[given.part], settings)
        models.append({"model": name, "corpora": [describe(corpus, own) for corpus, own in errors.items()]})
    command = f"python -m studies.diarization --model {' '.join(given.model)} --data_dir CORPORA"
    write_json(
        given.results,
        {"command": command, "part": given.part, **settings, "models": models, "versions": library_versions()},
    )
    print(f"The results are in {given.results}.")


def measure_speakers(
    recognize: SpeechEmotionRecognitionPipeline, rows: Dataset, settings: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Errors of each speaker, by corpus; with several corpora, those of all speakers, too."""
    by_speaker = defaultdict(list)
    for excerpt, label, speaker in zip(read_excerpts(rows[:]), rows["label"], rows["speaker"]):
        by_speaker[speaker].append((excerpt, label))
    is_mixed = "corpus" in rows.column_names
    corpora = dict(zip(rows["speaker"], rows["corpus"])) if is_mixed else dict.fromkeys(by_speaker, ALL)
    errors: dict[str, dict[str, Any]] = defaultdict(dict)
    for speaker, own in tqdm(sorted(by_speaker.items()), desc="speakers"):
        waveforms = [(read_audio(excerpt), label) for excerpt, label in own]
        found = measure_errors(recognize, waveforms, np.random.default_rng(0), **settings)
        for group in {corpora[speaker], ALL}:
            errors[group][speaker] = found
    return dict(sorted(errors.items(), key=lambda item: (item[0] == ALL, item[0])))


def describe(corpus: str, errors: dict[str, Any]) -> dict[str, Any]:
    """The rows of the table of each condition."""
    tables = {condition: build_diarization_table(errors, condition) for condition in CONDITIONS}
    return {"corpus": corpus, "speakers": len(errors), **tables}


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(error_line(error))
