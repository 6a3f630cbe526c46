"""Malformed image messages between valid ones, through a node over DDS."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from faults import label_of
from mutations import corrupt, valid_image
from processes import wait_until
from rclpy.serialization import serialize_message

ROUNDS = [1, pytest.param(10, marks=pytest.mark.slow)]
"""How often each kind of bad message is sent."""


@pytest.fixture(autouse=True)
def no_traceback(faulty_node, exchange):
    yield
    assert 'Traceback' not in faulty_node.output


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
    """All fields are random."""
    msg.height, msg.width, msg.step = (int(n) for n in rng.integers(1, 2**32, 3))
    msg.encoding = rng.bytes(8).hex()
    msg.data = rng.bytes(int(rng.integers(1, 5000)))


def unknown_encoding(msg, rng):
    msg.encoding = ('', 'rgb9', 'jpeg2000', '64FC1', 'MONO8')[rng.integers(5)]


def wider_encoding(msg, rng):
    """A known encoding with more bytes per pixel than the message has."""
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


@pytest.mark.parametrize('rounds', ROUNDS)
@pytest.mark.parametrize('which', ['rgb', 'thermal'])
def test_each_kind_of_bad_message_costs_its_pair_alone(faulty_node, exchange, which, rounds):
    """After each bad pair a good one is sent; every good one gives labels, every bad is counted."""
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for make_bad in BAD:
            rgb, thermal = exchange.pair()
            make_bad(rgb if which == 'rgb' else thermal, rng)
            exchange.peer.send(rgb, thermal)
            exchange.good()
    count = rounds * len(BAD)
    status = exchange.accounts(2 * count)
    assert (status['rgb_received'], status['thermal_received']) == (2 * count, 2 * count)
    # A bad pair that arrives while the node is busy may be replaced by the next. Without thermal
    # the others give labels of RGB alone.
    bad = {'rgb': 'dropped.bad_frame', 'thermal': 'thermal_unreadable'}[which]
    assert status[bad] + status['dropped.replaced'] == count
    without_thermal = status['thermal_unreadable']
    assert (status['served_both'], status['served_rgb']) == (count, without_thermal)
    assert len(exchange.peer.labels) == status['pairs_out'] == count + without_thermal
    assert not status['dropped.failed']
    text = 'frame dropped: RGB: ' if which == 'rgb' else 'thermal is not used: thermal: '
    assert text in faulty_node.output


@pytest.mark.parametrize('rounds', [5, pytest.param(10, marks=pytest.mark.slow)])
def test_a_truncated_serialised_message_is_counted(faulty_node, exchange, rounds):
    rng = np.random.default_rng(3)
    for _ in range(rounds):
        for publisher, msg in zip(
            (exchange.peer.rgb, exchange.peer.thermal), exchange.pair(), strict=True
        ):
            message = serialize_message(msg)
            publisher.publish(message[: int(rng.integers(4, len(message) - 8))])
        exchange.good()
    status = exchange.accounts(rounds)
    assert status['dropped.rgb_unreadable'] == status['dropped.thermal_unreadable'] == rounds
    assert status['rgb_received'] == status['thermal_received'] == 2 * rounds
    assert status['pairs_out'] == rounds
    assert 'message dropped: rgb: a serialised image of' in faulty_node.output


@pytest.mark.parametrize('rounds', [5, pytest.param(10, marks=pytest.mark.slow)])
def test_exchanged_topics_are_survived(exchange, rounds):
    """16 bits where colours are expected are an error; 8 bits of either kind are read."""
    for _ in range(rounds):
        rgb, thermal = exchange.pair()
        thermal.encoding, thermal.width = 'mono16', thermal.width // 2
        rgb, thermal = thermal, rgb
        exchange.peer.send(rgb, thermal)
        exchange.good()
    status = exchange.accounts(2 * rounds)
    assert status['dropped.bad_frame'] + status['dropped.replaced'] == rounds


@pytest.mark.parametrize('sizes', [5, pytest.param(60, marks=pytest.mark.slow)])
def test_the_size_may_change_at_every_frame(exchange, sizes):
    """Both images together, or one of them alone, from a few pixels to a camera's size."""
    rng = np.random.default_rng(1)
    for index in range(sizes):
        size = (480, 640) if index % 20 == 0 else tuple(int(n) for n in rng.integers(4, 200, 2))
        msg = exchange.good(size=size)
        assert (msg.height, msg.width) == size
        rgb, _ = exchange.pair(size=size)
        # A thermal image that lies beside an RGB image that is upright would be refused.
        thermal_size = (48, 64) if size[0] <= size[1] else (64, 48)
        _, thermal = exchange.pair(stamp=exchange.stamp, size=thermal_size)
        rgb.header.frame_id = f'camera_{exchange.index}'
        exchange.peer.send(rgb, thermal)
        msg = exchange.labels()
        assert (msg.height, msg.width) == size
    exchange.peer.wait_for_counts(pairs_in=2 * sizes, pairs_out=2 * sizes)


@pytest.mark.parametrize('count', [20, pytest.param(500, marks=pytest.mark.slow)])
def test_random_messages_over_dds(exchange, count):
    """In each pair one image is changed at random: it gives labels or is counted."""
    rng = np.random.default_rng(2)
    peer = exchange.peer
    for index in range(count):
        messages = exchange.pair()
        fields = corrupt(valid_image(rng), rng)
        for name, value in vars(fields).items():
            setattr(messages[index % 2], name, value)
        peer.send(*messages)
        exchange.good()
    status = exchange.accounts(2 * count)
    counted = ('pairs_out', 'dropped.bad_frame', 'dropped.replaced')
    assert sum(status[name] for name in counted) == 2 * count  # and so none failed
    assert len(peer.labels) == status['pairs_out']
    assert status['dropped.bad_frame'] > 0
    assert status['pairs_out'] > count  # those of some of the changed pairs among them
    assert label_of(exchange.index) == peer.labels[-1].data[0]
    wait_until(lambda: peer.status()['level'] == 0, 'the diagnostics to be well again')
