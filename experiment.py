"""Train every cell of an experiment, folds x seeds x variants, and write its tables and figures.

    python experiment.py --config run_configs/ravdess/table3.yaml --data_dir RAVDESS
    python experiment.py --config run_configs/ravdess/table3.yaml --list
    python experiment.py --config run_configs/ravdess/table3.yaml --data_dir RAVDESS --cell 7
    python experiment.py --config run_configs/ravdess/table3.yaml --report

Every cell is a run of train.py; any other option (--data_dir, --use_cpu, --bf16, ...) goes to all of them. Cells
that are done are skipped, an interrupted one goes on from its last epoch. The same command may run several times at
once, on one machine or on several that share the folder: each takes cells that no other is working on. Several GPUs
for one cell: accelerate launch --multi_gpu --num_processes 4 experiment.py ...

Tables (Markdown, CSV) and figures (PNG, SVG) are computed from the saved predictions of the cells.
"""

import argparse
import sys
import time
from statistics import median
from typing import Any

from core.errors import InputError, error_line
from experiments.cells import Cell, Experiment, read_experiment
from recipe.arguments import parse_arguments
from recipe.options import first_difference


def read_command_line(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """This script's own options, and those for train.py."""
    parser = argparse.ArgumentParser(
        usage="experiment.py --config FILE [--list | --cell N | --report] [--option of train.py ...]",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the experiment")
    parser.add_argument("--run_config", metavar="FILE", help="YAML file of train.py, in place of the experiment's own")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="print the cells, and which are done")
    what.add_argument(
        "--cell", type=int, metavar="N", help="train this cell alone, and the stage 1 that it starts from"
    )
    what.add_argument(
        "--report", action="store_true", help="write tables and figures from what is finished; no training"
    )
    return parser.parse_known_args(argv)


if __name__ == "__main__":  # before the slow imports, so that --help, --list and a mistake answer at once
    OWN, REST = read_command_line(sys.argv[1:])
    try:
        EXPERIMENT = read_experiment(OWN.config, REST, OWN.run_config)
    except InputError as error:
        sys.exit(error_line(error))
    if OWN.list:
        for number, cell in enumerate(EXPERIMENT.cells(), start=1):
            done = (EXPERIMENT.stage_dir(cell) / "results.json").is_file()
            print(f"{number:4} {'done' if done else '    '} {cell}")
        sys.exit()

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from transformers import AutoFeatureExtractor

from core.json_files import read_json, write_json
from experiments.diarization_report import add_recordings, measure
from experiments.embeddings import embed
from experiments.report import write_report
from modeling_ser_align import SERAlignForAudioClassification
from recipe.batching import UtterancePreparer, shortest_utterance
from recipe.data import read_rows, read_rows_alone, split_rows
from recipe.results import read_results
from recipe.run import quiet_libraries, train_stages


def train_cells(experiment: Experiment, cells: list[Cell]) -> None:
    """Train what is not done yet, and wait for what others are training.

    With several processes of one run, the first one chooses for all.
    """
    check_finished(experiment, cells)
    rows = None
    while True:
        lock = claimed = None
        if PartialState().is_main_process:
            waiting = [cell for cell in cells if read_results(experiment.stage_dir(cell)) is None]
            claimed = next((cells.index(cell) for cell in waiting if (lock := claim(experiment, cell))), None)
            done = not waiting
        claimed, done = broadcast_object_list([claimed, done] if PartialState().is_main_process else [None, None])
        if done:
            return
        if claimed is None:
            time.sleep(5)
            continue
        cell = cells[claimed]
        PartialState().print(f"\n{progress(experiment, cell)}")
        try:
            arguments = parse_arguments(experiment.command_line(cell), description="")
            rows = rows or read_rows(arguments[1])
            train_stages(arguments, *rows)
        except InputError as error:
            raise InputError(f"{error} [cell {experiment.cells().index(cell) + 1}: {cell}]") from error
        finally:
            if lock is not None:
                lock.release()


def check_finished(experiment: Experiment, cells: list[Cell]) -> None:
    """Raise InputError if a cell that is done was trained with other options: it would not be what is asked for."""
    for cell in cells:
        stage_dir = experiment.stage_dir(cell)
        if read_results(stage_dir) is not None:
            args = parse_arguments(experiment.command_line(cell), description="")[experiment.stage_of(cell)]
            difference = first_difference(read_json(stage_dir / "arguments.json"), args.flat())
            if difference is not None:
                raise InputError(
                    f"{stage_dir} was trained with {difference}: remove it, or choose another --output_dir"
                )


def claim(experiment: Experiment, cell: Cell) -> FileLock | None:
    """The lock of a cell that can be trained now; None if its stage 1 is missing or another one trains it.

    A lock ends with the process that holds it.
    """
    first = experiment.starts_from(cell)
    if first is not None and read_results(experiment.stage_dir(first)) is None:
        return None
    experiment.fold_dir(cell).mkdir(parents=True, exist_ok=True)
    lock = FileLock(experiment.fold_dir(cell) / f"{cell.variant.key if cell.variant else 'stage1'}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    if read_results(experiment.stage_dir(cell)) is None:
        return lock
    lock.release()  # another one has finished it meanwhile
    return None


def progress(experiment: Experiment, cell: Cell) -> str:
    """`[12 of 36 done, about 41 min left] fold 2, seed 0, cls`; the time is that of one process alone."""
    seconds: dict[bool, list[float]] = {True: [], False: []}  # by whether it is a stage 1
    left = []
    for other in experiment.cells():
        results = read_results(experiment.stage_dir(other))
        if results is None:
            left.append(other.variant is None)
        else:
            seconds[other.variant is None].append(results["seconds"])
    done = len(experiment.cells()) - len(left)
    estimate = ""
    if all(seconds[is_stage1] for is_stage1 in left):
        estimate = f", about {sum(median(seconds[is_stage1]) for is_stage1 in left) / 60:.0f} min left"
    return f"[{done} of {done + len(left)} done{estimate}] {cell}"


def embeddings_to_draw(experiment: Experiment) -> dict[str, dict[str, np.ndarray]]:
    """For the t-SNE figure, of the first fold and seed; computed once, which needs the corpus, and kept as .npz."""
    embeddings = {}
    for variant in (variant for variant in experiment.variants if variant.key in experiment.projected):
        cell = Cell(experiment.folds[0], variant.seeds[0], variant)
        stage_dir = experiment.stage_dir(cell)
        kept = stage_dir / "embeddings.npz"
        if read_results(stage_dir) is None:
            return {}
        if not kept.is_file():
            try:
                unfinished = kept.with_name("unfinished.npz")
                np.savez_compressed(unfinished, allow_pickle=False, **embed_test_utterances(experiment, cell))
                unfinished.replace(kept)
            except InputError as error:
                print(f"no t-SNE figure: {error}")
                return {}
        embeddings[variant.key] = dict(np.load(kept))
    return embeddings


def joined_recordings(experiment: Experiment) -> dict[int, dict[str, Any]]:
    """What was measured on recordings joined from the test utterances of each fold, first seed; kept as .json."""
    measured: dict[int, dict[str, Any]] = {}
    settings = experiment.recordings
    if settings is None:
        return measured
    for fold in experiment.folds:
        variant = next(variant for variant in experiment.variants if variant.key == settings["variant"])
        cell = Cell(fold, variant.seeds[0], variant)
        stage_dir = experiment.stage_dir(cell)
        kept = stage_dir / "recordings.json"
        if read_results(stage_dir) is None:
            continue
        if not kept.is_file() or read_json(kept)["settings"] != settings:
            args = parse_arguments(experiment.command_line(cell), description="")[2]
            try:
                test = split_rows(args.data, read_rows_alone(args.data))["test"]
            except InputError as error:
                print(f"no timeline: {error}")
                return {}
            write_json(kept, {"settings": settings, **measure(stage_dir, test, args.data.trim_db, settings)})
        measured[fold] = read_json(kept)
    return measured


def embed_test_utterances(experiment: Experiment, cell: Cell) -> dict[str, np.ndarray]:
    args = parse_arguments(experiment.command_line(cell), description="")[2]
    test = split_rows(args.data, read_rows_alone(args.data))["test"]
    stage_dir = experiment.stage_dir(cell)
    model = SERAlignForAudioClassification.from_pretrained(stage_dir, dtype=torch.float32).to(PartialState().device)
    feature_extractor = AutoFeatureExtractor.from_pretrained(stage_dir)
    preparer = UtterancePreparer(feature_extractor, shortest_utterance(model.config), args.data.trim_db)
    return embed(model, test, preparer, args.trainer.eval_batch_size)


def main(experiment: Experiment, number: int | None, report_only: bool) -> None:
    quiet_libraries()
    cells = experiment.cells()
    # The first state of a process decides for all that follow.
    PartialState(cpu=parse_arguments(experiment.command_line(cells[0]), description="")[1].trainer.use_cpu)
    if number is not None:
        if not 1 <= number <= len(cells):
            raise InputError(f"--cell {number} is not one of the {len(cells)} cells: --list prints them")
        cell = cells[number - 1]
        first = experiment.starts_from(cell)
        cells = [first, cell] if first else [cell]
    if not report_only:
        train_cells(experiment, cells)
    if number is None and PartialState().is_main_process:
        embeddings, recordings = embeddings_to_draw(experiment), joined_recordings(experiment)
        report = write_report(experiment, embeddings)
        if recordings:
            add_recordings(report, recordings)
        print(f"\nReport: {report}")


if __name__ == "__main__":
    try:
        main(EXPERIMENT, OWN.cell, OWN.report)
    except InputError as error:
        sys.exit(error_line(error))
