"""Embeddings of EDRL-MEA and domain-adversarial training: losses, gradients, and what they are fitted to."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from core.classical import ClassicalModel, load_classical
from core.errors import InputError
from core.multiblock import MultiblockPLS
from recipe.classical import choose_classifier, number_domains
from recipe.classical_arguments import parse_classical
from recipe.embedding import measure_overlap, reverse_gradient, train_adversarial, train_disentangled
from tests.recipe.test_classical import make_split

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], [60, 40, 20])
FEATURES = RNG.normal(size=(120, 10)) + 3 * np.eye(10)[LABELS]


def test_overlap_is_the_mean_squared_correlation():
    first, second = RNG.normal(size=(50, 3)), RNG.normal(size=(50, 4))
    second[:, 0] += first[:, 1]
    expected = np.mean(np.square(np.corrcoef(first.T, second.T)[:3, 3:]))
    assert float(measure_overlap(*map(torch.tensor, (first, second)))) == pytest.approx(expected, rel=1e-3)


def test_the_gradient_is_reversed_and_weighted():
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    passed = reverse_gradient(values, 0.3)
    torch.testing.assert_close(passed, values)
    (passed * torch.tensor([1.0, 2.0])).sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([-0.3, -0.6]))


def test_each_block_has_an_encoder_of_its_class_and_the_one_of_all():
    embedder, blocks = train_disentangled(FEATURES, LABELS, 4, 1.0, 200, 0)
    assert [block.tolist() for block in blocks] == [[*range(4 * c, 4 * c + 4), *range(12, 16)] for c in range(3)]
    others = RNG.normal(size=(120, 10)) + 3 * np.eye(10)[LABELS]
    train, test = embedder.transform(FEATURES), embedder.transform(others)
    np.testing.assert_allclose(test, np.tanh(others @ embedder.weight + embedder.bias))
    for label in range(3):
        truth, own = label == LABELS, slice(4 * label, 4 * label + 4)
        fitted = LogisticRegression(class_weight="balanced").fit(train[:, own], truth)
        assert fitted.score(test[:, own], truth) > 0.8
    assert LogisticRegression().fit(train[:, 12:], LABELS).score(test[:, 12:], LABELS) > 0.8


def test_the_penalty_disentangles():
    overlaps = []
    for weight in (0.0, 20.0):
        embedder, _ = train_disentangled(FEATURES, LABELS, 4, weight, 40, 0)
        embedded = torch.tensor(embedder.transform(FEATURES))
        overlaps.append(float(measure_overlap(embedded[:, :12], embedded[:, 12:])))
    assert overlaps[1] < 0.5 * overlaps[0]


def test_an_adversarial_embedding_hides_the_domain_and_keeps_the_class():
    domains = np.arange(120) % 2
    features = FEATURES.copy()
    features[:, 8] += 4 * domains
    found = []
    for weight in (0.0, 1.0):
        embedded = train_adversarial(features, LABELS, domains, 8, weight, 400, 0).transform(features)
        found.append(
            [LogisticRegression(C=0.1).fit(embedded, each).score(embedded, each) for each in (LABELS, domains)]
        )
    assert found[1][0] > 0.8 and found[1][1] < found[0][1] - 0.1


def parse(*argv):
    return parse_classical(list(argv), "")


def make_arrays(split):
    return {
        name: RNG.normal(size=(len(part), 6)).astype(np.float32) + np.array(part["label"][:])[:, None]
        for name, part in split.items()
    }


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (("--classifier", "edrl_mea", "--embedding_size", "3", "--num_components", "4", "2"), "num_components"),
        (("--classifier", "adversarial", "--hidden_size", "4", "--reversal_weights", "0.5", "0"), "reversal_weight"),
    ],
)
def test_a_model_on_embeddings_is_chosen_on_validation_speakers_and_saved_without_pickle(argv, value, tmp_path):
    split = make_split()
    arrays = make_arrays(split)
    args = parse(*argv, "--num_embedding_epochs", "5", "--c_values", "0.1", "1")
    chosen, history = choose_classifier(args, arrays, split)
    assert [(line[value], line["C"]) for line in history] == [
        (other, c) for other in sorted({line[value] for line in history}) for c in (0.1, 1)
    ]
    best = max(line["validation_ua"] for line in history)
    predicted = chosen.predict(arrays["validation"])
    recalls = [np.mean(predicted[np.array(split["validation"]["label"][:]) == label] == label) for label in range(3)]
    assert np.mean(recalls) == pytest.approx(best)
    again, _ = choose_classifier(args, {**arrays, "test": arrays["test"] + 100}, split)
    np.testing.assert_array_equal(again[-1].coef_, chosen[-1].coef_)
    features = {"features": "egemaps"}
    rest = {"trim_db": 40, "calibration_temperature": 1.0, "unsure_below": 0.0}
    model = ClassicalModel(chosen, {"features": features, "labels": ["calm", "glad", "sad"], **rest})
    model.save(tmp_path)
    np.testing.assert_array_equal(load_classical(str(tmp_path)).score(arrays["test"]), model.score(arrays["test"]))


def test_a_file_whose_alignment_is_no_transformer_is_refused(tmp_path):
    split = make_split()
    arrays = make_arrays(split)
    argv = ("--classifier", "edrl_mea", "--embedding_size", "2", "--num_embedding_epochs", "1", "--num_components", "2")
    chosen, _ = choose_classifier(parse(*argv, "--c_values", "1"), arrays, split)
    assert isinstance(chosen[-2], MultiblockPLS)
    chosen.steps[1] = ("embedder", LogisticRegression().fit([[0], [1]], [0, 1]))
    rest = {"trim_db": 40, "calibration_temperature": 1.0, "unsure_below": 0.0}
    ClassicalModel(chosen, {"features": {}, "labels": ["calm", "glad", "sad"], **rest}).save(tmp_path)
    with pytest.raises(InputError, match="is no classifier of 3 labels"):
        load_classical(str(tmp_path))


def test_domains_need_to_be_several():
    rows = make_split()["train"]
    own = parse("--classifier", "adversarial").own
    assert len(set(number_domains(rows, own))) == len(set(rows["speaker"]))
    own = parse("--classifier", "adversarial", "--reversal_domain", "corpus").own
    with pytest.raises(InputError, match="corpus needs several training corpora"):
        number_domains(rows, own)
    with pytest.raises(InputError, match=r"--num_components: .* give whole numbers of at least 1"):
        parse("--num_components", "2.5")
