"""Reads messages and pairs of rosbag2 bags and writes messages to new ones, without ROS."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import Stores, get_typestore

from sartm_model.errors import SartmError
from sartm_model.utils.files import new_folder
from sartm_ros.bag.storage import OpenBag, RawMessage, Topic, escaped_path, open_bag
from sartm_ros.messages.images import stamp_of
from sartm_ros.sync.pair_matcher import Pair, PairMatcher

RGB_TOPIC = '/camera/color/image_raw'
THERMAL_TOPIC = '/thermal/image_raw'
LABELS_TOPIC = '/ground_truth/labels'

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
Storage = Literal['mcap', 'sqlite3']
BAG_VERSION: Literal[8] = 8  # the newest whose QoS is still the text that Humble reads

LABELS_WAIT_NS = 1_000_000_000
"""How long after a pair its labels may have been received, in nanoseconds."""

TYPES = get_typestore(Stores.ROS2_JAZZY)


def default_x_topic(x_modality: str) -> str:
    """Return the topic of a second camera in bags of this package, which is the node's default."""
    return f'/{x_modality}/image_raw'


@dataclass(frozen=True)
class BagPair(Pair):
    """Two messages of a bag that belong together, or one alone in a gap of the other stream.

    `rgb` and `x` have the fields of `sensor_msgs/Image` or `CompressedImage`.

    Attributes:
        index: position of the RGB message in its topic, from 0; None if there is no RGB image.
            If the second camera alone was read, that of its message.
        labels: the labels message of the same stamp, or None.
    """

    index: int | None
    labels: Any

    @property
    def header_ns(self) -> int:
        """Stamp of the header to which labels belong: that of the message with the `index`.

        In a gap of RGB it is the pair's.
        """
        if self.index is None:
            return self.stamp_ns
        return stamp_of((self.x if self.rgb is None else self.rgb).header)


def bag_topics(bag: Path, required: Sequence[str] = ()) -> dict[str, Topic]:
    """Return the topics of a bag by name.

    Raises SartmError if it cannot be read or lacks one of the required topics.
    """
    with open_bag(bag) as reader:
        _require(bag, reader, required)
        return reader.topics


def read_raw(bag: Path, only: Sequence[str] | None = None) -> Iterator[RawMessage]:
    """Yield the messages of a bag in the order in which they were received.

    Args:
        bag: a rosbag2 folder, or one `.mcap` or `.db3` file.
        only: the topics to read; all if None. Messages that are not in CDR, such as JSON of another
            program, are left out.

    Raises SartmError if the bag cannot be read or lacks one of these topics.
    """
    with open_bag(bag) as reader:
        _require(bag, reader, only or ())
        yield from reader.messages(reader.topics if only is None else only)


def _require(bag: Path, reader: OpenBag, required: Iterable[str]) -> None:
    for topic in required:
        if topic not in reader.topics:
            listed = ', '.join(sorted(reader.topics)) or 'none at all'
            foreign = ', '.join(reader.foreign)
            not_ros = f"; not in ROS 2's format CDR: {foreign}" if foreign else ''
            raise SartmError(f'{bag} has no topic {topic}; its topics are: {listed}{not_ros}')


def read_images(bag: Path, only: Sequence[str]) -> Iterator[tuple[RawMessage, Any]]:
    """Yield the messages of image topics as `read_raw` does, each with its deserialised form.

    That has the fields of `sensor_msgs/Image` or `sensor_msgs/CompressedImage`.

    Raises SartmError also if a topic has another type, or a message is damaged.
    """
    for raw in read_raw(bag, only):
        check_image_type(bag, raw.topic, raw.type)
        yield raw, decode(raw)


def check_image_type(bag: Path, topic: str, type_: str) -> None:
    """Raise SartmError if the messages of a topic are not images."""
    if type_ not in (IMAGE_TYPE, COMPRESSED_TYPE):
        raise SartmError(
            f'{bag}: topic {topic} carries {type_}, not {IMAGE_TYPE} or {COMPRESSED_TYPE}'
        )


def read_pairs(
    bag: Path,
    matcher: PairMatcher,
    *,
    rgb_topic: str = RGB_TOPIC,
    x_topic: str = THERMAL_TOPIC,
    labels_topic: str | None = None,
    by_arrival: bool = False,
) -> Iterator[BagPair]:
    """Yield the pairs of RGB and a second camera of a bag, matched as in the node.

    The times at which messages were received replace the node's clock, also between two messages:
    a pair that has waited for `max_wait` is output before a message that was received later. So the
    result depends on the bag alone. They also replace the stamps where `by_arrival` says so, as
    with `sync.stamp` arrival. Afterwards `matcher.drops` has the number of dropped messages by
    reason.

    An empty topic is not read, and each message on the other one is a pair.

    Raises SartmError as `read_images` does.
    """
    only = [topic for topic in (rgb_topic, x_topic, labels_topic) if topic]
    counts: Counter[str] = Counter()
    labels: dict[int, Any] = {}
    waiting: deque[tuple[BagPair, float]] = deque()  # pairs without labels yet, and since when
    wait_ns = LABELS_WAIT_NS if labels_topic else 0

    def finished(pairs: Iterable[Pair], now_ns: float) -> Iterator[BagPair]:
        """Let pairs wait for their labels; yield those that have them or have waited enough."""
        for pair in pairs:
            (rgb_index, rgb), (x_index, x) = (item or (None, None) for item in (pair.rgb, pair.x))
            index = rgb_index if rgb_topic else x_index
            unlabelled = BagPair(
                rgb=rgb,
                x=x,
                stamp_ns=pair.stamp_ns,
                skew_ns=pair.skew_ns,
                arrival_ns=pair.arrival_ns,
                index=index,
                labels=None,
            )
            waiting.append((unlabelled, now_ns))
        while waiting:
            bag_pair, since_ns = waiting[0]
            if bag_pair.header_ns not in labels and now_ns - since_ns < wait_ns:
                return
            waiting.popleft()
            for old_ns in [stamp for stamp in labels if stamp < bag_pair.header_ns]:
                del labels[old_ns]
            found = None if bag_pair.index is None else labels.pop(bag_pair.header_ns, None)
            yield replace(bag_pair, labels=found)

    def expired(until_ns: float) -> Iterator[BagPair]:
        """Yield the pairs that the node's timer gives, which polls just after each deadline."""
        while (deadline_ns := matcher.deadline_ns) is not None and deadline_ns < until_ns:
            yield from finished(matcher.poll(deadline_ns), deadline_ns)

    for raw, message in read_images(bag, only):
        now_ns, header_ns = raw.time_ns, stamp_of(message.header)
        yield from expired(now_ns)
        pairs: list[Pair] = []
        if raw.topic in (rgb_topic, x_topic):
            add = matcher.add_rgb if raw.topic == rgb_topic else matcher.add_x
            item = (counts[raw.topic], message)
            pairs = add(now_ns if by_arrival else header_ns, item, now_ns)
            counts[raw.topic] += 1
        else:
            labels[header_ns] = message
        yield from finished(pairs, now_ns)
    yield from expired(math.inf)  # at the end of the bag every wait runs out
    yield from finished([], math.inf)


def decode(message: RawMessage) -> Any:
    """Deserialise a message. Raises SartmError if its bytes do not fit its type."""
    try:
        return TYPES.deserialize_cdr(message.data, message.type)
    except Exception as error:  # damaged bytes make the deserialiser raise any exception
        raise SartmError(
            f'a message on {message.topic} is not a whole {message.type} ({error!r})'
        ) from error


class BagWriter:
    """Writes messages to an open bag and counts them by topic in `counts`."""

    def __init__(self, writer: Writer) -> None:
        self.counts: dict[str, int] = {}
        self._writer = writer
        self._connections: dict[str, Any] = {}

    def write(self, message: RawMessage) -> None:
        """Append a message; its topic is created with the first one."""
        connection = self._connections.get(message.topic)
        if connection is None:
            connection = self._writer.add_connection(message.topic, message.type, typestore=TYPES)
            self._connections[message.topic] = connection
        self._writer.write(connection, message.time_ns, message.data)
        self.counts[message.topic] = self.counts.get(message.topic, 0) + 1


class _Sqlite3File(Sqlite3Writer):
    """Also writes a file whose path has characters with a meaning in URIs."""

    def __init__(self, folder: Path, compression: CompressionMode) -> None:
        super().__init__(escaped_path(folder), compression)
        self.path = folder / f'{folder.name}.db3'


class _RosbagsWriter(Writer):
    STORAGE_PLUGINS = MappingProxyType(
        {StoragePlugin.MCAP: McapWriter, StoragePlugin.SQLITE3: _Sqlite3File}
    )


@contextmanager
def open_writer(out: Path, storage: Storage = 'mcap') -> Iterator[BagWriter]:
    """Open a new bag for writing; it appears as the folder `out` when the block ends.

    Raises SartmError if `out` exists.
    """
    plugin = StoragePlugin[storage.upper()]
    with (
        new_folder(out) as aside,
        _RosbagsWriter(aside, version=BAG_VERSION, storage_plugin=plugin) as writer,
    ):
        yield BagWriter(writer)
