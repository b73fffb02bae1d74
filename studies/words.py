"""Voice and words on a CONSTRUCTED set: RAVDESS recordings of unseen actors, paired with written sentences.

    python -m studies.words make --data_dir RAVDESS --output outputs/text/constructed.csv
    python experiment.py --config run_configs/text/fusions.yaml --data_dir RAVDESS
    python -m studies.words score --data_dir RAVDESS --runs outputs/text-constructed/fold1-seed*/*/stage1

No corpus at hand has both emotional voices and emotional words, and no package brings real transcripts with labels. The
sentences in studies/sentences.csv were written for this study, sixteen for each label; no sentence is in two sets. In
the set, a half of the utterances has a sentence of its own label, a quarter a neutral one, and a quarter one of another
label. `score` pairs the test actors with each kind alone, and with none.
"""

import argparse
import csv
import random
from pathlib import Path

import torch
from datasets import Dataset, DatasetDict

from core.hashing import hash_frozen_part
from core.json_files import write_json
from core.loading import load_model, load_tokenizer
from recipe.batching import WORDS, Collator
from recipe.corpora import load_corpus
from recipe.corpora.rows import read_excerpts
from recipe.feature_cache import FeatureCache, fill_cache
from recipe.preparing import UtterancePreparer
from recipe.reading import Reader
from recipe.scoring import load_metric
from recipe.splits import RAVDESS_TEST_ACTORS

SENTENCES = Path(__file__).parent / "sentences.csv"
VALIDATION_ACTORS = ("02", "05", "06", "07")  # two women and two men
PLAIN = "neutral"
KINDS = {"agree": 0.5, "neutral": 0.25, "contradict": 0.25}  # shares of the set
PARTS = {"train": slice(0, 10), "validation": slice(10, 12), "test": slice(12, 16)}  # of the sentences of a label
BATCH = 16
ANSWERS = {"voice": "voice_logits", "words": "text_logits", "both": "logits"}


def choose_sentence(label: str, kind: str, part: str, rng: random.Random) -> str:
    """Draw a sentence of this part for an utterance: of its own label, of no emotion, or of another label."""
    with SENTENCES.open(encoding="utf-8") as file:
        sentences: dict[str, list[str]] = {}
        for line in csv.DictReader(file):
            sentences.setdefault(line["label"], []).append(line["text"])
    others = [name for name in sentences if name not in (label, PLAIN)]
    said = {"agree": label, "neutral": PLAIN, "contradict": rng.choice(others)}[kind]
    return rng.choice(sentences[said][PARTS[part]])


def find_part(speaker: str) -> str:
    if speaker in RAVDESS_TEST_ACTORS[0]:
        return "test"
    return "validation" if speaker in VALIDATION_ACTORS else "train"


def make_set(data_dir: str, output: Path) -> None:
    """Write the constructed set as a CSV file for --corpus folder, the same in every run."""
    rng = random.Random(0)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = load_corpus("ravdess", data_dir)
    names = rows.features["label"].names
    with output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "speaker", "split", "text"])
        for row in rows:
            label, part = names[row["label"]], find_part(row["speaker"])
            kind = rng.choices([*KINDS], [*KINDS.values()])[0]
            path = Path(row["audio"]["path"]).relative_to(data_dir)
            writer.writerow([path, label, row["speaker"], part, choose_sentence(label, kind, part, rng)])


@torch.inference_mode()
def score_run(folder: str, rows: Dataset, cache_folder: Path) -> dict[str, dict[str, float]]:
    """UA of each answer of a model on the test actors, with each kind of words, and with none."""
    model, extractor = load_model(folder)
    config, names = model.config, rows.features["label"].names
    labels = [list(config.id2label.values()).index(names[label]) for label in rows["label"][:]]
    cache = FeatureCache(cache_folder, hash_frozen_part(model))
    preparer = UtterancePreparer(extractor, config.shortest_samples, config.longest_seconds, feature_cache=cache)
    fill_cache(model, {"test": preparer}, DatasetDict({"test": rows}))
    voices = [preparer.prepare(excerpt) for excerpt in read_excerpts(rows[:])]
    reader = Reader(load_tokenizer(folder)) if config.reads_text else None
    scores = {}
    for kind in (*KINDS, "missing"):
        rng = random.Random(1)
        texts = [
            None if kind == "missing" else choose_sentence(names[label], kind, "test", rng)
            for label in rows["label"][:]
        ]
        found: dict[str, list[int]] = {name: [] for name in ANSWERS}
        for start in range(0, len(labels), BATCH):
            part = slice(start, start + BATCH)
            utterances = [
                {preparer.input_name: voice, **({WORDS: reader(text)} if reader else {})}
                for voice, text in zip(voices[part], texts[part])
            ]
            output = model(**Collator(preparer.input_name)(utterances))
            for name, field in ANSWERS.items():
                logits = output.get(field, output.logits)
                found[name] += logits.argmax(-1).tolist()
        scores[kind] = {
            name: load_metric().compute(predictions=each, references=labels, num_classes=len(names))["ua"]
            for name, each in found.items()
        }
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "score"))
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--runs", nargs="+", default=[])
    parser.add_argument(
        "--features", type=Path, default=Path("outputs/text/features"), help="cache of the frozen layers"
    )
    args = parser.parse_args()
    if args.action == "make":
        make_set(args.data_dir, args.output)
        return
    rows = load_corpus("ravdess", args.data_dir)
    rows = rows.filter(lambda speaker: find_part(speaker) == "test", input_columns="speaker")
    results = {}
    for folder in args.runs:
        name = Path(folder).parent.name
        results[name] = scores = score_run(folder, rows, args.features)
        print(f"{name:18}" + "".join(f"{kind:>26}" for kind in scores))
        for answer in ANSWERS:
            print(f"  {answer:16}" + "".join(f"{100 * each[answer]:26.1f}" for each in scores.values()))
    if args.output:
        write_json(args.output, results)


if __name__ == "__main__":
    main()
