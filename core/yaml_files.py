"""YAML, in which some mappings hold names."""

from collections.abc import Container
from typing import Any

import yaml


class _NameLoader(yaml.SafeLoader):
    """Reads each scalar as the text that it is, apart from null: YAML 1.1 reads `no` as false and 010 as 8."""


_NameLoader.yaml_implicit_resolvers = {
    first: kept
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (kept := [pair for pair in resolvers if pair[0].endswith((":null", ":merge"))])
}


def load_yaml(text: str, names: Container[str]) -> Any:
    """The content of a YAML file. The keys and values of the mappings called `names` are text, as written.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    return _keep_names(yaml.safe_load(text), yaml.load(text, Loader=_NameLoader), names)


def _keep_names(content: Any, written: Any, names: Container[str]) -> Any:
    if not isinstance(content, dict):
        return content
    return {
        key: text if key in names else _keep_names(value, text, names)
        for (key, value), text in zip(content.items(), written.values())
    }
