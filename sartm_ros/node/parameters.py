"""The node's ROS parameters: one frozen dataclass, each field one parameter.

Importing this needs no ROS; `declare` and `read` are given the node.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.registration.homography import check_homography

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
TRANSPORTS = ('auto', 'raw', 'compressed')

READ_ONLY = 'Read-only while the node is configured.'
RUN_TIME = 'May be changed at run time.'


def _parameter(
    default: Any,
    description: str,
    *,
    name: str = '',
    between: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    run_time: bool = False,
    fixed: bool = False,
) -> Any:
    """A field that is a parameter.

    Args:
        default: also says its type; a float takes an integer as well.
        description: for its descriptor.
        name: ROS name where it is not the field's name.
        between: least and greatest allowed value.
        choices: allowed values.
        run_time: may be changed while the node is configured.
        fixed: may never be changed after the start.
    """
    metadata = {
        'name': name,
        'description': description,
        'between': between,
        'choices': choices,
        'run_time': run_time,
        'fixed': fixed,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Parameters:
    """What the node is told; times in seconds. Each field's meaning is its description."""

    checkpoint: str = _parameter(
        'demo',
        "Weights: path of a .safetensors file or of an .onnx file of `sartm export`, or 'demo' "
        'for the ones that come along.',
    )
    device: str = _parameter('auto', 'Where the network runs: auto, cpu, cuda or cuda:N.')
    precision: str = _parameter(
        'auto',
        'Arithmetic of the network; auto is fp16 on a GPU and fp32 on a CPU; int8 is for large '
        'networks on a CPU with VNNI.',
        choices=('auto', 'fp16', 'bf16', 'fp32', 'int8'),
    )
    warm_up_width: int = _parameter(
        640,
        'Width in pixels of the RGB images expected, for a warm-up at configure; 0: none.',
        name='warm_up.width',
        between=(0, 8192),
    )
    warm_up_height: int = _parameter(
        480,
        'Height in pixels of the RGB images expected, for a warm-up at configure; 0: none.',
        name='warm_up.height',
        between=(0, 8192),
    )
    autostart: bool = _parameter(
        True, 'Configure and activate at the start, without a lifecycle manager.', fixed=True
    )
    rgb_topic: str = _parameter('/camera/color/image_raw', 'Topic of the RGB images.')
    thermal_topic: str = _parameter('/thermal/image_raw', 'Topic of the thermal images.')
    rgb_transport: str = _parameter(
        'auto',
        'What rgb_topic carries: Image (raw), CompressedImage (compressed), or whichever its '
        'publishers say (auto).',
        choices=TRANSPORTS,
    )
    thermal_transport: str = _parameter(
        'auto', 'What thermal_topic carries, like rgb_transport.', choices=TRANSPORTS
    )
    sync_policy: str = _parameter(
        'nearest',
        "How RGB and thermal are paired: nearest, or message_filters' approximate or exact.",
        name='sync.policy',
        choices=('nearest', 'approximate', 'exact'),
    )
    sync_max_skew_s: float = _parameter(
        0.05,
        'Greatest difference of the stamps of a pair, seconds.',
        name='sync.max_skew',
        between=(0.0, 10.0),
        run_time=True,
    )
    sync_max_wait_s: float = _parameter(
        0.1,
        'Longest time an RGB image waits for its partner, seconds of wall time.',
        name='sync.max_wait',
        between=(0.0, 10.0),
    )
    sync_thermal_offset_s: float = _parameter(
        0.0,
        'Added to the stamp of every thermal image, seconds.',
        name='sync.thermal_offset',
        between=(-60.0, 60.0),
    )
    sync_reuse_thermal: bool = _parameter(
        False,
        'Let a thermal image serve several RGB images, for a thermal camera that is slower.',
        name='sync.reuse_thermal',
    )
    sync_queue_size: int = _parameter(
        20,
        'Images a topic may hold while they wait for a partner.',
        name='sync.queue_size',
        between=(2, 1000),
    )
    stall_after_s: float = _parameter(
        0.3,
        'A camera is in a gap once the other has gone on for so long without it, and thermal is '
        'frozen once its image has not changed for so long; seconds of their stamps.',
        name='stall_after',
        between=(0.05, 60.0),
        run_time=True,
    )
    rgb_on_stall: str = _parameter(
        'drop',
        'In a gap of RGB: thermal_only gives labels from thermal alone, in its geometry; drop '
        'gives none.',
        name='rgb.on_stall',
        choices=('thermal_only', 'drop'),
        run_time=True,
    )
    thermal_on_stall: str = _parameter(
        'rgb_only',
        'While thermal is frozen, flat or in a gap: rgb_only gives labels from RGB alone, hold '
        'keeps the last good thermal image for a while, drop gives none.',
        name='thermal.on_stall',
        choices=('rgb_only', 'hold', 'drop'),
        run_time=True,
    )
    thermal_hold_at_most_s: float = _parameter(
        1.0,
        'Greatest age of a thermal image that is held, seconds; afterwards as with rgb_only.',
        name='thermal.hold_at_most',
        between=(0.0, 60.0),
        run_time=True,
    )
    thermal_range: str = _parameter(
        'percentile',
        "How thermal is scaled: by each image's 1st and 99th percentile, or by fixed counts.",
        name='thermal.range',
        choices=('percentile', 'fixed'),
        run_time=True,
    )
    thermal_smoothing_s: float = _parameter(
        0.0,
        'Time constant with which the percentiles follow from image to image, seconds; 0: each '
        'image has its own, as in training and in an evaluation.',
        name='thermal.smoothing',
        between=(0.0, 60.0),
        run_time=True,
    )
    thermal_low: float = _parameter(
        0.0,
        'Coldest counts of interest, with thermal.range fixed.',
        name='thermal.low',
        between=(0.0, 65535.0),
        run_time=True,
    )
    thermal_high: float = _parameter(
        255.0,
        'Hottest counts of interest, with thermal.range fixed.',
        name='thermal.high',
        between=(0.0, 65535.0),
        run_time=True,
    )
    thermal_homography: tuple[float, ...] = _parameter(
        IDENTITY,
        'Thermal pixel to RGB pixel, the rows of 3x3 one by one; the identity, or none at all: '
        'thermal shows what RGB shows and is only resized.',
        name='thermal.homography',
        run_time=True,
    )
    overlay_opacity: float = _parameter(
        0.5,
        'Opacity of the colours in ~/overlay.',
        name='overlay.opacity',
        between=(0.0, 1.0),
        run_time=True,
    )


_FIELDS = {spec.metadata['name'] or spec.name: spec for spec in fields(Parameters)}

NAMES = tuple(_FIELDS)
"""The ROS names, in order."""


def parse(values: Mapping[str, Any]) -> Parameters:
    """Check values by ROS name; what is not given keeps its default.

    Raises:
        SartmError: names the parameter, its value and what is allowed.
    """
    checked = {_FIELDS[name].name: _check(name, value) for name, value in values.items()}
    parameters = Parameters(**checked)
    if parameters.thermal_low >= parameters.thermal_high:
        raise SartmError(
            f'parameter thermal.low is {parameters.thermal_low:g}; expected less than '
            f'thermal.high, {parameters.thermal_high:g}'
        )
    if parameters.sync_policy != 'nearest':
        for name in ('sync.thermal_offset', 'sync.reuse_thermal', 'rgb.on_stall'):
            if getattr(parameters, _FIELDS[name].name) != _FIELDS[name].default:
                raise SartmError(
                    f'parameter {name} is set; with sync.policy {parameters.sync_policy} expected '
                    'its default, because only nearest has it'
                )
    if parameters.rgb_topic == parameters.thermal_topic:
        raise SartmError(
            f'parameter thermal_topic is {parameters.thermal_topic}; '
            'expected another topic than rgb_topic'
        )
    homography(parameters)
    return parameters


def homography(parameters: Parameters) -> np.ndarray | None:
    """`thermal.homography` as `[3, 3]`, or None where thermal is only resized.

    Raises:
        SartmError: it cannot be used with RGB images of the size that is expected.
    """
    if parameters.thermal_homography == IDENTITY:
        return None
    size = parameters.warm_up_height, parameters.warm_up_width
    try:
        return check_homography(parameters.thermal_homography, size if all(size) else None)
    except SartmError as error:
        raise SartmError(f'parameter thermal.homography is not usable: {error}') from error


def _check(name: str, value: Any) -> Any:
    spec: Any = _FIELDS[name]
    kind = type(spec.default)
    if kind is tuple:
        return _numbers(name, value) or spec.default
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
    if kind is str and not value:
        raise SartmError(f'parameter {name} is empty; expected a value like {spec.default!r}')
    if name == 'device' and not _is_device(value):
        raise SartmError(f'parameter device is {value!r}; expected auto, cpu, cuda or cuda:N')
    return value


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    # rcl gives nothing at all, or an array of bytes, where a list is empty.
    items = () if value is None else value
    if not isinstance(items, (list, tuple, array)) or any(
        type(item) not in (int, float) for item in items
    ):
        raise SartmError(f'parameter {name} is {value!r}; expected a list of numbers')
    return tuple(float(item) for item in items)


def _is_device(value: str) -> bool:
    kind, colon, index = value.partition(':')
    return value in ('auto', 'cpu', 'cuda') or (
        kind == 'cuda' and colon == ':' and index.isdecimal()
    )


def changed(current: Parameters, changes: Iterable[tuple[str, Any]]) -> Parameters:
    """`current`, of a configured node, with changes by ROS name; foreign names are passed over.

    Raises:
        SartmError: a value is not allowed, or may not change while the node is configured.
    """
    values = to_dict(current)
    for name, value in changes:
        if name not in _FIELDS:
            continue
        if not _FIELDS[name].metadata['run_time'] and value != values[name]:
            raise SartmError(
                f'parameter {name} is read-only while the node is configured; '
                'clean the node up first, or set it at the start'
            )
        values[name] = value
    return parse(values)


def to_dict(parameters: Parameters) -> dict[str, Any]:
    """The values by ROS name, as ROS takes them."""
    values = {name: getattr(parameters, spec.name) for name, spec in _FIELDS.items()}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


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


def descriptor(name: str) -> Any:
    """The `rcl_interfaces/ParameterDescriptor` of a parameter, by its ROS name."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    spec = _FIELDS[name]
    metadata = spec.metadata
    result = ParameterDescriptor(
        name=name, description=metadata['description'], read_only=metadata['fixed']
    )
    notes = [RUN_TIME if metadata['run_time'] else READ_ONLY]
    if metadata['choices']:
        notes.insert(0, f'One of {", ".join(metadata["choices"])}.')
    result.additional_constraints = ' '.join(notes)
    if isinstance(spec.default, tuple):
        result.dynamic_typing = True  # so that whole numbers, and an empty list, are taken
    if metadata['between'] and isinstance(spec.default, float):
        # So that 1 is taken where 1.0 is meant; `parse` checks the type.
        result.dynamic_typing = True
        low, high = metadata['between']
        result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif metadata['between']:
        low, high = metadata['between']
        result.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return result


def read(node: Any) -> Parameters:
    """The node's parameters, checked. Raises SartmError as `parse` does."""
    return parse({name: node.get_parameter(name).value for name in NAMES})


def seconds_to_ns(seconds: float) -> int:
    """Seconds as whole nanoseconds."""
    return math.floor(seconds * 1e9 + 0.5)
