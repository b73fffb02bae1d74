"""YAML, in which some mappings hold names."""

from collections.abc import Container
from typing import Any

import yaml
from yaml import YAMLError

MERGE, NULL = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:null"


def load_yaml(text: str, names: Container[str]) -> Any:
    """The content of a YAML file. In the mappings called `names`, keys and values are text as written.

    YAML 1.1 reads `no` as false and 010 as 8.

    Raises:
        yaml.YAMLError: the text is not YAML, or a mapping has a key twice, of which YAML would take the last.
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


def _keep_names(content: Any, node: yaml.Node | None, names: Container[str]) -> Any:
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
