"""Classical models: the same as scikit-learn used directly, and nothing is fitted to validation or test speakers."""

import numpy as np
import pytest
from conftest import write_wav
from making import labelled_rows
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC

from core.acoustic import OpenSmileFeatures
from core.audio import read_audio
from core.errors import InputError
from recipe.acoustic import compute_features
from recipe.classical import choose_classifier, fit_classifier
from recipe.classical_arguments import parse_classical
from recipe.classical_options import ClassicalFields
from recipe.data import split_rows

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], [40, 15, 5])  # as imbalanced as corpora are
FEATURES = RNG.normal(2, 3, (60, 6)) + LABELS[:, None] * RNG.normal(size=6)


def standardize(features):
    return (features - FEATURES.mean(axis=0)) / FEATURES.std(axis=0)


@pytest.mark.parametrize("c", [0.003, 1.0])
def test_linear_classifiers_are_those_of_scikit_learn_with_classes_in_balance(c):
    weights = 60 / (3 * np.bincount(LABELS))[LABELS]
    others = RNG.normal(2, 3, (30, 6))
    for name, reference in (("lr", LogisticRegression(C=c, max_iter=5000)), ("svm", LinearSVC(C=c, random_state=0))):
        fitted = fit_classifier(ClassicalFields(classifier=name), c, 0, FEATURES, LABELS)
        reference.fit(standardize(FEATURES), LABELS, sample_weight=weights)
        expected = reference.decision_function(standardize(others))
        np.testing.assert_allclose(fitted.decision_function(others), expected, atol=2e-3)


def test_the_perceptron_weighs_classes_and_takes_c_as_the_regression_does():
    weights = 60 / (3 * np.bincount(LABELS))[LABELS]
    fitted = fit_classifier(ClassicalFields(classifier="mlp", hidden_size=5), 0.5, 7, FEATURES, LABELS)
    reference = MLPClassifier((5,), alpha=2.0, random_state=7, max_iter=200)
    reference.fit(standardize(FEATURES), LABELS, sample_weight=weights)
    expected = reference.predict_proba(standardize(FEATURES))
    np.testing.assert_allclose(fitted.predict_proba(FEATURES), expected, atol=1e-6)


def parse(*argv):
    return parse_classical(list(argv), "")


def make_split(number=36):
    """The split of six speakers with all three labels."""
    names = ["calm", "glad", "sad"]
    rows = labelled_rows(
        [names[i % 3] for i in range(number)], names=names, speakers=[f"s{i * 6 // number}" for i in range(number)]
    )
    return split_rows(parse("--num_folds", "3", "--corpus", "folder").run.data, rows)


def test_c_has_the_best_ua_on_validation_speakers_and_the_smallest_of_these_wins():
    split = make_split()
    arrays = {
        name: RNG.normal(size=(len(part), 5)) + np.array(part["label"][:])[:, None] for name, part in split.items()
    }
    args = parse("--c_values", "1", "0.0001", "0.01", "0.1")
    chosen, history = choose_classifier(args, arrays, split)
    train, validation = (np.array(split[name]["label"][:]) for name in ("train", "validation"))
    mean, deviation = arrays["train"].mean(axis=0), arrays["train"].std(axis=0)
    expected = {}
    for c in (0.0001, 0.01, 0.1, 1.0):
        model = LogisticRegression(C=c, class_weight="balanced", max_iter=5000)
        model.fit((arrays["train"] - mean) / deviation, train)
        predicted = model.predict((arrays["validation"] - mean) / deviation)
        expected[c] = recall_score(validation, predicted, average="macro")
    assert {line["C"]: line["validation_ua"] for line in history} == pytest.approx(expected)
    assert min(c for c, ua in expected.items() if ua == max(expected.values())) == chosen[-1].C
    np.testing.assert_allclose(chosen[0].mean_, mean)  # of training speakers alone
    again, _ = choose_classifier(args, {**arrays, "test": arrays["test"] + 100}, split)
    np.testing.assert_array_equal(again[-1].coef_, chosen[-1].coef_)


def test_features_are_computed_once_per_recording_whatever_the_fold(tmp_path):
    split = make_split(18)
    files = {
        utterance: write_wav(tmp_path / f"{utterance}.wav", 0.3, seed=i)
        for i, utterance in enumerate(name for part in split.values() for name in part["id"][:])
    }
    split = type(split)(
        {
            name: part.map(lambda row: {"audio": {"path": str(files[row["id"]]), "bytes": None}})
            for name, part in split.items()
        }
    )
    args = parse("--output_dir", str(tmp_path / "out" / "model"))
    features, counted = OpenSmileFeatures("egemaps"), []

    class Counting:
        settings, digest, select = features.settings, features.digest, features.select

        def describe(self, waveform):
            counted.append(len(waveform))
            return features.describe(waveform)

    arrays = compute_features(Counting(), split, args)
    assert len(counted) == 18 and len(list((tmp_path / "out" / "acoustic_features").iterdir())) == 18
    for name, part in split.items():
        expected = [features.describe(read_audio(files[utterance], 30.0)) for utterance in part["id"][:]]
        np.testing.assert_array_equal(arrays[name], expected)
    swapped = type(split)({"train": split["test"], "validation": split["train"], "test": split["validation"]})
    again = compute_features(Counting(), swapped, args)
    np.testing.assert_array_equal(again["train"], arrays["test"])
    assert len(counted) == 18
    compute_features(Counting(), split, parse("--output_dir", str(tmp_path / "out" / "model"), "--trim_db", "20"))
    assert len(counted) == 36  # other audio


def test_a_run_configuration_gives_the_data_and_the_command_line_may_not_train():
    args = parse("--config", "run_configs/ravdess/whisper.yaml", "--c_values", "0.1", "1e-3")
    assert (args.run.data.corpus, args.run.data.trim_db) == ("ravdess", 40.0) and args.own.c_values == [0.1, 0.001]
    assert str(args.output_dir) == "outputs/baseline"  # not that of the networks
    assert "learning_rate" not in args.flat() and "encoder" not in args.flat()
    assert parse("--features", "encoder").flat()["encoder"] == "facebook/wav2vec2-base"
    for argv, message in (
        (["--learning_rate", "1"], "--learning_rate is for networks: a classical model has no such option"),
        (["--targets", "distribution"], "--targets is for networks"),
        (["--classifer", "lr"], "--classifer is not an option; did you mean --classifier?"),
        (["--classifier", "tree"], "--classifier: 'tree' is not valid; give one of lr, mlp, svm"),
        (["--c_values", "0"], "--c_values: .* give numbers above 0"),
    ):
        with pytest.raises(InputError, match=message):
            parse(*argv)
