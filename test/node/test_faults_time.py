"""Stamps that repeat, go back or jump, and a minute without thermal, through a node over DDS."""

from __future__ import annotations

import itertools
import signal
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from faults import FAULTY, INTERVAL, SIZE, Exchange
from ros_helpers import SECOND, Peer, image, random_checkpoint, running_node, stamp_of, wait_until

HOUR = 3600 * SECOND
RGB_ALONE = 1


@pytest.fixture(scope='module')
def node(tmp_path_factory):
    """All tests here use the one process."""
    parameters = {'checkpoint': random_checkpoint(tmp_path_factory.mktemp('checkpoint'))}
    with running_node(tmp_path_factory.mktemp('time'), parameters, FAULTY) as node:
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


def dropped(status: dict) -> dict[str, int]:
    return {k: v for k, v in status.items() if k.startswith('dropped.') and v}


def test_duplicates_are_dropped(exchange):
    for _ in range(100):
        pair = exchange.pair()
        exchange.peer.send(*pair)
        exchange.peer.send(*pair)
        exchange.labels()
    status = exchange.peer.wait_for_counts(
        rgb_received=200, thermal_received=200, pairs_in=100, pairs_out=100
    )
    assert dropped(status) == {'dropped.rgb_duplicate': 100, 'dropped.thermal_duplicate': 100}
    assert len(exchange.peer.labels) == 100


def test_what_was_overtaken_is_dropped(exchange):
    for _ in range(100):
        late = exchange.pair()
        exchange.good()
        exchange.peer.send(*late)
    status = exchange.peer.wait_for_counts(
        rgb_received=200, thermal_received=200, pairs_in=100, pairs_out=100
    )
    assert dropped(status) == {
        'dropped.rgb_out_of_order': 100,
        'dropped.thermal_out_of_order': 100,
    }
    stamps = [stamp_of(msg) for msg in exchange.peer.labels]
    assert stamps == sorted(set(stamps))


def test_stamps_that_are_none_are_dropped(exchange):
    """Zero, negative, and more nanoseconds than a second has."""
    for index in range(60):
        before = exchange.stamp
        pair = exchange.pair(stamp=0 if index % 3 else -5 * SECOND)
        if index % 3 == 1:
            for msg in pair:
                msg.header.stamp.nanosec = 2**32 - 1
        exchange.peer.send(*pair)
        exchange.stamp = before
        exchange.good()
    status = exchange.peer.wait_for_counts(pairs_in=60, pairs_out=60)
    assert dropped(status) == {'dropped.rgb_no_stamp': 60, 'dropped.thermal_no_stamp': 60}


def test_a_clock_that_jumps_loses_nothing(exchange):
    """To and fro by an hour, twenty times; ten pairs in between."""
    for jump in range(20):
        exchange.stamp += HOUR if jump % 2 == 0 else -HOUR
        for _ in range(10):
            exchange.good()
    status = exchange.peer.wait_for_counts(pairs_in=200, pairs_out=200)
    assert dropped(status) == {}


def test_one_camera_may_jump_before_the_other(exchange):
    """Each way: RGB is an hour ahead, or back, for five frames; then thermal follows."""
    good = 0
    for jump in range(10):
        delta = HOUR if jump % 2 == 0 else -HOUR
        for _ in range(5):
            rgb, thermal = exchange.pair()
            rgb.header.stamp.sec += delta // SECOND
            exchange.peer.send(rgb, thermal)
            time.sleep(1 / 30)  # nothing comes back by which to keep in step
        exchange.stamp += delta
        for _ in range(5):
            exchange.good()
            good += 1
    status = exchange.peer.wait_for_counts(rgb_received=100, thermal_received=100)
    assert status['pairs_out'] >= good == 50
    assert not status['dropped.failed']


def test_a_bag_that_loops_loses_nothing(exchange):
    begin = exchange.stamp
    for _ in range(20):
        exchange.stamp = begin
        for _ in range(30):
            exchange.good()
    status = exchange.peer.wait_for_counts(pairs_in=600, pairs_out=600)
    assert dropped(status) == {}
    stamps = [stamp_of(msg) for msg in exchange.peer.labels]
    turns = sum(later < earlier for earlier, later in itertools.pairwise(stamps))
    assert (len(stamps), turns) == (600, 19)


@pytest.mark.parametrize('mode', ['gap', 'frozen', 'flat'])
def test_a_minute_without_thermal(node, exchange, mode):
    """A minute of stamps at 10 Hz, sent as fast as labels come back: stalls go by the stamps."""
    peer = exchange.peer
    for _ in range(10):
        exchange.good()
    _, last = exchange.pair()
    begin = exchange.stamp
    first = 0
    for index in range(600):
        rgb, _ = exchange.pair(stamp=begin + index * INTERVAL)
        if mode != 'gap':
            counts = np.frombuffer(last.data, np.uint8).reshape(SIZE)
            pixels = counts if mode == 'frozen' else np.full(SIZE, 50, np.uint8)
            peer.thermal.publish(image(pixels, 'mono8', exchange.stamp))
        peer.rgb.publish(rgb)
        if mode == 'gap' and index < 3:
            first += 1  # not a gap yet: they wait for their partners
        elif mode == 'frozen' and index < 3:
            exchange.labels(int(last.data[-1]) % 9)
        else:
            exchange.labels(RGB_ALONE)
    # The first RGB image may be taken before the thermal image that ends the gap.
    exchange.send()
    wait_until(lambda: stamp_of(peer.labels[-1]) == exchange.stamp, 'labels after the minute')
    for _ in range(10):
        exchange.good()
    peer.wait_for_counts(rgb_received=621)
    status = peer.wait_for_counts(pairs_in=621 - peer.status()['dropped.rgb_timeout'])
    assert status['dropped.rgb_timeout'] <= first
    assert status['pairs_out'] == status['pairs_in'] - status['dropped.replaced'] >= 618
    assert status[f'thermal_{mode}'] >= 597
    assert status['served_both'] - (3 if mode == 'frozen' else 0) in (20, 21)
    assert f'thermal stalls: {mode}' in node.output
