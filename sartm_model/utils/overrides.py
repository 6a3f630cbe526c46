"""Reads a tree of dataclasses from a YAML file and `key=value` overrides, and compares two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from sartm_model.errors import SartmError
from sartm_model.utils.text import first_line

Config = TypeVar('Config')


def load_config(
    cls: type[Config],
    path: Path,
    overrides: Sequence[str] = (),
    path_keys: Sequence[str] = (),
    defaults: Callable[[Mapping[str, Any]], Config] | None = None,
) -> Config:
    """Read a configuration: defaults, then the file, then the overrides.

    Args:
        cls: a dataclass whose defaults apply to all that is not set; its fields may be dataclasses.
        path: a YAML file with any part of the tree.
        overrides: `key=value` with dotted keys, e.g. `optim.lr=1e-3`, or `data.train.0.root=DIR`
            for the first item of a list.
        path_keys: keys of the file whose values are paths. A relative one is replaced by the
            absolute path of what lies beside the file, if there is such a thing.
        defaults: returns what applies to all that is not set, if it depends on what is: it is given
            the settings of the file and the overrides.

    Raises:
        SartmError: the file cannot be read, a key does not exist, or a value has a wrong type or is
            refused by its dataclass; the error names the key.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for item in overrides:
        if '=' not in item:
            raise SartmError(f'override {item!r} is not of the form key=value')
    try:
        values = OmegaConf.create(_with_paths(_read(path), path.parent, path_keys))
        if OmegaConf.is_dict(values):
            values.merge_with_dotlist(list(overrides))
        tree = OmegaConf.structured(cls)
        if defaults is not None and OmegaConf.is_dict(values):
            tree = OmegaConf.structured(defaults(cast(dict, OmegaConf.to_container(values))))
        _make_writable(tree)
        return cast(Config, OmegaConf.to_object(OmegaConf.merge(tree, values)))
    except OmegaConfBaseException as error:
        key = f'{error.full_key}: ' if error.full_key else ''
        raise SartmError(f'configuration {path}: {key}{first_line(error)}') from error
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise SartmError(f'configuration {path}: {first_line(error)}') from error
    except (IndexError, TypeError, ValueError) as error:
        raise SartmError(
            f'{" ".join(overrides)} does not fit {path} ({first_line(error)}); an item of a list '
            'is named by its number, from 0, as in data.train.0.root'
        ) from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Compare two configurations given as nested mappings.

    Returns:
        For each dotted key whose values differ, a text with the key and both values, e.g.
        `optim.lr (0.1 before, 0.2 now)`.
    """
    old, new = _flatten(before), _flatten(now)
    return {
        key: f'{key} ({old.get(key)} before, {new.get(key)} now)'
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }


def _read(path: Path) -> Any:
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise SartmError(f'no configuration file {path}; config/train/ has examples') from None


def _with_paths(tree: Any, folder: Path, keys: Sequence[str]) -> Any:
    """Replace the relative paths of a tree under `keys` that exist in a folder."""
    if isinstance(tree, list):
        return [_with_paths(item, folder, keys) for item in tree]
    if not isinstance(tree, dict):
        return tree
    resolved = {}
    for key, value in tree.items():
        if key in keys and isinstance(value, str) and value and (folder / value).exists():
            resolved[key] = str((folder / value).resolve())
        else:
            resolved[key] = _with_paths(value, folder, keys)
    return resolved


def _make_writable(node: Any) -> None:
    """Allow changes to a tree: OmegaConf makes each node of a frozen dataclass read-only."""
    from omegaconf import DictConfig, OmegaConf

    OmegaConf.set_readonly(node, False)
    for child in node.values():
        if isinstance(child, DictConfig):
            _make_writable(child)


def _flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Convert nested mappings into one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f'{prefix}{key}.')
        else:
            flat[f'{prefix}{key}'] = value
    return flat
