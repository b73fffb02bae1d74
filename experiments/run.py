"""The engine of experiment.py: check and train the cells, and report on the finished ones."""

import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from filelock import FileLock, Timeout

from core.errors import InputError
from core.json_files import read_json, write_json
from core.loading import load_model, load_tokenizer
from experiments.alignment import measure_model
from experiments.cells import Cell, Experiment
from experiments.diarization_report import append_diarization, measure_fold
from experiments.embeddings import embed_utterances
from experiments.report import write_report
from experiments.sizes import append_sizes, build_size_table, measure_size
from experiments.systems import read_systems
from recipe.checks import check_run
from recipe.classical import check_classical, fit_model
from recipe.data import read_rows, read_rows_alone, split_rows
from recipe.feature_cache import remove_cache
from recipe.options import Arguments
from recipe.preparing import AudioCache, UtterancePreparer
from recipe.reading import Reader
from recipe.records import first_difference
from recipe.results import read_results
from recipe.run import quiet_libraries, train_stages

SECONDS_BETWEEN_LOOKS = 5  # while other processes train the remaining cells


def start_processes(experiment: Experiment) -> bool:
    """Set up the device and the process group; returns whether this is the main process."""
    quiet_libraries()
    # PartialState is a singleton: the first one created sets the device for the whole process.
    first = experiment.parse_cell(experiment.list_cells()[0])
    return PartialState(cpu=first[1].trainer.use_cpu).is_main_process


# ------------------------------------------------------------------------------------------- training


def train_cells(experiment: Experiment, cells: list[Cell]) -> None:
    """Train the unfinished cells, and wait for those that other runs are training.

    In a distributed run, the main process chooses the cell for all processes.

    Raises:
        InputError: a cell is misconfigured or was previously trained with other options; in either case, nothing is
            trained.
    """
    check_cells(experiment, cells)
    check_finished(experiment, cells)
    rows, cache = None, AudioCache()
    while True:
        lock = number = None
        is_done = False
        if PartialState().is_main_process:
            waiting = [cell for cell in cells if read_results(experiment.find_stage_folder(cell)) is None]
            number = next((cells.index(cell) for cell in waiting if (lock := claim_cell(experiment, cell))), None)
            is_done = not waiting
        number, is_done = broadcast_object_list([number, is_done])
        if is_done:
            if PartialState().is_main_process:
                remove_features(experiment)
            return
        if number is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        cell = cells[number]
        PartialState().print(f"\n{describe_progress(experiment, cell)}")
        try:
            arguments = experiment.parse_cell(cell)
            rows = rows or read_rows(arguments[1])
            if cell.is_classical:
                fit_model(experiment.parse_classical(cell), *rows)
            else:
                share_features(experiment, cell, arguments)
                train_stages(arguments, *rows, cache)
            if PartialState().is_main_process:
                remove_features(experiment)
        except InputError as error:
            raise name_cell(error, experiment, cell) from error
        finally:
            if lock is not None:
                lock.release()


def share_features(experiment: Experiment, cell: Cell, arguments: dict[int, Arguments]) -> None:
    """Let a cell use the feature cache of the experiment, unless the user has chosen another one."""
    for args in arguments.values():
        args.data.feature_cache_dir = args.data.feature_cache_dir or str(experiment.find_features_folder(cell))


def remove_features(experiment: Experiment) -> None:
    """Delete the cached features of the experiment that no unfinished cell needs."""
    unfinished = [c for c in experiment.list_cells() if read_results(experiment.find_stage_folder(c)) is None]
    needed = {experiment.find_features_folder(cell) for cell in unfinished if not cell.is_classical}
    for folder in {*experiment.features_dir.glob("*"), experiment.features_dir} - needed:
        remove_cache(folder)


def check_cells(experiment: Experiment, cells: list[Cell]) -> None:
    """Raise InputError if a cell's model or training arguments are invalid, before any audio is read."""
    for cell in cells:
        stage1 = experiment.find_stage1(cell)
        try:
            if cell.is_classical:
                check_classical(experiment.parse_classical(cell))
            else:
                check_run(experiment.parse_cell(cell), first=experiment.parse_cell(stage1)[1] if stage1 else None)
        except InputError as error:
            raise name_cell(error, experiment, cell) from error


def check_finished(experiment: Experiment, cells: list[Cell]) -> None:
    """Raise InputError if a finished cell was trained with options other than the requested ones."""
    for cell in cells:
        stage_dir = experiment.find_stage_folder(cell)
        if read_results(stage_dir) is not None:
            args = experiment.parse_classical(cell) if cell.is_classical else parse_stage(experiment, cell)
            difference = first_difference(read_json(stage_dir / "arguments.json"), args.flat())
            if difference is not None:
                raise InputError(
                    f"{stage_dir} was trained with {difference}: remove it, or choose another --output_dir"
                )


def name_cell(error: InputError, experiment: Experiment, cell: Cell) -> InputError:
    return InputError(f"{error} [cell {experiment.list_cells().index(cell) + 1}: {cell}]")


def parse_stage(experiment: Experiment, cell: Cell) -> Arguments:
    """The arguments of the stage that this cell trains."""
    return experiment.parse_cell(cell)[experiment.find_stage(cell)]


def claim_cell(experiment: Experiment, cell: Cell) -> FileLock | None:
    """Lock a cell that can be trained now; None if its stage 1 is missing or another process is training the cell.

    The operating system releases the lock when the process ends.
    """
    first = experiment.find_stage1(cell)
    if first is not None and read_results(experiment.find_stage_folder(first)) is None:
        return None
    folder = experiment.find_fold_folder(cell)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{cell.variant.key if cell.variant else 'stage1'}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    if read_results(experiment.find_stage_folder(cell)) is None:
        return lock
    lock.release()  # another process finished it in the meantime
    return None


def describe_progress(experiment: Experiment, cell: Cell) -> str:
    """`[12 of 36 done, about 41 min left] fold 2, seed 0, cls`; the estimate assumes a single process."""
    seconds: dict[str, list[float]] = {"stage 1": [], "network": [], "classical": []}
    left = []
    cells = experiment.list_cells()
    for other in cells:
        results = read_results(experiment.find_stage_folder(other))
        if results is None:
            left.append(other.kind)
        else:
            seconds[other.kind].append(results["seconds"])
    estimate = ""
    if all(seconds[kind] for kind in left):
        estimate = f", about {sum(median(seconds[kind]) for kind in left) / 60:.0f} min left"
    return f"[{len(cells) - len(left)} of {len(cells)} done{estimate}] {cell}"


# ------------------------------------------------------------------------------------------ reporting


def report_experiment(experiment: Experiment) -> Path:
    """Write the report of the finished cells; returns the path of report.md.

    Processes that finish together write it one after the other.
    """
    experiment.report_dir.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(experiment.report_dir.with_suffix(".lock")):
        embeddings, measured = compute_embeddings(experiment), measure_timeline(experiment)
        report = write_report(experiment, embeddings, compute_alignment(experiment))
        if measured:
            append_diarization(report, measured)
        if experiment.sizes:
            append_sizes(report, build_size_table(read_systems(experiment), compute_sizes(experiment)))
    return report


def compute_sizes(experiment: Experiment) -> dict[str, dict[str, float]]:
    """What `measure_size` returns for the first finished cell of each network, by system; cached as size.json."""
    sizes: dict[str, dict[str, float]] = {}
    for cell in experiment.list_cells():
        key, stage_dir = cell.variant.key if cell.variant else "stage1", experiment.find_stage_folder(cell)
        if cell.is_classical or key in sizes or read_results(stage_dir) is None:
            continue
        cached = stage_dir / "size.json"
        if not cached.is_file():
            write_json(cached, measure_size(stage_dir))
        sizes[key] = read_json(cached)
    return sizes


def compute_embeddings(experiment: Experiment) -> dict[str, dict[str, np.ndarray]]:
    """Embeddings of the first fold and seed for the t-SNE figure, by variant.

    They are computed once, which needs the corpus, and cached as embeddings.npz. Empty if a cell is not finished or
    the corpus cannot be read.
    """
    embeddings, rows = {}, None
    for variant in (variant for variant in experiment.variants if variant.key in experiment.tsne):
        cell = Cell(experiment.folds[0], variant.seeds[0], variant)
        stage_dir = experiment.find_stage_folder(cell)
        cached = stage_dir / "embeddings.npz"
        if read_results(stage_dir) is None:
            return {}
        if not cached.is_file():
            try:
                rows = rows or read_rows_alone(parse_stage(experiment, cell).data)
                arrays = embed_utterances(*prepare_scored(experiment, cell, rows))
            except InputError as error:
                print(f"no t-SNE figure: {error}")
                return {}
            unfinished = cached.with_name("unfinished.npz")
            np.savez_compressed(unfinished, allow_pickle=False, **arrays)
            unfinished.replace(cached)
        embeddings[variant.key] = dict(np.load(cached))
    return embeddings


def compute_alignment(experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
    """What `measure_model` returns for the first seed of each fold, by system; cached as alignment.json.

    Empty if the experiment has no `tsne` or the corpus cannot be read.
    """
    measured: dict[str, list[dict[str, Any]]] = {}
    rows = None
    for cell in (each for each in experiment.list_cells() if experiment.tsne and not each.is_classical):
        seeds = cell.variant.seeds if cell.variant else experiment.seeds
        stage_dir = experiment.find_stage_folder(cell)
        if cell.seed != seeds[0] or read_results(stage_dir) is None:
            continue
        cached = stage_dir / "alignment.json"
        if not cached.is_file():
            try:
                rows = rows or read_rows_alone(parse_stage(experiment, cell).data)
                write_json(cached, measure_model(*prepare_scored(experiment, cell, rows)))
            except InputError as error:
                print(f"no alignment: {error}")
                return {}
        measured.setdefault(cell.variant.key if cell.variant else "stage1", []).append(read_json(cached))
    return measured


def prepare_scored(experiment: Experiment, cell: Cell, rows: Dataset) -> tuple[Any, Dataset, UtterancePreparer, int]:
    """The model of a finished cell, the rows that the experiment scores, their preparer and the batch size.

    Args:
        rows: of the corpus, which all cells share: to read them is to decode every file.
    """
    args = parse_stage(experiment, cell)
    scored = split_rows(args.data, rows)[experiment.scored_on]
    stage_dir = experiment.find_stage_folder(cell)
    model, feature_extractor = load_model(str(stage_dir), option="")
    model.to(PartialState().device)
    reader = (
        Reader(load_tokenizer(str(stage_dir)), levels=model.config.text_levels) if model.config.reads_text else None
    )
    lengths = model.config.shortest_samples, model.config.longest_seconds
    preparer = UtterancePreparer(feature_extractor, *lengths, reader=reader)
    return model, scored, preparer, args.trainer.eval_batch_size


def measure_timeline(experiment: Experiment) -> dict[int, dict[str, Any]]:
    """Diarization errors and deletion drops of the first seed, by fold; cached as recordings.json.

    Empty if the experiment has no `timeline` or the corpus cannot be read.
    """
    measured: dict[int, dict[str, Any]] = {}
    settings = experiment.timeline
    if settings is None:
        return measured
    variant = next(variant for variant in experiment.variants if variant.key == settings["variant"])
    for fold in experiment.folds:
        cell = Cell(fold, variant.seeds[0], variant)
        stage_dir = experiment.find_stage_folder(cell)
        cached = stage_dir / "recordings.json"
        if read_results(stage_dir) is None:
            continue
        if not cached.is_file() or read_json(cached)["settings"] != settings:
            data = experiment.parse_cell(cell)[2].data
            try:
                test = split_rows(data, read_rows_alone(data))["test"]
            except InputError as error:
                print(f"no timeline: {error}")
                return {}
            write_json(cached, {"settings": settings, **measure_fold(stage_dir, test, data.trim_db, settings)})
        measured[fold] = read_json(cached)
    return measured
