"""Processes that die, stall or are told to end: cameras, a subscriber and the node itself."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from faults import FAULTY, Exchange
from faulty_network_node import FAULTS, HOLD_HEIGHT
from lifecycle_msgs.srv import ChangeState
from processes import Process, running_node, segments_of, wait_until
from ros_helpers import QUICK, Peer, send_at_rate, stamp_of

HERE = Path(__file__).parents[1]
CODES = {name: code for code, name in enumerate(FAULTS)}


@pytest.mark.parametrize('lives', [2, pytest.param(5, marks=pytest.mark.slow)])
def test_cameras_that_are_killed_and_started_again(tmp_path, checkpoint, peer, lives):
    """By SIGKILL while they send."""
    with running_node(tmp_path, {'checkpoint': checkpoint}, QUICK) as node:
        node.wait_for_output('active')
        for life in range(lives):
            frame_id = f'life_{life}'
            command = [sys.executable, str(HERE / 'camera_process.py'), frame_id]
            cameras = Process(command, tmp_path / f'{frame_id}.log')
            try:
                cameras.wait_for_output('connected')

                def of_this_life(wanted=frame_id):
                    return [m for m in list(peer.labels) if m.header.frame_id == wanted]

                wait_until(lambda of=of_this_life: len(of()) >= 10, f'labels of {frame_id}')
                assert cameras.stop(signal.SIGKILL) == -signal.SIGKILL
            finally:
                cameras.end()
        stamps = [stamp_of(msg) for msg in peer.labels]
        assert stamps == sorted(set(stamps))
        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output


@pytest.mark.slow  # beside another process of tests the rate of 30 Hz is not kept
def test_a_listener_that_stalls_holds_nobody_up(tmp_path, checkpoint, peer):
    """A reliable subscriber is stopped by SIGSTOP; another one gets all 90 labels at 30 Hz."""
    with running_node(tmp_path, {'checkpoint': checkpoint}, QUICK) as node:
        node.wait_for_output('active')
        command = [sys.executable, str(HERE / 'slow_listener.py')]
        listener = Process(command, tmp_path / 'listener.log')
        try:
            peer.connect()
            exchange = Exchange(peer)

            def heard_again(before=''):
                """Send a pair; return whether the listener has written something new."""
                exchange.stream(1)
                return listener.output != before

            wait_until(heard_again, 'a message at the listener')
            listener.send_signal(signal.SIGSTOP)
            peer.labels.clear()
            before = peer.status()
            stamps = send_at_rate(peer, 90)
            assert len(stamps) == 90
            wait_until(lambda: len(label_stamps(peer)) == 90, '90 label images')
            wait_until(lambda: peer.status()['pairs_out'] >= before['pairs_out'] + 90, 'the counts')
            listener.send_signal(signal.SIGCONT)
            heard = listener.output
            wait_until(lambda: heard_again(heard), 'a message at the listener after it goes on')
            assert node.stop(signal.SIGINT) == 0
        finally:
            listener.send_signal(signal.SIGCONT)
            listener.end()


def label_stamps(peer: Peer) -> set[int]:
    """Return the stamps of the labels received."""
    return {stamp_of(msg) for msg in list(peer.labels)}


# The end in every state ---------------------------------------------------------------------------

STATES = ('unconfigured', 'inactive', 'active', 'finalized', 'configuring', 'inferring')
SIGNALS = (signal.SIGINT, signal.SIGTERM)
TRANSITIONS = {
    'unconfigured': [],
    'inactive': ['configure'],
    'active': ['configure', 'activate'],
    'finalized': ['configure', 'activate', 'shutdown'],
}


CASES = [
    pytest.param(state, number, marks=[pytest.mark.slow] if (place + turn) % 2 else [])
    for place, state in enumerate(STATES)
    for turn, number in enumerate(SIGNALS)
]
"""Each state with one signal; with the other one in the slow tests."""


@pytest.mark.parametrize('number', SIGNALS)
def test_a_node_that_is_being_configured_answers_and_ends(number, tmp_path, checkpoint, peer):
    with running_node(tmp_path, {'checkpoint': checkpoint}, 'slow_start_node.py') as node:
        node.wait_for_output('loading')
        assert peer.state() == 'configuring'
        wait_until(lambda: peer.status()['message'] == 'configuring', 'diagnostics that say so')
        ((done, reason),) = peer.set_parameters(thermal__low=9.0)
        assert not done
        assert reason.startswith('the node is being configured')
        assert not peer.change_state('configure')
        assert not peer.change_state('activate')
        assert node.stop(number) == 0
        assert 'Traceback' not in node.output


@pytest.mark.parametrize(('state', 'number'), CASES)
def test_a_signal_ends_the_node_and_leaves_nothing(tmp_path, checkpoint, peer, state, number):
    parameters = {'checkpoint': checkpoint, 'autostart': state not in TRANSITIONS}
    if state == 'configuring':
        parameters['warm_up.height'] = HOLD_HEIGHT
    with running_node(tmp_path, parameters, FAULTY) as node:
        exchange = Exchange(peer)
        for label in TRANSITIONS.get(state, ['configure']):
            if state not in TRANSITIONS:
                break
            request = ChangeState.Request()
            request.transition.label = label
            assert peer.call(ChangeState, '/sartm/change_state', request).success
        if state == 'configuring':
            node.wait_for_output('holding')
        elif state == 'unconfigured':
            wait_until(lambda: peer.node.count_publishers('/sartm/transition_event'), 'the node')
        elif state == 'inferring':
            peer.connect()
            exchange.send(code=CODES['hold'])
            node.wait_for_output('holding')
        shared = own_segments(node.pid)
        assert shared  # or nothing is tested
        assert psutil.Process(node.pid).children() == []
        assert node.stop(number) == 0
        assert [path for path in shared if path.exists()] == []
        assert 'Traceback' not in node.output
        if state == 'inferring':  # what was begun still comes out
            exchange.labels()


def test_repeated_signals_do_not_interrupt_the_end(tmp_path, checkpoint, peer):
    """`ros2 launch` sends a SIGINT to a node that has got the terminal's already."""
    with running_node(tmp_path, {'checkpoint': checkpoint}, FAULTY) as node:
        peer.connect()
        Exchange(peer).send(code=CODES['hold'])
        node.wait_for_output('holding')
        shared = own_segments(node.pid)

        def ended() -> bool:
            node.send_signal(signal.SIGINT)
            return not psutil.pid_exists(node.pid)

        wait_until(ended, 'the end of the node')
        assert node.wait() == 0
        assert [path for path in shared if path.exists()] == []


def test_a_signal_that_another_thread_takes_ends_the_node(tmp_path, checkpoint, peer):
    with running_node(tmp_path, {'checkpoint': checkpoint}, 'blocked_signals_node.py') as node:
        node.wait_for_output('active')
        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output


def test_a_signal_ends_the_pause_of_a_node_without_memory(tmp_path, checkpoint, peer):
    with running_node(tmp_path, {'checkpoint': checkpoint}, FAULTY) as node:
        node.wait_for_output('active')
        peer.connect()
        exchange = Exchange(peer)
        exchange.stream(10, code=CODES['cuda_memory'])
        node.wait_for_output('out of memory')
        assert node.stop(signal.SIGTERM) == 0
        assert 'Traceback' not in node.output


@pytest.mark.parametrize(
    ('fault', 'expected'),
    [
        ('exception', 'inferences in a row failed, the last with RuntimeError: no such kernel'),
        pytest.param(
            'exit',
            'the inference thread has ended: SystemExit: the thread',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_node_that_can_give_no_result_any_more_ends(tmp_path, checkpoint, peer, fault, expected):
    """With a status that makes `respawn` of a launch file start a new process."""
    with running_node(tmp_path, {'checkpoint': checkpoint}, FAULTY) as node:
        node.wait_for_output('active')
        peer.connect()
        exchange = Exchange(peer)
        exchange.good()

        def ended() -> bool:
            if not node.ended:
                exchange.stream(1, code=CODES[fault])
            return node.ended

        wait_until(ended, 'the end of the node')
        assert node.wait() == 1
        lines = node.output.splitlines()
        (fatal,) = [line for line in lines if '[FATAL]' in line]
        assert 'this process ends: ' in fatal
        assert expected in fatal
        assert 'done: rgb_received ' in lines[-1]
        wait_until(lambda: expected in peer.status()['message'], 'the last diagnostics')
        assert peer.status()['level'] == 2


def own_segments(pid: int) -> list[Path]:
    """Return the segments of shared memory that only this process uses, ports excluded.

    Ports belong to all processes of the domain.
    """
    mine = {path for path in segments_of(pid) if re.match(r'fastrtps_[0-9a-f]{16}', path.name)}
    others: set[Path] = set()
    for other in psutil.pids():
        if other != pid:
            others |= segments_of(other)
    return sorted(mine - others)
