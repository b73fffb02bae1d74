"""Fitting the statistics classifier: the same as scikit-learn on statistics that were computed otherwise."""

import librosa
import numpy as np
import pytest
import torch
from conftest import tiny_model
from datasets import ClassLabel
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import Wav2Vec2FeatureExtractor

from core.audio import SAMPLING_RATE, read_audio
from recipe.augmentation import Augmentation
from recipe.corpora import load_corpus
from recipe.preparing import UtterancePreparer
from recipe.statistics_classifier import (
    FILE,
    C,
    collect_statistics,
    fit_statistics_classifier,
    recall_fitted,
)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 0.7]])
def test_it_is_the_logistic_regression_of_scikit_learn_on_all_speeds(weights, demo):
    rows = load_corpus("demo", str(demo))
    rows = rows.select(range(0, len(rows), 5))
    model = tiny_model(
        id2label=dict(enumerate(rows.features["label"].names)),
        class_weights=weights,
        **{"freeze_encoder_layers": 1, "statistics_layers": 1, "layer_mix": "weighted"},
    )
    preparer = UtterancePreparer(Wav2Vec2FeatureExtractor(), 400, augmentation=Augmentation((1.0, 1.1)))
    fitted = fit_statistics_classifier(model, rows, preparer, batch_size=4)

    statistics = []
    for speed in (1.0, 1.1):
        for path in rows["audio"]:
            waveform = read_audio(path["path"], None)
            if speed != 1.0:
                waveform = librosa.resample(waveform, orig_sr=SAMPLING_RATE * speed, target_sr=SAMPLING_RATE)
            values = preparer.extract(waveform)
            frames = model.extract_features(values[None])[0].double().numpy()
            frames = frames[:, model.config.encoder_config.hidden_size :]  # the output of layer 1, not its input
            statistics.append(np.concatenate([frames.mean(axis=0), frames.std(axis=0)]))
    class_weight = None if weights is None else dict(enumerate(weights))
    regression = LogisticRegression(C=C / 2, class_weight=class_weight, tol=1e-8, max_iter=5000)
    reference = make_pipeline(StandardScaler(), regression).fit(statistics, [*rows["label"], *rows["label"]])
    logits = np.array(statistics) @ fitted["weight"].double().numpy().T + fitted["bias"].double().numpy()
    np.testing.assert_allclose(logits, reference.decision_function(statistics), atol=1e-3)


def test_two_classes_get_a_logit_each(demo):
    rows = load_corpus("demo", str(demo))
    rows = rows.filter(lambda row: row["label"] < 2).cast_column("label", ClassLabel(names=["first", "second"]))
    model = tiny_model(id2label={0: "first", 1: "second"}, freeze_encoder_layers=1, statistics_layers=1)
    preparer = UtterancePreparer(Wav2Vec2FeatureExtractor(), 400)
    model.statistics_classifier.load_state_dict(fit_statistics_classifier(model, rows, preparer, batch_size=4))

    statistics = collect_statistics(model, rows, preparer, batch_size=4)
    logits = statistics @ model.statistics_classifier.weight.numpy().T + model.statistics_classifier.bias.numpy()
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000)).fit(statistics, rows["label"])
    probabilities = torch.tensor(logits).softmax(dim=-1).numpy()
    np.testing.assert_allclose(probabilities, reference.predict_proba(statistics), atol=1e-3)


def test_a_run_that_resumes_finds_what_was_fitted(tmp_path):
    folder, fits = tmp_path / "checkpoints", []

    def fit():
        fits.append(torch.randn(3, 4).T)  # not contiguous, like the coefficients of scikit-learn
        return {"weight": fits[-1], "bias": fits[-1][:, 0]}

    first = recall_fitted(folder / FILE, fit)
    (folder / FILE).with_suffix(".unfinished").write_bytes(b"of a killed run")
    again = recall_fitted(folder / FILE, fit)
    assert len(fits) == 1 and again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)
