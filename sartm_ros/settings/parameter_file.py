"""Reads the node's parameters from a ROS parameter file, without ROS, for files and bags."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sartm_model.cli.options import NodeSettings
from sartm_model.errors import SartmError
from sartm_model.utils.text import first_line
from sartm_ros.settings.cameras import camera_topics, with_topics
from sartm_ros.settings.loading import predictor_options
from sartm_ros.settings.parameters import FIELDS, NAMES, Parameters
from sartm_ros.settings.ros_parameters import parse

NODE = 'sartm'
_VALUES = 'ros__parameters'


class _Loader(yaml.SafeLoader):
    """Reads 1e-05 and 5e-2 as numbers, which ROS does and YAML 1.1 does not."""


_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float',
    re.compile(r'[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$'),
    list('-+.0123456789'),
)


def read_parameter_file(path: Path, overrides: Mapping[str, Any] | None = None) -> Parameters:
    """Return the parameters that a ROS parameter file gives the node.

    Sections apply in their order, as in ROS: those of any node (`/**`) and those of a node called
    'sartm', in any namespace. Topics are returned with their full names. Parameters that the node
    does not have are ignored, because a section of any node may be for others, unless they look
    like a mistyped one.

    Args:
        path: the file.
        overrides: values by ROS name that replace the file's before anything is checked, so that
            the file may have what fits them alone, such as `x_topic` without an `x_modality`.

    Raises:
        SartmError: the file is not a parameter file, has no section for the node or those of two,
            or a value is not allowed.
    """
    values: dict[str, Any] = {}
    namespaces: set[str] = set()
    sections = node_sections(path)
    for names, section in sections:
        if '**' not in names and '*' not in names:
            namespaces.add('/'.join(names[:-1]))
        values |= section
    if not sections:
        raise SartmError(
            f"{path} has no parameters of the node; expected a section '/**' or '{NODE}' with "
            f'{_VALUES}, as in config/sartm.yaml'
        )
    if len(namespaces) > 1:
        raise SartmError(
            f'{path} has the parameters of {len(namespaces)} nodes, in the namespaces '
            f'{", ".join(f"/{name}" for name in sorted(namespaces))}; expected those of one'
        )
    for name in values.keys() - FIELDS.keys():
        if nearest := difflib.get_close_matches(name, NAMES, 1, 0.8):
            raise SartmError(f'{path}: the node has no parameter {name} (is {nearest[0]} meant?)')
    known = {name: value for name, value in values.items() if name in FIELDS}
    changes = dict(overrides or {})
    try:
        parameters = parse(known | changes)
    except SartmError as error:
        given = ' and '.join(f'{name} {value!r}' for name, value in changes.items())
        raise SartmError(f'{path}{" with " if given else ""}{given}: {error}') from error
    namespace_ = next(iter(namespaces), '')
    full_names = {
        name: full_name(topic, namespace_) for name, topic in camera_topics(parameters).items()
    }
    return with_topics(parameters, full_names)


def node_settings(path: Path) -> NodeSettings:
    """Return what a parameter file says of the network and its images, for the `sartm` command.

    Raises SartmError as `read_parameter_file` does.
    """
    parameters = read_parameter_file(path)
    return NodeSettings(predictor_options(parameters), parameters.thermal_shift)


def node_sections(path: Path) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Return the sections of a ROS parameter file that apply to the node, in any namespace.

    Returns:
        For each section the parts of its full name, such as ('front', 'sartm') or ('**',), and its
        parameters by their dotted names, in the order in which they apply.

    Raises:
        SartmError: the file does not exist or is not a YAML file.
    """
    try:
        document = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise SartmError(f'{path} does not exist; expected a ROS parameter file') from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SartmError(f'{path} is not a YAML file: {first_line(error)}') from error
    return [
        (names, dict(_leaves(section, '')))
        for names, section in _sections(document, ())
        if names[-1] in (NODE, '*', '**')
    ]


def _sections(tree: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the parts of each node's full name, and its parameters."""
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if key == _VALUES and names:
            yield names, value
        else:
            parts = tuple(part for part in str(key).split('/') if part)
            yield from _sections(value, names + parts)


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each parameter."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, dict):
            yield from _leaves(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def full_name(topic: str, namespace: str = '') -> str:
    """Resolve a topic as the node in this namespace does; an empty one stays empty."""
    base = f'/{namespace}' if namespace else ''
    if topic.startswith('/') or not topic:
        return topic
    if topic.startswith('~'):
        return f'{base}/{NODE}/{topic[1:].lstrip("/")}'
    return f'{base}/{topic}'
