"""A network that raises, returns NaN or runs out of memory, in a node over DDS."""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from faults import SIZE, label_of
from faulty_network_node import FAULTS, NAN_ROWS
from processes import wait_until
from rclpy.qos import QoSProfile
from ros_helpers import send_until, stamp_of
from sensor_msgs.msg import Image

REPEATS = [5, pytest.param(50, marks=pytest.mark.slow)]
CODES = {name: code for code, name in enumerate(FAULTS)}


@pytest.mark.parametrize('repeats', REPEATS)
def test_an_exception_costs_one_pair(faulty_node, exchange, repeats):
    for _ in range(repeats):
        exchange.send(code=CODES['exception'])
        exchange.good()
    status = exchange.accounts(2 * repeats)
    assert status['pairs_out'] == repeats
    assert status['dropped.failed'] + status['dropped.replaced'] == repeats
    assert 'RuntimeError: no such kernel' in faulty_node.output


@pytest.mark.parametrize('repeats', REPEATS)
def test_pixels_with_nan_are_published_as_unknown(faulty_node, exchange, repeats):
    peer = exchange.peer
    overlays = peer.listen(Image, '/sartm/overlay', QoSProfile(depth=500))
    confidences = peer.listen(Image, '/sartm/confidence', QoSProfile(depth=500))
    wait_until(lambda: peer.node.count_publishers('/sartm/overlay'), 'the overlay')

    def confidence_of(stamp):
        def found():
            return [msg for msg in list(confidences) if stamp_of(msg) == stamp]

        (msg,) = wait_until(found, 'the confidence')
        return np.frombuffer(msg.data, np.uint8).reshape(SIZE)

    wait_until(lambda: exchange.good() and overlays and confidences, 'all outputs')
    sent = exchange.index
    for _ in range(repeats):
        exchange.send(code=CODES['nan'])
        wait_until(lambda: peer.newest['stamp_ns'] == exchange.stamp, 'labels')
        labels = np.frombuffer(peer.labels[-1].data, np.uint8).reshape(SIZE)
        assert (labels[:NAN_ROWS] == 255).all()
        assert (labels[NAN_ROWS:] == label_of(exchange.index)).all()
        confidence = confidence_of(exchange.stamp)
        assert (confidence[:NAN_ROWS] == 0).all()
        assert (confidence[NAN_ROWS:] == 255).all()
        exchange.send(code=CODES['all_nan'])
        exchange.labels(255)
        exchange.good()
    wait_until(lambda: stamp_of(overlays[-1]) == exchange.stamp, 'the last overlay')
    pairs = sent + 3 * repeats
    peer.wait_for_counts(nan_outputs=2 * repeats, pairs_out=pairs, pairs_in=pairs)
    assert 'the network gave NaN for 20.8% of the pixels' in faulty_node.output
    wait_until(lambda: peer.status()['level'] == 0, 'the diagnostics to be well again')
    exchange.send(code=CODES['nan'])
    wait_until(lambda: 'NaN from the network' in peer.status()['message'], 'a warning')
    assert peer.status()['level'] == 1


@pytest.mark.parametrize('kind', ['cuda_memory', 'cpu_memory'])
def test_out_of_memory_backs_off_and_goes_on(faulty_node, exchange, kind):
    """'cuda_memory' is the class that torch raises; 'cpu_memory' is a real allocation."""
    peer = exchange.peer
    for count in range(1, 4):  # alone: the shortest pause each time
        exchange.send(code=CODES[kind])
        # On a busy machine the next pair could replace this one before it is tried.
        peer.wait_for_counts(dropped__out_of_memory=count)
        exchange.good()
    # In a row: the pauses double, and of what comes meanwhile the newest pair is kept.
    for count in range(4, 7):
        exchange.send(code=CODES[kind])
        peer.wait_for_counts(dropped__out_of_memory=count)
    exchange.stream(10)
    exchange.labels()
    status = peer.wait_for_counts(pairs_in=19)
    status = peer.wait_for_counts(
        dropped__out_of_memory=6, pairs_out=19 - 6 - status['dropped.replaced']
    )
    assert status['dropped.failed'] == 0
    assert 'frame dropped, out of memory' in faulty_node.output
    assert 'The next is tried in 0.25 s' in faulty_node.output


def test_a_network_that_does_not_come_back_is_reported(faulty_node, exchange):
    """Pairs go on to arrive and to be replaced, and nothing fails."""
    exchange.good()
    exchange.send(code=CODES['hold'])
    faulty_node.wait_for_output('holding')
    send_until(
        exchange.send,
        lambda: 'the network has been at work on one pair' in exchange.peer.status()['message'],
        'a warning',
    )
    assert exchange.peer.status()['level'] == 1
    faulty_node.send_signal(signal.SIGUSR1)
    exchange.labels()
    wait_until(lambda: exchange.good() and exchange.peer.status()['level'] == 0, 'all to be well')
