"""Parses the arguments of a run. The command line overrides the YAML file, which overrides the defaults.

Imports nothing heavy, so that `python train.py --help` is instant.
"""

import argparse
import difflib
import json
import re
import shutil
import typing
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import yaml

from core.errors import InputError
from core.shipped import ROOT
from core.yaml_files import load_json, load_yaml
from options_ser_align import describe_range, find_choices, is_in_range, split_hint
from recipe.entries import ENTRY_OPTIONS, check_corpora, check_entry, name_entry
from recipe.options import (
    FORMER_NAMES,
    GROUPS,
    NAMED,
    OPTIONS,
    WHOLE_RUN,
    Arguments,
    DataArguments,
    ModelArguments,
    TrainerArguments,
)

STAGE_SECTIONS = ("stage1", "stage2")
# Mappings that are merged key by key; of any other option, the last value wins.
MERGED = ("encoder_config", "training_arguments", "data_dirs")
# Lets argparse read `--bf16` as `--bf16 true`, and several numbers for one option.
_NARGS: dict[Any, dict[str, Any]] = {
    bool: {"nargs": "?", "const": "true"},
    list[float]: {"nargs": "+"},
    list[int]: {"nargs": "+"},
    list[str]: {"nargs": "+"},
}
_METAVARS = {
    bool: "BOOL",
    int: "INT",
    float: "FLOAT",
    str: "TEXT",
    dict: "JSON",
    list[dict]: "JSON",
    list[float]: "FLOAT",
    list[int]: "INT",
}


def parse_arguments(argv: list[str], description: str) -> dict[int, Arguments]:
    """Parse the command line, and the YAML file that it names, into the arguments of each stage, {1: ..., 2: ...}.

    A YAML file may set any option at its top level, and options that differ between the stages under `stage1` and
    `stage2`. Precedence, from lowest to highest: defaults, top level, stage section, command line.

    Raises:
        InputError: a key is unknown, a value has the wrong type or is out of range, or the file cannot be read.
    """
    namespace, unknown = _make_parser(description).parse_known_args(argv)
    if unknown:
        name = unknown[0].split("=")[0]
        raise InputError(f"{name} is not an option{_suggest(name.lstrip('-'), '--')}; --help lists all of them")
    return build_arguments(vars(namespace))


def build_arguments(given: dict[str, Any]) -> dict[int, Arguments]:
    """The arguments of each stage, from the words of the command line by option; `config` names the YAML file.

    Raises:
        InputError: as in `parse_arguments`.
    """
    config_path = given["config"]
    from_file = read_yaml(config_path) if config_path else {}
    if "variants" in from_file or "conditions" in from_file:
        raise InputError(f"{config_path} is an experiment: run python experiment.py --config {config_path} instead")
    sections = {name: from_file.pop(name, None) or {} for name in STAGE_SECTIONS}
    for section, values in sections.items():
        _check_section(config_path, section, values)
    top_level = _convert_file(from_file, config_path)
    command_line = {name: convert(name, value, f"--{name}") for name, value in given.items() if name != "config"}
    arguments = {
        stage: _build(_merge(top_level, _convert_file(sections[f"stage{stage}"], config_path), command_line))
        for stage in (1, 2)
    }
    check_corpora(arguments[1].data)
    run = arguments[1].trainer
    if run.init_from is not None and run.stage != "2":
        raise InputError(f"--init_from {run.init_from} initialises stage 2, so it requires --stage 2")
    return arguments


def suggest_configs(path: str) -> str:
    """The files in run_configs with a name like that of a missing file or, without any, the folders there."""
    folder = ROOT / "run_configs"
    known = sorted(found.relative_to(folder).as_posix() for found in folder.rglob("*.yaml"))
    near = difflib.get_close_matches(path.removeprefix("run_configs/"), known, n=3, cutoff=0.8)
    if near:
        return f"did you mean {' or '.join(f'run_configs/{name}' for name in near)}?"
    folders = sorted({Path(name).parent.name for name in known if "/" in name})
    return f"run_configs/ has quickstart.yaml, folder.yaml and the folders {', '.join(folders)}"


def read_yaml(path: str) -> dict[str, Any]:
    """Read a YAML file that contains a mapping, from here or from this project. Raises InputError."""
    file = Path(path) if Path(path).is_file() else ROOT / path
    if not file.is_file():
        raise InputError(f"--config {path}: no such file; {suggest_configs(path)}")
    try:
        content = load_yaml(file.read_text(encoding="utf-8"), NAMED) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must contain 'name: value' lines, but contains a {type(content).__name__}")
    return content


def convert(name: str, value: Any, source: str) -> Any:
    """Convert a value from YAML or the command line to the type of the option with this name, and check its range.

    Args:
        source: where the value comes from, for the error message.

    Raises:
        InputError: the value is invalid; the message says what is valid.
    """
    converted = convert_option(OPTIONS[name], value, source)
    return [_convert_entry(entry, source) for entry in converted] if name == "corpora" else converted


def convert_option(option: Field, value: Any, source: str) -> Any:
    """The same for any option."""
    hint, is_optional = split_hint(option.type)
    choices = option.metadata["choices"] or find_choices(option)
    if value is None or (isinstance(value, str) and value.lower() in ("none", "null") and "none" not in choices):
        if is_optional:
            return None
        if _find_default(option) == []:
            return []
        raise InputError(f"{source}: the value is missing; give {_describe_valid(option)}")
    converted = _match(choices, value, hint) if choices else None
    if converted is None and (not choices or option.name in NAMED):
        converted = _convert_type(hint, value)
    is_empty = converted == [] and _find_default(option) != []
    if converted is None or is_empty or not all(is_in_range(option, number) for number in _list_numbers(converted)):
        raise InputError(f"{source}: {value!r} is not valid; give {_describe_valid(option)}")
    return converted


def _find_default(option: Field) -> Any:
    return option.default if option.default is not MISSING else option.default_factory()  # type: ignore[misc]


def _convert_entry(entry: Any, source: str) -> dict[str, Any]:
    """Convert the options in an entry of --corpora."""
    check_entry(entry)
    return {
        key: convert(key, value, f"{source}: {key}") if key in (*ENTRY_OPTIONS, "data_dir") else value
        for key, value in entry.items()
    }


def _move_directories(values: dict[str, Any]) -> dict[str, Any]:
    """Move the data_dir of each entry of `corpora` to `data_dirs`, since a path of this machine is no part of a run."""
    given = values.get("corpora", [])
    found = {name_entry(entry): entry["data_dir"] for entry in given if "data_dir" in entry}
    entries = [{key: value for key, value in entry.items() if key != "data_dir"} for entry in given]
    return {**values, "corpora": entries, "data_dirs": {**found, **values.get("data_dirs", {})}}


def _match(choices: tuple[str, ...], value: Any, hint: Any) -> str | list[str] | None:
    """One of the choices, or a list of some of them if the type is a list; None if the value is something else."""
    if hint == list[str]:
        is_valid = isinstance(value, list) and value and all(word in choices for word in value)
        return [choice for choice in choices if choice in value] if is_valid else None
    return str(value) if str(value) in choices else None


def _list_numbers(value: Any) -> list[float]:
    """List the numbers in a converted value that must be within its option's range."""
    values = value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]
    return [number for number in values if isinstance(number, int | float) and not isinstance(number, bool)]


def _convert_type(hint: Any, value: Any) -> Any:
    """Convert a value to a type, or return None. `1e-4` is a number in YAML too, although PyYAML reads it as text."""
    try:
        return _convert_valid(hint, value)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _convert_valid(hint: Any, value: Any) -> Any:
    if hint is bool:
        return value if isinstance(value, bool) else {"true": True, "false": False}[value.lower()]
    if hint is int and not isinstance(value, bool):
        return int(value) if int(value) == float(value) else None
    if hint is float and not isinstance(value, bool):
        return float(value)
    if hint is str:
        return value if isinstance(value, str) else None
    if hint in (list[float], list[int]):
        if value == ["none"]:
            return []
        numbers = [float(number) for number in value] if isinstance(value, list) else None
        if numbers is None or hint == list[float]:
            return numbers
        return [int(number) for number in numbers] if all(map(float.is_integer, numbers)) else None
    if hint == list[str]:
        if value == ["none"]:
            return []
        return value if isinstance(value, list) and all(isinstance(word, str) for word in value) else None
    if hint in (dict, list[dict]):
        parsed = load_json(value) if isinstance(value, str) else value
        return parsed if isinstance(parsed, dict if hint is dict else list) else None
    if typing.get_origin(hint) is dict:
        # JSON too keeps a number as it is written.
        parsed = load_json(value, parse_int=str, parse_float=str) if isinstance(value, str) else value
        kind = typing.get_args(hint)[1]
        convert_item = float if kind is float else _convert_numbers if kind == list[float] else _convert_name
        return {str(name): convert_item(item) for name, item in parsed.items()}
    return None


def _convert_numbers(value: Any) -> list[float]:
    """A list of numbers. Raises TypeError or ValueError for anything else."""
    if not isinstance(value, list):
        raise TypeError
    return [float(number) for number in value]


def _convert_name(value: Any) -> Any:
    """A name as text, a list of names, or None. Raises ValueError for anything else."""
    if isinstance(value, list):
        return [_convert_name(item) for item in value]
    if isinstance(value, bool):
        return str(value).lower()
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError
    return value if value is None else str(value)


def _describe_valid(option: Field) -> str:
    choices = option.metadata["choices"] or find_choices(option)
    hint, _ = split_hint(option.type)
    if typing.get_origin(hint) is dict:
        what, example = "name: name", '{"excited": "happy"}'
        if typing.get_args(hint)[1] is float:
            what, example = f"name: number{describe_range(option)}", '{"angry": 2}'
        if typing.get_args(hint)[1] == list[float]:
            what, example = "name: [number, number, ...]", '{"valence": [1, 5]}'
        return f"{''.join(f'{word}, or ' for word in choices)}{what} pairs, as JSON on the command line: '{example}'"
    if choices:
        return f"one{' or more' if hint == list[str] else ''} of {', '.join(choices)}"
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list[float]: "numbers",
        list[int]: "whole numbers",
        list[str]: "names",
        list[dict]: 'a list of entries, as JSON on the command line: \'[{"corpus": "ravdess"}]\'',
        dict: "name: value pairs, as JSON on the command line: '{\"layerdrop\": 0}'",
    }
    return words[hint] + describe_range(option)


def _check_section(path: str | None, section: str, values: Any) -> None:
    if not isinstance(values, dict):
        raise InputError(f"{path}: {section} must contain 'name: value' lines, not {values!r}")
    for name in values:
        if name in WHOLE_RUN:
            raise InputError(f"{path}: '{name}' applies to both stages; move it out of {section}")


def _convert_file(values: dict[str, Any], path: str | None) -> dict[str, Any]:
    for name in values:
        if name not in OPTIONS:
            raise InputError(f"{path}: '{name}' is not an option{_suggest(str(name))}")
    return {name: convert(name, value, f"{path}: {name}") for name, value in values.items()}


def _suggest(name: str, prefix: str = "") -> str:
    if re.fullmatch(r"stage[ _-]?[0-9]+", name.lower()):
        return f": there are two stages, {' and '.join(STAGE_SECTIONS)}"
    if name in FORMER_NAMES:
        return f" any more; it is now called {prefix}{FORMER_NAMES[name]}"
    nearest = difflib.get_close_matches(name, [*OPTIONS, "config", *STAGE_SECTIONS], n=1)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""


def _merge(*layers: dict[str, Any]) -> dict[str, Any]:
    """Merge layers of options. The last layer wins; mappings in MERGED are merged key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            merged[name] = {**merged.get(name, {}), **value} if name in MERGED else value
    return merged


def _build(values: dict[str, Any]) -> Arguments:
    values = _move_directories(values)

    def select(group: type) -> dict[str, Any]:
        return {f.name: values[f.name] for f in fields(group) if f.name in values}

    return Arguments(
        ModelArguments(**select(ModelArguments)),
        DataArguments(**select(DataArguments)),
        TrainerArguments(**select(TrainerArguments)),
    )


def _make_parser(description: str) -> argparse.ArgumentParser:
    parser = make_parser("train.py [--config FILE] [--option value ...]", description)
    parser.add_argument("--config", metavar="FILE", default=None, help="YAML file with any of the options below")
    for group in GROUPS:
        own_first = sorted(fields(group), key=lambda option: option.name not in group.__annotations__)
        add_options(parser, (group.__doc__ or "").strip(), own_first)
    return parser


def make_parser(usage: str, description: str) -> argparse.ArgumentParser:
    """A parser whose help is wide enough for options that describe themselves."""
    width = max(100, shutil.get_terminal_size().columns - 2)
    return argparse.ArgumentParser(
        usage=usage,
        description=description,
        epilog="Brackets show the default and its source: stated in the paper, or ours.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=38, width=width),
    )


def add_options(parser: argparse.ArgumentParser, title: str, options: Iterable[Field]) -> None:
    """Add options to a parser, in a group with this title."""
    section = parser.add_argument_group(title)
    for option in options:
        hint, _ = split_hint(option.type)
        section.add_argument(
            f"--{option.name}",
            metavar="JSON" if option.name in NAMED else _METAVARS.get(hint, "NAME"),
            help=_describe_option(option).replace("%", "%%"),
            **_NARGS.get(hint, {}),
        )


def _describe_option(option: Field) -> str:
    """The help text of an option, such as `weight of the EAL loss [0.05; paper]`, with any choices in parentheses."""
    facts = option.metadata
    default = _find_default(option)
    choices = facts["choices"] or find_choices(option)
    shown = "none" if default is None else default if isinstance(default, str) else json.dumps(default)
    if default == list(choices):
        shown = "all"
    words = f"{facts['help']} ({', '.join(choices)})" if choices else facts["help"]
    return f"{words} [{shown}{'; ' + facts['source'] if facts['source'] else ''}]"
