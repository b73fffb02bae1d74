"""Parses the arguments of a classical model. Imports nothing heavy, so that `python baseline.py --help` is instant."""

import difflib
from dataclasses import fields
from typing import Any

from core.errors import InputError
from recipe.arguments import add_options, build_arguments, convert_option, make_parser
from recipe.classical_options import AUGMENTATIONS, SHARED_OPTIONS, ClassicalArguments, ClassicalFields
from recipe.options import OPTIONS

OUTPUT_DIR = "outputs/baseline"
FIELDS = {each.name: each for each in fields(ClassicalFields)}


def parse_classical(argv: list[str], description: str) -> ClassicalArguments:
    """Parse the command line, and the run configuration of train.py that it names.

    From that file, a classical model takes what `SHARED_OPTIONS` lists but the output folder.

    Raises:
        InputError: an option is unknown or is one of networks alone, a value is invalid, or the file cannot be read.
    """
    parser = make_parser("baseline.py [--config FILE] [--option value ...]", description)
    parser.add_argument(
        "--config", metavar="FILE", default=None, help="YAML file of train.py, for its encoder, corpus and split"
    )
    add_options(parser, (ClassicalFields.__doc__ or "").strip(), FIELDS.values())
    add_options(
        parser, "shared with train.py: encoder, corpus, split and output", [OPTIONS[name] for name in SHARED_OPTIONS]
    )
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        refuse_option(unknown[0].split("=")[0])
    given = vars(namespace)
    own = build_fields({name: value for name, value in given.items() if name in FIELDS}, "--")
    shared = {name: value for name, value in given.items() if name not in FIELDS}
    refuse_augmentation(own, list(shared), "--")
    return ClassicalArguments(own, build_arguments({"output_dir": OUTPUT_DIR, **shared})[1])


def build_fields(given: dict[str, Any], source: str) -> ClassicalFields:
    """The options of a classical model.

    Args:
        given: values from YAML or the command line, by name.
        source: what errors put before a name: where it stands.

    Raises:
        InputError: a name is unknown, or a value is invalid.
    """
    for name in given:
        if name not in FIELDS:
            raise InputError(f"{source}{name} is not one of {', '.join(FIELDS)}")
    return ClassicalFields(
        **{name: convert_option(FIELDS[name], value, f"{source}{name}") for name, value in given.items()}
    )


def refuse_augmentation(own: ClassicalFields, given: list[str], source: str) -> None:
    """Raise InputError for an option that augments training utterances of a model that is not fitted to any."""
    for name in given if not own.augment else ():
        if name in AUGMENTATIONS:
            raise InputError(f"{source}{name} requires augment: add it, or remove {name}")


def refuse_option(word: str) -> None:
    """Raise InputError for an option that a classical model does not have."""
    name = word.lstrip("-")
    if name in OPTIONS:
        raise InputError(f"{word} is for networks: a classical model has no such option; remove it")
    nearest = difflib.get_close_matches(name, [*FIELDS, *SHARED_OPTIONS, "config"], n=1)
    hint = f"; did you mean --{nearest[0]}?" if nearest else ""
    raise InputError(f"{word} is not an option{hint}; --help lists all of them")
