"""Experiments: folds x seeds x variants. Each cell is one command line of train.py.

An experiment is a YAML file:

    title: Table 3 on RAVDESS
    config: run_configs/ravdess/mini.yaml     # what every cell shares, unless --run_config gives it
    folds: [1, 2, 3, 4, 5, 6]                 # or one list for each corpus, {ravdess: [1, 2], cremad: [1]}; seeds alike
    seeds: [0]
    baseline: self_attention                  # what the other variants are compared with
    projected: [cls, cls_eal_fual]            # drawn by t-SNE, if any
    variants:
      self_attention:
        name: self-attention pooling
        seeds: [0, 1]                         # only where it differs from the line above
        options: {pooling: self_attention, eal_weight: 0, fual_weight: 0}
        paper: {ua: 0.753, wa: 0.742}         # where the paper gives it
    cited:                                    # other systems, if any
      - {name: ..., ua: 0.7, protocol: ..., source: ...}
    options: {num_validation_speakers: 6}     # of train.py, for every cell
    stage: 1                                  # variants of stage 1, each trained by itself
    scored_on: validation                     # to choose between variants: nothing of the test speakers is shown
    recordings:                               # also tell when: test utterances joined to recordings, if asked for
      variant: cls_eal_fual                   # by this one
      utterances: 6                           # in a recording
      windows: [1.5, 2, 3]                    # seconds, of the sliding windows to compare with

Without `stage` and `scored_on`, stage 1 is trained once for each fold and seed and shared by all variants, as in the
paper, and test speakers are scored. Experiments on the same run configuration share its output folder, so that a cell
of two tables is trained once.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import InputError
from recipe.arguments import parse_arguments, read_yaml
from recipe.options import CELL_OPTIONS, WHOLE_RUN

KEYS = (
    "title",
    "config",
    "folds",
    "seeds",
    "baseline",
    "projected",
    "variants",
    "cited",
    "options",
    "stage",
    "scored_on",
    "recordings",
)
RECORDINGS_KEYS = ("variant", "utterances", "windows")
VARIANT_KEYS = ("name", "options", "seeds", "paper")


@dataclass(frozen=True)
class Variant:
    """One way to train: a row of the table."""

    key: str
    name: str
    options: dict[str, Any]
    seeds: tuple[int, ...]
    paper: dict[str, float]


@dataclass(frozen=True)
class Cell:
    """One run: a variant, or the stage 1 of a fold and seed that all variants start from (`variant` None)."""

    fold: int
    seed: int
    variant: Variant | None

    def __str__(self) -> str:
        return f"fold {self.fold}, seed {self.seed}, {self.variant.key if self.variant else 'stage 1'}"


@dataclass(frozen=True)
class Experiment:
    """A table of the paper on one corpus, and where its runs are."""

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
    projected: tuple[str, ...] = ()
    cited: list[dict[str, Any]] = field(default_factory=list)
    stage: int = 2
    scored_on: str = "test"
    recordings: dict[str, Any] | None = None

    @property
    def report_dir(self) -> Path:
        return self.output_dir / self.path.stem

    def cells(self) -> list[Cell]:
        """Every run, in the order in which they are best trained: seed by seed, fold by fold, stage 1 first."""
        cells = []
        for seed in sorted({*self.seeds, *(seed for variant in self.variants for seed in variant.seeds)}):
            variants = [variant for variant in self.variants if seed in variant.seeds]
            shared = [None] if self.stage == 2 else []
            for fold in self.folds:
                cells += [Cell(fold, seed, variant) for variant in (*shared, *variants)]
        return cells

    def fold_dir(self, cell: Cell) -> Path:
        return self.output_dir / f"fold{cell.fold}-seed{cell.seed}"

    def stage_of(self, cell: Cell) -> int:
        return self.stage if cell.variant else 1

    def starts_from(self, cell: Cell) -> Cell | None:
        """The stage 1 that a cell needs, if it is not one itself."""
        return Cell(cell.fold, cell.seed, None) if self.stage_of(cell) == 2 else None

    def stage_dir(self, cell: Cell) -> Path:
        """The folder that train.py leaves for this cell."""
        folder = self.fold_dir(cell) / cell.variant.key if cell.variant else self.fold_dir(cell)
        return folder / f"stage{self.stage_of(cell)}"

    def command_line(self, cell: Cell) -> list[str]:
        """The options of train.py that train this cell."""
        argv = ["--config", self.config, *self.shared_options, "--fold", str(cell.fold), "--seed", str(cell.seed)]
        argv += ["--stage", str(self.stage_of(cell)), "--output_dir", str(self.stage_dir(cell).parent)]
        first = self.starts_from(cell)
        if first is not None:
            argv += ["--init_from", str(self.stage_dir(first))]
        return [*argv, *to_command_line(cell.variant.options if cell.variant else {})]


def to_command_line(options: dict[str, Any]) -> list[str]:
    """Options of a YAML mapping as words of a command line."""
    argv = []
    for name, value in options.items():
        words = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        argv += [f"--{name}", *("none" if word is None else str(word) for word in words or [None])]
    return argv


def read_experiment(path: str, shared_options: list[str], run_config: str | None = None) -> Experiment:
    """The experiment of a YAML file.

    Args:
        shared_options: options of train.py for all of its cells.
        run_config: YAML file of train.py in place of the one that the experiment names.

    Raises:
        InputError: the file cannot be read, a key or a value is not valid, or an option is the experiment's own.
    """
    content = read_yaml(path)
    _check_keys(path, content, KEYS, required=("title", "folds", "variants"))
    config = run_config or content.get("config")
    if config is None:
        raise InputError(
            f"{path} names no run configuration: give one, such as --run_config run_configs/iemocap/base.yaml"
        )
    corpus = parse_arguments(["--config", config], description="")[1].data.corpus
    folds = _whole_numbers(path, "folds", _choose_for_corpus(path, "folds", content["folds"], corpus))
    seeds = _whole_numbers(path, "seeds", _choose_for_corpus(path, "seeds", content.get("seeds", [0]), corpus))
    if not isinstance(content["variants"], dict) or not content["variants"]:
        raise InputError(f"{path}: variants must hold 'name: options' lines, not {content['variants']!r}")
    variants = tuple(_variant(path, str(key), value or {}, seeds) for key, value in content["variants"].items())
    stage, scored_on = content.get("stage", 2), content.get("scored_on", "test")
    if stage not in (1, 2) or scored_on not in ("validation", "test"):
        raise InputError(f"{path}: stage={stage!r}, scored_on={scored_on!r}; valid are 1 or 2, and validation or test")
    baseline = content.get("baseline", variants[0].key)
    keys = [variant.key for variant in variants]
    for key in (baseline, *content.get("projected", [])):
        if key not in keys:
            raise InputError(f"{path}: {key!r} is not one of its variants, {', '.join(keys)}")
    for variant in variants:
        has_cls = stage == 2 and variant.options.get("pooling", "cls") == "cls"
        if variant.key in content.get("projected", []) and not has_cls:
            raise InputError(f"{path}: {variant.key} has no CLS output to project: take it out of projected")
    recordings = content.get("recordings")
    if recordings is not None:
        _check_recordings(path, recordings, keys)
    _check_shared_options(shared_options, variants)
    shared_options = [*to_command_line(content.get("options", {})), *shared_options]
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
        shared_options=tuple(_without_output_dir(shared_options)),
        run_config=run_config,
        projected=tuple(content.get("projected", [])),
        cited=content.get("cited", []),
        stage=stage,
        scored_on=scored_on,
        recordings=recordings,
    )
    for cell in experiment.cells():  # a mistake in the last variant is said before the first one is trained
        parse_arguments(experiment.command_line(cell), description="")
    return experiment


def _check_keys(where: str, content: dict[str, Any], known: tuple[str, ...], required: tuple[str, ...] = ()) -> None:
    for name in content:
        if name not in known:
            raise InputError(f"{where}: '{name}' is not one of {', '.join(known)}")
    for name in required:
        if name not in content:
            raise InputError(f"{where} has no '{name}'; an experiment needs {', '.join(required)}")


def _check_recordings(path: str, recordings: Any, keys: list[str]) -> None:
    where = f"{path}: recordings"
    if not isinstance(recordings, dict):
        raise InputError(f"{where} must hold the lines {', '.join(RECORDINGS_KEYS)}, not {recordings!r}")
    _check_keys(where, recordings, RECORDINGS_KEYS, required=RECORDINGS_KEYS)
    if recordings["variant"] not in keys:
        raise InputError(f"{where}: {recordings['variant']!r} is not one of the variants, {', '.join(keys)}")
    if not isinstance(recordings["utterances"], int) or recordings["utterances"] < 2:
        raise InputError(f"{where}: utterances={recordings['utterances']!r} is not a whole number of at least 2")
    windows = recordings["windows"]
    if not isinstance(windows, list) or not windows or not all(isinstance(w, int | float) and w > 0 for w in windows):
        raise InputError(f"{where}: windows={windows!r} is not a list of seconds above 0")


def _choose_for_corpus(path: str, name: str, value: Any, corpus: str) -> Any:
    """The value itself, or that of one corpus where it is a mapping from corpora."""
    if not isinstance(value, dict):
        return value
    if corpus not in value:
        raise InputError(f"{path}: {name} are given for {', '.join(map(str, value))}, not for {corpus}: add a line")
    return value[corpus]


def _whole_numbers(path: str, name: str, value: Any) -> tuple[int, ...]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise InputError(f"{path}: {name}={value!r} is not a list of whole numbers")
    if len(set(numbers)) < len(numbers):
        raise InputError(f"{path}: {name}={value!r} names one of them twice")
    return tuple(numbers)


def _variant(path: str, key: str, value: dict[str, Any], seeds: tuple[int, ...]) -> Variant:
    where = f"{path}: variant {key}"
    if key == "stage1" or Path(key).name != key:
        raise InputError(f"{where}: its name must be that of a folder other than stage1")
    _check_keys(where, value, VARIANT_KEYS)
    for name in value.get("options") or {}:
        if name in ("config", *WHOLE_RUN, *CELL_OPTIONS):
            raise InputError(f"{where}: '{name}' is the same for all variants: give it in the run configuration")
    if "|" in str(value.get("name", key)):
        raise InputError(f"{where}: its name stands in Markdown tables: leave out the |")
    return Variant(
        key=key,
        name=str(value.get("name", key)),
        options=value.get("options") or {},
        seeds=_whole_numbers(where, "seeds", value["seeds"]) if "seeds" in value else seeds,
        paper=value.get("paper") or {},
    )


def _check_shared_options(shared_options: list[str], variants: tuple[Variant, ...]) -> None:
    own = {"config", *CELL_OPTIONS, *(name for variant in variants for name in variant.options)}
    for word in shared_options:
        name = word.split("=")[0].removeprefix("--")
        if word.startswith("--") and name in own:
            raise InputError(f"--{name} is set by the experiment for each of its runs: change its YAML file, or a copy")


def _without_output_dir(options: list[str]) -> list[str]:
    """The same options less --output_dir, which each cell has its own of."""
    kept: list[str] = []
    skip = False
    for word in options:
        if not skip and word.split("=")[0] != "--output_dir":
            kept.append(word)
        skip = word == "--output_dir"
    return kept
