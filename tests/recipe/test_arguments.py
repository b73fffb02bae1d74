"""Arguments: defaults < YAML < stage section < command line; every mistake is one line that helps."""

import subprocess
import sys
import time
from dataclasses import fields

import pytest
import yaml
from conftest import ROOT

from configuration_ser_align import CHOICES, SERAlignConfig
from core.errors import InputError
from recipe.arguments import _TYPES, GROUPS, PATHS, Arguments, ModelArguments, _choices, _options, parse_arguments


@pytest.fixture
def config(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def parse(*argv):
    return parse_arguments(list(argv), description="")


def test_the_command_line_wins_over_yaml_which_wins_over_defaults(config):
    path = config("learning_rate: 1e-4\nbatch_size: 8\nstage2:\n  batch_size: 4\n  num_epochs: 3\n")
    first, second = parse("--config", path, "--learning_rate", "2e-5", "--eal_weight=1").values()
    assert first.trainer.learning_rate == second.trainer.learning_rate == 2e-5
    assert (first.trainer.batch_size, second.trainer.batch_size) == (8, 4)
    assert (first.trainer.num_epochs, second.trainer.num_epochs) == (10, 3)
    assert first.model.eal_weight == 1.0 and first.model.fual_weight == 0.05
    assert parse("--config", path, "--batch_size", "2")[2].trainer.batch_size == 2
    assert parse("--config", path)[1].trainer.learning_rate == 1e-4  # PyYAML alone would give the text "1e-4"


def test_the_encoder_configuration_is_merged_key_by_key(config):
    path = config("encoder_config:\n  hidden_size: 32\n  layerdrop: 0.1\nstage2:\n  encoder_config:\n    a: 1\n")
    first, second = parse("--config", path, "--encoder_config", '{"layerdrop": 0}').values()
    assert first.model.encoder_config == {"hidden_size": 32, "layerdrop": 0}
    assert second.model.encoder_config == {"hidden_size": 32, "layerdrop": 0, "a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rte: 1", "'learning_rte' is not an option; did you mean learning_rate?"),
        ("stage1:\n  poolling: cls", "'poolling' is not an option; did you mean pooling?"),
        ("learning_rate: fast", "learning_rate: 'fast' is not valid; give a number"),
        ("learning_rate: true", "learning_rate: True is not valid; give a number"),
        ("learning_rate: .nan", "learning_rate: nan is not valid; give a number"),
        ("batch_size: 1.5", "batch_size: 1.5 is not valid; give a whole number"),
        ("batch_size:", "batch_size: a value is missing; give a whole number"),
        ("batch_size: 0", "batch_size: 0 is not valid; give a whole number of at least 1"),
        ("speed_factors: [1.0, 0]", "speed_factors: [1.0, 0] is not valid; give numbers of at least 0.1"),
        ("speed_factors: 0.9", "speed_factors: 0.9 is not valid; give numbers"),
        ("bf16: maybe", "bf16: 'maybe' is not valid; give true or false"),
        ("pooling: max", "pooling: 'max' is not valid; give one of self_attention, cls"),
        ("encoder_config: 3", "encoder_config: 3 is not valid; give name: value pairs"),
        ("stage2:\n  fold: 2", "'fold' is the same for both stages; move it out of stage2"),
        ("init_from: x", "--init_from x is where stage 2 starts, so it goes with --stage 2"),
        ("stage1: 3", "stage1 must hold 'name: value' lines, not 3"),
        ("- a", "must hold 'name: value' lines, but holds a list"),
        ("a: [1", "is not valid YAML"),
    ],
)
def test_a_mistake_in_yaml_is_named_with_what_is_valid(config, text, message):
    with pytest.raises(InputError) as error:
        parse("--config", config(text))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--learning_rte", "1"], "--learning_rte is not an option; did you mean --learning_rate?"),
        (["--learning_rate", "x"], "--learning_rate: 'x' is not valid; give a number"),
        (["--corpus", "iemo"], "--corpus: 'iemo' is not valid; give one of demo, folder, hub, iemocap, cremad"),
        (["--encoder_config", "{a"], "give name: value pairs, as JSON"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file; there are "),
    ],
)
def test_a_mistake_on_the_command_line_is_named_with_what_is_valid(argv, message):
    with pytest.raises(InputError) as error:
        parse(*argv)
    assert message in str(error.value)


def test_values_have_their_types():
    args = parse("--encoder", "none", "--bf16", "--use_cpu", "false", "--encoder_config", '{"layerdrop": 0}')[1]
    assert args.model.encoder is None and args.trainer.bf16 is True and args.trainer.use_cpu is False
    assert args.model.encoder_config == {"layerdrop": 0}
    assert parse("--speed_factors", "0.9", "1.1")[1].data.speed_factors == [0.9, 1.1]
    assert parse("--cls_in_embedding", "none")[1].model.cls_in_embedding == "none"  # here "none" is a choice
    assert parse()[1].model.encoder_config is not parse()[2].model.encoder_config


def test_model_arguments_are_the_fields_of_the_configuration():
    """Same names, defaults and choices: a field that is added to one must be added to the other."""
    own = {f.name: f.default for f in fields(SERAlignConfig) if f.name in SERAlignConfig.__annotations__}
    arguments = {f.name: f.default for f in fields(ModelArguments) if f.name not in ("encoder", "encoder_config")}
    # The temperature is fitted, not chosen; how audio is trimmed is an argument of the data.
    del own["encoder_config"], own["temperature"], own["trim_db"]
    assert arguments == own
    for name, choices in CHOICES.items():
        if name != "pooling":  # stage 1 always takes attentive pooling, so it is no choice for stage 2
            assert _choices(_options(_TYPES[name])[0]) == choices


def test_what_is_published_names_no_place_but_says_which_encoder(tmp_path):
    (tmp_path / "my-encoder").mkdir()
    places = ["--encoder", str(tmp_path / "my-encoder"), "--data_dir", str(tmp_path), "--output_dir", str(tmp_path)]
    args = parse(*places, "--csv", str(tmp_path / "a.csv"))[1]
    assert str(tmp_path) in str(args.flat()) and str(tmp_path) not in str(args.without_paths())
    assert args.without_paths()["encoder"] == "my-encoder"
    assert parse()[1].without_paths()["encoder"] == "facebook/wav2vec2-base"


def test_no_option_stands_in_two_groups():
    names = [f.name for group in GROUPS for f in fields(group)]
    assert len(names) == len(set(names))


def test_a_label_map_on_the_command_line_replaces_that_of_the_file():
    args = parse("--config", str(ROOT / "run_configs/iemocap/base.yaml"), "--label_map", '{"angry": "a", "sad": "b"}')
    assert args[1].data.label_map == {"angry": "a", "sad": "b"}


RUN_CONFIGS = sorted(
    p for p in (ROOT / "run_configs").rglob("*.yaml") if "variants:" not in p.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("path", RUN_CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_run_config_parses_and_is_commented_in_three_groups(path):
    parse("--config", str(path))
    text = path.read_text(encoding="utf-8")
    assert all(f"# ---- {group}" in text for group in ("model", "data", "trainer"))
    assert yaml.safe_load(text)["output_dir"].startswith("outputs/")


def test_help_is_complete_grouped_and_fast():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        run = subprocess.run([sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True)
        seconds.append(time.perf_counter() - start)
    assert run.returncode == 0 and min(seconds) < 1
    for group in GROUPS:
        assert group.__doc__ in run.stdout
        for f in fields(group):
            assert f"--{f.name} " in run.stdout


def test_every_folder_that_can_be_given_is_left_out_of_what_is_published():
    assert {name for name in Arguments().flat() if name.endswith("_dir")} <= set(PATHS)
