"""Cameras that stall, with a node over DDS."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import TIMEOUT_S, running_node
from ros_helpers import QUICK, SECOND, Peer, image, scene, stamp_of, view

SIZE = (64, 96)
INTERVAL = SECOND // 30
OFFSET = SECOND // 1000
STALL_AFTER = 3 * SECOND // 10
RGB_ALONE = 150


class Cameras:
    """Publishes both cameras' images at 30 Hz; thermal stamps are one offset late."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.index = 0
        self.live_index = 0

    @property
    def next_stamp(self) -> int:
        """The RGB stamp of the next frame."""
        return SECOND + self.index * INTERVAL

    def run_until(self, mode, condition, what) -> None:
        """Send in a mode until `condition()`.

        Modes: live, frozen, flat, gap (no thermal) and rgb_gap; still, in which nothing moves; and
        analogue, frozen with noise of one count. RGB shows a view that moves, except in still.
        """
        end_s = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end_s, f'sent in vain for {what}'
            if mode in ('live', 'flat', 'rgb_gap'):
                self.live_index = self.index
            rgb = view(self.live_index if mode == 'still' else self.index, *SIZE)
            _, thermal = scene(self.live_index, *SIZE)
            if mode == 'flat':
                thermal = np.full(SIZE, 7, np.uint8)
            if mode == 'analogue':
                noise = np.random.default_rng(self.index).integers(0, 2, SIZE).astype(np.uint8)
                thermal = thermal + noise
            if mode != 'rgb_gap':
                self.peer.rgb.publish(image(rgb, 'rgb8', self.next_stamp, 'rgb'))
            if mode != 'gap':
                stamp = self.next_stamp - OFFSET
                self.peer.thermal.publish(image(thermal, 'mono8', stamp, 'thermal'))
            self.index += 1
            time.sleep(INTERVAL / SECOND)

    def run_live(self) -> None:
        """Send until results are from both cameras and the diagnostics are at level OK."""
        begun = self.next_stamp
        self.run_until(
            'live',
            lambda: self.served(begun, 'both') and self.peer.status()['level'] == 0,
            'fused results',
        )

    def since(self, stamp: int) -> list[dict]:
        """Return the statuses of results from a stamp on."""
        return [status for status in self.peer.statuses if status['stamp_ns'] >= stamp]

    def served(self, stamp: int, modality: str, **states: str) -> bool:
        """Return whether a result from a stamp on has this modality and these states."""
        wanted = {'modality': modality, **states}.items()
        return any(wanted <= status.items() for status in self.since(stamp))

    def label_at(self, stamp: int) -> int:
        """Return the label of the frame with this stamp."""
        (msg,) = [msg for msg in list(self.peer.labels) if stamp_of(msg) == stamp]
        assert (msg.height, msg.width) == SIZE
        return msg.data[-1]


@pytest.fixture(scope='module')
def node(tmp_path_factory, checkpoint):
    """The node with an instant network and an offset of the thermal stamps."""
    parameters = {'checkpoint': checkpoint, 'sync.thermal_offset': OFFSET / SECOND}
    with running_node(tmp_path_factory.mktemp('stalls'), parameters, QUICK) as node:
        node.wait_for_output('active')
        yield node
        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output


@pytest.fixture
def cameras(node, peer):
    peer.connect()
    cameras = Cameras(peer)
    cameras.run_live()
    return cameras


def set_parameters(peer: Peer, **values) -> None:
    results = peer.set_parameters(**values)
    assert all(done for done, _ in results), results


@pytest.mark.parametrize('mode', ['frozen', 'flat', 'gap'])
def test_rgb_alone_while_thermal_stalls_and_both_again_afterwards(node, cameras, mode):
    peer = cameras.peer

    def degraded() -> bool:
        status = peer.status()
        return (
            status['level'] == 1
            and f'thermal_{mode}' in status['message']
            and '/thermal/image_raw' in status['message']
            and status['modality'] == 'rgb'
        )

    begun = cameras.next_stamp
    cameras.run_until(
        mode,
        lambda: cameras.served(begun, 'rgb', thermal=mode) and degraded(),
        f'results from RGB alone ({mode})',
    )
    for status in cameras.since(begun + (0 if mode == 'flat' else STALL_AFTER)):
        assert (status['modality'], status['thermal']) == ('rgb', mode)
    alone = [s['stamp_ns'] for s in cameras.since(begun) if s['modality'] == 'rgb']
    assert {cameras.label_at(stamp) for stamp in alone} == {RGB_ALONE}
    back = cameras.next_stamp
    cameras.run_live()
    both = [s for s in cameras.since(back) if s['modality'] == 'both']
    assert all(s['thermal'] == s['rgb'] == 'ok' for s in both)
    assert all(s['skew_ms'] == 0 and s['latency_ms'] > 0 for s in both)
    for status in both:
        index = (status['stamp_ns'] - SECOND) // INTERVAL
        assert cameras.label_at(status['stamp_ns']) == index % 97
    status = peer.status()
    assert status[f'thermal_{mode}'] >= len(alone) > 0
    assert f'thermal stalls: {mode} (thermal.on_stall: rgb_only)' in node.output
    assert 'thermal is back' in node.output
    stamps = [stamp_of(msg) for msg in peer.labels]
    assert stamps == sorted(set(stamps))


def test_the_last_good_thermal_image_is_held(cameras):
    peer = cameras.peer
    set_parameters(peer, thermal__on_stall='hold', thermal__hold_at_most=0.5)
    last = cameras.live_index
    begun = cameras.next_stamp
    cameras.run_until(
        'flat', lambda: cameras.served(begun, 'rgb', thermal='flat'), 'results from RGB alone'
    )
    held = [s for s in cameras.since(begun) if s['modality'] == 'both']
    assert held
    for status in held:
        assert status['thermal'] == 'flat'
        assert -500 <= status['skew_ms'] < 0
        # Of the last live image, if that was paired; no newer one can be meant.
        assert 0 <= last % 97 - cameras.label_at(status['stamp_ns']) <= 2
    for status in cameras.since(begun + 6 * SECOND // 10):
        assert status['modality'] == 'rgb'
    set_parameters(peer, thermal__on_stall='rgb_only')


@pytest.mark.parametrize('mode', ['flat', 'gap'])
def test_nothing_comes_out_where_stalls_are_dropped(cameras, mode):
    peer = cameras.peer
    set_parameters(peer, thermal__on_stall='drop')
    begun = cameras.next_stamp
    cameras.run_until(
        mode, lambda: peer.status()[f'dropped.stall_{mode}'] >= 3, f'dropped.stall_{mode}'
    )
    assert cameras.since(begun) == []
    assert [msg for msg in peer.labels if stamp_of(msg) >= begun] == []
    set_parameters(peer, thermal__on_stall='rgb_only')
    cameras.run_live()


def test_thermal_alone_in_a_gap_of_rgb_where_so_set(node, cameras):
    peer = cameras.peer
    set_parameters(peer, rgb__on_stall='thermal_only')
    begun = cameras.next_stamp
    cameras.run_until(
        'rgb_gap',
        lambda: cameras.served(begun, 'thermal', rgb='gap', thermal='ok'),
        'results from thermal alone',
    )
    back = cameras.next_stamp
    cameras.run_live()
    alone = [s['stamp_ns'] for s in cameras.since(begun) if s['modality'] == 'thermal']
    assert max(alone) < back
    headers = {stamp_of(msg): msg.header.frame_id for msg in peer.labels}
    for stamp in alone:  # the thermal message's, offset included
        assert headers[stamp] == 'thermal'
        assert cameras.label_at(stamp) == (stamp - SECOND) // INTERVAL % 97
    peer.wait_for_counts(rgb_gap=len(alone), served_thermal=len(alone))
    assert 'rgb stalls: gap (rgb.on_stall: thermal_only)' in node.output
    assert 'rgb is back' in node.output
    stamps = [stamp_of(msg) for msg in peer.labels]
    assert stamps == sorted(set(stamps))
    # By default there is nothing.
    set_parameters(peer, rgb__on_stall='drop')
    begun = cameras.next_stamp
    cameras.run_until(
        'rgb_gap', lambda: peer.status()['dropped.thermal_overflow'] > 0, 'unused thermal images'
    )
    assert cameras.since(begun) == []


def test_where_nothing_moves_an_image_that_stays_is_not_frozen_until_rgb_moves(cameras):
    """A simulation without noise, in which the robot stands."""
    begun = cameras.next_stamp
    cameras.run_until(
        'still', lambda: len(cameras.since(begun + 3 * STALL_AFTER)) > 3, 'results of a still scene'
    )
    assert all(s['modality'] == 'both' for s in cameras.since(begun))
    begun = cameras.next_stamp
    cameras.run_until(
        'frozen', lambda: cameras.served(begun, 'rgb', thermal='frozen'), 'results from RGB alone'
    )
    set_parameters(cameras.peer, thermal__detect_frozen=False)
    begun = cameras.next_stamp
    cameras.run_until('frozen', lambda: cameras.served(begun, 'both'), 'results from both')
    set_parameters(cameras.peer, thermal__detect_frozen=True)


def test_an_analogue_camera_that_freezes_with_noise_is_noticed(cameras):
    begun = cameras.next_stamp
    cameras.run_until(
        'analogue', lambda: cameras.served(begun, 'rgb', thermal='frozen'), 'results from RGB alone'
    )
    assert min(s['stamp_ns'] for s in cameras.since(begun) if s['modality'] == 'rgb') >= (
        begun + STALL_AFTER - INTERVAL
    )
    cameras.run_live()
