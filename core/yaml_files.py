"""YAML, in which some mappings hold names; and JSON, in which no key is there twice."""

import json
import re
from collections.abc import Container
from typing import Any

import yaml
from yaml import YAMLError

MERGE, NULL = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:null"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# What everyone reads as the number that YAML 1.1 reads: not 010, which is 8, nor 1:30, which is 90.
PLAIN_NUMBER = r"[+-]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]+)?|[+-]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"


def load_yaml(text: str, names: Container[str]) -> Any:
    """The content of a YAML file. In the mappings called `names`, keys and values are text as written.

    YAML 1.1 reads `no` as false and 010 as 8.

    Raises:
        yaml.YAMLError: the text is not YAML, a mapping has a key twice, of which YAML would take the last, or a number
            is written in a way that YAML 1.1 reads otherwise.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    _refuse_repeats(node)
    return _keep_names(yaml.safe_load(text), node, names)


def _refuse_repeats(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _refuse_repeats(each)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise YAMLError(f"line {line}: {key.value} is there twice: remove one of them")
                seen.add(key.value)
            _refuse_repeats(value)


def load_json(text: str, **options: Any) -> Any:
    """The content of a JSON text. Raises ValueError if it is not JSON, or an object has a key twice."""

    def check_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key is there twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=check_keys, **options)


def _keep_names(content: Any, node: yaml.Node | None, names: Container[str]) -> Any:
    if isinstance(node, yaml.ScalarNode) and node.tag in NUMBERS and not re.fullmatch(PLAIN_NUMBER, node.value):
        line = node.start_mark.line + 1
        raise YAMLError(f"line {line}: YAML reads {node.value} as {content}: write a plain number, or text in quotes")
    if isinstance(content, list) and isinstance(node, yaml.SequenceNode):
        return [_keep_names(value, each, names) for value, each in zip(content, node.value)]
    if not isinstance(content, dict) or not isinstance(node, yaml.MappingNode):
        return content
    written = {key.value: value for key, value in node.value}
    return {
        key: _read_text(written[key])
        if key in names and key in written
        else _keep_names(value, written.get(key), names)
        for key, value in content.items()
    }


def _read_text(node: yaml.Node) -> Any:
    """The scalars of a node as they are written, apart from null."""
    if isinstance(node, yaml.MappingNode):
        texts: dict[Any, Any] = {}
        for key, value in node.value:
            texts |= _read_text(value) if key.tag == MERGE else {_read_text(key): _read_text(value)}
        return texts
    if isinstance(node, yaml.SequenceNode):
        return [_read_text(value) for value in node.value]
    return None if node.tag == NULL else node.value
