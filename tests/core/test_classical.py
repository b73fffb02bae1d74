"""The folder of a classical model: its scores, and that it is read as data."""

import json
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from core.classical import FILE, ClassicalModel, load_classical
from core.errors import InputError
from core.model_files import is_classical
from recipe.classical import fit_classifier
from recipe.classical_options import ClassicalFields

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(3, 5, (60, 4)).astype(np.float32)
LABELS = np.arange(60) % 3
SETTINGS = {
    "features": {},
    "labels": ["a", "b", "c"],
    "calibration_temperature": 2.0,
    "unsure_below": 0.5,
    "trim_db": None,
}


@pytest.mark.parametrize("classifier", ["lr", "svm", "mlp"])
@pytest.mark.parametrize("number", [2, 3])
def test_a_saved_model_scores_what_scikit_learn_does_with_the_temperature(tmp_path, classifier, number):
    fitted = fit_classifier(ClassicalFields(classifier=classifier, hidden_size=8), 0.1, 0, FEATURES, LABELS % number)
    ClassicalModel(fitted, {**SETTINGS, "labels": ["a", "b", "c"][:number]}).save(tmp_path)
    assert is_classical(str(tmp_path))
    loaded = load_classical(str(tmp_path))
    scores = loaded.score(FEATURES)
    wide = FEATURES.astype(float)
    if classifier == "svm":
        margins = fitted.decision_function(wide)
        odds = np.exp((np.stack([-margins / 2, margins / 2], axis=1) if number == 2 else margins) / 2)
    else:
        odds = np.sqrt(fitted.predict_proba(wide))
    np.testing.assert_allclose(scores, odds / odds.sum(axis=1, keepdims=True), rtol=1e-9)
    np.testing.assert_array_equal(scores.argmax(axis=1), fitted.predict(wide))


def save(folder, classifier):
    (folder / "config.json").write_text(json.dumps({"model_type": "ser_align_classical", **SETTINGS}))
    skops.io.dump(classifier, folder / FILE)


class Payload:
    """What skops stores as a function to call when it is loaded."""

    def __reduce__(self):
        return print, ("loaded",)


def test_a_file_with_types_of_its_own_is_refused_before_it_is_built(tmp_path):
    save(tmp_path, make_pipeline(StandardScaler(), FunctionTransformer(json.loads), LogisticRegression()))
    with pytest.raises(InputError, match=r"classifier.skops contains json.loads, which no model .* was not loaded"):
        load_classical(str(tmp_path))


@pytest.mark.parametrize(
    "classifier",
    [
        make_pipeline(StandardScaler(), LinearSVC()).fit(FEATURES, LABELS % 2),  # two labels, not three
        make_pipeline(LinearSVC()).fit(FEATURES, LABELS),
        LogisticRegression().fit(FEATURES, LABELS),
        {"a": 1},
    ],
)
def test_a_file_with_something_else_is_refused(tmp_path, classifier):
    save(tmp_path, classifier)
    with pytest.raises(InputError, match=r"classifier\.skops is no classifier of 3 labels"):
        load_classical(str(tmp_path))


def test_a_damaged_file_is_named(tmp_path):
    save(tmp_path, make_pipeline(StandardScaler(), MLPClassifier(max_iter=5)))
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"classifier.skops is damaged .* copy or download it again"):
        load_classical(str(tmp_path))
    with zipfile.ZipFile(tmp_path / FILE, "w") as archive:
        archive.writestr("schema.json", "{}")
    with pytest.raises(InputError, match=r"classifier\.skops is damaged"):
        load_classical(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"labels": ["a"], "features": {}, "trim_db": None}))
    with pytest.raises(InputError, match=r"config\.json lacks calibration_temperature, unsure_below"):
        load_classical(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    (tmp_path / FILE).unlink()
    with pytest.raises(InputError, match=r"contains no classifier\.skops: copy or download it again"):
        load_classical(str(tmp_path))
