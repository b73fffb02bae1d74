"""SERAlignTrainer: learning rates per part of the model, and correct loss logs under gradient accumulation."""

import math

import numpy as np
import pytest
import torch
from conftest import tiny_model
from making import make_trainer
from transformers import TrainerCallback

from core.errors import InputError
from recipe.batching import Collator

PAPER = ("ce_loss", "eal_loss", "fual_loss")


class Recorder(TrainerCallback):
    """The weights after every update."""

    def __init__(self):
        self.weights = []

    def on_step_end(self, args, state, control, model, **kwargs):
        self.weights.append(model.classifier.weight.detach().numpy().astype(np.float64).copy())


def test_the_average_is_that_of_the_updates_and_is_what_is_evaluated(tmp_path):
    trainer = make_trainer(tmp_path, ema_decay=0.8, max_steps=4, learning_rate=1e-2, per_device_eval_batch_size=8)
    recorder = Recorder()
    trainer.add_callback(recorder)
    trainer.train()
    expected = recorder.weights[0]
    for weights in recorder.weights[1:]:
        expected = 0.8 * expected + 0.2 * weights
    averaged = trainer.averaged.module.eval()
    np.testing.assert_allclose(averaged.classifier.weight.detach().numpy(), expected, atol=1e-6)
    metrics = trainer.evaluate(trainer.train_dataset)
    with torch.no_grad():
        losses = [
            model.eval()(**Collator("input_values")(trainer.train_dataset)).loss for model in (averaged, trainer.model)
        ]
    assert metrics["eval_loss"] == pytest.approx(losses[0].item(), abs=1e-5)
    assert abs(losses[1] - losses[0]) > 1e-3  # training goes on from its own weights
    np.testing.assert_allclose(trainer.model.classifier.weight.detach().numpy(), recorder.weights[-1], atol=1e-6)


def test_encoder_pooling_and_classifier_have_their_own_learning_rates(tmp_path):
    trainer = make_trainer(tmp_path, learning_rate=2e-5, weight_decay=0.1)
    trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    found = {}
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            found[names[id(parameter)]] = (group["lr"], group["weight_decay"])
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert found.keys() == trained and not any("feature_extractor" in name for name in found)
    assert found["encoder.encoder.layers.0.attention.k_proj.weight"] == (2e-5, 0.1)
    assert found["encoder.encoder.layers.0.attention.k_proj.bias"] == (2e-5, 0.0)
    assert found["pooling.layers.0.query.weight"] == (3e-3, 0.1)
    assert found["pooling.layers.0.attention_norm.weight"] == (3e-3, 0.0)
    assert found["pooling.cls_token"] == (3e-3, 0.0)
    assert found["classifier.weight"] == (4e-3, 0.1) and found["classifier.bias"] == (4e-3, 0.0)


def test_class_centres_have_their_own_learning_rate_and_no_weight_decay(tmp_path):
    model = tiny_model("wav2vec2-layer", center_weight=0.1)
    trainer = make_trainer(tmp_path, model, weight_decay=0.1)
    trainer.create_optimizer()
    groups = {id(p): group for group in trainer.optimizer.param_groups for p in group["params"]}
    centers, projection = groups[id(model.objective.centers)], groups[id(model.objective.projection.weight)]
    assert (centers["part"], centers["lr"], centers["weight_decay"]) == ("centers", 5e-3, 0.0)
    assert (projection["part"], projection["lr"], projection["weight_decay"]) == ("objective", 4e-3, 0.1)


def expected_logs(trainer, accumulation):
    """What each update must log: the mean over its batches, from the model called directly."""
    order = list(trainer._get_train_sampler())
    collate = Collator("input_values")
    batches = [collate([trainer.train_dataset[i] for i in order[s : s + 2]]) for s in range(0, 8, 2)]
    with torch.no_grad():
        outputs = [trainer.model(**batch) for batch in batches]
    logs = []
    for start in range(0, 2 * accumulation, accumulation):
        group = outputs[start : start + accumulation]
        logs.append({n: sum(o[n].item() for o in group) / accumulation for n in ("loss", *PAPER)})
    return logs


@pytest.mark.parametrize("accumulation", [1, 2])
def test_loss_and_its_parts_are_logged_correctly_under_gradient_accumulation(tmp_path, accumulation):
    trainer = make_trainer(tmp_path, gradient_accumulation_steps=accumulation, learning_rate=0.0)
    trainer.pooling_learning_rate = trainer.classifier_learning_rate = 0.0  # weights stay, so losses can be recomputed
    expected = expected_logs(trainer, accumulation)
    trainer.train()
    logged = [line for line in trainer.state.log_history if "loss" in line]
    assert len(logged) == 2
    for line, values in zip(logged, expected):
        for name, value in values.items():
            assert line[name] == pytest.approx(value, rel=1e-5), name
        parts = line["ce_loss"] + 0.3 * line["eal_loss"] + 0.7 * line["fual_loss"]
        assert line["loss"] == pytest.approx(parts, rel=1e-5)


def test_two_accumulated_batches_log_what_one_large_batch_logs(tmp_path):
    """Loss, its parts, gradient norm and the learning rate of each part, over updates that move the weights."""
    logs = []
    for batch_size, accumulation in ((4, 1), (2, 2)):
        trainer = make_trainer(
            tmp_path,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            learning_rate=1e-4,
            max_steps=4,
        )
        trainer._get_train_sampler = lambda train_dataset=None: range(8)  # alike, whatever the batch size
        trainer.train()
        logs.append([line for line in trainer.state.log_history if "loss" in line])
    for step, (large, accumulated) in enumerate(zip(*logs, strict=True)):
        assert large == pytest.approx(accumulated, rel=1e-5, abs=1e-6)
        falling = 1 - step / 4
        rates = {"encoder": 1e-4, "pooling": 3e-3, "classifier": 4e-3}
        assert {name: large[f"learning_rate/{name}"] for name in rates} == pytest.approx(
            {name: rate * falling for name, rate in rates.items()}
        )


def test_the_gradient_norm_is_that_of_the_loss(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1, gradient_accumulation_steps=2, max_grad_norm=0.01)
    batch = Collator("input_values")([trainer.train_dataset[i] for i in list(trainer._get_train_sampler())[:4]])
    trainer.model(**batch).loss.backward()
    squares = sum(
        np.square(p.grad.numpy().astype(np.float64)).sum() for p in trainer.model.parameters() if p.grad is not None
    )
    trainer.model.zero_grad()
    trainer.train()
    line = next(line for line in trainer.state.log_history if "loss" in line)
    assert line["grad_norm"] == pytest.approx(math.sqrt(squares), rel=1e-5)


def test_a_part_that_is_switched_off_is_not_logged(tmp_path):
    trainer = make_trainer(tmp_path, tiny_model("wav2vec2-layer", eal_weight=0.0), max_steps=1)
    trainer.train()
    line = next(line for line in trainer.state.log_history if "loss" in line)
    assert "eal_loss" not in line and "ce_loss" in line and "fual_loss" in line


def test_a_loss_that_is_not_a_number_stops_training_and_names_its_utterances(tmp_path):
    """Two batches later all losses are so; the line names the first ones."""
    trainer = make_trainer(tmp_path, max_steps=4, logging_steps=4, max_grad_norm=0)
    order = [str(index) for index in trainer._get_train_sampler()]
    broken = trainer.train_dataset[int(order[3])]
    broken["input_values"] = broken["input_values"] * math.inf
    with pytest.raises(
        InputError,
        match=f"training loss is nan at update 2, for utterances {order[2]}, {order[3]} ",
    ):
        trainer.train()


def test_a_gradient_that_is_not_a_number_is_not_blamed_on_the_next_utterances(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=4, logging_steps=4, gradient_accumulation_steps=2)
    order = [str(index) for index in trainer._get_train_sampler()]
    weight = trainer.model.classifier.weight
    weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(
        InputError, match=f"training gradient is nan at update 1, for utterances {', '.join(order[:4])} "
    ):
        trainer.train()


def test_answers_that_are_not_numbers_choose_no_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        trainer.model.classifier.bias.fill_(math.nan)
    with pytest.raises(InputError, match="logits on validation utterances are not finite"):
        trainer.evaluate(trainer.train_dataset)


WEIGHTS = {"kl_weight": 0.4, "focal_weight": 0.6, "center_weight": 0.2}


def train_one_update(folder, size, **weights):
    """The change of the classifier and the centres in one update of eight utterances, in batches of this size."""
    model = tiny_model("wav2vec2-layer", class_weights=[0.2, 1.0, 5.0], **weights)
    watched = (model.classifier.weight, model.pooling.layers[0].value.weight)
    before = [weight.detach().clone() for weight in watched]
    steps = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size, "max_steps": 1}
    trainer = make_trainer(folder, model, optim="sgd", max_grad_norm=0.0, **steps)
    trainer.pooling_learning_rate = 1.0
    trainer.train()
    changes = [new.detach() - old for new, old in zip(watched, before)]
    return changes if model.objective.centers is None else [*changes, model.objective.centers.detach()]


def test_accumulated_batches_are_one_large_batch_for_every_loss_but_the_contrastive_one(tmp_path):
    whole, accumulated = (train_one_update(tmp_path / str(size), size, **WEIGHTS) for size in (8, 2))
    for one, other in zip(whole, accumulated, strict=True):
        assert one.abs().max() > 1e-5
        np.testing.assert_allclose(one, other, atol=2e-6)
    whole, accumulated = (train_one_update(tmp_path / f"c{size}", size, contrastive_weight=1.0) for size in (8, 2))
    assert (whole[1] - accumulated[1]).abs().max() > 1e-4  # utterances are compared within a batch of 2 only


def test_the_contrastive_loss_of_accumulated_batches_is_the_mean_of_theirs(tmp_path):
    model = tiny_model("wav2vec2-layer", contrastive_weight=0.5, eal_weight=0.3, fual_weight=0.7)
    trainer = make_trainer(
        tmp_path, model, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=1, learning_rate=0.0
    )
    trainer.pooling_learning_rate = trainer.classifier_learning_rate = 0.0
    order, collate = list(trainer._get_train_sampler()), Collator("input_values")
    with torch.no_grad():
        losses = [
            model(**collate([trainer.train_dataset[i] for i in order[start : start + 4]])).contrastive_loss.item()
            for start in (0, 4)
        ]
    trainer.train()
    line = next(line for line in trainer.state.log_history if "loss" in line)
    assert min(losses) > 0 and line["contrastive_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_class_weights_give_the_same_update_from_one_batch_and_from_accumulated_ones(tmp_path):
    """Torch's weighted mean would divide each batch by the weights of its own labels."""
    updates = []
    for name, size in (("whole", 8), ("accumulated", 2)):
        model = tiny_model("wav2vec2-layer", eal_weight=0.3, fual_weight=0.7, class_weights=[0.2, 1.0, 5.0])
        before = model.classifier.weight.detach().clone()
        steps = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size, "max_steps": 1}
        make_trainer(tmp_path / name, model, optim="sgd", max_grad_norm=0.0, **steps).train()
        updates.append(model.classifier.weight.detach() - before)
    assert updates[0].abs().max() > 1e-4
    np.testing.assert_allclose(updates[0], updates[1], atol=1e-6)
