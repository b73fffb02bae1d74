"""Alignment of frames with their utterance, against numbers computed by hand and by loops in NumPy."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, write_wav

from experiments.alignment import ScatterSums, Utterance, build_alignment_table, measure_alignment, measure_model
from experiments.embeddings import embed_utterances
from experiments.systems import System
from recipe.corpora import load_corpus
from recipe.preparing import UtterancePreparer


def utterance(label, embedding, cls_output, frames, prediction, frame_predictions):
    vectors = [np.array(values, dtype=float) for values in (embedding, cls_output, frames)]
    return Utterance(label, *vectors, prediction, np.array(frame_predictions))


def test_a_case_computed_by_hand():
    """The CLS outputs are orthogonal; the frames have the cosines 1 and 0.6 to their own, 0 and 0.8 to the other."""
    found = measure_alignment(
        iter(
            [
                utterance(0, [1, 0], [2, 0], [[5, 0], [3, 4]], 0, [0, 1]),
                utterance(1, [0, 1], [0, 3], [[0, 1], [0, 2], [4, 3]], 0, [1, 1, 0]),
                utterance(1, [0, 3], [0, 1], [[0, 7]], 1, [1]),
            ]
        )
    )
    assert found["cls_cosine"] == pytest.approx([0.8, (1 + 1 + 0.6) / 3, 1.0])
    assert found["other_cosine"] == pytest.approx([0.4, (0.8 / 3 + 2.6 / 3) / 2, 0.5])
    assert found["agreement"] == pytest.approx([1 / 2, 1 / 3, 1])
    assert found["accuracy"] == pytest.approx([1 / 2, 2 / 3, 1])
    # embeddings: means (1, 0) and (0, 2), mean of all (1/3, 4/3); between 20/9 + 2 * 5/9, within 0 + 1 + 1
    assert found["utterance_ratio"] == pytest.approx((20 / 9 + 10 / 9) / 2)


def test_the_ratio_of_scatters_is_that_of_the_traces_of_the_scatter_matrices():
    rng = np.random.default_rng(0)
    vectors, classes = rng.normal(5, 1, (40, 6)), rng.integers(0, 3, 40)
    vectors[classes == 1] += 2
    within, between, mean = np.zeros((6, 6)), np.zeros((6, 6)), vectors.mean(axis=0)
    for index in range(3):
        part = vectors[classes == index]
        difference = part.mean(axis=0) - mean
        within += (part - part.mean(axis=0)).T @ (part - part.mean(axis=0))
        between += len(part) * np.outer(difference, difference)
    sums, scaled = ScatterSums(), ScatterSums()
    for vector, label in zip(vectors, classes):
        sums.add(int(label), vector[None])
        scaled.add(int(label), 100 * vector[None])
    assert sums.compute_ratio() == pytest.approx(np.trace(between) / np.trace(within), rel=1e-9)
    assert scaled.compute_ratio() == pytest.approx(sums.compute_ratio(), rel=1e-9)
    equal = ScatterSums()
    equal.add(0, np.ones((3, 2)))
    assert equal.compute_ratio() is None


@pytest.mark.parametrize("pooling", ["cls", "self_attention"])
def test_a_model_in_padded_batches_gives_what_its_utterances_give_alone(pooling, tmp_path):
    for index, (label, seconds) in enumerate([("angry", 0.4), ("sad", 0.9), ("angry", 0.6), ("sad", 0.5)]):
        write_wav(tmp_path / label / f"{index}.wav", seconds, seed=index)
    rows = load_corpus("folder", str(tmp_path))
    model = tiny_model(pooling=pooling)
    preparer = UtterancePreparer(model.config.build_feature_extractor(), model.config.shortest_samples)
    found = measure_model(model, rows, preparer, batch_size=3)
    cls_outputs, frames = [], []
    for number, row in enumerate(rows):
        values = preparer.prepare(row["audio"]["path"])[None]
        with torch.no_grad():
            output, (hidden, mask) = model(values), model.encode(values)
            pooled = model.pooling(hidden, mask)
        predicted = output.frame_logits[0].argmax(dim=-1)
        agreement = (predicted == output.logits[0].argmax()).float().mean().item()
        assert found["agreement"][number] == pytest.approx(agreement)
        assert found["accuracy"][number] == pytest.approx((predicted == row["label"]).float().mean().item())
        frames.append(pooled.frames[0].double())
        cls_outputs.append(None if pooled.cls_output is None else pooled.cls_output[0].double())
    assert len(found["speaker"]) == len(rows) and found["frame_ratio"] > 0
    if pooling == "self_attention":
        assert found["cls_cosine"] is found["other_cosine"] is None
        return
    cosines = [[torch.cosine_similarity(f, c[None], dim=-1).mean().item() for c in cls_outputs] for f in frames]
    assert found["cls_cosine"] == pytest.approx(np.diag(cosines), abs=1e-5)
    others = [np.delete(line, index).mean() for index, line in enumerate(cosines)]
    assert found["other_cosine"] == pytest.approx(others, abs=1e-5)
    drawn = embed_utterances(model, rows, preparer, batch_size=3)
    np.testing.assert_allclose(drawn["cls"], torch.stack(cls_outputs), atol=1e-5)


def test_the_table_has_means_over_utterances_intervals_over_speakers_and_no_cosine_without_cls():
    fold = {"cls_cosine": [0.5, 0.7], "other_cosine": [0.1, 0.1], "agreement": [1.0, 0.0], "accuracy": [0.5, 0.5]}
    fold |= {"utterance_ratio": 2.0, "frame_ratio": None, "speaker": ["a", "b"]}
    other = fold | {"cls_cosine": [0.9, 0.9], "utterance_ratio": 1.0, "speaker": ["c", "c"]}
    systems = [System(key, key.upper(), {}, []) for key in ("plain", "cls", "unmeasured")]
    plain = fold | {"cls_cosine": None, "other_cosine": None}
    first, second = build_alignment_table(systems, {"cls": [fold, other], "plain": [plain]})
    assert (first["system"], first["cls_cosine"], first["cls_cosine_low"]) == ("PLAIN", None, None)
    assert second["cls_cosine"] == pytest.approx(0.75) and second["utterance_ratio"] == 1.5
    assert (second["cls_cosine_low"], second["cls_cosine_high"]) == pytest.approx((0.5, 0.9))
    assert second["frame_ratio"] is None and second["folds"] == 2 and second["accuracy_low"] == 0.5
