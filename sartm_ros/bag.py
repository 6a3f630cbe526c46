"""Rosbag2 bags without ROS: write one from frames, read messages out of one.

A bag made here holds `sensor_msgs/msg/Image` on the topics that the node listens to by default.
Frame i is stamped `START_NS + i / rate`; the stamp in a message's header and the time at which the
bag says it was received are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from sartm_model.datasets.base import Frame
from sartm_model.errors import SartmError
from sartm_model.files import new_folder
from sartm_ros.images import stamp_ns
from sartm_ros.matcher import Pair, PairMatcher

RGB_TOPIC = '/camera/color/image_raw'
THERMAL_TOPIC = '/thermal/image_raw'
LABELS_TOPIC = '/ground_truth/labels'
RGB_FRAME = 'camera_color_optical_frame'
THERMAL_FRAME = 'thermal_optical_frame'
START_NS = 1_700_000_000_000_000_000
"""The stamp of a bag's first frame in nanoseconds: fixed, so that a bag can be made again."""

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
Storage = Literal['mcap', 'sqlite3']
STORAGES: tuple[Storage, ...] = ('mcap', 'sqlite3')
BAG_VERSION: Literal[8] = 8  # the newest whose QoS is still the text that Humble reads

_NS = 1_000_000_000
_TYPES = get_typestore(Stores.ROS2_JAZZY)
_Image = _TYPES.types[IMAGE_TYPE]
_Header = _TYPES.types['std_msgs/msg/Header']
_Time = _TYPES.types['builtin_interfaces/msg/Time']


@dataclass(frozen=True)
class RawMessage:
    """A message as the bag holds it.

    Attributes:
        topic: the topic's name.
        type: e.g. 'sensor_msgs/msg/Image'.
        time_ns: when the bag says that it was received, in nanoseconds.
        data: the message in CDR, as it travels over DDS.
    """

    topic: str
    type: str
    time_ns: int
    data: bytes


class Topic(NamedTuple):
    """What a bag holds of one topic: the message type and the number of messages."""

    type: str
    messages: int


@dataclass(frozen=True)
class BagPair:
    """Two messages of a bag that belong together.

    Attributes:
        index: place of the RGB message among those of its topic, from 0.
        stamp_ns: header stamp of the RGB message in nanoseconds.
        skew_ns: thermal stamp minus RGB stamp.
        rgb, thermal: objects with the fields of `sensor_msgs/Image` or `CompressedImage`.
        labels: the labels message of the same stamp, or None.
    """

    index: int
    stamp_ns: int
    skew_ns: int
    rgb: Any
    thermal: Any
    labels: Any


def write_bag(
    frames: Iterable[Frame],
    out: Path,
    *,
    rate_hz: float = 10.0,
    thermal_rate_hz: float | None = None,
    thermal_delay_s: float = 0.0,
    storage: Storage = 'mcap',
) -> dict[str, int]:
    """Write `frames` as the bag `out`, a folder that must not exist yet.

    RGB goes to `RGB_TOPIC` as rgb8, thermal to `THERMAL_TOPIC` as mono8 or mono16, labels where a
    frame has them to `LABELS_TOPIC` as mono8 with the stamp of the RGB image. The bag is written
    aside and appears under its name when it is whole.

    Args:
        frames: frames in time order, each with both modalities.
        out: the bag's folder.
        rate_hz: RGB frames a second.
        thermal_rate_hz: thermal images a second, `rate_hz` where left out. At another rate each
            thermal message shows the frame that is current at its time.
        thermal_delay_s: seconds by which the thermal stamps lag behind, as those of a second
            camera do.
        storage: 'mcap' or 'sqlite3'.

    Returns:
        The number of messages on each topic.

    Raises SartmError where there is no frame, one lacks a modality, or `out` exists.
    """
    rgb_period = _period_ns('rate', rate_hz)
    thermal_period = _period_ns(
        'thermal rate', rate_hz if thermal_rate_hz is None else thermal_rate_hz
    )
    delay_ns = round(thermal_delay_s * _NS)
    thermal_count = 0
    with open_writer(out, storage) as write:
        count = 0
        for count, frame in enumerate(frames, start=1):
            if frame.rgb is None or frame.thermal is None:
                absent = 'RGB' if frame.rgb is None else 'thermal'
                raise SartmError(f'frame {frame.name} has no {absent} image; a bag needs both')
            time_ns = START_NS + round((count - 1) * rgb_period)
            write(_message(RGB_TOPIC, frame.rgb, time_ns, RGB_FRAME))
            if frame.labels is not None:
                write(_message(LABELS_TOPIC, frame.labels, time_ns, RGB_FRAME))
            while thermal_count * thermal_period < count * rgb_period:
                time_ns = START_NS + delay_ns + round(thermal_count * thermal_period)
                write(_message(THERMAL_TOPIC, frame.thermal, time_ns, THERMAL_FRAME))
                thermal_count += 1
        if not count:
            raise SartmError(f'no frames to write to {out}')
        return dict(write.counts)


def topics(bag: Path) -> dict[str, Topic]:
    """The topics of a bag. Raises SartmError where it is not a bag."""
    with _reader(bag) as reader:
        return {c.topic: Topic(c.msgtype, c.msgcount) for c in reader.connections}


def read_raw(bag: Path, only: Sequence[str] | None = None) -> Iterator[RawMessage]:
    """The messages of a bag in the order in which they were received.

    Args:
        bag: a rosbag2 folder, or one `.mcap` or `.db3` file.
        only: the topics to read; all of them where left out.

    Raises SartmError where it is not a bag that can be read, or has not all of these topics.
    """
    with _reader(bag) as reader:
        present = {connection.topic: connection.msgtype for connection in reader.connections}
        for topic in only or ():
            if topic not in present:
                listed = ', '.join(sorted(present)) or 'none at all'
                raise SartmError(f'{bag} has no topic {topic}; its topics are: {listed}')
        wanted = [c for c in reader.connections if only is None or c.topic in only]
        if not wanted:
            return
        for connection, time_ns, data in reader.messages(wanted):
            yield RawMessage(connection.topic, connection.msgtype, time_ns, bytes(data))


def read_images(bag: Path, only: Sequence[str]) -> Iterator[tuple[RawMessage, Any]]:
    """Like `read_raw`, each with its decoded message.

    It has the fields of `sensor_msgs/Image`, or of `CompressedImage` where the topic carries those.

    Raises SartmError besides where a topic carries another type, or a message is damaged.
    """
    for raw in read_raw(bag, only):
        if raw.type not in (IMAGE_TYPE, COMPRESSED_TYPE):
            raise SartmError(
                f'{bag}: topic {raw.topic} carries {raw.type}, not {IMAGE_TYPE} or '
                f'{COMPRESSED_TYPE}'
            )
        yield raw, decode(raw)


def read_pairs(
    bag: Path,
    matcher: PairMatcher,
    *,
    rgb_topic: str = RGB_TOPIC,
    thermal_topic: str = THERMAL_TOPIC,
    labels_topic: str | None = None,
) -> Iterator[BagPair]:
    """The RGB-thermal pairs of a bag, as the node's matcher makes them.

    The time at which the bag received a message stands for the clock by which the node would wait
    for a partner, so a replay depends on the bag alone. What was dropped, and why, is in
    `matcher.drops` afterwards.

    Raises SartmError as `read_images` does.
    """
    only = [rgb_topic, thermal_topic] + ([labels_topic] if labels_topic else [])
    labels: dict[int, Any] = {}
    index = -1
    now_ns = 0

    def finished(pairs: Iterable[Pair]) -> Iterator[BagPair]:
        for pair in pairs:
            for old_ns in [stamp for stamp in labels if stamp < pair.stamp_ns]:
                del labels[old_ns]
            rgb_index, rgb = pair.rgb
            truth = labels.pop(pair.stamp_ns, None)
            yield BagPair(rgb_index, pair.stamp_ns, pair.skew_ns, rgb, pair.thermal, truth)

    for raw, message in read_images(bag, only):
        now_ns = raw.time_ns
        if raw.topic == rgb_topic:
            index += 1
            yield from finished(matcher.add_rgb(stamp_ns(message.header), (index, message), now_ns))
        elif raw.topic == thermal_topic:
            yield from finished(matcher.add_thermal(stamp_ns(message.header), message, now_ns))
        else:
            labels[stamp_ns(message.header)] = message
    while matcher.deadline_ns is not None:  # nothing more comes: let those that wait run out
        now_ns = max(now_ns, matcher.deadline_ns)
        yield from finished(matcher.poll(now_ns))


def decode(message: RawMessage) -> Any:
    """The message's fields. Raises SartmError where its bytes are not what its type says."""
    try:
        return _TYPES.deserialize_cdr(message.data, message.type)
    except Exception as error:  # the deserialiser raises whatever the bytes lead it into
        raise SartmError(
            f'a message on {message.topic} is not a whole {message.type} ({error!r})'
        ) from error


def _period_ns(name: str, rate_hz: float) -> Fraction:
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise SartmError(f'the {name} is {rate_hz} Hz; expected more than 0')
    # Exact, because at 30 and 9 Hz rounded periods would show some frames one step early.
    return Fraction(_NS) / Fraction(str(rate_hz))


def _message(topic: str, image: np.ndarray, time_ns: int, frame_id: str) -> RawMessage:
    little_endian = np.ascontiguousarray(image.astype(image.dtype.newbyteorder('<'), copy=False))
    encoding = 'rgb8' if image.ndim == 3 else 'mono16' if image.itemsize == 2 else 'mono8'
    height, width = image.shape[:2]
    message = _Image(
        header=_Header(stamp=_Time(sec=time_ns // _NS, nanosec=time_ns % _NS), frame_id=frame_id),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=little_endian.strides[0],
        data=little_endian.reshape(-1).view(np.uint8),
    )
    data = bytes(_TYPES.serialize_cdr(message, IMAGE_TYPE))
    return RawMessage(topic, IMAGE_TYPE, time_ns, data)


class Write:
    """Writes messages to an open bag, a connection a topic, and counts them."""

    def __init__(self, writer: Writer) -> None:
        self.counts: dict[str, int] = {}
        self._writer = writer
        self._connections: dict[str, Any] = {}

    def __call__(self, message: RawMessage) -> None:
        connection = self._connections.get(message.topic)
        if connection is None:
            connection = self._writer.add_connection(message.topic, message.type, typestore=_TYPES)
            self._connections[message.topic] = connection
        self._writer.write(connection, message.time_ns, message.data)
        self.counts[message.topic] = self.counts.get(message.topic, 0) + 1


@contextmanager
def open_writer(out: Path, storage: Storage = 'mcap') -> Iterator[Write]:
    """A function that writes messages to the new bag `out`, which appears when the block ends.

    Raises SartmError where `out` exists.
    """
    plugin = StoragePlugin[storage.upper()]
    with (
        new_folder(out) as aside,
        Writer(aside, version=BAG_VERSION, storage_plugin=plugin) as writer,
    ):
        yield Write(writer)


@contextmanager
def _reader(bag: Path) -> Iterator[Reader]:
    if not bag.exists():
        raise SartmError(f'there is no bag {bag}')
    if bag.is_dir() and not (bag / 'metadata.yaml').exists():
        raise SartmError(f'{bag} is not a rosbag2 folder: it has no metadata.yaml')
    try:
        with Reader(bag) as reader:
            yield reader
    except (SartmError, GeneratorExit):
        raise
    except Exception as error:  # a foreign file can lead the reader into any exception
        raise SartmError(f'{bag} cannot be read as a rosbag2 bag: {error}') from error
