"""Train every cell of an experiment (folds x seeds x variants) and write its tables and figures.

    python experiment.py --config run_configs/ravdess/table3.yaml --data_dir RAVDESS
    python experiment.py --config run_configs/ravdess/table3.yaml --list
    python experiment.py --config run_configs/ravdess/table3.yaml --data_dir RAVDESS --cell 7
    python experiment.py --config run_configs/ravdess/table3.yaml --report
    python experiment.py --config run_configs/ravdess/table3.yaml --data_dir RAVDESS --slurm > submit.sh

Each cell is a run of train.py. All other options (--data_dir, --use_cpu, --bf16, ...) are passed to every run.
Finished cells are skipped, and an interrupted cell resumes from its last epoch. To train cells in parallel, start the
same command several times, on one machine or on several machines that share the output folder: each process takes
cells that no other process is training. To train each cell on several GPUs:
accelerate launch --multi_gpu --num_processes 4 experiment.py ...

--slurm prints a script that submits the unfinished cells to a Slurm cluster; its arguments are those of sbatch:
bash submit.sh --partition gpu --gres gpu:1 --time 4:00:00

With --model, no cell is trained: finished models are tested on their own test speakers in telephones, noise and rooms.
This takes --data_dir, --data_dirs, --output_dir, --use_cpu, --noise (files or folders of your own noises) and
--pool_folds (folders of one name are folds of one system):

    python experiment.py --config run_configs/robustness.yaml --model mini base --data_dir CORPORA

Tables (Markdown, CSV) and figures (PNG, SVG) are computed from the saved predictions.
"""

import argparse

from core.errors import run_script


def main(argv: list[str]) -> None:
    own, train_options = read_command_line(argv)
    if own.model:
        from experiments.robustness import run_robustness_test  # after parsing, so that --help is instant

        print(f"\nReport: {run_robustness_test(own.config, own.model, train_options)}")
        return
    from experiments.cells import read_experiment  # after parsing, so that --help is instant

    experiment = read_experiment(own.config, train_options, own.run_config)
    if own.list:
        for number, cell in enumerate(experiment.list_cells(), start=1):
            print(f"{number:4} {'done' if experiment.is_finished(cell) else '    '} {cell}")
        return
    if own.slurm:
        from experiments.slurm import write_submission  # after parsing, as above

        run_config = ["--run_config", own.run_config] if own.run_config else []
        print(write_submission(experiment, ["--config", own.config, *run_config, *train_options]), end="")
        return
    cells = experiment.list_cells() if own.cell is None else experiment.select_cell(own.cell)

    from experiments.run import report_experiment, start_processes, train_cells  # torch takes seconds to import

    is_main_process = start_processes(experiment)
    if not own.report:
        train_cells(experiment, cells)
    if own.cell is None and is_main_process:
        print(f"\nReport: {report_experiment(experiment)}")


def read_command_line(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse the options of this script; the remaining ones are passed to train.py."""
    parser = argparse.ArgumentParser(
        usage="experiment.py --config FILE [--list | --cell N | --report | --slurm | --model FOLDER ...] "
        "[train.py options ...]",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the experiment")
    parser.add_argument(
        "--model", nargs="+", metavar="FOLDER", help="finished models to test, with run_configs/robustness.yaml"
    )
    parser.add_argument(
        "--run_config", metavar="FILE", help="train.py YAML file to use instead of the one named in the experiment"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="list the cells and which of them are finished")
    action.add_argument("--cell", type=int, metavar="N", help="train only this cell, and its stage 1 if it is missing")
    action.add_argument(
        "--report", action="store_true", help="write tables and figures for the finished cells without training"
    )
    action.add_argument(
        "--slurm", action="store_true", help="print a shell script that submits the unfinished cells with sbatch"
    )
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    run_script(main)
