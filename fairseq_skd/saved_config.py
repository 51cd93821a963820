"""Writing into the configuration that fairseq saves in every checkpoint.

fairseq hands a model or a criterion its own section; the section's parent is the root that is saved.
"""

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict


def root_of(section: Any) -> DictConfig | None:
    """The root configuration above a section; None if there is none, as in a test or in somebody's own program."""
    root = section._get_parent() if isinstance(section, DictConfig) else None
    return root if isinstance(root, DictConfig) else None


def select(root: DictConfig | None, key: str) -> Any:
    """The value of ``section.key``; None if there is no such section, key or root."""
    section, _, name = key.partition(".")
    if root is None or section not in root or root[section] is None or name not in root[section]:
        return None
    return root[section][name]


def keep(section: Any, name: str, key: str, value: Any) -> None:
    """Set a key in the section ``name`` of the root above ``section``, and in ``section`` if it is a copy of that."""
    root = root_of(section)
    for node in (section, OmegaConf.select(root, name) if root is not None else None):
        if isinstance(node, DictConfig):
            with open_dict(node):
                node[key] = value
