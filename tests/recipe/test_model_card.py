"""The model card: measured scores, snippets that run, and a warning if there are few speakers."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import write_wav
from huggingface_hub import ModelCard
from running import SHORT, environment, lines_of, run_script
from sklearn.metrics import balanced_accuracy_score, recall_score

from core.json_files import read_json, write_lines
from recipe.arguments import parse_arguments
from recipe.model_card import hyper_parameters, write_model_card
from recipe.statistics import ENOUGH_SPEAKERS, speaker_confusions, speaker_interval

pytestmark = pytest.mark.slow


@pytest.fixture
def stage_dir(short_run, demo, tmp_path):
    """A finished stage 2, copied, with a card that names the copy."""
    folder = tmp_path / "stage2"
    shutil.copytree(short_run[0] / "stage2", folder)
    rendered(folder)
    return folder


def rendered(folder, *options):
    """The card of a folder; the options say what differs from the short run."""
    args = parse_arguments([*SHORT, "--data_dir", "/home/somebody/demo", *options], description="")[2]
    write_model_card(folder, read_json(folder / "results.json"), args, where=str(folder))
    return ModelCard.load(folder / "README.md")


def with_test_speakers(folder, rename):
    """The folder as if `rename(number)` had spoken the test utterance of that number."""
    for path in (folder / "predictions.jsonl", folder / "last" / "predictions.jsonl"):
        lines = lines_of(path)
        test = [line for line in lines if line["split"] == "test"]
        for number, line in enumerate(test):
            line["speaker"] = rename(number)
        write_lines(path, lines)
    results = read_json(folder / "results.json")
    results["speakers"]["test"] = sorted({line["speaker"] for line in test})
    (folder / "results.json").write_text(json.dumps(results))


def test_it_states_the_scores_of_results_json_with_intervals_over_speakers(stage_dir):
    results = read_json(stage_dir / "results.json")
    card = ModelCard.load(stage_dir / "README.md")
    assert card.data.license == "apache-2.0" and card.data.pipeline_tag == "audio-classification"
    test, lines = results["scores"]["best"]["test"], lines_of(stage_dir / "predictions.jsonl")
    confusions = speaker_confusions([line for line in lines if line["split"] == "test"], results["labels"])
    stacked = np.array(list(confusions.values()))
    found = {result.metric_type: result for result in card.data.eval_results}
    assert found.keys() == {"ua", "wa", "macro_f1"}
    for metric, name in (("ua", "UA"), ("wa", "WA"), ("macro_f1", "macro-F1")):
        low, high = speaker_interval(stacked, metric)
        assert found[metric].metric_value == round(test[metric], 4)
        assert found[metric].metric_args["interval_95"] == [round(low, 4), round(high, 4)]
        assert (found[metric].metric_args["resampled"], found[metric].metric_args["number"]) == ("speakers", 2)
        assert f"| test {name} | {test[metric]:.3f} | {low:.3f} to {high:.3f} |" in card.text
        validation = results["scores"]["best"]["validation"][metric]
        assert f"| validation {name} | {validation:.3f} |  |" in card.text
    assert "It is not speech" in card.text and "Article 5(1)(f)" in card.text


def test_recall_by_class_and_ua_by_gender_are_those_of_scikit_learn(stage_dir):
    card = (stage_dir / "README.md").read_text(encoding="utf-8")
    test = [line for line in lines_of(stage_dir / "predictions.jsonl") if line["split"] == "test"]
    labels = list(test[0]["probabilities"])

    def true_and_predicted(lines):
        return [line["label"] for line in lines], [line["prediction"] for line in lines]

    for label, recall in zip(labels, recall_score(*true_and_predicted(test), labels=labels, average=None)):
        assert f"| {label} | {recall:.3f} |" in card
    for name, gender in (("women", "female"), ("men", "male")):
        part = [line for line in test if line["gender"] == gender]
        speakers, ua = len({line["speaker"] for line in part}), balanced_accuracy_score(*true_and_predicted(part))
        assert f"| {name} | {speakers} | {len(part)} | {ua:.3f} |" in card


@pytest.mark.parametrize(
    ("rename", "sentence"),
    [
        (lambda number: "anna", "There is one test speaker, so there is no interval"),
        (lambda number: f"s{number % 2}", "over the 2 test speakers, which is too few"),
        (lambda number: f"s{number % ENOUGH_SPEAKERS}", f"over the {ENOUGH_SPEAKERS} test speakers."),
        (lambda number: f"utterance:{number}", "over utterances, since the corpus does not name every speaker"),
    ],
    ids=["one", "two", "enough", "unnamed"],
)
def test_it_says_what_an_interval_over_these_speakers_is_worth(stage_dir, rename, sentence):
    with_test_speakers(stage_dir, rename)
    card = rendered(stage_dir)
    assert sentence in card.text
    given = [result.metric_args for result in card.data.eval_results]
    assert all(given) or (rename(0) == rename(1) and not any(given))


def test_no_gender_no_table_and_a_class_that_nobody_spoke_has_no_recall(stage_dir):
    for path in (stage_dir / "predictions.jsonl", stage_dir / "last" / "predictions.jsonl"):
        lines = [{**line, "gender": ""} for line in lines_of(path) if (line["split"], line["label"]) != ("test", "sad")]
        write_lines(path, lines)
    text = rendered(stage_dir).text
    assert "Scores by class\n" in text and "women" not in text
    assert re.search(r"\| sad \| - \| \S+ \| \S+ \| 0 \|", text)


def test_hyper_parameters_that_differ_come_first_and_name_no_place(stage_dir, tmp_path):
    (tmp_path / "my-encoder").mkdir()
    options = ["--encoder", str(tmp_path / "my-encoder"), "--use_cpu", "--push_to_hub", "a/b"]
    card = rendered(stage_dir, *options).content
    changed, _, unchanged = card.partition("<details>")
    assert "max_steps: 4" in changed and "encoder: my-encoder" in changed
    assert "eal_weight: 0.05" in unchanged and "max_steps" not in unchanged
    for word in ("/home/somebody", "data_dir", "push_to_hub", "use_cpu", "base_model", f"encoder: {tmp_path}"):
        assert word not in card
    args = parse_arguments(SHORT, description="")[2]
    assert not set.intersection(*map(set, hyper_parameters(args)))
    assert (
        rendered(stage_dir, "--encoder", "facebook/hubert-base-ls960").data.base_model == "facebook/hubert-base-ls960"
    )


def snippets_of(card, wav):
    """Language and code of each snippet under How to use, for this recording."""
    use = card.text.partition("## How to use")[2].partition("\n## ")[0]
    return [
        (language, code.replace('"speech.wav"', repr(wav)).replace("speech.wav", shlex.quote(wav)))
        for language, code in re.findall(r"```(\w+)\n(.*?)```", use, re.DOTALL)
    ]


def test_its_three_snippets_run_and_agree(stage_dir, tmp_path):
    wav = str(write_wav(tmp_path / "a voice.wav", seconds=1.0, rate=22050, channels=2))
    snippets = snippets_of(rendered(stage_dir), wav)
    assert [language for language, _ in snippets] == ["python", "python", "bash"]
    (_, whole), (_, by_hand), (_, command) = snippets

    each_alone = "import sys\nfor snippet in sys.argv[1:]:\n    exec(snippet, {})\n    print('---')"
    printed = output_of([sys.executable, "-c", each_alone, whole, by_hand], tmp_path)
    of_pipeline, of_model, _ = [part.strip() for part in printed.split("---")]
    scores, timeline = [ast.literal_eval(line) for line in of_pipeline.splitlines()]
    assert {answer["label"] for answer in scores} == set(read_json(stage_dir / "config.json")["label2id"])
    assert sum(answer["score"] for answer in scores) == pytest.approx(1)
    assert timeline and set(timeline[0]) >= {"start", "end", "label", "score"}
    assert of_model == scores[0]["label"]

    words = shlex.split(command)
    assert words[:2] == ["python", "predict.py"]
    assert scores[0]["label"] in run_script(*words[1:]).stdout


def output_of(command, directory):
    variables = {**environment(), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    variables.pop("PYTHONPATH", None)
    run = subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.mark.parametrize(
    ("stage", "pooling", "words"),
    [
        (1, "attentive", "Stage 1 trains a speech encoder with attentive pooling: the classifier sees the sum of"),
        (1, "flam", "Stage 1 trains a speech encoder with FLAM pooling: self-attention over the frames"),
        (2, "max", "the speech encoder of stage 1: the classifier sees the largest value of each dimension"),
        (2, "cls", "stage 2 of two. Stage 2 starts from the speech encoder of stage 1. A learned CLS vector attends"),
    ],
)
def test_it_describes_the_pooling_of_its_stage_and_the_losses(stage_dir, stage, pooling, words):
    results = read_json(stage_dir / "results.json")
    results |= {"stage": stage, "arguments": {**results["arguments"], "pooling": pooling, "stage1_pooling": pooling}}
    (stage_dir / "results.json").write_text(json.dumps(results))
    card = " ".join(rendered(stage_dir, "--focal_weight", "0.5").text.split())
    assert words in card and "The training loss is 1 × cross-entropy + 0.5 × focal." in card
    assert "The training loss" not in rendered(stage_dir).text
    assert ("It implements *Frame and Utterance" in card) == (pooling in ("attentive", "cls"))
