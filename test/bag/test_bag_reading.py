"""Bags: what is written is read back by rosbags' own reader, and what is no bag is refused."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_ros.bag.reading import (
    LABELS_TOPIC,
    RGB_TOPIC,
    THERMAL_TOPIC,
    BagPair,
    RawMessage,
    Topic,
    bag_topics,
    open_writer,
    read_images,
    read_pairs,
    read_raw,
)
from sartm_ros.bag.thermal_images import thermal_images
from sartm_ros.bag.writing import START_NS, Faults, write_bag
from sartm_ros.sync.pair_matcher import PairMatcher

MS = 1_000_000
SHAPE = (6, 8)


def make_frames(count: int, dtype: type = np.uint8, labelled: bool = True) -> list[Frame]:
    """Frames whose thermal image holds the frame's number in every pixel."""
    rng = np.random.default_rng(count)
    return [
        Frame(
            name=f'{number:03d}',
            images={
                'rgb': rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8),
                'thermal': np.full(SHAPE, number * (300 if dtype is np.uint16 else 1), dtype),
            },
            labels=rng.integers(0, 9, SHAPE, dtype=np.uint8) if labelled else None,
        )
        for number in range(count)
    ]


def independently(bag: Path) -> dict[str, list]:
    """{topic: [(receive time, message)]} by rosbags' own highest-level reader."""
    found: dict[str, list] = {}
    with AnyReader([bag]) as reader:
        for connection, time_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((time_ns, message))
    return found


def copy_bag(messages: Iterable[RawMessage], out: Path) -> None:
    with open_writer(out, 'sqlite3') as bag:
        for message in messages:
            bag.write(message)


def header_ns(message) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def matcher() -> PairMatcher:
    return PairMatcher(max_skew_ns=50 * MS, max_wait_ns=200 * MS, x_name='thermal')


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_another_reader_finds_the_frames(tmp_path, storage, dtype):
    frames = make_frames(5, dtype)
    counts = write_bag(frames, tmp_path / 'bag', rate_hz=30, storage=storage)
    assert counts == {RGB_TOPIC: 5, THERMAL_TOPIC: 5, LABELS_TOPIC: 5}
    suffix = {'mcap': '.mcap', 'sqlite3': '.db3'}[storage]
    assert sorted(p.name for p in (tmp_path / 'bag').iterdir()) == [f'bag{suffix}', 'metadata.yaml']

    found = independently(tmp_path / 'bag')
    assert set(found) == set(counts)
    encodings = {
        RGB_TOPIC: 'rgb8',
        THERMAL_TOPIC: 'mono16' if dtype is np.uint16 else 'mono8',
        LABELS_TOPIC: 'mono8',
    }
    for topic, encoding in encodings.items():
        for number, (time_ns, message) in enumerate(found[topic]):
            frame = frames[number]
            image = {
                RGB_TOPIC: frame.rgb,
                THERMAL_TOPIC: frame.thermal,
                LABELS_TOPIC: frame.labels,
            }[topic]
            assert time_ns == header_ns(message) == START_NS + round(number * 1e9 / 30)
            assert message.encoding == encoding
            assert (message.height, message.width) == SHAPE
            assert message.step * message.height == len(message.data)
            assert message.data.tobytes() == image.tobytes()
    assert found[RGB_TOPIC][0][1].header.frame_id != found[THERMAL_TOPIC][0][1].header.frame_id


@pytest.mark.parametrize('name', ['a#1', 'a?mode=ro', 'a%41', 'a%%', 'gr\u00fcn 1'])
def test_a_path_may_have_characters_with_a_meaning_in_uris(tmp_path, name):
    bag = tmp_path / name / name
    counts = write_bag(make_frames(2), bag, storage='sqlite3')
    assert [path.name for path in tmp_path.iterdir()] == [name]
    file = bag / f'{name}.db3'
    assert sorted(bag.iterdir()) == sorted([file, bag / 'metadata.yaml'])
    with closing(sqlite3.connect(file)) as database:
        assert database.execute('SELECT COUNT(*) FROM messages').fetchone() == (6,)
    for path in (bag, file):
        assert {topic: found.messages for topic, found in bag_topics(path).items()} == counts
        assert len(list(read_raw(path))) == 6


def test_slow_thermal_shows_the_frame_of_its_time(tmp_path):
    write_bag(make_frames(60), tmp_path / 'bag', rate_hz=30, thermal_rate_hz=9)
    thermal = independently(tmp_path / 'bag')[THERMAL_TOPIC]
    assert len(thermal) == 18  # 2 s at 9 Hz
    for number, (_, message) in enumerate(thermal):
        assert header_ns(message) == START_NS + round(number * 1e9 / 9)
        assert message.data[0] == (number * 30) // 9


def test_fast_thermal_repeats_frames(tmp_path):
    write_bag(make_frames(10), tmp_path / 'bag', rate_hz=10, thermal_rate_hz=25)
    shown = [message.data[0] for _, message in independently(tmp_path / 'bag')[THERMAL_TOPIC]]
    assert shown == [(number * 10) // 25 for number in range(25)]


def test_messages_come_in_time_order_with_a_delayed_thermal_camera(tmp_path):
    write_bag(make_frames(4), tmp_path / 'bag', rate_hz=10, faults=Faults(thermal_offset_s=0.17))
    messages = list(read_raw(tmp_path / 'bag'))
    times = [message.time_ns for message in messages]
    assert times == sorted(times)
    first_thermal = next(m for m in messages if m.topic == THERMAL_TOPIC)
    assert first_thermal.time_ns == START_NS + 170 * MS


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_pairs(tmp_path, storage):
    frames = make_frames(12)
    write_bag(frames, tmp_path / 'bag', faults=Faults(thermal_offset_s=0.007), storage=storage)
    pairs = list(read_pairs(tmp_path / 'bag', matcher(), labels_topic=LABELS_TOPIC))
    assert [pair.index for pair in pairs] == list(range(12))
    for pair, frame in zip(pairs, frames, strict=True):
        assert isinstance(pair, BagPair)
        assert pair.skew_ns == 7 * MS
        assert pair.rgb.data.tobytes() == frame.rgb.tobytes()
        assert pair.x.data.tobytes() == frame.thermal.tobytes()
        assert pair.labels.data.tobytes() == frame.labels.tobytes()


def test_pairs_of_two_rates_are_the_nearest(tmp_path):
    write_bag(make_frames(60), tmp_path / 'bag', rate_hz=30, thermal_rate_hz=9)
    pairing = matcher()
    pairs = list(read_pairs(tmp_path / 'bag', pairing))
    assert len(pairs) == 18
    for pair in pairs:
        # 30 and 9 Hz from one start: no thermal frame is further than half an RGB period away.
        assert abs(pair.skew_ns) <= 1e9 / 30 / 2 + 1
    assert sum(pairing.drops.values()) == 60 - 18  # every other RGB frame is accounted for


class Robot:
    """The node's timer and its matcher, driven by messages that arrive at given times.

    The timer fires a millisecond after the oldest RGB frame has waited long enough.
    """

    def __init__(self, pairing: PairMatcher) -> None:
        self.pairing = pairing
        self.pairs: list[tuple] = []
        self._arrivals: dict[int, int] = {}  # of RGB frames by stamp, as long as they wait

    def run_timer(self, until_ns: int) -> None:
        for stamp, arrival in sorted(self._arrivals.items()):
            fires_ns = arrival + 201 * MS
            if fires_ns < until_ns:
                self._note(self.pairing.poll(fires_ns))
                self._arrivals.pop(stamp, None)

    def receive(self, topic: str, stamp: int, now_ns: int) -> None:
        self.run_timer(now_ns)
        if topic == RGB_TOPIC:
            self._arrivals[stamp] = now_ns
            self._note(self.pairing.add_rgb(stamp, stamp, now_ns))
        else:
            self._note(self.pairing.add_x(stamp, stamp, now_ns))

    def _note(self, pairs: list) -> None:
        for pair in pairs:
            self.pairs.append((pair.rgb, pair.x))
            self._arrivals.pop(pair.rgb, None)


@pytest.mark.parametrize('seed', range(8))
def test_pairs_are_those_of_a_node_that_receives_the_messages_at_their_times(tmp_path, seed):
    rng = np.random.default_rng(seed)
    write_bag(
        make_frames(40, labelled=False), tmp_path / 'regular', rate_hz=[4, 7, 10, 25][seed % 4]
    )
    lag = {RGB_TOPIC: 0, THERMAL_TOPIC: [0, 150][seed // 4]}  # ms
    # Times are even, and the timer fires at odd ones, so that their order is never in doubt.
    late = [
        replace(raw, time_ns=2 * MS * ((raw.time_ns // MS + lag[raw.topic] + delay) // 2))
        for raw in read_raw(tmp_path / 'regular')
        if rng.random() < 0.85
        for delay in [int(rng.integers(0, 120))]
    ]
    late.sort(key=lambda raw: raw.time_ns)
    copy_bag(late, tmp_path / 'late')

    def alone_in_gaps() -> PairMatcher:
        pairing = matcher()
        pairing.rgb_alone_after_ns = 300 * MS
        return pairing

    robot, pairing = Robot(alone_in_gaps()), alone_in_gaps()
    for raw, message in read_images(tmp_path / 'late', [RGB_TOPIC, THERMAL_TOPIC]):
        robot.receive(raw.topic, header_ns(message), raw.time_ns)
    robot.run_timer(late[-1].time_ns + 1000 * MS)
    found = [
        tuple(message and header_ns(message) for message in (pair.rgb, pair.x))
        for pair in read_pairs(tmp_path / 'late', pairing)
    ]
    assert found
    assert found == robot.pairs
    assert +pairing.drops == +robot.pairing.drops


def test_a_partner_that_comes_after_the_longest_wait_is_lost_as_on_the_robot(tmp_path):
    faults = Faults(thermal_offset_s=0.15)  # of the reception; the stamps are corrected below
    write_bag(make_frames(20, labelled=False), tmp_path / 'bag', rate_hz=4, faults=faults)
    pairing = PairMatcher(
        max_skew_ns=50 * MS, max_wait_ns=100 * MS, x_offset_ns=-150 * MS, x_name='thermal'
    )
    assert list(read_pairs(tmp_path / 'bag', pairing)) == []
    assert pairing.drops['rgb_timeout'] == 20
    patient = PairMatcher(
        max_skew_ns=50 * MS, max_wait_ns=150 * MS, x_offset_ns=-150 * MS, x_name='thermal'
    )
    assert len(list(read_pairs(tmp_path / 'bag', patient))) == 20


def test_labels_of_rgb_frames_without_a_partner_take_no_memory(tmp_path):
    frames = make_frames(120, np.uint16)  # so that labels alone are mono8
    write_bag(frames, tmp_path / 'bag', rate_hz=30, thermal_rate_hz=10)
    pairs = read_pairs(tmp_path / 'bag', matcher(), labels_topic=LABELS_TOPIC)
    for pair in pairs:
        if pair.index >= 105:  # two thirds of the frames before it are no pairs
            break
    kind = type(pair.labels)
    alive = [o for o in gc.get_objects() if type(o) is kind and o.encoding == 'mono8']
    assert 0 < len(alive) < 20
    pairs.close()


def test_topics(tmp_path):
    write_bag(make_frames(3, labelled=False), tmp_path / 'bag')
    kind = 'sensor_msgs/msg/Image'
    assert bag_topics(tmp_path / 'bag') == {
        RGB_TOPIC: Topic(kind, 3),
        THERMAL_TOPIC: Topic(kind, 3),
    }


def test_a_single_storage_file_is_a_bag(tmp_path):
    write_bag(make_frames(3), tmp_path / 'night.bag')  # a folder, whatever its name
    assert len(list(read_raw(tmp_path / 'night.bag', [RGB_TOPIC]))) == 3
    assert len(list(read_raw(tmp_path / 'night.bag' / 'night.bag.mcap', [RGB_TOPIC]))) == 3


def test_messages_can_be_copied(tmp_path):
    write_bag(make_frames(3), tmp_path / 'bag')
    copy_bag(read_raw(tmp_path / 'bag'), tmp_path / 'copy')
    assert list(read_raw(tmp_path / 'copy')) == list(read_raw(tmp_path / 'bag'))


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / 'bag').mkdir()
    with pytest.raises(SartmError, match='exists already'):
        write_bag(make_frames(2), tmp_path / 'bag')
    assert list(tmp_path.iterdir()) == [tmp_path / 'bag']
    assert not list((tmp_path / 'bag').iterdir())


def failing_frames():
    yield from make_frames(2)
    raise SartmError('frame 3 cannot be read')


@pytest.mark.parametrize(
    ('frames', 'message'),
    [
        (failing_frames(), 'frame 3'),
        ([], 'no frames'),
        ([Frame('only_rgb', {'rgb': np.zeros((2, 2, 3), np.uint8)})], 'only_rgb has no thermal'),
    ],
)
def test_a_failed_bag_leaves_nothing(tmp_path, frames, message):
    with pytest.raises(SartmError, match=message):
        write_bag(frames, tmp_path / 'bag')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('rate', [0, -1, float('nan'), float('inf')])
def test_impossible_rates(tmp_path, rate):
    with pytest.raises(SartmError, match='rate'):
        write_bag(make_frames(2), tmp_path / 'bag', rate_hz=rate)
    with pytest.raises(SartmError, match='thermal rate'):
        write_bag(make_frames(2), tmp_path / 'bag', thermal_rate_hz=rate)
    assert not list(tmp_path.iterdir())


def test_missing_and_foreign_bags(tmp_path):
    with pytest.raises(SartmError, match='no bag'):
        bag_topics(tmp_path / 'missing')
    with pytest.raises(SartmError, match=r'metadata\.yaml'):
        bag_topics(tmp_path)
    (tmp_path / 'metadata.yaml').write_text('a: [1')
    with pytest.raises(SartmError, match='cannot be read'):
        bag_topics(tmp_path)
    (tmp_path / 'metadata.yaml').write_text('just text')
    with pytest.raises(SartmError, match='cannot be read'):
        bag_topics(tmp_path)
    (tmp_path / 'film.avi').write_bytes(b'RIFF')
    with pytest.raises(SartmError, match='cannot be read'):
        bag_topics(tmp_path / 'film.avi')


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('keep', [0, 7, 600, 0.5, 0.9])
def test_truncated_bags(tmp_path, storage, keep):
    write_bag(make_frames(20), tmp_path / 'bag', storage=storage)
    file = next(p for p in (tmp_path / 'bag').iterdir() if p.suffix in ('.mcap', '.db3'))
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(SartmError) as failure:
        list(read_pairs(tmp_path / 'bag', matcher()))
    assert 'bag' in str(failure.value)


def test_a_bag_without_the_topics_names_those_it_has(tmp_path):
    write_bag(make_frames(2, labelled=False), tmp_path / 'bag')
    with pytest.raises(SartmError) as failure:
        list(read_pairs(tmp_path / 'bag', matcher(), rgb_topic='/left/image'))
    for name in ('/left/image', RGB_TOPIC, THERMAL_TOPIC):
        assert name in str(failure.value)


def test_a_topic_of_another_type(tmp_path):
    types = get_typestore(Stores.ROS2_JAZZY)
    text = types.types['std_msgs/msg/String'](data='no image')
    with Writer(tmp_path / 'bag', version=8) as writer:
        for topic in (RGB_TOPIC, THERMAL_TOPIC):
            connection = writer.add_connection(topic, 'std_msgs/msg/String', typestore=types)
            writer.write(connection, 1, types.serialize_cdr(text, 'std_msgs/msg/String'))
    with pytest.raises(SartmError, match='std_msgs/msg/String'):
        list(read_pairs(tmp_path / 'bag', matcher()))
    with pytest.raises(SartmError, match='std_msgs/msg/String'):
        thermal_images(tmp_path / 'bag', None)


def test_a_damaged_message(tmp_path):
    write_bag(make_frames(2), tmp_path / 'whole')
    damaged = [
        RawMessage(raw.topic, raw.type, raw.time_ns, raw.data[:40])
        for raw in read_raw(tmp_path / 'whole')
    ]
    copy_bag(damaged, tmp_path / 'bag')
    with pytest.raises(SartmError, match=RGB_TOPIC):
        list(read_pairs(tmp_path / 'bag', matcher()))
