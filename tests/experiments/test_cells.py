"""The cells of an experiment, each of which must be a valid command line of train.py."""

import json
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from core.errors import InputError
from experiments.cells import Cell, read_experiment
from experiments.systems import _check_one_recipe
from recipe import arguments
from recipe.arguments import parse_arguments

pytestmark = pytest.mark.slow

RUN_CONFIGS = {"cremad": "cremad/base", "iemocap": "iemocap/base", "ravdess": "ravdess/mini"}
# Every experiment on every corpus, with the run configuration that it is given or names itself.
TABLES = [
    (path.relative_to(ROOT), f"run_configs/{name}.yaml" if path.parent.name == "paper" else None)
    for path in sorted((ROOT / "run_configs").rglob("*.yaml"))
    if "\nvariants:" in path.read_text(encoding="utf-8")
    for name in (RUN_CONFIGS.values() if path.parent.name == "paper" else ("",))
]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def written(tmp_path, **changes):
    content = {
        "title": "two ways",
        "config": "run_configs/quickstart.yaml",
        "folds": [1, 2],
        "seeds": [0],
        "variants": {
            "plain": {"name": "plain", "seeds": [0, 3], "options": {"pooling": "self_attention", "eal_weight": 0}},
            "proposed": {"options": {"eal_margin": 0.6}},
        },
    }
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}), encoding="utf-8")
    return str(path)


def test_stage_1_comes_once_for_each_fold_and_seed_before_its_variants(tmp_path):
    experiment = read_experiment(written(tmp_path), [])
    assert [str(cell) for cell in experiment.list_cells()] == [
        *("fold 1, seed 0, stage 1", "fold 1, seed 0, plain", "fold 1, seed 0, proposed"),
        *("fold 2, seed 0, stage 1", "fold 2, seed 0, plain", "fold 2, seed 0, proposed"),
        *("fold 1, seed 3, stage 1", "fold 1, seed 3, plain"),
        *("fold 2, seed 3, stage 1", "fold 2, seed 3, plain"),
    ]


def test_a_cell_is_a_command_line_of_train(tmp_path):
    experiment = read_experiment(written(tmp_path), ["--output_dir", "outputs/x", "--use_cpu", "--max_steps", "5"])
    stage1, plain = experiment.list_cells()[6:8]
    first = parse_arguments(experiment.build_argv(stage1), description="")[1]
    second = parse_arguments(experiment.build_argv(plain), description="")[2]
    assert (first.data.fold, first.trainer.seed, first.trainer.stage) == (1, 3, "1")
    assert (second.data.fold, second.trainer.seed, second.trainer.stage) == (1, 3, "2")
    assert second.trainer.init_from == f"{first.trainer.output_dir}/stage1" == "outputs/x/fold1-seed3/stage1"
    assert Path(second.trainer.output_dir) / "stage2" == experiment.find_stage_folder(plain)
    assert second.model.pooling == "self_attention" and second.model.eal_weight == 0
    assert first.trainer.use_cpu and first.trainer.max_steps == second.trainer.max_steps == 5


def test_variants_of_stage_1_are_trained_by_themselves(tmp_path):
    config = written(tmp_path, stage=1, scored_on="validation", options={"num_validation_speakers": 6, "use_cpu": True})
    experiment = read_experiment(config, ["--output_dir", "outputs/x"])
    cells = experiment.list_cells()
    assert [str(cell) for cell in cells][:2] == ["fold 1, seed 0, plain", "fold 1, seed 0, proposed"]
    assert all(experiment.find_stage1(cell) is None for cell in cells) and len(cells) == 6
    assert experiment.find_stage_folder(cells[1]) == Path("outputs/x/fold1-seed0/proposed/stage1")
    args = parse_arguments(experiment.build_argv(cells[1]), description="")[1]
    assert (args.trainer.stage, args.trainer.init_from, args.model.eal_margin) == ("1", None, 0.6)
    assert args.data.num_validation_speakers == 6 and args.trainer.use_cpu
    assert Path(args.trainer.output_dir) / "stage1" == experiment.find_stage_folder(cells[1])


def test_every_experiment_reads_and_shares_its_cells_with_the_others(monkeypatch):
    """The same output folder always means the same command line, in every table. Each YAML file is read once."""
    load_once = cache(arguments.load_yaml)
    monkeypatch.setattr(arguments, "load_yaml", lambda text, names: deepcopy(load_once(text, names)))
    assert len(TABLES) >= 12
    seen = {}
    for path, run_config in TABLES:
        experiment = read_experiment(str(path), [], run_config)
        folders = [experiment.find_stage_folder(cell) for cell in experiment.list_cells()]
        assert len(folders) == len(set(folders)), path
        for cell, folder in zip(experiment.list_cells(), folders):
            parsed = parse_arguments(experiment.build_argv(cell), "")
            assert seen.setdefault(folder, parsed) == parsed, (path, cell)


def test_table_3_is_the_papers_five_configurations():
    for corpus, folds in (("iemocap", 5), ("cremad", 5), ("ravdess", 6)):
        experiment = read_experiment(f"run_configs/{corpus}/table3.yaml", [])
        assert len(experiment.folds) == folds
        args = {v.key: parse_arguments(experiment.build_argv(Cell(1, 0, v)), "")[2].model for v in experiment.variants}
        found = {key: (a.pooling, a.eal_weight, a.fual_weight) for key, a in args.items()}
        assert found == {
            "self_attention": ("self_attention", 0, 0),
            "cls": ("cls", 0, 0),
            "cls_eal": ("cls", 0.05, 0),
            "cls_fual": ("cls", 0, 0.05),
            "cls_eal_fual": ("cls", 0.05, 0.05),
        }
        assert args["cls_eal"].eal_margin == args["cls_eal_fual"].eal_margin == 0.8


def test_table_4_is_margin_times_weight():
    experiment = read_experiment("run_configs/paper/table4.yaml", [], "run_configs/iemocap/base.yaml")
    cells = [v.options for v in experiment.variants if v.options["eal_weight"]]
    assert sorted((o["eal_margin"], o["eal_weight"]) for o in cells) == [
        (margin, weight) for margin in (0.4, 0.6, 0.8) for weight in (0.05, 0.10, 0.15)
    ]


@pytest.mark.parametrize("corpus", RUN_CONFIGS)
def test_a_table_of_several_corpora_has_the_folds_and_seeds_of_each(corpus):
    folds = {"ravdess": [(1,), (1, 2, 3, 4, 5, 6)]}.get(corpus, [(1, 2, 3, 4, 5)] * 2)
    for table, expected in zip(("table4", "table5"), folds):
        experiment = read_experiment(f"run_configs/paper/{table}.yaml", [], f"run_configs/{RUN_CONFIGS[corpus]}.yaml")
        assert experiment.folds == expected
        assert experiment.seeds == ((0,) if corpus == "ravdess" else (0, 1))
        assert experiment.output_dir == Path("outputs") / RUN_CONFIGS[corpus].replace("/", "-")


def test_a_table_of_several_corpora_needs_one_that_it_has(tmp_path):
    with pytest.raises(InputError, match=r"table4\.yaml does not name a run configuration: add one"):
        read_experiment("run_configs/paper/table4.yaml", [])
    with pytest.raises(InputError, match="folds are given for iemocap, cremad, ravdess but not for demo: add a line"):
        read_experiment("run_configs/paper/table4.yaml", [], "run_configs/quickstart.yaml")


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"fold": [1]}, [], "unknown key 'fold'; valid keys: title, config, folds"),
        ({"folds": [1, "two"]}, [], r"folds=\[1, 'two'\] must be a list of non-negative integers"),
        ({"folds": [1, 1]}, [], r"folds=\[1, 1\] contains duplicates"),
        ({"baseline": "cls"}, [], "no variant is called 'cls'; choose from plain, proposed"),
        ({"variants": {"plain": {"compare_with": "cls"}}}, [], "no variant is called 'cls'; choose from plain"),
        ({"stage": 3}, [], "stage=3 is invalid: use 1 or 2"),
        ({"stage": 1, "tsne": ["proposed"]}, [], "variant proposed has no CLS output to draw"),
        ({"scored_on": "train"}, [], "scored_on='train' is invalid: use validation or test"),
        ({"projected": ["proposed"]}, [], "'projected' is now called 'tsne'"),
        ({"recordings": {}}, [], "'recordings' is now called 'timeline'"),
        ({"timeline": {"variant": "plain"}}, [], "timeline: missing key 'utterances'"),
        ({"variants": {}}, [], "variants must contain 'name: options' lines"),
        (
            {"variants": {"stage1": {}}},
            [],
            "variant stage1: choose a name that is a valid folder name and not 'stage1'",
        ),
        ({"variants": {"a": {"option": {}}}}, [], "variant a: unknown key 'option'; valid keys: name, options"),
        ({"variants": {"a": {"options": {"eal_margn": 1}}}}, [], "--eal_margn is not an option; did you mean"),
        (
            {"variants": {"a": {"options": {"only": {"gender": "male"}}}}},
            [],
            "'only' must be the same for all variants",
        ),
        ({"variants": {"a": {"options": {"seed": 7}}}}, [], "'seed' must be the same for all variants"),
        ({"variants": {"a": {"name": "a | b"}}}, [], r"remove the '\|' from its name"),
        ({"ensembles": {"a": {"members": ["plain"]}}}, [], "must be two or more different variants"),
        ({"ensembles": {"a": {"members": ["plain", "cls"]}}}, [], "no variant is called 'cls'"),
        ({"ensembles": {"a": ["plain"]}}, [], "ensemble a must have members, a list of variants"),
        ({"ensembles": ["a"]}, [], "must contain 'key: {name: ..., members:"),
        ({"tsne": ["plain"]}, [], "plain has no CLS output to draw: remove it from tsne"),
        ({}, ["--fold", "2"], "--fold is set by the experiment"),
        ({}, ["--eal_margin=0.5"], "--eal_margin is set by the experiment"),
        ({}, ["--num_epoch", "2"], "--num_epoch is not an option; did you mean --num_epochs"),
    ],
)
def test_a_mistake_is_named_before_anything_is_trained(tmp_path, changes, options, message):
    with pytest.raises(InputError, match=message):
        read_experiment(written(tmp_path, **changes), options)


def test_variants_of_one_stage_may_split_otherwise(tmp_path):
    shared = {"a": {}, "b": {"options": {"protocol": "shared_speakers", "num_folds": 4}}}
    experiment = read_experiment(written(tmp_path, stage=1, baseline="a", variants=shared), [])
    parsed = [parse_arguments(experiment.build_argv(cell), "")[2].data for cell in experiment.list_cells()]
    assert {(data.protocol, data.num_folds) for data in parsed} == {("published", 5), ("shared_speakers", 4)}
    # openSMILE imports oyaml, which makes yaml keep the order of mappings: either option may come first.
    with pytest.raises(InputError, match=r"'(num_folds|protocol)' must be the same for all variants"):
        read_experiment(written(tmp_path, baseline="a", variants=shared), [])


def test_an_empty_list_is_an_option_too(tmp_path):
    config = written(tmp_path, variants={"clean": {"options": {"noise_snrs": [], "speed_factors": [0.9, 1.1]}}})
    experiment = read_experiment(config, [])
    data = parse_arguments(experiment.build_argv(experiment.list_cells()[1]), "")[2].data
    assert data.noise_snrs == [] and data.speed_factors == [0.9, 1.1]


def test_a_missing_file_and_a_run_config_in_its_place_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: no such file; run_configs/ has quickstart"):
        read_experiment("none.yaml", [])
    with pytest.raises(InputError, match="is an experiment: run"):
        parse_arguments(["--config", "run_configs/ravdess/table3.yaml"], "")


def test_runs_of_a_fold_have_the_same_rows_unless_they_are_split_otherwise(tmp_path):
    variants = {"a": {}, "b": {}, "c": {"options": {"protocol": "shared_speakers", "num_folds": 4}}}
    options = {"output_dir": str(tmp_path / "runs")}
    experiment = read_experiment(written(tmp_path, stage=1, folds=[1], variants=variants, options=options), [])
    cells = experiment.list_cells()
    for cell, rows in zip(cells, ("unseen", "unseen", "shared")):
        folder = experiment.find_stage_folder(cell)
        folder.mkdir(parents=True)
        (folder / "arguments.json").write_text(json.dumps(experiment.parse_cell(cell)[1].flat() | {"rows": rows}))
    _check_one_recipe(experiment, cells)
    (folder.parents[1] / "b" / "stage1" / "arguments.json").write_text(
        json.dumps(experiment.parse_cell(cells[1])[1].flat() | {"rows": "others"})
    )
    with pytest.raises(InputError, match="different utterances or a different split"):
        _check_one_recipe(experiment, cells)
