"""The player of bags, against a subscriber in this process."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
from processes import Process, wait_until

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from rclpy.qos import QoSProfile
from ros_helpers import Peer
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from sartm_model.data.synthetic import render_sequence
from sartm_ros.bag import player
from sartm_ros.bag.reading import RGB_TOPIC
from sartm_ros.bag.writing import START_NS, write_bag

FRAMES = 8
PERIOD_NS = 50_000_000


def test_every_message_and_the_clock_are_published(tmp_path):
    frames = list(render_sequence(2, FRAMES, 48, 64))
    write_bag(frames, tmp_path / 'bag', rate_hz=1e9 / PERIOD_NS)
    peer = Peer()
    try:
        images = peer.listen(Image, RGB_TOPIC, QoSProfile(depth=200))
        clock = peer.listen(Clock, '/clock', QoSProfile(depth=200))
        command = [sys.executable, '-m', 'sartm_ros.bag.player', str(tmp_path / 'bag'), '--loop']
        process = Process(command, tmp_path / 'player.log')
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


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [(['missing'], 'missing'), (['bag', '--rate', '0'], '--rate')],
)
def test_bad_input_is_named(capsys, arguments, expected):
    try:
        status = player.main(arguments)
    except SystemExit as usage_error:
        status = usage_error.code
    assert status == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]
