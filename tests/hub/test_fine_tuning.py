"""A user fine-tunes the shipped model on other labels with transformers alone, as its documentation says."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from conftest import tiny_model
from running import fresh
from torch import nn

from configuration_ser_align import SERAlignConfig
from core.shipped import MINI_MODEL
from modeling_ser_align import SERAlignForAudioClassification

NAMES = ("low", "high", "noise")
LABELS, INDICES = dict(enumerate(NAMES)), {name: index for index, name in enumerate(NAMES)}
TEXT = {str(index): name for index, name in LABELS.items()}
CALIBRATION = SERAlignConfig.from_pretrained(MINI_MODEL).calibration_temperature


def load(**given):
    return SERAlignForAudioClassification.from_pretrained(MINI_MODEL, ignore_mismatched_sizes=True, **given)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"num_labels": 3, "id2label": LABELS, "label2id": INDICES}, NAMES),
        ({"num_labels": 3, "id2label": TEXT, "label2id": {name: str(i) for name, i in INDICES.items()}}, NAMES),
        ({"id2label": LABELS}, NAMES),
        ({"label2id": INDICES}, NAMES),
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
    ],
)
def test_labels_given_while_loading_replace_those_of_the_file(given, names):
    for found in (load(**given), SERAlignConfig.from_pretrained(MINI_MODEL, **given)):
        config = getattr(found, "config", found)
        assert config.num_labels == 3 and tuple(config.id2label.values()) == names
        assert config.label2id == {name: index for index, name in enumerate(names)}
        assert config.calibration_temperature == 1.0  # what was fitted on the former classes says nothing of these
    assert load(**given).classifier.out_features == 3


def test_labels_given_with_an_encoder_name_its_new_classifier(tmp_path):
    tiny_model().encoder.save_pretrained(tmp_path)
    model = SERAlignForAudioClassification.from_pretrained_encoder(
        str(tmp_path), num_labels=3, id2label=TEXT, label2id=INDICES
    )
    assert model.classifier.out_features == 3 and model.config.id2label == LABELS
    with pytest.raises(ValueError, match="num_labels=4 does not match id2label, which has 3 labels"):
        SERAlignForAudioClassification.from_pretrained_encoder(str(tmp_path), num_labels=4, id2label=TEXT)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_labels": 4, "id2label": LABELS}, "num_labels=4 does not match id2label, which has 3 labels"),
        ({"num_labels": 2, "label2id": INDICES}, "num_labels=2 does not match id2label, which has 3 labels"),
        ({"id2label": LABELS, "label2id": {"low": 1, "high": 0, "noise": 2}}, "label2id=.* contradicts id2label="),
        ({"id2label": INDICES}, r"id2label=\{'low': 0.* is not a map such as \{0: 'angry', 1: 'happy'\}"),
        ({"label2id": LABELS}, r"label2id=\{0: 'low'.* is not a map such as \{'angry': 0, 'happy': 1\}"),
        ({"id2label": list(NAMES)}, "is not a map such as"),
        ({"id2label": {0: "sad", 1: "sad"}}, "two classes the same index or label"),
        ({"num_labels": 0}, "num_labels=0 is not a whole number of at least 1"),
        ({"num_labels": "3"}, "num_labels='3' is not a whole number of at least 1"),
        ({"problem_type": "multi_label_classification"}, "problem_type='multi_label_classification' is not supported"),
    ],
)
def test_only_what_the_user_gives_can_contradict_itself(given, message):
    with pytest.raises(ValueError, match=message):
        load(**given)
    with pytest.raises(ValueError, match=message):
        SERAlignConfig(**given)


def test_other_labels_are_warned_of_and_the_same_ones_are_not(recwarn):
    same = SERAlignConfig.from_pretrained(MINI_MODEL).id2label
    for given in ({}, {"num_labels": 8}, {"id2label": same}, {"id2label": {str(i): name for i, name in same.items()}}):
        assert load(**given).config.calibration_temperature == CALIBRATION != 1.0
    assert not [each for each in recwarn if "labels" in str(each.message)]
    swapped = {**same, 0: same[1], 1: same[0]}
    with pytest.warns(UserWarning, match="the labels are not those that this model was trained on"):
        assert load(id2label=swapped).config.calibration_temperature == 1.0
    with pytest.warns(UserWarning):
        assert load(num_labels=3, calibration_temperature=2.0).config.calibration_temperature == 2.0


def test_labels_are_renamed_or_replaced_on_a_loaded_model(tmp_path):
    model = load()
    model.config.id2label = {index: name.upper() for index, name in model.config.id2label.items()}
    model.save_pretrained(tmp_path)
    again = SERAlignForAudioClassification.from_pretrained(tmp_path)
    assert again.config.label2id["ANGRY"] == 4 and again.config.calibration_temperature == CALIBRATION

    with pytest.warns(UserWarning, match="the labels are not those"):
        again.config.num_labels = 3
    again.classifier = nn.Linear(again.classifier.in_features, 3)
    assert again.config.calibration_temperature == 1.0 and again.config.label2id["LABEL_2"] == 2
    again.config.label2id = {"a": 0, "b": 1, "c": 2}
    with pytest.raises(ValueError, match="contradicts id2label"):
        again.save_pretrained(tmp_path)


# --------------------------------------------------------------- the library's run_audio_classification.py

TRAIN = """
import json, sys
import numpy as np, soundfile
from datasets import Audio, ClassLabel, Dataset
from transformers import (AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification, Trainer, TrainingArguments,
                          set_seed)

source, folder, output = sys.argv[1:]
set_seed(0)
rows = json.load(open(f"{folder}/rows.json"))
raw = Dataset.from_dict(rows).cast_column("audio", Audio(sampling_rate=16000, decode=False))
raw = raw.cast_column("label", ClassLabel(names=["low", "high", "noise"]))
raw = raw.train_test_split(0.25, seed=0, stratify_by_column="label")
extractor = AutoFeatureExtractor.from_pretrained(source, return_attention_mask=True, trust_remote_code=True)
input_name = extractor.model_input_names[0]

def transform(batch):
    waveforms = [soundfile.read(audio["path"], dtype="float32")[0] for audio in batch["audio"]]
    inputs = extractor(waveforms, sampling_rate=extractor.sampling_rate)
    return {input_name: inputs[input_name], "labels": list(batch["label"])}

labels = raw["train"].features["label"].names
label2id, id2label = {}, {}
for i, label in enumerate(labels):
    label2id[label] = str(i)
    id2label[str(i)] = label
raw["train"].set_transform(transform, output_all_columns=False)
raw["test"].set_transform(transform, output_all_columns=False)

config = AutoConfig.from_pretrained(source, num_labels=len(labels), label2id=label2id, id2label=id2label,
                                    finetuning_task="audio-classification", trust_remote_code=True)
model = AutoModelForAudioClassification.from_pretrained(source, config=config, ignore_mismatched_sizes=True,
                                                        trust_remote_code=True)
model.freeze_feature_encoder()
arguments = TrainingArguments(output, remove_unused_columns=False, learning_rate=2e-3, num_train_epochs=6,
                              per_device_train_batch_size=8, eval_strategy="epoch", save_strategy="epoch",
                              load_best_model_at_end=True, metric_for_best_model="accuracy", save_total_limit=1,
                              gradient_checkpointing=True, report_to=[], use_cpu=True, disable_tqdm=True)
trainer = Trainer(
    model=model, args=arguments, train_dataset=raw["train"], eval_dataset=raw["test"], processing_class=extractor,
    compute_metrics=lambda p: {"accuracy": float((np.argmax(p.predictions, axis=1) == p.label_ids).mean())},
)
before = trainer.evaluate()["eval_accuracy"]
trainer.train()
trainer.save_model()
found = trainer.predict(raw["test"])
trainer.create_model_card(finetuned_from=source, tasks="audio-classification", dataset_tags="tones")
paths = [audio["path"] for audio in raw["test"].with_format(None)["audio"]]
print("RESULT" + json.dumps({"before": before, "after": found.metrics["test_accuracy"], "paths": paths,
                             "logits": found.predictions.tolist(), "labels": found.label_ids.tolist()}))
"""

ANSWER = """
import json, sys
import soundfile
from transformers import AutoConfig, pipeline

found = {"temperature": AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True).calibration_temperature}
waveforms = [soundfile.read(path, dtype="float32")[0] for path in json.loads(sys.argv[2])]
for task in ("audio-classification", "speech-emotion-recognition"):
    answers = pipeline(task, sys.argv[1], trust_remote_code=True)(waveforms, top_k=3)
    found[task] = [{part["label"]: part["score"] for part in answer} for answer in answers]
print("RESULT" + json.dumps(found))
"""


def generate_tones(folder):
    """Sixteen low tones, high buzzes and noises of 0.6 to 1.2 seconds, in files, and rows.json that lists them."""
    rng, rows = np.random.default_rng(0), {"audio": [], "label": []}
    for number in range(48):
        times = np.arange(int(16000 * rng.uniform(0.6, 1.2))) / 16000
        pitch = rng.uniform(150, 250)
        kinds = (
            np.sin(2 * np.pi * pitch * times),
            np.sign(np.sin(6 * np.pi * pitch * times)),
            rng.normal(size=len(times)),
        )
        waveform = 0.2 * kinds[number % 3] * (0.6 + 0.4 * np.sin(6 * np.pi * times))
        soundfile.write(folder / f"{number}.wav", waveform, 16000)
        rows["audio"].append(str(folder / f"{number}.wav"))
        rows["label"].append(number % 3)
    (folder / "rows.json").write_text(json.dumps(rows))


@pytest.mark.slow
def test_the_librarys_example_fine_tunes_the_shipped_model_on_new_labels(tmp_path):
    shutil.copytree(MINI_MODEL, tmp_path / "shipped")
    generate_tones(tmp_path)
    trained, run = fresh(TRAIN, tmp_path / "shipped", tmp_path, tmp_path / "tuned", home=tmp_path / "hf")
    assert trained["after"] >= 0.9 > trained["before"]
    assert run.stderr.count("the labels are not those that this model was trained on") == 1
    card = (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    assert "ravdess" not in card.lower() and "Accuracy: " in card  # nothing of the former model's results

    shutil.rmtree(tmp_path / "shipped")
    found, _ = fresh(ANSWER, tmp_path / "tuned", json.dumps(trained["paths"]), home=tmp_path / "other")
    assert found["temperature"] == 1.0
    # The Trainer scored padded batches, the library's pipeline scores one recording at a time.
    expected = torch.tensor(trained["logits"]).softmax(-1).numpy()
    scores = np.array([[answer[name] for name in NAMES] for answer in found["audio-classification"]])
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    ours = [max(answer, key=answer.get) for answer in found["speech-emotion-recognition"]]
    assert np.mean([NAMES[label] == name for label, name in zip(trained["labels"], ours)]) >= 0.9
