"""Simulated and wall time: the node pairs by stamps and waits by the steady clock, over DDS."""

from __future__ import annotations

import signal
import threading

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import running_node, wait_until
from rclpy.qos import QoSProfile
from ros_helpers import QUICK, SECOND, Peer, image, scene, stamp_of
from rosgraph_msgs.msg import Clock

MS = SECOND // 1000
SIZE = (48, 64)
FIRST = 50 * SECOND
"""Of the simulation; the probes are stamped within the first second."""

STEP = SECOND // 10


class Simulation:
    """Publishes /clock in a thread, four times as fast as real time while it runs."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._publisher = peer.publisher(Clock, '/clock', QoSProfile(depth=1))
        self._stopping = threading.Event()
        self.now_ns = FIRST
        self.runs = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(0.01):
            if self.runs:
                self.now_ns += 40 * MS
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(self.now_ns, SECOND)
            self._publisher.publish(clock)

    def close(self) -> None:
        """End the thread, before the peer is closed."""
        self._stopping.set()
        self._thread.join()
        self._peer.node.destroy_publisher(self._publisher)


def send(peer: Peer, stamp: int, skew_ms: int) -> None:
    rgb, thermal = scene(stamp // STEP, *SIZE)  # always the same would be a frozen camera
    peer.thermal.publish(image(thermal, 'mono8', stamp + skew_ms * MS))
    peer.rgb.publish(image(rgb, 'rgb8', stamp))


def send_pairs(peer: Peer, first: int, count: int, skew_ms: int) -> list[int]:
    """Send pairs, each after the labels of the one before; return the RGB stamps.

    With a negative skew a nearer thermal image may still arrive: the pair waits for the deadline.
    """
    stamps = [first + i * STEP for i in range(count)]
    for stamp in stamps:
        send(peer, stamp, skew_ms)
        wait_until(
            lambda stamp=stamp: peer.labels and stamp_of(peer.labels[-1]) == stamp,
            f'labels of {stamp}',
        )
    return stamps


def labelled(peer: Peer) -> list[int]:
    return [stamp_of(msg) for msg in peer.labels]


def report_stamp(peer: Peer) -> int:
    """Return the stamp of the newest diagnostics, in the node's own clock."""
    return stamp_of(peer.diagnostics[-1]) if peer.diagnostics else 0


def test_simulated_time_may_run_stand_still_and_jump(tmp_path, checkpoint, peer):
    parameters = {'checkpoint': checkpoint, 'use_sim_time': 'true'}
    simulation = Simulation(peer)
    try:
        with running_node(tmp_path, parameters, QUICK) as node:
            node.wait_for_output('active')
            peer.connect()
            wait_until(lambda: report_stamp(peer) >= FIRST, 'reports in simulated time')
            stamps = send_pairs(peer, FIRST, 5, 5)
            # Waiting for a nearer partner ends by the wall, while simulated time is as it likes.
            stamps += send_pairs(peer, FIRST + SECOND, 3, -10)
            simulation.runs = False
            stamps += send_pairs(peer, FIRST + 2 * SECOND, 3, -10)
            held = simulation.now_ns
            peer.diagnostics.clear()
            wait_until(lambda: len(peer.diagnostics) >= 2, 'reports while the clock stands still')
            assert report_stamp(peer) == held
            # The simulation starts anew, and its cameras with it.
            simulation.now_ns = FIRST // 2
            stamps += send_pairs(peer, FIRST // 2, 5, 5)
            wait_until(lambda: report_stamp(peer) == FIRST // 2, 'reports after the jump back')
            simulation.now_ns = FIRST + 3600 * SECOND
            simulation.runs = True
            stamps += send_pairs(peer, FIRST + 3600 * SECOND, 5, 5)
            wait_until(lambda: report_stamp(peer) >= FIRST + 3600 * SECOND, 'reports an hour on')
            assert labelled(peer) == stamps
            wait_until(lambda: len(peer.statuses) == len(stamps), 'every status')
            assert all(status['modality'] == 'both' for status in peer.statuses)
            skews = [status['skew_ms'] for status in peer.statuses]
            assert skews == [5] * 5 + [-10] * 6 + [5] * 10
            # By the wall, too: simulated time ran four times as fast, and then jumped an hour.
            assert all(0 < status['latency_ms'] < 60_000 for status in peer.statuses)
            assert node.stop(signal.SIGINT) == 0
            assert 'Traceback' not in node.output
    finally:
        simulation.close()


def test_wall_time_and_stamps_that_follow_it_or_jump(quick_node, quick_peer):
    """A /clock that other nodes use is ignored."""
    peer = quick_peer
    simulation = Simulation(peer)
    try:
        now = peer.node.get_clock().now().nanoseconds
        wait_until(lambda: report_stamp(peer) > now - SECOND, 'reports in wall time')
        stamps = send_pairs(peer, now, 5, 5)
        stamps += send_pairs(peer, now + SECOND, 3, -10)
        # The wall clock is set back by ten seconds, and forward by a day.
        stamps += send_pairs(peer, now - 10 * SECOND, 3, -10)
        stamps += send_pairs(peer, now + 86_400 * SECOND, 5, 5)
        assert labelled(peer) == stamps
        wait_until(lambda: len(peer.statuses) == len(stamps), 'every status')
        skews = [status['skew_ms'] for status in peer.statuses]
        assert skews == [5] * 5 + [-10] * 6 + [5] * 5
        assert 'Traceback' not in quick_node.output
    finally:
        simulation.close()
