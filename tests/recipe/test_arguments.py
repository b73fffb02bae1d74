"""Arguments: defaults < YAML < stage section < command line; every mistake gives a helpful one-line error."""

import re
import subprocess
import sys
import time
from dataclasses import fields

import pytest
import yaml
from conftest import ROOT

from configuration_ser_align import SERAlignConfig
from core.errors import InputError
from fields_ser_align import SERAlignFields
from options_ser_align import find_choices
from recipe.arguments import parse_arguments
from recipe.options import (
    FORMER_NAMES,
    FREE_TO_CHANGE,
    GROUPS,
    OPTIONS,
    PATHS,
    WHOLE_RUN,
    Arguments,
    ModelArguments,
    option_source,
)
from recipe.records import first_difference


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
        ("batch_size:", "batch_size: the value is missing; give a whole number"),
        ("batch_size: 0", "batch_size: 0 is not valid; give a whole number of at least 1"),
        ("speed_factors: [1.0, 0]", "speed_factors: [1.0, 0] is not valid; give numbers from 0.1 to 10"),
        ("noise_snrs: [20, -200]", "noise_snrs: [20, -200] is not valid; give numbers from -20 to 100"),
        ("pitch_steps: [0, 200]", "pitch_steps: [0, 200] is not valid; give numbers from -24 to 24"),
        ("stage3: {num_epochs: 2}", "'stage3' is not an option: there are two stages, stage1 and stage2"),
        ("speed_factors: 0.9", "speed_factors: 0.9 is not valid; give numbers"),
        ("bf16: maybe", "bf16: 'maybe' is not valid; give true or false"),
        ("pooling: sum", "pooling: 'sum' is not valid; give one of attentive, self_attention, cls, mean, max, flam"),
        ("encoder_config: 3", "encoder_config: 3 is not valid; give name: value pairs"),
        ("stage2:\n  fold: 2", "'fold' applies to both stages; move it out of stage2"),
        ("init_from: x", "--init_from x initialises stage 2, so it requires --stage 2"),
        ("eal_weight: -1", "eal_weight: -1 is not valid; give a number of at least 0"),
        ("eal_margin: 3", "eal_margin: 3 is not valid; give a number from -1 to 2"),
        ("frame_temperature: 0", "frame_temperature: 0 is not valid; give a number above 0"),
        ("warmup_ratio: 1", "warmup_ratio: 1 is not valid; give a number of at least 0 and below 1"),
        ("ema_decay: 1", "ema_decay: 1 is not valid; give a number of at least 0 and below 1"),
        ("mix_probability: 1.5", "mix_probability: 1.5 is not valid; give a number from 0 to 1"),
        ("pitch_steps: [.inf]", "pitch_steps: [inf] is not valid; give numbers"),
        ("averaging: 0.9", "'averaging' is not an option any more; it is now called ema_decay"),
        ("stage2:\n  duration_pool: 2", "'duration_pool' is not an option any more; it is now called bucket_batches"),
        ("stage1: 3", "stage1 must contain 'name: value' lines, not 3"),
        ("- a", "must contain 'name: value' lines, but contains a list"),
        ("a: [1", "is not valid YAML"),
        ("seed: 1\nbatch_size: 2\nseed: 2", "is not valid YAML: line 3: seed is there twice: remove one of them"),
        ("label_map:\n  happy: a\n  sad: b\n  happy: b", "line 4: happy is there twice"),
        ("batch_size: 4\nseed: 010", "line 2: YAML reads 010 as 8: write a plain number, or text in quotes"),
        ("num_epochs: 1:30", "line 1: YAML reads 1:30 as 90: write a plain number"),
        ("encoder_config: {hidden_size: 0x20}", "YAML reads 0x20 as 32: write a plain number"),
        ("speed_factors: none", "speed_factors: the value is missing; give numbers from 0.1 to 10"),
        ("pitch_steps: []", "pitch_steps: [] is not valid; give numbers from -24 to 24"),
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
        (["--features_dir", "x"], "--features_dir is not an option any more; it is now called --feature_cache_dir"),
        (["--keep_features=false"], "--keep_features is not an option any more; it is now called --cache_features"),
        (["--learning_rate", "x"], "--learning_rate: 'x' is not valid; give a number"),
        (["--corpus", "iemo"], "--corpus: 'iemo' is not valid; give one of demo, folder, hub, iemocap, cremad"),
        (["--data_dirs", '{"ravdess": "x"}'], "--data_dirs requires --corpora, a list of several"),
        (["--test_label_map", '{"a": "b"}'], "--test_label_map requires --test_corpus"),
        (["--common_labels"], "--common_labels requires --corpora or --test_corpus"),
        (["--corpus", "ravdess", "--csv", "x.csv"], "--csv requires --corpus folder"),
        (["--encoder_config", "{a"], "give name: value pairs, as JSON"),
        (["--label_map", '{"1": "a", "1": "b"}'], "is not valid; give name: name pairs, as JSON"),
        (["--speed_factors", "none"], "--speed_factors: ['none'] is not valid; give numbers from 0.1 to 10"),
        (["--config", "nowhere.yaml"], "no such file; run_configs/ has quickstart.yaml, folder.yaml and the folders "),
        (["--config", "run_configs/ravdes/mini.yaml"], "no such file; did you mean run_configs/ravdess/mini.yaml"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_with_what_is_valid(argv, message):
    with pytest.raises(InputError) as error:
        parse(*argv)
    assert message in str(error.value)


def test_lists_that_may_be_empty_take_none(config):
    for text in ("noise_snrs: none", "noise_snrs: null", "noise_snrs: []", "noise_snrs:"):
        assert parse("--config", config(text))[1].data.noise_snrs == []
    assert parse("--noise_snrs", "none")[1].data.noise_snrs == []


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "0.0001", ".0001", "+1.e-4"])
def test_plain_numbers_are_read_as_written(config, text):
    assert parse("--config", config(f"learning_rate: {text}"))[1].trainer.learning_rate == 1e-4


def test_names_that_look_like_numbers_stay_names(config):
    args = parse("--config", config("only: {speaker: [010, 1:30]}\nlabel_map: {010: 0x20}"))[1]
    assert args.data.only == {"speaker": ["010", "1:30"]} and args.data.label_map == {"010": "0x20"}


def test_values_have_their_types():
    args = parse("--encoder", "none", "--bf16", "--use_cpu", "false", "--encoder_config", '{"layerdrop": 0}')[1]
    assert args.model.encoder is None and args.trainer.bf16 is True and args.trainer.use_cpu is False
    assert args.model.encoder_config == {"layerdrop": 0}
    assert parse("--speed_factors", "0.9", "1.1")[1].data.speed_factors == [0.9, 1.1]
    assert parse("--cls_in_embedding", "none")[1].model.cls_in_embedding == "none"  # here "none" is a choice
    assert parse()[1].model.encoder_config is not parse()[2].model.encoder_config


def test_the_options_of_the_model_are_the_fields_of_its_configuration():
    """Each option is declared once, so a new loss weight is on the command line and in the configuration."""
    own = {f.name: f.default for f in fields(SERAlignFields)}
    assert own.items() <= {f.name: f.default for f in fields(SERAlignConfig)}.items()
    assert own.items() <= {f.name: f.default for f in fields(ModelArguments)}.items()
    for field in fields(SERAlignFields):
        for word in find_choices(field):
            assert getattr(parse(f"--{field.name}", word)[2].model, field.name) == word
    poolings = find_choices(next(field for field in fields(ModelArguments) if field.name == "stage1_pooling"))
    assert poolings == find_choices(next(field for field in fields(SERAlignFields) if field.name == "pooling"))


def test_facts_of_options():
    """Checks some options of each kind, to detect metadata that gets lost."""
    assert {"output_dir", "csv", "feature_cache_dir"} <= set(PATHS) and "push_to_hub" not in PATHS
    assert {"num_workers", "watch_test", "data_dir"} <= set(FREE_TO_CHANGE)
    assert not {"learning_rate", "ema_decay", "seed", "encoder", "training_arguments"} & set(FREE_TO_CHANGE)
    assert {"corpus", "fold", "split_seed", "use_cpu"} <= set(WHOLE_RUN) and "num_epochs" not in WHOLE_RUN
    assert option_source("eal_weight", [0.05, 0.05]) == "paper"
    assert option_source("eal_weight", [0.05, 0.1]) == "not the paper's"
    assert option_source("learning_rate", [2e-5]) == option_source("corpus", ["demo"]) == "ours"


def test_a_record_of_an_earlier_release_is_compared_under_the_names_of_now():
    now = parse("--ema_decay", "0.9", "--bucket_batches", "2")[1].flat()
    earlier = {name: value for name, value in now.items() if name not in FORMER_NAMES.values()}
    earlier |= {"averaging": 0.9, "duration_pool": 2, "keep_features": True, "features_dir": None}
    assert first_difference(earlier, now) is None
    assert first_difference({**earlier, "averaging": 0.5}, now) == "ema_decay=0.5, not 0.9"
    assert first_difference({**earlier, "keep_features": False, "use_cpu": True}, now) is None


def test_what_is_published_names_no_place_but_says_which_encoder(tmp_path):
    (tmp_path / "my-encoder").mkdir()
    places = ["--encoder", str(tmp_path / "my-encoder"), "--data_dir", str(tmp_path), "--output_dir", str(tmp_path)]
    args = parse(*places, "--corpus", "folder", "--csv", str(tmp_path / "a.csv"))[1]
    assert str(tmp_path) in str(args.flat()) and str(tmp_path) not in str(args.without_paths())
    assert args.without_paths()["encoder"] == "my-encoder"
    assert parse()[1].without_paths()["encoder"] == "facebook/wav2vec2-base"


def test_no_option_stands_in_two_groups():
    names = [f.name for group in GROUPS for f in fields(group)]
    assert len(names) == len(set(names))


def test_a_label_map_on_the_command_line_replaces_that_of_the_file():
    args = parse("--config", str(ROOT / "run_configs/iemocap/base.yaml"), "--label_map", '{"angry": "a", "sad": "b"}')
    assert args[1].data.label_map == {"angry": "a", "sad": "b"}


EXPERIMENTS = ("variants:", "conditions:")
RUN_CONFIGS = sorted(
    path
    for path in (ROOT / "run_configs").rglob("*.yaml")
    if not any(key in path.read_text(encoding="utf-8") for key in EXPERIMENTS)
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
    assert run.returncode == 0 and min(seconds) < 0.5  # 0.1 s on an idle machine
    for group in GROUPS:
        assert group.__doc__ in run.stdout
        for f in fields(group):
            assert f"--{f.name} " in run.stdout
    assert "learning rate of the encoder [2e-05; ours]" in run.stdout
    assert re.search(
        r"--pooling_num_heads INT +number of attention heads in the pooling encoder \[4; paper\]", run.stdout
    )


def test_help_and_a_mistake_import_no_heavy_library():
    script = "import sys; from recipe.arguments import parse_arguments; parse_arguments([], ''); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "numpy", "datasets", "safetensors"} & set(run.stdout.split())


def test_every_option_says_in_one_phrase_what_it_is():
    """A user may read a single line of --help, so "of the encoder" must not depend on the line above."""
    for name, option in OPTIONS.items():
        words = option.metadata["help"].split()
        assert len(words) >= 4 and words[0].lower() not in ("of", "its", "their", "it", "which", "that"), name


def test_every_folder_that_can_be_given_is_left_out_of_what_is_published():
    assert {name for name in Arguments().flat() if name.endswith("_dir")} <= set(PATHS)


def test_labels_in_yaml_are_read_as_they_are_written(config):
    """YAML 1.1 reads no as false, 010 as 8, 1.0 as a number and 2020-01-01 as a date."""
    path = config(
        "label_map: {0: no, 1: yes, 010: 2020-01-01, 1.0: off, bored: null}\n"
        "only: {speaker: [01, 2], label: no}\n"
        "bf16: no\nclass_weights: {no: 2, yes: 1.5}\n"
    )
    args = parse("--config", path)[1]
    assert args.data.label_map == {"0": "no", "1": "yes", "010": "2020-01-01", "1.0": "off", "bored": None}
    assert args.data.only == {"speaker": ["01", "2"], "label": "no"}
    assert args.trainer.bf16 is False and args.model.class_weights == {"no": 2.0, "yes": 1.5}
    args = parse("--label_map", '{"a": 1.0, "b": "no", "c": null}', "--class_weights", '{"no": 2}')[1]
    assert args.data.label_map == {"a": "1.0", "b": "no", "c": None} and args.model.class_weights == {"no": 2.0}


@pytest.mark.parametrize("value", ["even", '{"angry": 0}', '{"angry": -1}', '{"angry": "much"}', "[1, 2]"])
def test_class_weights_that_are_none_say_what_is_valid(value):
    with pytest.raises(InputError, match=r"--class_weights: .* give balanced, or name: number above 0 pairs, as JSON"):
        parse("--class_weights", value)
