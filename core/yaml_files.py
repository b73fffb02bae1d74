"""YAML, in which some mappings hold names."""

from collections.abc import Container
from typing import Any

import yaml

MERGE, NULL = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:null"


def load_yaml(text: str, names: Container[str]) -> Any:
    """The content of a YAML file. In the mappings called `names`, keys and values are text as written.

    YAML 1.1 reads `no` as false and 010 as 8.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return _keep_names(yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader), names)


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
