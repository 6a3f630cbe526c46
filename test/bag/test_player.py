"""The player of bags, against a subscriber in this process."""

from __future__ import annotations

import re
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from processes import Process, segments_of, wait_until

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import Peer
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Writer
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from sartm_model.data.synthetic import render_sequence
from sartm_ros.bag import player
from sartm_ros.bag.reading import (
    RGB_TOPIC,
    THERMAL_TOPIC,
    TYPES,
    RawMessage,
    open_writer,
    read_raw,
)
from sartm_ros.bag.writing import START_NS, write_bag
from sartm_ros.settings.fastdds import PROFILE_VARIABLE

FRAMES = 8
PERIOD_NS = 50_000_000
SEGMENT = re.compile(r'fastrtps_[0-9a-f]{16}$')
"""The shared memory from which a participant sends."""


def test_every_message_and_the_clock_are_published(tmp_path):
    frames = list(render_sequence(2, FRAMES, 48, 64))
    write_bag(frames, tmp_path / 'bag', rate_hz=1e9 / PERIOD_NS)
    peer = Peer()
    try:
        images = peer.listen(Image, RGB_TOPIC, QoSProfile(depth=200))
        clock = peer.listen(Clock, '/clock', QoSProfile(depth=200))
        command = [sys.executable, '-m', 'sartm_ros.bag.player', str(tmp_path / 'bag')]
        process = Process([*command, '--loop', '--wait', '0'], tmp_path / 'player.log')
        try:
            # Discovery may miss the first messages; of a later round all are received.
            wait_until(lambda: len(images) >= 3 * FRAMES, 'three rounds of images')
        finally:
            status = process.stop()
        assert status == 130
    finally:
        peer.close()
    received = [message.data.tobytes() for message in images]
    sent = [frame.rgb.tobytes() for frame in frames]
    assert set(received) == set(sent)
    order = [sent.index(data) for data in received]
    assert all(b == (a + 1) % FRAMES for a, b in pairwise(order[-2 * FRAMES - 1 :]))
    times_ns = [message.clock.sec * 10**9 + message.clock.nanosec for message in clock]
    rounds = sum(b < a for a, b in pairwise(times_ns))
    assert rounds >= 2  # the clock jumps back once a round
    assert min(times_ns) >= START_NS
    assert max(times_ns) <= START_NS + (FRAMES - 1) * PERIOD_NS


def test_the_first_message_waits_for_a_subscriber(tmp_path, monkeypatch):
    """The bag lasts a third of a second; who subscribes later than that still receives images."""
    monkeypatch.delenv(PROFILE_VARIABLE)  # the player sets it itself
    write_bag(render_sequence(2, FRAMES, 48, 64), tmp_path / 'bag', rate_hz=1e9 / PERIOD_NS)
    command = [sys.executable, '-m', 'sartm_ros.bag.player', str(tmp_path / 'bag')]
    process = Process([*command, '--wait', '60'], tmp_path / 'player.log')
    peer = Peer()
    try:
        process.wait_for_output('waiting for subscribers, at most 60 s')
        sizes = [p.stat().st_size for p in segments_of(process.pid) if SEGMENT.match(p.name)]
        assert max(sizes) > 16 * 2**20  # as in the profile; by default half a MiB
        # The player's publishers are known here before its topics have their subscribers, so that
        # these miss no image.
        for topic, publishers in ((RGB_TOPIC, 2), ('/ground_truth/labels', 1)):
            wait_until(
                lambda t=topic, n=publishers: peer.node.count_publishers(t) == n, 'the player'
            )
        for topic in (THERMAL_TOPIC, '/ground_truth/labels'):
            peer.listen(Image, topic, QoSProfile(depth=200))
        images = peer.listen(Image, RGB_TOPIC, QoSProfile(depth=200))
        assert process.wait() == 0
        wait_until(lambda: images, 'images')
        assert 'without a subscriber' not in process.output
    finally:
        process.end()
        peer.close()


@pytest.mark.parametrize('rate', [0.5, 4.0])
def test_messages_are_due_at_the_rate_times_the_recorded_speed(monkeypatch, rate):
    class FakeTime:
        now_s = 20.0

        def monotonic(self):
            return self.now_s

        def sleep(self, duration_s):
            self.now_s += duration_s

    monkeypatch.setattr(player, 'time', FakeTime())
    publisher = SimpleNamespace(publish=lambda _: None)
    node = SimpleNamespace(create_publisher=lambda *_: publisher)
    name = 'sensor_msgs/msg/Image'
    messages = [RawMessage('/a', name, START_NS + ms * 1_000_000, b'') for ms in (0, 40, 50, 203)]
    published_s = []
    player.BagPlayer(node, {'/a': name}).play(
        messages, rate=rate, on_publish=lambda _, now_s: published_s.append(now_s)
    )
    expected = [20.0 + seconds / rate for seconds in (0, 0.04, 0.05, 0.203)]
    assert published_s == pytest.approx(expected, abs=1e-6)


def test_topics_without_a_subscriber_are_named_and_played(tmp_path, capsys):
    write_bag(render_sequence(2, 2, 48, 64), tmp_path / 'bag', rate_hz=100)
    assert player.main([str(tmp_path / 'bag'), '--wait', '0']) == 0
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        f'playing without a subscriber of {RGB_TOPIC}, /ground_truth/labels, {THERMAL_TOPIC}'
    )


def test_the_clock_of_a_simulation_is_played_as_it_is(tmp_path):
    """Its bag has the times of the computer, and on /clock those of the stamps."""
    write_bag(render_sequence(2, FRAMES, 48, 64), tmp_path / 'images', rate_hz=1e9 / PERIOD_NS)
    clock_type = 'rosgraph_msgs/msg/Clock'
    with open_writer(tmp_path / 'bag') as writer:
        for index, message in enumerate(read_raw(tmp_path / 'images', [RGB_TOPIC])):
            now = TYPES.types['builtin_interfaces/msg/Time'](sec=100 + index, nanosec=0)
            clock = TYPES.types[clock_type](clock=now)
            data = bytes(TYPES.serialize_cdr(clock, clock_type))
            writer.write(RawMessage('/clock', clock_type, message.time_ns, data))
            writer.write(message)
    peer = Peer()
    command = [sys.executable, '-m', 'sartm_ros.bag.player', str(tmp_path / 'bag'), '--loop']
    process = Process(command, tmp_path / 'player.log')
    try:
        clock = peer.listen(Clock, '/clock', QoSProfile(depth=200))
        peer.listen(Image, RGB_TOPIC, QoSProfile(depth=200))
        wait_until(lambda: len(clock) >= 2 * FRAMES, 'two rounds')
    finally:
        process.end()
        peer.close()
    assert {message.clock.sec for message in clock} == set(range(100, 100 + FRAMES))


def test_latched_messages_reach_those_who_ask_for_them(tmp_path):
    """tf2 asks for /tf_static as transient local, which a volatile publisher does not offer."""
    write_bag(render_sequence(2, 1, 48, 64), tmp_path / 'images')
    (message,) = read_raw(tmp_path / 'images', [RGB_TOPIC])
    topics, no_time = ('/latched', '/latched_too'), QosTime(0, 0)
    offered = Qos(
        QosHistory.KEEP_LAST,
        1,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL,
        no_time,
        no_time,
        QosLiveliness.AUTOMATIC,
        no_time,
        avoid_ros_namespace_conventions=False,
    )
    with Writer(tmp_path / 'bag', version=8) as writer:
        for topic in topics:
            connection = writer.add_connection(
                topic, message.type, typestore=TYPES, offered_qos_profiles=[offered]
            )
            writer.write(connection, message.time_ns, message.data)
    peer = Peer()
    command = [sys.executable, '-m', 'sartm_ros.bag.player', str(tmp_path / 'bag'), '--loop']
    process = Process(command, tmp_path / 'player.log')
    try:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        images = [peer.listen(Image, topic, latched) for topic in topics]
        wait_until(lambda: all(images), 'the latched images')
    finally:
        process.end()
        peer.close()


def test_a_loop_over_one_message_does_not_run_at_full_speed(tmp_path):
    write_bag(render_sequence(2, 1, 48, 64), tmp_path / 'one')
    (message,) = read_raw(tmp_path / 'one', [RGB_TOPIC])
    with open_writer(tmp_path / 'bag') as writer:
        writer.write(message)
    peer = Peer()
    begun_s = time.monotonic()
    command = [sys.executable, '-m', 'sartm_ros.bag.player', str(tmp_path / 'bag'), '--loop']
    process = Process(command, tmp_path / 'player.log')
    try:
        images = peer.listen(Image, RGB_TOPIC, QoSProfile(depth=200))
        wait_until(lambda: len(images) >= 5, 'five rounds')
        most = (time.monotonic() - begun_s) / player.MIN_ROUND_S + 1
        assert len(images) <= most
    finally:
        process.end()
        peer.close()


def test_a_bag_without_messages_is_an_error_in_a_loop_too(tmp_path, capsys):
    with Writer(tmp_path / 'bag', version=8) as writer:
        writer.add_connection(RGB_TOPIC, 'sensor_msgs/msg/Image', typestore=TYPES)
    assert player.main([str(tmp_path / 'bag'), '--loop']) == 2
    assert 'has no messages that can be played' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['missing'], 'missing'),
        (['bag', '--rate', '0'], '--rate'),
        (['bag', '--rate', 'inf'], '--rate'),
        (['b', '--wait', '-1'], '--wait'),
    ],
)
def test_bad_input_is_named(capsys, arguments, expected):
    try:
        status = player.main(arguments)
    except SystemExit as usage_error:
        status = usage_error.code
    assert status == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]
