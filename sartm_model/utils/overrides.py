"""Reads a tree of dataclasses from a YAML file and `key=value` overrides, and compares two."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
    folder_keys: Sequence[str] = (),
    defaults: Callable[[Mapping[str, Any]], Config] | None = None,
    whole_key: str = '',
) -> Config:
    """Read a configuration: defaults, then the file, then the overrides.

    Args:
        cls: a dataclass whose defaults apply to all that is not set; its fields may be dataclasses.
        path: a YAML file with any part of the tree.
        overrides: `key=value` with dotted keys, e.g. `optim.lr=1e-3`, or `data.train.0.root=DIR`
            for the first item of a list. After `key=` the value is the empty text.
        path_keys: keys whose values are paths, at any depth; `~` is expanded in them. A relative
            path in the file is replaced by the absolute path of the file of that name that lies
            beside it, if there is one.
        folder_keys: those of them whose value may also be a folder.
        defaults: returns what applies to all that is not set, if it depends on what is: it is given
            the settings of the file and the overrides.
        whole_key: an override by a mapping changes the keys that it names, and one that has this
            key replaces the whole mapping of the file.

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
        beside = partial(_beside, path.parent, folder_keys)
        values = OmegaConf.create(_map_paths(_read(path), path_keys, beside))
        if OmegaConf.is_dict(values):
            for item in overrides:
                key, _, text = item.partition('=')
                # OmegaConf reads an empty text as null, but a shell removes the quotes of key=''.
                value = OmegaConf.from_dotlist([f'value={text}'])['value'] if text else ''
                is_whole = OmegaConf.is_dict(value) and whole_key in value
                OmegaConf.update(values, key, value, merge=not is_whole)
        plain = OmegaConf.to_container(values)
        values = OmegaConf.create(_map_paths(plain, path_keys, lambda _, p: os.path.expanduser(p)))
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


def absolute_paths(
    tree: Mapping[str, Any], path_keys: Sequence[str], folder_keys: Sequence[str]
) -> dict[str, Any]:
    """Return a configuration, as nested mappings, with absolute paths; the keys as `load_config`.

    A relative path is replaced by the absolute path of the file of that name in the working
    directory, if there is one. Written to a file, the configuration then means the same, whatever
    lies beside that file.
    """

    def absolute(key: str, path: str) -> str:
        is_there = os.path.exists(path) if key in folder_keys else os.path.isfile(path)
        return os.path.abspath(path) if is_there else path

    return dict(_map_paths(tree, path_keys, absolute))


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


def _map_paths(tree: Any, keys: Sequence[str], change: Callable[[str, str], str]) -> Any:
    """Replace the texts of a tree under `keys` by what `change` returns for the key and the text.

    Empty texts stay.
    """
    if isinstance(tree, list):
        return [_map_paths(item, keys, change) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: change(key, value)
        if key in keys and isinstance(value, str) and value
        else _map_paths(value, keys, change)
        for key, value in tree.items()
    }


def _beside(folder: Path, folder_keys: Sequence[str], key: str, path: str) -> str:
    """Return the absolute path of what a relative path names in a folder, or else the path."""
    found = folder / path
    is_there = found.exists() if key in folder_keys else found.is_file()
    return str(found.resolve()) if is_there and not os.path.isabs(path) else path


def _make_writable(node: Any) -> None:
    """Allow changes to a tree: OmegaConf makes each node of a frozen dataclass read-only."""
    from omegaconf import DictConfig, OmegaConf

    OmegaConf.set_readonly(node, False)
    for child in node.values():
        if isinstance(child, DictConfig):
            _make_writable(child)


def _flatten(tree: Mapping[Any, Any], prefix: str = '') -> dict[str, Any]:
    """Convert nested mappings into one with dotted keys; a mapping in a list has its number."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            flat |= _flatten(dict(enumerate(value)), f'{prefix}{key}.')
        elif isinstance(value, Mapping):
            flat |= _flatten(value, f'{prefix}{key}.')
        else:
            flat[f'{prefix}{key}'] = value
    return flat
