"""Makes a bag of frames, with simulated faults of real cameras if wanted, without ROS.

The bag has `sensor_msgs/msg/Image` on the topics that the node subscribes to by default. The stamp
of frame i is `START_NS + i / rate`. Without faults a message is received at its stamp.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_ros.bag.reading import (
    IMAGE_TYPE,
    LABELS_TOPIC,
    RGB_TOPIC,
    TYPES,
    BagWriter,
    RawMessage,
    Storage,
    default_x_topic,
    open_writer,
)
from sartm_ros.messages.encodings import CHANNELS, LAYOUTS

RGB_FRAME = 'camera_color_optical_frame'
START_NS = 1_700_000_000_000_000_000
"""The stamp of the first frame in nanoseconds; fixed, so that bags are reproducible."""

_NS = 1_000_000_000
_Image = TYPES.types[IMAGE_TYPE]
_Header = TYPES.types['std_msgs/msg/Header']
_Time = TYPES.types['builtin_interfaces/msg/Time']


@dataclass(frozen=True)
class Faults:
    """Faults of the cameras and of their connection; none by default. Labels have no faults.

    Attributes:
        jitter_s: greatest delay in seconds with which an image is received. Delays are uniformly
            distributed and keep the order of a topic. Stamps do not change.
        drop: probability, from 0 to below 1, that an image is lost.
        thermal_offset_s: seconds by which thermal, or another second camera, lags behind RGB: its
            images are stamped and received that much later. Negative: RGB lags.
        freezes: (start, duration) in seconds since the first frame. During that time the second
            camera repeats its last image with advancing stamps, as while its shutter is closed.
        seed: of the random generator; the same seed makes the same bag.
    """

    jitter_s: float = 0.0
    drop: float = 0.0
    thermal_offset_s: float = 0.0
    freezes: tuple[tuple[float, float], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.jitter_s) and self.jitter_s >= 0):
            raise SartmError(f'the jitter is {self.jitter_s} s; expected 0 or more')
        if not 0 <= self.drop < 1:
            raise SartmError(f'the share to drop is {self.drop}; expected 0 to below 1')
        if not math.isfinite(self.thermal_offset_s):
            raise SartmError(f'the thermal offset is {self.thermal_offset_s} s; expected a number')
        for start, duration in self.freezes:
            if not (0 <= start < math.inf and 0 < duration < math.inf):
                raise SartmError(
                    f'a freeze is {start:g}:{duration:g} s; expected a start of 0 or more and a '
                    'duration of more than 0'
                )


def parse_freeze(text: str) -> tuple[float, float]:
    """Parse 'START:DURATION' in seconds. Raises SartmError if it is not that."""
    try:
        start, duration = text.split(':')
        return float(start), float(duration)
    except ValueError:
        raise SartmError(
            f'a freeze is {text!r}; expected START:DURATION in seconds, e.g. 2:1.5'
        ) from None


def write_bag(
    frames: Iterable[Frame],
    out: Path,
    *,
    x_modality: str = 'thermal',
    rate_hz: float = 10.0,
    thermal_rate_hz: float | None = None,
    faults: Faults | None = None,
    storage: Storage = 'mcap',
) -> dict[str, int]:
    """Write `frames` as the bag `out`, a folder that must not exist yet.

    RGB goes to `RGB_TOPIC` as rgb8, and the second camera to `default_x_topic(x_modality)`:
    thermal as mono8 or mono16, depth as 16UC1, others as the first encoding of `CHANNELS`. The
    labels of frames that have them go to `LABELS_TOPIC` as mono8 with the stamp of the RGB image.
    The bag appears under its name only when it is complete.

    Args:
        frames: frames in time order, each with both modalities.
        out: the bag's folder.
        x_modality: of the second camera.
        rate_hz: RGB frames a second.
        thermal_rate_hz: images a second of the second camera; `rate_hz` if None. At another rate
            each of its messages shows the frame that is current at its time.
        faults: none if None.
        storage: 'mcap' or 'sqlite3'.

    Returns:
        The number of messages on each topic.

    Raises SartmError if there is no frame, a frame lacks a modality, a freeze repeats no image, or
    `out` exists.
    """
    faults = faults or Faults()
    rgb_period = _period_ns('rate', rate_hz)
    thermal_period = _period_ns(
        'thermal rate', rate_hz if thermal_rate_hz is None else thermal_rate_hz
    )
    with open_writer(out, storage) as bag:
        link = _Link(bag, faults)
        for message in _messages(frames, x_modality, rgb_period, thermal_period, faults):
            link.send(message)
        return dict(bag.counts)


def _messages(
    frames: Iterable[Frame],
    x_modality: str,
    rgb_period: Fraction,
    thermal_period: Fraction,
    faults: Faults,
) -> Iterator[RawMessage]:
    """Yield what the cameras send, frame by frame: RGB, labels, the images of the second camera.

    Periods are in nanoseconds. Of the faults the offset and the freezes count here. Raises
    SartmError if there is no frame, one lacks an image, or a freeze repeats no image.
    """
    offset_ns = round(faults.thermal_offset_s * _NS)
    without_effect = set(faults.freezes)
    topic, frame_id = default_x_topic(x_modality), f'{x_modality}_optical_frame'
    shown: np.ndarray | None = None  # the image that the second camera sends
    x_count = 0
    count = 0
    for count, frame in enumerate(frames, start=1):
        rgb, image = frame.images.get('rgb'), frame.images.get(x_modality)
        if rgb is None or image is None:
            missing = MODALITIES['rgb' if rgb is None else x_modality].title
            raise SartmError(f'frame {frame.name} has no {missing} image; a bag needs both')
        stamp_ns = START_NS + round((count - 1) * rgb_period)
        yield _message(RGB_TOPIC, rgb, 'rgb8', stamp_ns, RGB_FRAME)
        if frame.labels is not None:
            yield _message(LABELS_TOPIC, frame.labels, 'mono8', stamp_ns, RGB_FRAME)
        while (since_ns := x_count * thermal_period) < count * rgb_period:
            freezes = [
                (start, duration)
                for start, duration in faults.freezes
                if start * _NS <= since_ns < (start + duration) * _NS
            ]
            if shown is None or not freezes:
                shown = image
            else:
                without_effect.difference_update(freezes)
            stamp_ns = START_NS + offset_ns + round(since_ns)
            yield _message(topic, shown, _encoding(x_modality, shown), stamp_ns, frame_id)
            x_count += 1
    if not count:
        raise SartmError('there are no frames to write; a bag needs at least one')
    if without_effect:
        start, duration = min(without_effect)
        last_s = float((x_count - 1) * thermal_period) / _NS
        raise SartmError(
            f'the freeze {start:g}:{duration:g} s repeats no image; the last image of '
            f'{MODALITIES[x_modality].title} is at {last_s:g} s'
        )


class _Link:
    """The connection from cameras to bag, which delays and loses images, but no labels."""

    def __init__(self, bag: BagWriter, faults: Faults) -> None:
        self._bag = bag
        self._faults = faults
        self._random = np.random.default_rng(faults.seed)
        self._last_ns: dict[str, int] = {}

    def send(self, message: RawMessage) -> None:
        if message.topic == LABELS_TOPIC:
            self._bag.write(message)
            return
        # Both numbers are drawn for every image, so that changing one fault does not change the
        # effect of the other.
        lost, late = self._random.random(2)
        if lost < self._faults.drop:
            return
        time_ns = message.time_ns + round(late * self._faults.jitter_s * _NS)
        time_ns = max(time_ns, self._last_ns.get(message.topic, time_ns))  # keeps the order
        self._last_ns[message.topic] = time_ns
        self._bag.write(replace(message, time_ns=time_ns))


def _period_ns(name: str, rate_hz: float) -> Fraction:
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise SartmError(f'the {name} is {rate_hz} Hz; expected more than 0')
    # Exact, because at 30 and 9 Hz rounded periods would show some frames one step early.
    return Fraction(_NS) / Fraction(str(rate_hz))


def _encoding(modality: str, image: np.ndarray) -> str:
    """Return the encoding in which an image of the second camera is written."""
    if modality == 'thermal':
        return 'mono16' if image.itemsize == 2 else 'mono8'
    encodings = CHANNELS[modality]
    return next(name for name in encodings if np.dtype(LAYOUTS[name].dtype) == image.dtype)


def _message(
    topic: str, image: np.ndarray, encoding: str, stamp_ns: int, frame_id: str
) -> RawMessage:
    little_endian = np.ascontiguousarray(image.astype(image.dtype.newbyteorder('<'), copy=False))
    height, width = image.shape[:2]
    message = _Image(
        header=_Header(stamp=_Time(sec=stamp_ns // _NS, nanosec=stamp_ns % _NS), frame_id=frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=little_endian.strides[0],
        data=little_endian.reshape(-1).view(np.uint8),
    )
    data = bytes(TYPES.serialize_cdr(message, IMAGE_TYPE))
    return RawMessage(topic, IMAGE_TYPE, stamp_ns, data)
