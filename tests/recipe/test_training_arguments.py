"""--training_arguments: all of transformers.TrainingArguments, checked before anything is read."""

import json
from importlib.util import find_spec

import pytest
import torch

from core.errors import InputError
from recipe.arguments import parse_arguments
from recipe.training_arguments import BREAKING, OUR_OPTIONS, RECIPE, build_training_arguments

ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def build(tmp_path, given, *argv):
    arguments = parse_arguments(["--use_cpu", "--training_arguments", json.dumps(given), *argv], "")[1]
    return build_training_arguments(tmp_path, arguments)


def test_they_reach_the_trainer_with_their_types(tmp_path):
    """PyYAML reads 1e-8 as text, which the optimiser would refuse only when it is built."""
    given = {"report_to": "tensorboard", "optim": "adafactor", "adam_epsilon": "1e-8", "torch_compile": False}
    built = build(tmp_path, {**given, "ddp_find_unused_parameters": False}, "--learning_rate", "3e-5")
    assert built.report_to == ["tensorboard"] and built.optim == "adafactor" and built.adam_epsilon == 1e-8
    assert built.ddp_find_unused_parameters is False and built.learning_rate == 3e-5
    assert build(tmp_path, {}).report_to == [] and build(tmp_path, {}).ddp_find_unused_parameters is True
    assert build(tmp_path, {}, "--tensorboard").report_to == ["tensorboard"]


def test_yaml_and_command_line_are_merged_by_name(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "training_arguments: {optim: sgd, adam_beta2: 0.98}\nstage2:\n  training_arguments: {optim: adafactor}"
    )
    first, second = parse_arguments(["--config", str(path), "--training_arguments", '{"adam_beta1": 0.8}'], "").values()
    assert first.trainer.training_arguments == {"optim": "sgd", "adam_beta2": 0.98, "adam_beta1": 0.8}
    assert second.trainer.training_arguments["optim"] == "adafactor"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optmi": "sgd"}, "'optmi' is not one of transformers.TrainingArguments; did you mean optim?"),
        ({"num_train_epochs": 3}, "'num_train_epochs' is set by --num_epochs: use that option"),
        ({"warmup_steps": 10}, "'warmup_steps' is set by --warmup_ratio: use that option"),
        ({"label_smoothing_factor": 0.1}, "'label_smoothing_factor' is set by --label_smoothing"),
        ({"eval_strategy": "steps"}, "'eval_strategy' is set by the recipe and cannot be changed"),
        ({"load_best_model_at_end": True}, "'load_best_model_at_end' is set by the recipe"),
        ({"adam_beta1": "big"}, "adam_beta1='big' is not a number"),
        ({"fp16": "yes"}, "fp16='yes' has the wrong type; valid types: bool"),
        (
            {"dataloader_prefetch_factor": True},
            "dataloader_prefetch_factor=True has the wrong type; valid types: int, None",
        ),
        ({"optim": "adamw"}, "the Trainer rejects these options: adamw is not a valid OptimizerNames"),
        ({"optim": "adamw_bnb_8bit"}, "the Trainer rejects these options: "),
        ({"report_to": "tensorbord"}, "tensorbord is not supported"),
        ({"report_to": "wandb"}, "WandbCallback requires wandb to be installed"),
        ({"dataloader_prefetch_factor": 2}, "rejects these options: --dataloader_prefetch_factor can only"),
        (
            {"deepspeed": "nowhere/ds.json"},
            "deepspeed is not installed" if find_spec("deepspeed") is None else "nowhere",
        ),
        ({"fsdp": "full_shard", "fsdp_config": "nowhere/fsdp.json"}, "nowhere/fsdp.json"),
    ],
)
def test_what_cannot_be_trained_with_is_one_line(tmp_path, given, message):
    with pytest.raises(InputError) as error:
        build(tmp_path, given)
    assert message in str(error.value) and "\n" not in str(error.value)


@ON_CPU
@pytest.mark.parametrize("argv", [["--training_arguments", '{"fp16": true}'], ["--bf16"]], ids=["fp16", "bf16"])
def test_precision_that_the_device_does_not_have_is_refused(tmp_path, argv):
    with pytest.raises(InputError, match=r"fp16 has no effect on a CPU|Your setup doesn't support bf16") as error:
        build_training_arguments(tmp_path, parse_arguments(argv, "")[1])
    assert "\n" not in str(error.value)


def test_tensorboard_and_another_tracker_are_given_in_one_place(tmp_path):
    with pytest.raises(InputError, match=r"--tensorboard and training_arguments: report_to='wandb' conflict"):
        build(tmp_path, {"report_to": "wandb"}, "--tensorboard")


def test_an_fsdp_file_is_read_and_a_deepspeed_file_asks_for_its_package(tmp_path):
    (tmp_path / "fsdp.json").write_text(json.dumps({"transformer_layer_cls_to_wrap": ["Wav2Vec2EncoderLayer"]}))
    built = build(tmp_path, {"fsdp": "full_shard", "fsdp_config": str(tmp_path / "fsdp.json")})
    assert built.fsdp_config["transformer_layer_cls_to_wrap"] == ["Wav2Vec2EncoderLayer"]
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 2}, "train_batch_size": "auto"}))
    try:
        import deepspeed  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"(?i)deepspeed") as error:
            build(tmp_path, {"deepspeed": str(tmp_path / "ds.json")})
        assert "\n" not in str(error.value)
    else:
        assert build(tmp_path, {"deepspeed": str(tmp_path / "ds.json")}).hf_deepspeed_config.is_zero2()


def test_every_name_that_is_refused_is_one_of_the_library():
    """A name that a new release of transformers drops would be refused with a wrong reason."""
    from dataclasses import fields

    from transformers import TrainingArguments

    names = {field.name for field in fields(TrainingArguments)}
    assert {*OUR_OPTIONS, *RECIPE, *BREAKING} <= names


def test_files_of_this_machine_are_published_by_name_alone(tmp_path):
    (tmp_path / "ds.json").write_text("{}")
    given = {"deepspeed": str(tmp_path / "ds.json"), "optim": "sgd"}
    arguments = parse_arguments(["--training_arguments", json.dumps(given)], "")[1]
    assert arguments.without_paths()["training_arguments"] == {"deepspeed": "ds.json", "optim": "sgd"}


def test_a_contrastive_loss_needs_batches_to_compare_in(tmp_path):
    with pytest.raises(InputError, match="--contrastive_weight compares the utterances of a batch, and --batch_size 1"):
        build(tmp_path, {}, "--contrastive_weight", "0.1", "--batch_size", "1")
    build(tmp_path, {}, "--contrastive_weight", "0.1", "--batch_size", "2")
