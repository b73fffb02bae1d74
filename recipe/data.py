"""The utterances of a run: reading, relabelling, dropping broken files, and splitting."""

from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, DatasetDict

from recipe.broken import drop_broken, find_broken_files
from recipe.corpora import load_corpus
from recipe.options import Arguments, DataArguments
from recipe.relabelling import select_utterances, train_on_one_test_on_another
from recipe.splits import choose_parts, make_split


def read_rows(args: Arguments) -> tuple[Dataset, int]:
    """Read the training and test utterances; also return how many were dropped because their files are broken.

    The main process reads the corpus first, and the others reuse what it wrote. Each then checks its share of the
    audio files, and all drop the same ones.
    """
    state = PartialState(cpu=args.trainer.use_cpu)
    with state.main_process_first():
        rows = read_selected_rows(args.data)
    choose_parts(rows, *_list_split_options(args.data))  # reject an impossible fold before any audio is read
    broken = dict(gather_object(list(find_broken_files(rows, state.process_index, state.num_processes).items())))
    return drop_broken(rows, broken, args.data.max_broken_share), len(broken)


def read_rows_alone(data: DataArguments) -> Dataset:
    """Read the training and test utterances in this process only."""
    rows = read_selected_rows(data)
    return drop_broken(rows, find_broken_files(rows), data.max_broken_share)


def read_selected_rows(data: DataArguments) -> Dataset:
    """Read the selected utterances of one corpus, or of a training and a test corpus."""
    rows = load_corpus(
        data.corpus, data.data_dir, data.csv, data.partial_corpus, data.hub_options, data.allow_outside_paths
    )
    rows = select_utterances(rows, data.only, data.label_map)
    if data.test_corpus is None:
        return rows
    test = load_corpus(
        data.test_corpus,
        data.test_data_dir,
        partial=data.partial_corpus,
        hub_options=data.test_hub_options,
        allow_outside=data.allow_outside_paths,
    )
    return train_on_one_test_on_another(
        rows, data.corpus, select_utterances(test, {}, data.test_label_map), data.test_corpus
    )


def split_rows(data: DataArguments, rows: Dataset) -> DatasetDict:
    return make_split(rows, *_list_split_options(data))


def _list_split_options(data: DataArguments) -> tuple[Any, ...]:
    """The arguments of `make_split`, in order."""
    return (
        data.corpus,
        data.fold,
        data.num_folds,
        data.num_validation_speakers,
        data.split_seed,
        data.protocol,
    )
