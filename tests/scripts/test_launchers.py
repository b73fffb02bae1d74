"""accelerate launch with the files in examples/accelerate: read as accelerate reads them, and two machines in one."""

import subprocess
import sys

import pytest
import transformers
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin, patch_environment
from accelerate.utils.launch import prepare_multi_gpu_env
from conftest import ROOT
from running import SHORT, environment, lines_of, run_together
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

FOLDER = ROOT / "examples" / "accelerate"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))


def read_command(name, *options):
    """The arguments of accelerate launch with this file."""
    argv = ["--config_file", str(FOLDER / name), *options, "train.py"]
    return _validate_launch_command(launch_command_parser().parse_args(argv))[0]


def test_two_nodes_and_both_ways_to_shard_are_there():
    kinds = {name: load_config_from_file(str(FOLDER / name)).distributed_type.value for name in FILES}
    assert kinds == {"deepspeed.yaml": "DEEPSPEED", "fsdp.yaml": "FSDP", "two_nodes.yaml": "MULTI_GPU"}


def test_fsdp_shards_the_layers_of_the_encoder():
    with patch_environment(**prepare_multi_gpu_env(read_command("fsdp.yaml"))):
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert "FULL" in str(plugin.state_dict_type)
    (layer,) = plugin.transformer_cls_names_to_wrap
    config = transformers.Wav2Vec2Config(
        num_hidden_layers=2, hidden_size=16, num_attention_heads=2, intermediate_size=16
    )
    classes = [type(module).__name__ for module in transformers.Wav2Vec2Model(config).modules()]
    assert classes.count(layer) == 2


def test_deepspeed_gets_the_stage_and_what_the_trainer_is_told():
    args = read_command("deepspeed.yaml")
    assert args.use_deepspeed and args.num_processes == 2 and str(args.zero_stage) == "2"
    assert args.gradient_accumulation_steps == args.gradient_clipping == "auto"


def test_two_launchers_train_as_one_launcher_with_two_processes(demo, tmp_path):
    """Both believe that theirs is a machine of its own; they share one folder, as machines of a cluster do."""
    argv = [*SHORT, "--data_dir", demo, "--stage", 1]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", FOLDER / "two_nodes.yaml"]
    command += ["--main_process_ip", "127.0.0.1", "--main_process_port", 29617]
    script = ["train.py", *argv, "--output_dir", tmp_path / "nodes"]
    launchers = [
        subprocess.Popen(
            list(map(str, [*command, "--machine_rank", rank, *script])),
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    printed = [launcher.communicate(timeout=600)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], "".join(printed)[-3000:]
    assert [text.count("Scores on unseen speakers") for text in printed] == [1, 0]  # the first machine's
    run_together("train.py", *argv, "--output_dir", tmp_path / "one", port=29618)
    nodes, one = (tmp_path / name / "stage1" for name in ("nodes", "one"))
    weights, expected = (load_file(folder / "model.safetensors") for folder in (nodes, one))
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(value) for name, value in expected.items())
    assert lines_of(nodes / "predictions.jsonl") == lines_of(one / "predictions.jsonl")
