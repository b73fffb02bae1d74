"""The corpora of a run: one, one to train and one to test, or the list of --corpora; and what each is used for.

Imports nothing heavy, so that the command line can be checked at once.
"""

from collections import Counter
from dataclasses import replace
from typing import Any, Literal, NamedTuple, get_args

from core.errors import InputError
from recipe.options import DataArguments

# all: its own split; train, test: all speakers; train_validation: all speakers, some of whom validate.
Use = Literal["all", "train", "train_validation", "test"]
# Options that an entry of --corpora may set for itself.
ENTRY_OPTIONS = (
    *("corpus", "label_map", "only", "protocol", "fold", "num_folds", "num_validation_speakers", "split_seed"),
    *("hub_options", "partial_corpus", "distribution_columns", "dimension_map"),
)
ENTRY_KEYS = ("name", "use", "data_dir", *ENTRY_OPTIONS)
# Corpora that may be listed several times, under different names: any other names its speakers itself.
NAMELESS = ("demo", "folder", "hub")
# Protocols whose folds are corpora.
ACROSS = ("leave_one_corpus_out", "cross_corpus")


class Entry(NamedTuple):
    """One of several corpora: its name in ids and scores, what it is used for, and the options to read and split it."""

    name: str
    use: Use
    data: DataArguments


def is_joint(data: DataArguments) -> bool:
    """Whether a run uses several corpora."""
    return bool(data.corpora) or data.test_corpus is not None


def name_run(data: DataArguments) -> str:
    """Name the corpora of a run: `ravdess`, `ravdess -> emodb` or `ravdess + emodb`."""
    if data.corpora:
        return " + ".join(entry.name for entry in list_entries(data))
    return " -> ".join(filter(None, (data.corpus, data.test_corpus)))


def list_entries(data: DataArguments) -> list[Entry]:
    """List the corpora of a run of several; its protocol and fold decide what each is used for.

    Raises:
        InputError: the options contradict one another, or the fold is out of range.
    """
    if data.test_corpus is not None:
        return _pair(data)
    entries = [_build_entry(data, values) for values in data.corpora]
    return _assign_folds(entries, data) if data.protocol in ACROSS else entries


def check_corpora(data: DataArguments) -> None:
    """Raise InputError if options on several corpora contradict one another."""
    if data.protocol in ACROSS and not data.corpora:
        raise InputError(f"--protocol {data.protocol} requires --corpora, a list of several")
    _refuse_unused(data)
    if not data.corpora:
        return
    for name in ("test_corpus", "csv"):
        if getattr(data, name) is not None:
            raise InputError(f"--{name} and --corpora: give an entry of --corpora instead")
    if data.corpus != DataArguments().corpus:
        raise InputError(f"--corpus {data.corpus} and --corpora: give one of them")
    names = [name_entry(values) for values in data.corpora]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        hint = "give each a name" if twice[0] in NAMELESS else "make them one entry, since they share speakers"
        raise InputError(f"--corpora has {twice[0]!r} twice: {hint}")
    for name in data.data_dirs:
        if name not in names:
            raise InputError(f"--data_dirs: {name!r} is not one of the corpora {', '.join(names)}")
    entries = list_entries(data)
    if len(entries) == 1:
        raise InputError(f"--corpora has one entry: list several, or set --corpus {entries[0].data.corpus} instead")
    for part in ("train", "test"):
        if not any(entry.use == "all" or part in entry.use for entry in entries):
            raise InputError(f"--corpora has no corpus to {part}: give one use: {part} or all")


def _refuse_unused(data: DataArguments) -> None:
    """Raise InputError for an option that another one would have to give a meaning."""
    defaults = DataArguments()
    of_several, of_pair = ("data_dirs", "corpus_temperature"), ("test_data_dir", "test_hub_options", "test_label_map")
    is_pair = data.test_corpus is not None
    uses_groups = "leave_one_group_out" in (data.protocol, *(values.get("protocol") for values in data.corpora))
    for names, needed, is_there in (
        (of_several, "--corpora, a list of several", bool(data.corpora)),
        (of_pair, "--test_corpus", is_pair),
        (("common_labels",), "--corpora or --test_corpus", bool(data.corpora) or is_pair),
        (("csv",), "--corpus folder", bool(data.corpora) or data.corpus == "folder"),
        (("distribution_columns",), "--targets distribution", data.targets == "distribution"),
        (
            ("dimensions", "dimension_map"),
            "--targets dimensions or labels_and_dimensions",
            "dimensions" in data.targets,
        ),
        (("group_column",), "--protocol leave_one_group_out", uses_groups),
        (("hub_options",), "--corpus hub", bool(data.corpora) or data.corpus == "hub"),
    ):
        for name in names:
            if not is_there and getattr(data, name) != getattr(defaults, name):
                raise InputError(f"--{name} requires {needed}")
    if uses_groups and data.group_column is None:
        raise InputError("--protocol leave_one_group_out requires --group_column, such as gender")


def name_entry(values: dict[str, Any]) -> str:
    return values.get("name", values["corpus"])


def _build_entry(data: DataArguments, values: dict[str, Any]) -> Entry:
    """The entry with these values; what it does not set is that of the run, except for a split across corpora."""
    name, own = name_entry(values), {key: value for key, value in values.items() if key in ENTRY_OPTIONS}
    if data.protocol in ACROSS:
        own = {"protocol": "published", "fold": 1, **own}
    directory = data.data_dirs.get(name, f"{data.data_dir}/{name}" if data.data_dir else None)
    is_list = own["corpus"] == "folder" and str(directory).lower().endswith(".csv")
    paths = {"csv": directory} if is_list else {"data_dir": directory}
    return Entry(
        name, values.get("use", "all"), replace(data, **{"corpora": [], "data_dir": None, "csv": None, **own, **paths})
    )


def _pair(data: DataArguments) -> list[Entry]:
    """The corpora of --corpus, without its test speakers, and --test_corpus."""
    assert data.test_corpus is not None
    name = data.test_corpus if data.test_corpus != data.corpus else f"{data.test_corpus} 2"  # such as two folders
    first = replace(data, test_corpus=None)
    second = replace(
        first,
        corpus=data.test_corpus,
        data_dir=data.test_data_dir,
        hub_options=data.test_hub_options,
        label_map=data.test_label_map,
        csv=None,
        only={},
    )
    return [Entry(data.corpus, "train_validation", first), Entry(name, "test", second)]


def _assign_folds(entries: list[Entry], data: DataArguments) -> list[Entry]:
    """Give the corpora that train and test the uses of one fold; the others keep theirs.

    Of n corpora, folds 1 to n of `cross_corpus` leave one out, n + 1 to 2n train on one alone, whose first fold they
    test, 2n + 1 to 3n likewise with its second fold, and so on.
    """
    split = [entry.name for entry in entries if entry.use == "all"]
    number = len(split)
    if number < 2:
        raise InputError(f"--protocol {data.protocol} requires two corpora whose use is all, not {number}")
    if data.protocol == "leave_one_corpus_out" and data.fold > number:
        raise InputError(f"--fold {data.fold} is not one of the {number} folds of {data.protocol}: give 1 to {number}")
    chosen = split[(data.fold - 1) % number]
    is_left_out = data.fold <= number
    of_chosen: Use = "test" if is_left_out else "all"
    of_others: Use = "train_validation" if is_left_out else "test"
    shift = max(0, (data.fold - 1) // number - 1)  # from the first fold of the corpus that trains alone
    assigned = []
    for entry in entries:
        if entry.use == "all" and entry.name == chosen:
            entry = entry._replace(use=of_chosen, data=replace(entry.data, fold=entry.data.fold + shift))
        elif entry.use == "all":
            entry = entry._replace(use=of_others)
        assigned.append(entry)
    return assigned


def check_entry(values: Any) -> None:
    """Raise InputError if the keys of an entry, its name or its use are invalid."""
    if not isinstance(values, dict) or "corpus" not in values:
        raise InputError(f"corpora: {values!r} is not an entry with a corpus, such as {{corpus: ravdess}}")
    for key in values:
        if key not in ENTRY_KEYS:
            raise InputError(f"corpora: '{key}' is not one of {', '.join(ENTRY_KEYS)}")
    if values.get("use", "all") not in get_args(Use):
        raise InputError(f"corpora: use={values['use']!r} is not valid; give one of {', '.join(get_args(Use))}")
    if values.get("protocol") in ACROSS:
        raise InputError(f"corpora: protocol={values['protocol']} splits all corpora: set it outside the list")
    if "name" in values:
        if values["corpus"] not in NAMELESS:
            raise InputError(f"corpora: {values['corpus']} has its own name: remove name={values['name']!r}")
        if not isinstance(values["name"], str) or not values["name"] or "/" in values["name"]:
            raise InputError(f"corpora: name={values['name']!r} must be text without '/'")
