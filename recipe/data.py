"""The utterances of a run: reading, relabelling, dropping broken files, and splitting."""

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset, DatasetDict

from core.errors import InputError
from recipe.broken import check_audio, keep_usable
from recipe.corpora import load_corpus
from recipe.corpora.words import add_transcripts
from recipe.dimensions import ALONE, label_by_region, learns_dimensions, list_read_columns, use_dimensions
from recipe.distributions import COLUMN, label_by_majority, use_distributions
from recipe.entries import is_joint, list_entries
from recipe.joining import choose_joint_parts, join_rows
from recipe.options import Arguments, DataArguments
from recipe.relabelling import select_utterances
from recipe.splits import choose_parts, finish_split


def read_rows(args: Arguments) -> tuple[Dataset, int]:
    """Read the training and test utterances; also return how many were dropped because their files are broken.

    The main process reads the corpus first, and the others reuse what it wrote. Each then checks its share of the
    audio files, and all drop the same ones.
    """
    state = PartialState(cpu=args.trainer.use_cpu)
    with state.main_process_first():
        rows = read_selected_rows(args.data)
    _choose_parts(args.data, rows)  # reject an impossible fold before any audio is read
    checks = dict(gather_object(list(check_audio(rows, state.process_index, state.num_processes).items())))
    return keep_usable(rows, checks, args.data.max_broken_share)


def read_rows_alone(data: DataArguments) -> Dataset:
    """Read the training and test utterances in this process only."""
    rows = read_selected_rows(data)
    return keep_usable(rows, check_audio(rows), data.max_broken_share)[0]


def read_selected_rows(data: DataArguments) -> Dataset:
    """Read the selected utterances of one corpus, or of several with the column `corpus`."""
    if not is_joint(data):
        return _read_corpus(data)
    entries = list_entries(data)
    for entry in entries if data.corpora else ():
        if entry.data.corpus != "demo" and entry.data.data_dir is None and entry.data.csv is None:
            raise InputError(f'{entry.name} has no directory: add --data_dirs \'{{"{entry.name}": "PATH", ...}}\'')
    return join_rows({entry.name: _read_corpus(entry.data) for entry in entries})


def _read_corpus(data: DataArguments) -> Dataset:
    votes = data.distribution_columns if data.targets == "distribution" else None
    rows = load_corpus(
        data.corpus,
        data.data_dir,
        data.csv,
        data.partial_corpus,
        data.hub_options,
        data.allow_outside_paths,
        votes,
        list_read_columns(data),
        data.targets != ALONE,
    )
    rows = add_transcripts(rows, data.transcripts, data.corpus)
    if learns_dimensions(data):
        rows = use_dimensions(rows, data.corpus, data)
    if votes is None:
        rows = rows.remove_columns(COLUMN) if COLUMN in rows.column_names else rows
        return select_utterances(rows, data.only, data.label_map)
    voted = select_utterances(use_distributions(rows, data.corpus), data.only, data.label_map)
    return label_by_majority(voted)  # merged classes may have more votes than the former majority


def split_rows(data: DataArguments, rows: Dataset) -> DatasetDict:
    """Split the rows of `read_rows`, and check that no speaker or recording is in two sets."""
    parts = _choose_parts(data, rows)
    if data.targets == ALONE:
        parts = {name: label_by_region(part, data.dimensions) for name, part in parts.items()}
    return finish_split(parts, data.protocol, may_lack_labels=data.targets == ALONE)


def _choose_parts(data: DataArguments, rows: Dataset) -> dict[str, Dataset]:
    if is_joint(data):
        common_labels = data.common_labels or data.test_corpus is not None
        return choose_joint_parts(rows, list_entries(data), common_labels)
    held_out = (data.fold, data.num_folds, data.num_validation_speakers, data.split_seed, data.protocol)
    return choose_parts(rows, data.corpus, *held_out, data.group_column)
