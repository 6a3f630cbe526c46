"""Stamps that repeat, go back or jump, and stalls of thermal, through a node over DDS."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from faults import INTERVAL, SIZE
from processes import wait_until
from ros_helpers import SECOND, image, stamp_of, view

HOUR = 3600 * SECOND
RGB_ALONE = 1
COUNTS = [5, pytest.param(100, marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def no_traceback(faulty_node, exchange):
    yield
    assert 'Traceback' not in faulty_node.output


def dropped(status: dict) -> dict[str, int]:
    return {k: v for k, v in status.items() if k.startswith('dropped.') and v}


@pytest.mark.parametrize('count', COUNTS)
def test_duplicates_are_dropped(exchange, count):
    for _ in range(count):
        pair = exchange.pair()
        exchange.peer.send(*pair)
        exchange.peer.send(*pair)
        exchange.labels()
    status = exchange.peer.wait_for_counts(
        rgb_received=2 * count, thermal_received=2 * count, pairs_in=count, pairs_out=count
    )
    assert dropped(status) == {
        'dropped.rgb_duplicate': count,
        'dropped.thermal_duplicate': count,
    }
    assert len(exchange.peer.labels) == count


@pytest.mark.parametrize('count', COUNTS)
def test_overtaken_messages_are_dropped(exchange, count):
    for _ in range(count):
        late = exchange.pair()
        exchange.good()
        exchange.peer.send(*late)
    status = exchange.peer.wait_for_counts(
        rgb_received=2 * count, thermal_received=2 * count, pairs_in=count, pairs_out=count
    )
    assert dropped(status) == {
        'dropped.rgb_out_of_order': count,
        'dropped.thermal_out_of_order': count,
    }
    stamps = [stamp_of(msg) for msg in exchange.peer.labels]
    assert stamps == sorted(set(stamps))


@pytest.mark.parametrize('count', [6, pytest.param(60, marks=pytest.mark.slow)])
def test_invalid_stamps_are_dropped(exchange, count):
    """Zero, negative, and more nanoseconds than a second has."""
    for index in range(count):
        before = exchange.stamp
        pair = exchange.pair(stamp=0 if index % 3 else -5 * SECOND)
        if index % 3 == 1:
            for msg in pair:
                msg.header.stamp.nanosec = 2**32 - 1
        exchange.peer.send(*pair)
        exchange.stamp = before
        exchange.good()
    status = exchange.peer.wait_for_counts(pairs_in=count, pairs_out=count)
    assert dropped(status) == {'dropped.rgb_no_stamp': count, 'dropped.thermal_no_stamp': count}


@pytest.mark.parametrize(('jumps', 'pairs'), [(4, 3), pytest.param(20, 10, marks=pytest.mark.slow)])
def test_a_clock_that_jumps_loses_nothing(exchange, jumps, pairs):
    """Forward and back by an hour, with some pairs in between."""
    for jump in range(jumps):
        exchange.stamp += HOUR if jump % 2 == 0 else -HOUR
        for _ in range(pairs):
            exchange.good()
    status = exchange.peer.wait_for_counts(pairs_in=jumps * pairs, pairs_out=jumps * pairs)
    assert dropped(status) == {}


@pytest.mark.parametrize('jumps', [2, pytest.param(10, marks=pytest.mark.slow)])
def test_one_camera_may_jump_before_the_other(exchange, jumps):
    """RGB is an hour ahead, or back, for five frames; then thermal follows."""
    good = 0
    for jump in range(jumps):
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
    status = exchange.peer.wait_for_counts(rgb_received=10 * jumps, thermal_received=10 * jumps)
    assert status['pairs_out'] >= good == 5 * jumps
    assert not status['dropped.failed']


@pytest.mark.parametrize(('loops', 'pairs'), [(3, 5), pytest.param(20, 30, marks=pytest.mark.slow)])
def test_a_bag_that_loops_loses_nothing(exchange, loops, pairs):
    begin = exchange.stamp
    for _ in range(loops):
        exchange.stamp = begin
        for _ in range(pairs):
            exchange.good()
    status = exchange.peer.wait_for_counts(pairs_in=loops * pairs, pairs_out=loops * pairs)
    assert dropped(status) == {}
    stamps = [stamp_of(msg) for msg in exchange.peer.labels]
    turns = sum(later < earlier for earlier, later in itertools.pairwise(stamps))
    assert (len(stamps), turns) == (loops * pairs, loops - 1)


@pytest.mark.parametrize('frames', [30, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize('mode', ['gap', 'frozen', 'flat'])
def test_a_long_time_without_thermal(faulty_node, exchange, mode, frames):
    """Stamps at 10 Hz, sent as fast as labels return, because stalls depend on the stamps.

    600 frames are a minute.
    """
    peer = exchange.peer
    for _ in range(10):
        exchange.good()
    _, last = exchange.pair()
    begin = exchange.stamp
    first = 0
    for index in range(frames):
        rgb, _ = exchange.pair(stamp=begin + index * INTERVAL)
        # The view of RGB moves on, which tells a frozen camera from a scene in which nothing moves.
        rgb = image(view(index, *SIZE), 'rgb8', exchange.stamp, rgb.header.frame_id)
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
    wait_until(lambda: stamp_of(peer.labels[-1]) == exchange.stamp, 'labels after the stall')
    for _ in range(10):
        exchange.good()
    peer.wait_for_counts(rgb_received=frames + 21)
    status = exchange.accounts(frames + 21 - peer.status()['dropped.rgb_timeout'])
    assert status['dropped.rgb_timeout'] <= first
    assert status['pairs_out'] == status['pairs_in'] - status['dropped.replaced'] >= frames + 18
    assert status[f'thermal_{mode}'] >= frames - 3
    assert status['served_both'] - (3 if mode == 'frozen' else 0) in (20, 21)
    assert f'thermal stalls: {mode}' in faulty_node.output
