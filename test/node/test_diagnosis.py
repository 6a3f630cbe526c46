"""What the node says when pairs or images are missing, over DDS, in its log and its diagnostics."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import Process, running_node, wait_until
from ros_helpers import QUICK, SECOND, Peer, image, scene, send_until, stamp_of
from sensor_msgs.msg import Image

RATE_HZ = 30
BOOT_NS = 100 * SECOND
"""What a clock shows that counts from the start of the computer."""


class Cameras:
    """Sends images of two cameras with the stamps of their clocks, until something has happened."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._rng = np.random.default_rng(0)
        self.index = 0

    def send_until(
        self,
        condition: Callable[[], Any],
        what: str,
        *,
        thermal_ahead_ns: int = 0,
        rgb_kept: float = 1.0,
        begin_ns: int = BOOT_NS,
    ) -> None:
        """Send images at `RATE_HZ`, of which a share of RGB's is lost, until `condition()`."""
        end_s = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end_s, f'sent in vain for {what}'
            self.index += 1
            rgb, thermal = scene(self.index, 32, 32)
            stamp = begin_ns + self.index * SECOND // RATE_HZ
            if self._rng.random() < rgb_kept:
                self._peer.rgb.publish(image(rgb, 'rgb8', stamp, f'camera_{self.index}'))
            thermal_stamp = stamp + thermal_ahead_ns
            frame_id = f'thermal_{self.index}'
            self._peer.thermal.publish(image(thermal, 'mono8', thermal_stamp, frame_id))
            time.sleep(1 / RATE_HZ)


def is_said(node: Process, peer: Peer, text: str) -> bool:
    """Whether a warning with `text` is in the log and in the newest diagnostics."""
    logged = any('[WARN]' in line and text in line for line in node.output.splitlines())
    status = peer.status()
    return logged and text in status['message'] and status['level'] == 1


def test_missing_pairs_and_images_and_unknown_parameters_are_named(tmp_path, checkpoint, peer):
    """By one node, one after the other; the clocks jump in between."""
    unknown = {
        'sync.max_skev': 0.1,
        'qos_overrides./sartm/lables.publisher.depth': 2,
        'of_another_node': 'x',
    }
    with running_node(tmp_path, {'checkpoint': checkpoint, **unknown}, QUICK) as node:
        node.wait_for_output('active')
        assert 'sync.max_skev (is sync.max_skew meant?)' in node.output
        assert 'of_another_node' in node.output
        assert '/sartm/lables.publisher.depth (is qos_overrides./sartm/labels.' in node.output
        assert 'use_sim_time' not in node.output

        cameras = Cameras(peer)
        cameras.send_until(
            lambda: is_said(node, peer, 'from different clocks: set sync.stamp to arrival'),
            'a line on boot-time stamps',
            begin_ns=BOOT_NS + 1_600_000_000 * SECOND,
            thermal_ahead_ns=-1_600_000_000 * SECOND,
        )
        assert re.search(r'no pairs: the stamps of thermal are 1[56]\d{8}\.', node.output)
        assert peer.labels == []

        cameras.send_until(
            lambda: is_said(node, peer, 'if thermal only arrives late; if the offset varies, set'),
            'a line on an offset of five seconds',
            thermal_ahead_ns=-5 * SECOND,
        )
        found = re.search(
            r'set sync.thermal_offset to ([\d.]+), or sync.max_wait to 5\.\d if', node.output
        )
        assert float(found[1]) == pytest.approx(5, abs=0.5)
        assert float(peer.status()['thermal_stamps_ahead_s']) == pytest.approx(-5, abs=0.5)

        cameras.send_until(
            lambda: peer.status()['level'] == 0 and peer.status().get('pairs_hz', '0.0') != '0.0',
            'all to be well',
            begin_ns=BOOT_NS // 2,
        )

        def loss_is_reported() -> bool:
            status = peer.status()
            rates_hz = [status.get(f'{camera}_expected_hz') for camera in ('rgb', 'thermal')]
            text = f'are lost: gaps in the stamps of a camera of {RATE_HZ:.1f} Hz'
            return is_said(node, peer, text) and rates_hz == [f'{RATE_HZ:.1f}'] * 2

        cameras.send_until(
            loss_is_reported, 'a line on lost images', begin_ns=BOOT_NS // 2, rgb_kept=0.2
        )
        line = [line for line in node.output.splitlines() if 'are lost' in line][-1]
        assert re.search(r'FASTRTPS_DEFAULT_PROFILES_FILE set to /.*fastdds_images.xml', line)
        assert re.search(r'\d\d% of the images on /camera/color/image_raw are lost', line)
        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output


def test_images_are_paired_by_arrival_where_the_clocks_cannot_be_mended(tmp_path, checkpoint, peer):
    """The labels have the header of the RGB image."""
    settings = {'checkpoint': checkpoint, 'sync.stamp': 'arrival', 'rgb.on_stall': 'thermal_only'}
    with running_node(tmp_path, settings, QUICK) as node:
        node.wait_for_output('active')
        cameras = Cameras(peer)
        cameras.send_until(
            lambda: len([s for s in peer.statuses if s['modality'] == 'both']) >= 10,
            'labels from both images',
            thermal_ahead_ns=1_600_000_000 * SECOND,
        )
        both = [s for s in peer.statuses if s['modality'] == 'both']
        wait_until(lambda: len(peer.labels) >= len(peer.statuses), 'the labels')
        headers = {stamp_of(msg): msg.header.frame_id for msg in peer.labels}
        for status in both:
            index = round((status['stamp_ns'] - BOOT_NS) * RATE_HZ / SECOND)
            assert headers[status['stamp_ns']] == f'camera_{index}'
            assert abs(status['skew_ms']) <= 50

        # In a gap of RGB the labels have the header of the thermal image, as it is.
        peer.labels.clear()

        def of_thermal() -> list[Image]:
            return [msg for msg in list(peer.labels) if 'thermal' in msg.header.frame_id]

        cameras.send_until(of_thermal, 'labels from thermal alone', rgb_kept=0.0)
        for msg in of_thermal():
            index = int(msg.header.frame_id.removeprefix('thermal_'))
            assert stamp_of(msg) == BOOT_NS + index * SECOND // RATE_HZ
        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output


def test_images_that_are_all_bad_are_an_error(faulty_node, exchange):
    def send() -> None:
        rgb, thermal = exchange.pair()
        rgb.encoding = 'jpeg2000'
        exchange.peer.send(rgb, thermal)

    line = r"\[ERROR\].* no results, the last \d+ attempts failed: RGB: image encoding 'jpeg2000'"
    send_until(send, lambda: re.search(line, faulty_node.output), 'an error in the log')
    send_until(send, lambda: exchange.peer.status()['level'] == 2, 'an error in the diagnostics')
    assert 'attempts failed' in exchange.peer.status()['message']
    wait_until(
        lambda: exchange.good() and exchange.peer.status()['level'] == 0,
        'the diagnostics to be well again',
    )


def test_the_exact_policy_with_unequal_stamps_is_named(tmp_path, checkpoint, peer):
    settings = {'checkpoint': checkpoint, 'sync.policy': 'exact'}
    with running_node(tmp_path, settings, 'exact_policy_node.py') as node:
        node.wait_for_output('active')
        cameras = Cameras(peer)
        cameras.send_until(lambda: peer.labels, 'labels')
        peer.labels.clear()
        text = 'ahead of those of RGB, and sync.policy exact pairs equal stamps only: set it to'
        cameras.send_until(
            lambda: is_said(node, peer, text), 'a line on the policy', thermal_ahead_ns=4_000_000
        )
        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output
