"""Experiments: folds x seeds x variants. Each cell is one run of train.py.

An experiment is a YAML file:

    title: Table 3 on RAVDESS
    config: run_configs/ravdess/mini.yaml     # run configuration of every cell; --run_config replaces it
    folds: [1, 2, 3, 4, 5, 6]                 # or a list per corpus: {ravdess: [1, 2], cremad: [1]}; likewise for seeds
    seeds: [0]
    baseline: self_attention                  # the variant that the others are compared with
    tsne: [cls, cls_eal_fual]                 # optional: variants in the t-SNE figure; measures alignment, too
    variants:
      self_attention:
        name: self-attention pooling
        seeds: [0, 1]                         # optional: overrides the seeds above
        options: {pooling: self_attention, eal_weight: 0, fual_weight: 0}
        paper: {ua: 0.753, wa: 0.742}         # optional: the paper's scores
        compare_with: cls                     # optional: the variant that it extends, tested besides the baseline
      egemaps_svm:
        name: eGeMAPS, SVM
        classical: {features: egemaps, classifier: svm}   # a classical model of baseline.py on the same utterances
    cited:                                    # optional: other published systems
      - {name: ..., ua: 0.7, protocol: ..., source: ...}
    options: {num_validation_speakers: 6}     # optional: train.py options for every cell
    stage: 1                                  # optional: the variants are stage-1 models, trained independently, each
                                              # with its own protocol if it gives one
    scored_on: validation                     # optional: compare variants without using the test speakers
    sizes: true                               # optional: size and speed of each system, too
    ensembles:                                # optional: means of variants of a fold and seed, plain and weighted
      both: {name: ..., members: [cls, egemaps_svm]}
    timeline:                                 # optional: score the timeline on concatenated test utterances
      variant: cls_eal_fual                   # the variant to score
      utterances: 6                           # utterances per recording
      windows: [1.5, 2, 3]                    # seconds: the sliding windows to compare with

By default, stage 1 is trained once per fold and seed and shared by all variants, as in the paper, and test speakers are
scored. Experiments with the same run configuration share an output folder, so a cell that occurs in two tables is
trained once.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import InputError
from experiments.variants import (
    Variant,
    check_classical,
    check_keys,
    check_variant_names,
    read_numbers,
    read_variant,
)
from recipe.arguments import parse_arguments, read_yaml
from recipe.classical_options import ACOUSTIC_CACHE, ClassicalArguments
from recipe.options import CELL_OPTIONS, Arguments

KEYS = (
    "title",
    "config",
    "folds",
    "seeds",
    "baseline",
    "tsne",
    "variants",
    "cited",
    "options",
    "stage",
    "scored_on",
    "sizes",
    "ensembles",
    "timeline",
)
ENSEMBLE_KEYS = ("name", "members")
TIMELINE_KEYS = ("variant", "utterances", "windows")


@dataclass(frozen=True)
class Cell:
    """One run: a variant, or the stage 1 that all networks of a fold and seed start from (`variant` None)."""

    fold: int
    seed: int
    variant: Variant | None

    @property
    def is_classical(self) -> bool:
        return self.kind == "classical"

    @property
    def kind(self) -> str:
        """`stage 1`, `network` or `classical`."""
        if self.variant is None:
            return "stage 1"
        return "network" if self.variant.classical is None else "classical"

    def __str__(self) -> str:
        return f"fold {self.fold}, seed {self.seed}, {self.variant.key if self.variant else 'stage 1'}"


@dataclass(frozen=True)
class Experiment:
    """A table on one corpus, and where its runs are stored."""

    path: Path
    title: str
    config: str
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    baseline: str
    variants: tuple[Variant, ...]
    output_dir: Path
    shared_options: tuple[str, ...] = ()
    run_config: str | None = None
    tsne: tuple[str, ...] = ()
    cited: list[dict[str, Any]] = field(default_factory=list)
    stage: int = 2
    scored_on: str = "test"
    sizes: bool = False
    ensembles: dict[str, dict[str, Any]] = field(default_factory=dict)
    timeline: dict[str, Any] | None = None

    @property
    def report_dir(self) -> Path:
        return self.output_dir / self.path.stem

    def list_cells(self) -> list[Cell]:
        """Every run in training order: seed by seed, fold by fold, stage 1 first."""
        cells = []
        for seed in sorted({*self.seeds, *(seed for variant in self.variants for seed in variant.seeds)}):
            variants = [variant for variant in self.variants if seed in variant.seeds]
            shared = [None] if self.stage == 2 and any(not variant.classical for variant in variants) else []
            for fold in self.folds:
                cells += [Cell(fold, seed, variant) for variant in (*shared, *variants)]
        return cells

    def select_cell(self, number: int) -> list[Cell]:
        """The cell with this number, counted from 1, preceded by the stage 1 that it starts from.

        Raises:
            InputError: there is no such cell.
        """
        cells = self.list_cells()
        if not 1 <= number <= len(cells):
            raise InputError(f"--cell {number} is out of range: choose from 1 to {len(cells)}; --list shows the cells")
        cell = cells[number - 1]
        first = self.find_stage1(cell)
        return [first, cell] if first else [cell]

    def find_fold_folder(self, cell: Cell) -> Path:
        return self.output_dir / f"fold{cell.fold}-seed{cell.seed}"

    def find_stage(self, cell: Cell) -> int:
        return self.stage if cell.variant else 1

    def find_stage1(self, cell: Cell) -> Cell | None:
        """The stage-1 cell that a stage-2 cell starts from; None for a stage-1 cell or a classical model."""
        return Cell(cell.fold, cell.seed, None) if self.find_stage(cell) == 2 and not cell.is_classical else None

    def find_stage_folder(self, cell: Cell) -> Path:
        """The folder that train.py or baseline.py writes for this cell."""
        folder = self.find_fold_folder(cell) / cell.variant.key if cell.variant else self.find_fold_folder(cell)
        return folder if cell.is_classical else folder / f"stage{self.find_stage(cell)}"

    def is_finished(self, cell: Cell) -> bool:
        return (self.find_stage_folder(cell) / "results.json").is_file()

    @property
    def features_dir(self) -> Path:
        return self.report_dir / "features"

    def find_features_folder(self, cell: Cell) -> Path:
        """The feature cache of a cell, shared with the cells whose encoder starts from the same weights.

        These are all cells of stage 1, or the variants of a fold and seed.
        """
        stage1 = self.find_stage1(cell)
        return self.features_dir / (self.find_fold_folder(stage1).name if stage1 else "stage1")

    def build_argv(self, cell: Cell) -> list[str]:
        """The train.py options of this cell."""
        folder = self.find_stage_folder(cell)
        argv = ["--config", self.config, *self.shared_options, "--fold", str(cell.fold), "--seed", str(cell.seed)]
        argv += ["--stage", "1" if cell.is_classical else str(self.find_stage(cell))]
        argv += ["--output_dir", str(folder if cell.is_classical else folder.parent)]
        first = self.find_stage1(cell)
        if first is not None:
            argv += ["--init_from", str(self.find_stage_folder(first))]
        return [*argv, *format_options(cell.variant.options if cell.variant else {})]

    def parse_cell(self, cell: Cell) -> dict[int, Arguments]:
        """The arguments of both stages for this cell; raises InputError for an invalid option."""
        return parse_arguments(self.build_argv(cell), description="")

    def parse_classical(self, cell: Cell) -> ClassicalArguments:
        """The arguments of a cell that is a classical model; all such cells share a cache of features."""
        assert cell.variant is not None and cell.variant.classical is not None
        run = self.parse_cell(cell)[1]
        run.data.feature_cache_dir = run.data.feature_cache_dir or str(self.output_dir / ACOUSTIC_CACHE)
        return ClassicalArguments(cell.variant.classical, run)


def format_options(options: dict[str, Any]) -> list[str]:
    """A YAML mapping of options as command-line words."""
    argv = []
    for name, value in options.items():
        is_json = isinstance(value, dict) or name == "corpora"
        words = [json.dumps(value)] if is_json else value if isinstance(value, list) else [value]
        argv += [f"--{name}", *("none" if word is None else str(word) for word in words or [None])]
    return argv


def read_experiment(path: str, shared_options: list[str], run_config: str | None = None) -> Experiment:
    """Read the YAML file of an experiment and check every cell's options.

    Args:
        shared_options: train.py options for all cells.
        run_config: train.py YAML file that replaces the one named in the experiment.

    Raises:
        InputError: the file cannot be read, a key or a value is invalid, or an option is set by the experiment itself.
    """
    content = read_yaml(path)
    if "conditions" in content:
        raise InputError(f"{path} tests finished models: add --model FOLDER, or --model mini")
    check_keys(path, content, KEYS, required=("title", "folds", "variants"))
    config = run_config or content.get("config")
    if config is None:
        raise InputError(
            f"{path} does not name a run configuration: add one, such as --run_config run_configs/iemocap/base.yaml"
        )
    corpus = parse_arguments(["--config", config], description="")[1].data.corpus
    folds = read_numbers(path, "folds", _choose_for_corpus(path, "folds", content["folds"], corpus))
    seeds = read_numbers(path, "seeds", _choose_for_corpus(path, "seeds", content.get("seeds", [0]), corpus))
    if not isinstance(content["variants"], dict) or not content["variants"]:
        raise InputError(f"{path}: variants must contain 'name: options' lines, not {content['variants']!r}")
    stage, scored_on = content.get("stage", 2), content.get("scored_on", "test")
    if stage not in (1, 2):
        raise InputError(f"{path}: stage={stage!r} is invalid: use 1 or 2")
    if scored_on not in ("validation", "test"):
        raise InputError(f"{path}: scored_on={scored_on!r} is invalid: use validation or test")
    if not isinstance(sizes := content.get("sizes", False), bool):
        raise InputError(f"{path}: sizes={sizes!r} is invalid: use true or false")
    given = content["variants"].items()
    variants = tuple(read_variant(path, str(key), value or {}, seeds, stage) for key, value in given)
    baseline, tsne = content.get("baseline", variants[0].key), content.get("tsne", [])
    extended = (variant.compare_with for variant in variants if variant.compare_with)
    check_variant_names(path, (baseline, *tsne, *extended), variants)
    check_classical(path, scored_on, variants)
    _check_tsne(path, tsne, variants, stage)
    if content.get("timeline") is not None:
        _check_timeline(path, content["timeline"], variants)
    _check_shared_options(shared_options, variants)
    shared_options = [*format_options(content.get("options", {})), *shared_options]
    config = run_config or content["config"]
    shared = parse_arguments(["--config", config, *shared_options], description="")
    experiment = Experiment(
        path=Path(path),
        title=str(content["title"]),
        config=config,
        folds=folds,
        seeds=seeds,
        baseline=baseline,
        variants=variants,
        output_dir=Path(shared[1].trainer.output_dir),
        shared_options=tuple(_drop_output_dir(shared_options)),
        run_config=run_config,
        tsne=tuple(tsne),
        cited=content.get("cited", []),
        stage=stage,
        scored_on=scored_on,
        sizes=sizes,
        ensembles=_read_ensembles(path, content.get("ensembles") or {}, variants),
        timeline=content.get("timeline"),
    )
    for cell in experiment.list_cells():  # report a mistake in the last variant before the first one is trained
        experiment.parse_cell(cell)
    return experiment


def _check_tsne(path: str, names: list[str], variants: tuple[Variant, ...], stage: int) -> None:
    for variant in variants:
        has_cls = stage == 2 and not variant.classical and variant.options.get("pooling", "cls") == "cls"
        if variant.key in names and not has_cls:
            raise InputError(f"{path}: variant {variant.key} has no CLS output to draw: remove it from tsne")


def _read_ensembles(path: str, given: Any, variants: tuple[Variant, ...]) -> dict[str, dict[str, Any]]:
    """The name and the members of each ensemble."""
    if not isinstance(given, dict):
        raise InputError(f"{path}: ensembles={given!r} must contain 'key: {{name: ..., members: [...]}}' lines")
    ensembles = {}
    for key, value in given.items():
        where = f"{path}: ensemble {key}"
        if not isinstance(value, dict) or not isinstance(value.get("members"), list):
            raise InputError(f"{where} must have members, a list of variants, not {value!r}")
        check_keys(where, value, ENSEMBLE_KEYS, required=("members",))
        check_variant_names(where, tuple(value["members"]), variants)
        name = str(value.get("name", key))
        if len(set(value["members"])) < max(2, len(value["members"])):
            raise InputError(f"{where}: members={value['members']!r} must be two or more different variants")
        if "|" in name:
            raise InputError(f"{where}: remove the '|' from its name, which appears in Markdown tables")
        ensembles[str(key)] = {"name": name, "members": value["members"]}
    return ensembles


def _check_timeline(path: str, timeline: Any, variants: tuple[Variant, ...]) -> None:
    where = f"{path}: timeline"
    if not isinstance(timeline, dict):
        raise InputError(f"{where} must contain the keys {', '.join(TIMELINE_KEYS)}, not {timeline!r}")
    check_keys(where, timeline, TIMELINE_KEYS, required=TIMELINE_KEYS)
    check_variant_names(where, (timeline["variant"],), tuple(each for each in variants if not each.classical))
    if not isinstance(timeline["utterances"], int) or timeline["utterances"] < 2:
        raise InputError(f"{where}: utterances={timeline['utterances']!r} must be an integer of at least 2")
    windows = timeline["windows"]
    if not isinstance(windows, list) or not windows or not all(isinstance(w, int | float) and w > 0 for w in windows):
        raise InputError(f"{where}: windows={windows!r} must be a list of positive numbers (seconds)")


def _choose_for_corpus(path: str, name: str, value: Any, corpus: str) -> Any:
    """The value itself, or the one for this corpus if the value is a mapping from corpora."""
    if not isinstance(value, dict):
        return value
    if corpus not in value:
        raise InputError(f"{path}: {name} are given for {', '.join(map(str, value))} but not for {corpus}: add a line")
    return value[corpus]


def _check_shared_options(shared_options: list[str], variants: tuple[Variant, ...]) -> None:
    own = {"config", *CELL_OPTIONS, *(name for variant in variants for name in variant.options)}
    for word in shared_options:
        name = word.split("=")[0].removeprefix("--")
        if word.startswith("--") and name in own:
            raise InputError(f"--{name} is set by the experiment for each of its runs: edit a copy of its YAML file")


def _drop_output_dir(options: list[str]) -> list[str]:
    """The options without --output_dir, which is different for each cell."""
    kept: list[str] = []
    skip = False
    for word in options:
        if not skip and word.split("=")[0] != "--output_dir":
            kept.append(word)
        skip = word == "--output_dir"
    return kept
