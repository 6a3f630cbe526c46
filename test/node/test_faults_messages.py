"""Image messages that are not what they say, amid sound ones, through a node over DDS."""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from faults import FAULTY, Exchange, label_of
from mutations import sound, spoil
from rclpy.serialization import serialize_message
from ros_helpers import Peer, random_checkpoint, running_node, wait_until

ROUNDS = 10
"""Each kind of bad message is sent so often."""


@pytest.fixture(scope='module')
def node(tmp_path_factory):
    """All tests here use the one process."""
    parameters = {'checkpoint': random_checkpoint(tmp_path_factory.mktemp('checkpoint'))}
    with running_node(tmp_path_factory.mktemp('messages'), parameters, FAULTY) as node:
        node.wait_for_output('active')
        yield node
        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output


@pytest.fixture
def exchange(node):
    peer = Peer()
    peer.connect()
    yield Exchange(peer)
    peer.close()


def truncated(msg, rng):
    msg.data = msg.data[: int(rng.integers(1, len(msg.data)))]


def too_long(msg, rng):
    msg.data = bytes(msg.data) + rng.bytes(int(rng.integers(1, 5000)))


def empty(msg, rng):
    msg.data = b''


def no_size(msg, rng):
    msg.height = msg.width = msg.step = 0
    msg.data = b''


def garbage(msg, rng):
    """Nothing in it means anything."""
    msg.height, msg.width, msg.step = (int(n) for n in rng.integers(1, 2**32, 3))
    msg.encoding = rng.bytes(8).hex()
    msg.data = rng.bytes(int(rng.integers(1, 5000)))


def unknown_encoding(msg, rng):
    msg.encoding = ('', 'rgb9', 'jpeg2000', '32FC1', 'MONO8')[rng.integers(5)]


def wider_encoding(msg, rng):
    """Right by name, but more bytes a pixel than there are."""
    msg.encoding = 'rgba8'


def small_step(msg, rng):
    msg.step = int(rng.integers(msg.step))


def large_step(msg, rng):
    msg.step = int(rng.integers(msg.step + 1, 2**32))


def large_size(msg, rng):
    msg.height = msg.width = 2**32 - 1


BAD = (
    *(truncated, too_long, empty, no_size, garbage),
    *(unknown_encoding, wider_encoding, small_step, large_step, large_size),
)


@pytest.mark.parametrize('which', ['rgb', 'thermal'])
def test_each_kind_of_bad_message_costs_its_pair_alone(node, exchange, which):
    """100 bad pairs and 100 sound ones a topic: every sound one comes out, every bad is counted."""
    rng = np.random.default_rng(0)
    for _ in range(ROUNDS):
        for spoil_message in BAD:
            rgb, thermal = exchange.pair()
            spoil_message(rgb if which == 'rgb' else thermal, rng)
            exchange.peer.send(rgb, thermal)
            exchange.good()
    count = ROUNDS * len(BAD)
    status = exchange.accounts(2 * count)
    assert (status['rgb_received'], status['thermal_received']) == (2 * count, 2 * count)
    # A bad one that comes before the node has done with the last may be replaced by the next.
    assert (status['pairs_out'], status['dropped.bad_frame'] + status['dropped.replaced']) == (
        count,
        count,
    )
    assert len(exchange.peer.labels) == count == 100
    assert not status['dropped.failed']
    assert 'frame dropped: RGB: ' in node.output  # logged now and then, so not each


def test_a_message_that_is_cut_off_as_it_travels_is_counted(node, exchange):
    """What even its header or its lengths do not survive, amid sound pairs."""
    rng = np.random.default_rng(3)
    for _ in range(ROUNDS):
        for publisher, msg in zip(
            (exchange.peer.rgb, exchange.peer.thermal), exchange.pair(), strict=True
        ):
            message = serialize_message(msg)
            publisher.publish(message[: int(rng.integers(4, len(message) - 8))])
        exchange.good()
    status = exchange.accounts(ROUNDS)
    assert status['dropped.rgb_unreadable'] == status['dropped.thermal_unreadable'] == ROUNDS
    assert status['rgb_received'] == status['thermal_received'] == 2 * ROUNDS
    assert status['pairs_out'] == ROUNDS
    assert 'message dropped: rgb: a serialised image of' in node.output


def test_exchanged_topics_are_survived(exchange):
    """Sixteen bits where colours are expected is an error; eight bits of either kind are read."""
    for _ in range(ROUNDS):
        rgb, thermal = exchange.pair()
        thermal.encoding, thermal.width = 'mono16', thermal.width // 2
        rgb, thermal = thermal, rgb
        exchange.peer.send(rgb, thermal)
        exchange.good()
    status = exchange.accounts(2 * ROUNDS)
    assert status['dropped.bad_frame'] + status['dropped.replaced'] == ROUNDS


def test_the_size_may_change_at_every_frame(exchange):
    """Both images together, or one of them alone, from one pixel to a camera's size."""
    rng = np.random.default_rng(1)
    for index in range(60):
        size = (480, 640) if index % 20 == 0 else tuple(int(n) for n in rng.integers(4, 200, 2))
        msg = exchange.good(size=size)
        assert (msg.height, msg.width) == size
        rgb, _ = exchange.pair(size=size)
        _, thermal = exchange.pair(stamp=exchange.stamp, size=(48, 64))
        rgb.header.frame_id = f'camera_{exchange.index}'
        exchange.peer.send(rgb, thermal)
        msg = exchange.labels()
        assert (msg.height, msg.width) == size
    exchange.peer.wait_for_counts(pairs_in=120, pairs_out=120)


def test_random_messages_over_dds(node, exchange):
    """500 pairs, one image of which is spoilt at random: each comes out or is counted."""
    rng = np.random.default_rng(2)
    peer = exchange.peer
    for index in range(500):
        messages = exchange.pair()
        fields = spoil(sound(rng), rng)
        for name, value in vars(fields).items():
            setattr(messages[index % 2], name, value)
        peer.send(*messages)
        exchange.good()
    status = exchange.accounts(1000)
    counted = ('pairs_out', 'dropped.bad_frame', 'dropped.replaced')
    assert sum(status[name] for name in counted) == 1000  # and so none failed
    assert len(peer.labels) == status['pairs_out']
    assert 0 < status['dropped.bad_frame'] < 500
    assert label_of(exchange.index) == peer.labels[-1].data[0]
    wait_until(lambda: peer.status()['level'] == 0, 'the diagnostics to be well again')
