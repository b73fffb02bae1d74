"""Class weights: balanced or by hand, resolved to numbers that the model folder keeps and the scores stand beside."""

import json
import math

import numpy as np
import pytest
from conftest import write_wav
from datasets import ClassLabel, Dataset
from running import train
from sklearn.utils.class_weight import compute_class_weight

from configuration_ser_align import SERAlignConfig
from core.errors import InputError
from recipe.class_weights import compute_class_weights


def rows(labels, names=("angry", "calm", "sad")):
    data = Dataset.from_dict({"label": [names.index(label) for label in labels]})
    return data.cast_column("label", ClassLabel(names=list(names)))


def test_balanced_is_scikit_learns_and_weighs_an_utterance_1_on_average():
    labels = ["angry"] * 2 + ["calm"] * 5 + ["sad"] * 13
    weights = compute_class_weights("balanced", rows(labels))
    np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.unique(labels), y=labels))
    assert np.mean([dict(zip(("angry", "calm", "sad"), weights))[label] for label in labels]) == pytest.approx(1)


def test_balanced_counts_an_utterance_as_often_as_an_epoch_draws_it():
    """Of 6 + 2 utterances, 4 + 4 are drawn at temperature 0: angry 4/6 * 3 + 2/2 * 0 = 2 and so on, by hand."""
    data = rows(["angry"] * 3 + ["calm"] * 3 + ["sad"] * 2).add_column("corpus", ["large"] * 6 + ["small"] * 2)
    weights = compute_class_weights("balanced", data, corpus_temperature=0.0)
    np.testing.assert_allclose(weights, [8 / (3 * 2), 8 / (3 * 2), 8 / (3 * 4)])
    np.testing.assert_allclose(compute_class_weights("balanced", data), [8 / 9, 8 / 9, 8 / 6])


def test_by_hand_a_label_that_is_not_listed_has_1_and_an_unknown_one_is_named():
    assert compute_class_weights({"sad": 2.0}, rows(["angry", "calm", "sad"])) == [1.0, 1.0, 2.0]
    assert compute_class_weights(None, rows(["angry"])) is None
    with pytest.raises(InputError, match="class_weights: 'happy' is not one of the labels, angry, calm, sad"):
        compute_class_weights({"happy": 2.0}, rows(["angry", "calm", "sad"]))


@pytest.mark.slow
def test_a_user_trains_an_imbalanced_folder_with_balanced_weights(tmp_path):
    lines = ["path,label,speaker,split"]
    for speaker, part in (("anna", "train"), ("ben", "train"), ("eva", "validation"), ("tom", "test")):
        for label, count in (("angry", 1), ("calm", 3)):
            for number in range(count):
                name = f"{speaker}-{label}-{number}.wav"
                write_wav(tmp_path / name, 0.3, seed=len(lines))
                lines.append(f"{name},{label},{speaker},{part}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    argv = ["--config", "run_configs/quickstart.yaml", "--corpus", "folder", "--csv", tmp_path / "list.csv"]
    argv += ["--max_steps", "2", "--batch_size", "4", "--use_cpu", "--output_dir", tmp_path / "out"]
    run = train(*argv, "--class_weights", "balanced")
    for stage in ("stage1", "stage2"):
        config = json.loads((tmp_path / "out" / stage / "config.json").read_text())
        assert config["class_weights"] == pytest.approx([2.0, 2 / 3])  # 8 training utterances: 2 and 6
        assert json.loads((tmp_path / "out" / stage / "results.json").read_text())["class_weights"] == [2.0, 8 / 12]
        card = (tmp_path / "out" / stage / "README.md").read_text()
        assert "| | weight in training | recall |" in card and "| angry | 2.000 |" in card
        assert "class_weights: balanced" in card
    assert "class weight" in run.stdout and "angry                           2.000" in run.stdout
    refused = train(*argv, "--class_weights", '{"angry": 3}', expect=1)
    assert "was trained with class_weights='balanced', not" in refused.stderr
    refused = train(*argv, "--class_weights", '{"happy": 3}', "--overwrite", expect=1)
    assert "error: class_weights: 'happy' is not one of the labels, angry, calm" in refused.stderr


def test_the_configuration_keeps_the_weights_until_it_gets_other_labels(tmp_path):
    SERAlignConfig(id2label={0: "angry", 1: "calm", 2: "sad"}, class_weights=[0.5, 1, 2.5]).save_pretrained(tmp_path)
    assert SERAlignConfig.from_pretrained(tmp_path).class_weights == [0.5, 1, 2.5]
    assert SERAlignConfig.from_pretrained(tmp_path, num_labels=2).class_weights is None
    with pytest.raises(ValueError, match="class_weights has 2 weights for 3 classes: give one for each"):
        SERAlignConfig(num_labels=3, class_weights=[1.0, 2.0])
    for wrong in ([1.0, 0.0], [1.0, -2.0], [1.0, math.inf], "balanced", {"angry": 1.0}):
        with pytest.raises(ValueError, match=r"class_weights=.* is not a list of numbers above 0, or None"):
            SERAlignConfig(num_labels=2, class_weights=wrong)
