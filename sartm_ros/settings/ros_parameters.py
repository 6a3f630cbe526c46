"""The node's parameters as ROS has them: checks, descriptors, declaration and run-time changes."""

from __future__ import annotations

import difflib
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from sartm_model.errors import SartmError
from sartm_model.inference.device_name import parse_device
from sartm_ros.messages.encodings import check_known
from sartm_ros.settings.cameras import camera_topics, topic_parameter
from sartm_ros.settings.parameters import (
    FIELDS,
    NAMES,
    Parameters,
    homography,
    thermal_settings,
    to_dict,
)

READ_ONLY = 'Read-only while the node is configured.'
RUN_TIME = 'May be changed at run time.'

NEAREST_ONLY = ('sync.stamp', 'sync.thermal_offset', 'sync.reuse_thermal', 'rgb.on_stall')
"""Parameters that have no effect with a policy of message_filters."""

OF_THERMAL = tuple(
    f'thermal.{name}'
    for name in ('shift', 'range', 'smoothing', 'low', 'high', 'crop', 'invalid', 'polarity')
)
"""Parameters that have no effect on images of another `x_modality`."""

OF_OTHERS = ('x_topic', 'x_transport')
"""Parameters that have no effect while `x_modality` is thermal."""

MAY_BE_EMPTY = ('rgb_topic', 'thermal_topic', 'x_topic')
"""Texts that may be empty: there is no such camera."""


def parse(values: Mapping[str, Any]) -> Parameters:
    """Check values by ROS name and return them; a parameter that is missing gets its default.

    Raises:
        SartmError: names the parameter, its value and what is allowed.
    """
    checked = {FIELDS[name].name: _check(name, value) for name, value in values.items()}
    parameters = Parameters(**checked)
    if parameters.thermal_low >= parameters.thermal_high:
        raise SartmError(
            f'parameter thermal.low is {parameters.thermal_low:g}; expected less than '
            f'thermal.high, {parameters.thermal_high:g}'
        )
    check_known(parameters.x_modality)
    given = camera_topics(parameters)
    if not any(given.values()):
        both = ' and '.join(map(topic_parameter, given))
        raise SartmError(f'parameters {both} are empty; name at least one')
    if parameters.sync_policy != 'nearest':
        _require_defaults(
            parameters,
            NEAREST_ONLY,
            f'with sync.policy {parameters.sync_policy}',
            'only nearest supports it',
        )
    modality = f'with x_modality {parameters.x_modality}'
    if parameters.x_modality == 'thermal':
        reason = 'thermal has thermal_topic and thermal_transport. Is another x_modality meant?'
        _require_defaults(parameters, OF_OTHERS, modality, reason)
    else:
        _require_defaults(parameters, OF_THERMAL, modality, 'it is about thermal images')
    homography(parameters)
    try:
        thermal_settings(parameters)
    except SartmError as error:
        raise SartmError(f'parameters thermal.*: {error}') from error
    return parameters


def update(current: Parameters, changes: Iterable[tuple[str, Any]]) -> Parameters:
    """Return `current` with changes applied, for a configured node.

    Args:
        current: the values in use.
        changes: ROS names and new values. Names of parameters that are not the node's own, such as
            `use_sim_time`, are ignored.

    Raises:
        SartmError: a value is not allowed, or may not change while the node is configured.
    """
    values = to_dict(current)
    for name, value in changes:
        if name not in FIELDS:
            continue
        if not FIELDS[name].metadata['run_time'] and value != values[name]:
            raise SartmError(
                f'parameter {name} is read-only while the node is configured; '
                'clean the node up first, or set it at the start'
            )
        values[name] = value
    return parse(values)


def describe_deletion(changes: Iterable[Any]) -> str:
    """Return why the node refuses changes that delete one of its parameters, or ''.

    rclpy would accept those of parameters that are not bound to one type, and the node could not be
    configured afterwards.

    Args:
        changes: `rclpy.parameter.Parameter` objects.
    """
    for change in changes:
        if change.name in FIELDS and change.type_ == change.Type.NOT_SET:
            default = to_dict(Parameters())[change.name]
            return (
                f'parameter {change.name} cannot be deleted; set it to a value, such as its '
                f'default, {default!r}'
            )
    return ''


def declare(node: Any) -> None:
    """Declare every parameter on an `rclpy` node, with its descriptor.

    Raises:
        SartmError: a value given at the start has the wrong type or is out of range.
    """
    from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

    defaults = to_dict(Parameters())
    for name in NAMES:
        try:
            node.declare_parameter(name, defaults[name], descriptor(name))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise SartmError(f'parameter {name} is not as expected: {error}') from error


def read(node: Any) -> Parameters:
    """Return the node's parameters, checked. Raises SartmError as `parse` does."""
    return parse({name: node.get_parameter(name).value for name in NAMES})


def warn_of_unknown(node: Any, *, of_topics: bool = False) -> None:
    """Log which parameters given at the start the node does not have, with the nearest names.

    Args:
        node: an `rclpy` node.
        of_topics: examine the parameters `qos_overrides.*`, which are declared when the node
            subscribes and publishes, instead of the others.
    """
    given = getattr(node, '_parameter_overrides', {})  # rclpy has no other access to them
    unknown = [
        name
        for name in given
        if name.startswith('qos_overrides.') == of_topics and not node.has_parameter(name)
    ]
    known = list(node.get_parameters_by_prefix(''))
    texts = []
    for name in unknown:
        nearest = difflib.get_close_matches(name, known, 1)
        texts.append(f'{name} (is {nearest[0]} meant?)' if nearest else name)
    if texts:
        node.get_logger().warning(
            f'parameters that this node does not have are ignored: {", ".join(texts)}'
        )


def descriptor(name: str) -> Any:
    """Return the `rcl_interfaces/ParameterDescriptor` of a parameter, by its ROS name."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    spec = FIELDS[name]
    metadata = spec.metadata
    result = ParameterDescriptor(
        name=name, description=metadata['description'], read_only=metadata['fixed']
    )
    notes = [RUN_TIME if metadata['run_time'] else READ_ONLY]
    if metadata['choices']:
        notes.insert(0, f'One of {", ".join(metadata["choices"])}.')
    result.additional_constraints = ' '.join(notes)
    if isinstance(spec.default, tuple):
        result.dynamic_typing = True  # so that ROS accepts integers and an empty list
    if metadata['between'] and isinstance(spec.default, float):
        result.dynamic_typing = True  # so that ROS accepts 1 for 1.0; `parse` checks the type
        low, high = metadata['between']
        result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif metadata['between']:
        low, high = metadata['between']
        result.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return result


def _require_defaults(
    parameters: Parameters, names: Iterable[str], where: str, because: str
) -> None:
    """Raise SartmError if one of the parameters does not have its default."""
    for name in names:
        if getattr(parameters, FIELDS[name].name) != FIELDS[name].default:
            raise SartmError(
                f'parameter {name} is set; {where} expected its default, because {because}'
            )


def _check(name: str, value: Any) -> Any:
    """Return the value in the parameter's type, or raise SartmError."""
    spec = FIELDS[name]
    kind = type(spec.default)
    if kind is tuple:
        return _parse_numbers(name, value) or spec.default
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise SartmError(
            f'parameter {name} is {value!r}, of type {type(value).__name__}; '
            f'expected {kind.__name__}'
        )
    between, choices = spec.metadata['between'], spec.metadata['choices']
    if between and not between[0] <= value <= between[1]:  # NaN fails too
        raise SartmError(f'parameter {name} is {value}; expected {between[0]:g} to {between[1]:g}')
    if choices and value not in choices:
        raise SartmError(f'parameter {name} is {value!r}; expected one of {", ".join(choices)}')
    if kind is str and not value and name not in MAY_BE_EMPTY:
        raise SartmError(f'parameter {name} is empty; expected a value like {spec.default!r}')
    if name == 'device':
        parse_device(value, 'parameter device')
    return value


def _parse_numbers(name: str, value: Any) -> tuple[float, ...]:
    # For an empty list rcl returns None or an array of bytes.
    items = () if value is None else value
    if not isinstance(items, (list, tuple, array)) or any(
        type(item) not in (int, float) for item in items
    ):
        raise SartmError(f'parameter {name} is {value!r}; expected a list of numbers')
    return tuple(float(item) for item in items)
