"""The node's parameters: one frozen dataclass, in which each field is one parameter.

Importing this needs no ROS. `ros_parameters` checks values, and declares and reads the parameters
of an rclpy node.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.thermal_settings import POLARITIES, ThermalSettings
from sartm_model.registration.homography import check_homography

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
TRANSPORTS = ('auto', 'raw', 'compressed')


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
    """Declare a field of `Parameters`.

    Args:
        default: the default value. Its type is the parameter's type; a float accepts an integer.
        description: the text of the parameter's descriptor.
        name: the ROS name, if it differs from the field's name.
        between: the least and the greatest allowed value.
        choices: the allowed values.
        run_time: whether it may be changed while the node is configured.
        fixed: whether it may never be changed after the start.
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
    """The values of all parameters. Times are in seconds; a field's meaning is its description."""

    checkpoint: str = _parameter(
        'demo',
        "Weights: the path of a .safetensors file or of an .onnx file of `sartm export`, or 'demo' "
        "or 'demo_depth' for the weights in the package.",
    )
    device: str = _parameter('auto', 'Where the network runs: auto, cpu, cuda or cuda:N.')
    precision: str = _parameter(
        'auto',
        'Arithmetic of the network; auto is fp16 on a GPU and fp32 on a CPU.',
        choices=('auto', 'fp16', 'bf16', 'fp32'),
    )
    engine: str = _parameter(
        'auto',
        'How the network is run; compile has torch.compile make code for it and the size of the '
        'images, which takes minutes at the first start.',
        choices=('auto', 'compile'),
    )
    warm_up_width: int = _parameter(
        640,
        'Expected width of the RGB images, or of those of the only camera, in pixels, for a '
        'warm-up when configuring; 0: none.',
        name='warm_up.width',
        between=(0, 8192),
    )
    warm_up_height: int = _parameter(
        480,
        'Expected height of these images in pixels; see warm_up.width.',
        name='warm_up.height',
        between=(0, 8192),
    )
    autostart: bool = _parameter(
        True, 'Configure and activate at the start, without a lifecycle manager.', fixed=True
    )
    rgb_topic: str = _parameter(
        'camera/color/image_raw',
        "Topic of the RGB images; without a leading slash it is in the node's namespace. Empty: "
        'there is no such camera, and labels come from thermal alone.',
    )
    x_modality: str = _parameter(
        'thermal',
        'What the second camera, X, measures. What other parameters say of thermal holds for X, '
        'except for thermal.range, smoothing, low, high, shift, crop, invalid and polarity.',
        choices=tuple(name for name in MODALITIES if name != 'rgb'),
    )
    thermal_topic: str = _parameter(
        'thermal/image_raw', 'Topic of the thermal images; see rgb_topic. Not both may be empty.'
    )
    x_topic: str = _parameter(
        'auto',
        'In place of thermal_topic with another x_modality; auto: <x_modality>/image_raw.',
    )
    rgb_transport: str = _parameter(
        'auto',
        'Message type of rgb_topic: Image (raw), CompressedImage (compressed), or the type that '
        'its publishers offer (auto).',
        choices=TRANSPORTS,
    )
    thermal_transport: str = _parameter(
        'auto', 'Message type of thermal_topic; see rgb_transport.', choices=TRANSPORTS
    )
    x_transport: str = _parameter(
        'auto', 'Message type of x_topic; see rgb_transport.', choices=TRANSPORTS
    )
    max_rate_hz: float = _parameter(
        0.0,
        'Results a second at the most, to leave the processor to others; 0: as many as it can. '
        'Pairs in between are dropped.',
        name='max_rate',
        between=(0.0, 1000.0),
        run_time=True,
    )
    sync_policy: str = _parameter(
        'nearest',
        'How RGB and thermal (X) are paired: nearest, or approximate or exact of message_filters.',
        name='sync.policy',
        choices=('nearest', 'approximate', 'exact'),
    )
    sync_stamp: str = _parameter(
        'header',
        'The times by which images are paired: the stamps in their headers, or their arrival at '
        'the node, for cameras with clocks that differ. Outputs have the stamps of the headers.',
        name='sync.stamp',
        choices=('header', 'arrival'),
    )
    sync_max_skew_s: float = _parameter(
        0.05,
        'Greatest difference between the stamps of a pair, seconds.',
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
        'Images of each topic that may wait for a partner.',
        name='sync.queue_size',
        between=(2, 1000),
    )
    stall_after_s: float = _parameter(
        0.3,
        'A camera is in a gap when the other one has sent images for this long without it; thermal '
        'is frozen when it has repeated an old image for this long. Seconds of the stamps.',
        name='stall_after',
        between=(0.05, 60.0),
        run_time=True,
    )
    rgb_on_stall: str = _parameter(
        'drop',
        'In a gap of RGB: thermal_only publishes labels from thermal alone, in its geometry; drop '
        'publishes none.',
        name='rgb.on_stall',
        choices=('thermal_only', 'drop'),
        run_time=True,
    )
    thermal_on_stall: str = _parameter(
        'rgb_only',
        'While thermal is frozen, flat or in a gap: rgb_only publishes labels from RGB alone, hold '
        'uses the last good thermal image for a while, drop publishes none.',
        name='thermal.on_stall',
        choices=('rgb_only', 'hold', 'drop'),
        run_time=True,
    )
    thermal_hold_at_most_s: float = _parameter(
        1.0,
        'With thermal.on_stall hold, the greatest age of the last good thermal image, seconds; '
        'beyond it rgb_only applies.',
        name='thermal.hold_at_most',
        between=(0.0, 60.0),
        run_time=True,
    )
    thermal_shift: int = _parameter(
        0,
        'Bits by which thermal counts of 16 bits (16UC1, mono16) are shifted down, for cameras '
        'whose data fill the upper bits.',
        name='thermal.shift',
        between=(0, 15),
        run_time=True,
    )
    thermal_detect_frozen: bool = _parameter(
        True,
        'Whether a thermal camera that repeats an old image counts as stalled.',
        name='thermal.detect_frozen',
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
        'Time constant of the exponential smoothing of the percentiles, seconds; 0: each image '
        'has its own, as in training and evaluation.',
        name='thermal.smoothing',
        between=(0.0, 60.0),
        run_time=True,
    )
    thermal_low: float = _parameter(
        0.0,
        'With thermal.range fixed, the count that becomes black.',
        name='thermal.low',
        between=(0.0, 65535.0),
        run_time=True,
    )
    thermal_high: float = _parameter(
        255.0,
        'With thermal.range fixed, the count that becomes white.',
        name='thermal.high',
        between=(0.0, 65535.0),
        run_time=True,
    )
    thermal_crop: tuple[float, ...] = _parameter(
        (0.0, 0.0, 0.0, 0.0),
        'Rows and columns to cut off thermal images before anything else, such as rows of '
        'telemetry: top, right, bottom, left. What is left covers the field of view of RGB.',
        name='thermal.crop',
        run_time=True,
    )
    thermal_invalid: tuple[float, ...] = _parameter(
        (),
        "Counts that mean 'no measurement'. Uniform borders and the zeros of 16-bit images that "
        'are fill are recognised without.',
        name='thermal.invalid',
        run_time=True,
    )
    thermal_polarity: str = _parameter(
        'white_hot',
        'Whether hot things have high counts (white_hot) or low ones (black_hot).',
        name='thermal.polarity',
        choices=POLARITIES,
        run_time=True,
    )
    thermal_homography: tuple[float, ...] = _parameter(
        IDENTITY,
        'Homography from thermal pixels to RGB pixels, the 3x3 matrix row by row. With the '
        'identity or an empty list thermal is only resized to the RGB image.',
        name='thermal.homography',
        run_time=True,
    )
    overlay_opacity: float = _parameter(
        0.5,
        'Opacity of the class colours in ~/overlay.',
        name='overlay.opacity',
        between=(0.0, 1.0),
        run_time=True,
    )


FIELDS: dict[str, Any] = {spec.metadata['name'] or spec.name: spec for spec in fields(Parameters)}
"""The dataclass field of each parameter, by its ROS name."""

NAMES = tuple(FIELDS)
"""The ROS names, in the order of the fields."""


def to_dict(parameters: Parameters) -> dict[str, Any]:
    """Return the values by ROS name, with lists in place of tuples, as ROS expects them."""
    values = {name: getattr(parameters, spec.name) for name, spec in FIELDS.items()}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def homography(parameters: Parameters) -> np.ndarray | None:
    """Return `thermal.homography` as float64 `[3, 3]`, or None if thermal is only resized.

    Raises:
        SartmError: it cannot be used with RGB images of the expected size.
    """
    if parameters.thermal_homography == IDENTITY:
        return None
    size = parameters.warm_up_height, parameters.warm_up_width
    try:
        return check_homography(parameters.thermal_homography, size if all(size) else None)
    except SartmError as error:
        raise SartmError(f'parameter thermal.homography is not usable: {error}') from error


def thermal_settings(parameters: Parameters) -> ThermalSettings:
    """Return what the parameters `thermal.*` say about reading and scaling thermal images.

    Raises:
        SartmError: a value is not one that can be.
    """
    return ThermalSettings(
        parameters.thermal_range,
        parameters.thermal_low,
        parameters.thermal_high,
        parameters.thermal_smoothing_s,
        parameters.thermal_crop,  # type: ignore[arg-type]  # whole numbers, as it checks
        parameters.thermal_invalid,  # type: ignore[arg-type]
        parameters.thermal_polarity,
    )


def seconds_to_ns(seconds: float) -> int:
    """Convert seconds to the nearest whole number of nanoseconds."""
    return math.floor(seconds * 1e9 + 0.5)
