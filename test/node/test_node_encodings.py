"""Images in the encodings of many cameras, through a node over DDS."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import running_node, wait_until
from rclpy.qos import QoSProfile
from ros_helpers import QUICK, SECOND, Peer, scene, send_until, stamp_of
from sensor_msgs.msg import Image

SIZE = (48, 64)
ALONE = 150  # the label of the quick network without thermal

CRASHING_CV_BRIDGE = """
import os, signal

class CvBridge:
    def imgmsg_to_cv2(self, msg, desired_encoding):
        os.kill(os.getpid(), signal.SIGSEGV)
"""


class Sender:
    """Sends pairs with increasing stamps until labels of a pair come back."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._stamps = itertools.count(2 * SECOND, SECOND // 10)  # after the probes of `connect`

    def send(self, rgb: np.ndarray, encoding: str, thermal: np.ndarray, thermal_encoding: str):
        """Send one pair of arrays `[H, W, ...]`; return its stamp.

        The lowest row changes each time, or thermal would be frozen.
        """
        stamp = next(self._stamps)
        thermal = thermal.copy()
        thermal[-1] += np.array(stamp // (SECOND // 10) % 50).astype(thermal.dtype)
        messages = []
        for pixels, name in ((rgb, encoding), (thermal, thermal_encoding)):
            msg = Image(encoding=name, step=pixels.strides[0], data=pixels.tobytes())
            msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp, SECOND)
            msg.height, msg.width = SIZE  # chroma below the image is not counted
            messages.append(msg)
        self.peer.send(*messages)
        return stamp

    def outputs(self, outputs: list[Image], *pair) -> np.ndarray:
        """Send a pair until a message of it is in `outputs`; return its pixels."""
        sent = set()
        send_until(
            lambda: sent.add(self.send(*pair)),
            lambda: any(stamp_of(msg) in sent for msg in list(outputs)),
            f'a result of {pair[1]} and {pair[3]}',
        )
        msg = next(msg for msg in outputs if stamp_of(msg) in sent)
        return np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.width, -1)


def rgb_in_encodings() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return a smooth RGB image, and the same as several encodings store it.

    Chroma is left out in every second column, and row, so that the YUV formats differ a little.
    """
    y, x = np.indices(SIZE)
    rgb = np.stack([200 - 2 * x, 40 + y + x, 100 + y], axis=-1).astype(np.uint8)
    bgra = np.concatenate([rgb[..., ::-1], np.full((*SIZE, 1), 7, np.uint8)], axis=-1)
    deep = rgb.astype(np.uint16) * 256 + 99
    grey = rgb @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 in studio range
    luma = np.rint(16 + 219 / 255 * grey).astype(np.uint8)
    blue = 128 + 112 / 255 * (rgb[..., 2] - grey) / (1 - 0.114)
    red = 128 + 112 / 255 * (rgb[..., 0] - grey) / (1 - 0.299)
    u, v = (np.rint(plane).astype(np.uint8)[:, ::2] for plane in (blue, red))
    uyvy = np.stack([u, luma[:, ::2], v, luma[:, 1::2]], axis=-1).reshape(*SIZE, 2)
    nv12, nv21 = (
        np.concatenate([luma, np.stack(pair, axis=-1)[::2].reshape(-1, SIZE[1])])
        for pair in ((u, v), (v, u))
    )
    return rgb, {
        'rgb8': rgb,
        'bgra8': bgra,
        '8UC4': bgra,
        'rgb16': deep,
        'bgr16': deep[..., ::-1].copy(),
        'yuv422': uyvy,
        'uyvy': uyvy,
        'yuv422_yuy2': uyvy[..., ::-1].copy(),
        'yuyv': uyvy[..., ::-1].copy(),
        'nv12': nv12,
        'nv21': nv21,
    }


def test_rgb_encodings_show_the_same_image(real_peer):
    """An overlay of opacity 0 is the RGB image that the network was given."""
    overlays = real_peer.listen(Image, '/sartm/overlay', QoSProfile(depth=10))
    assert real_peer.set_parameters(overlay__opacity=0.0) == [(True, '')]
    sender, thermal = Sender(real_peer), scene(0, *SIZE)[1]
    expected, encoded = rgb_in_encodings()
    for name, pixels in encoded.items():
        found = sender.outputs(overlays, pixels, name, thermal, 'mono8')
        tolerance = 5 if 'y' in name or 'nv' in name else 0
        np.testing.assert_allclose(found.astype(int), expected, atol=tolerance, err_msg=name)
        overlays.clear()


def test_thermal_encodings_keep_their_counts(quick_peer):
    """The quick network labels each pixel with its count modulo 100."""
    sender, rgb = Sender(quick_peer), scene(0, *SIZE)[0]
    counts = np.random.default_rng(0).integers(28_000, 32_000, SIZE)
    celsius = (counts / 100 - 273.15).astype(np.float32)
    invalid = celsius.copy()
    invalid[10:20, 10:20] = np.nan
    zeros = counts.copy()
    zeros[10:20, 10:20] = 0
    cases = [
        ('16UC1', counts.astype(np.uint16), counts),
        ('32FC1', (counts / 100).astype(np.float32), counts),
        ('32FC1', celsius, counts),
        ('32FC1', invalid, zeros),
        ('16SC1', (counts - 30_000).astype(np.int16), counts - 30_000 + 32_768),
        ('rgb16', np.repeat(counts.astype(np.uint16)[..., None], 3, axis=2), counts),
    ]

    def check(name: str, pixels: np.ndarray, expected: np.ndarray) -> None:
        found = sender.outputs(quick_peer.labels, rgb, 'rgb8', pixels, name)[..., 0]
        np.testing.assert_array_equal(found[1:-1], expected[1:-1] % 100, err_msg=name)

    for case in cases:
        check(*case)
    assert quick_peer.set_parameters(thermal__shift=2) == [(True, '')]
    check('16UC1', (counts % 2**14 << 2).astype(np.uint16), counts % 2**14)
    ((done, reason),) = quick_peer.set_parameters(thermal__shift=16)
    assert not done
    assert 'thermal.shift' in reason


def test_thermal_that_cannot_be_read_counts_as_a_missing_one(quick_node, quick_peer):
    sender, (rgb, thermal) = Sender(quick_peer), scene(0, *SIZE)
    found = sender.outputs(quick_peer.labels, rgb, 'rgb8', thermal, 'h264')
    assert (found[1:] == ALONE).all()
    status = quick_peer.newest
    assert (status['modality'], status['thermal']) == ('rgb', 'unreadable')

    def send_unreadable() -> None:
        sender.send(rgb, 'rgb8', thermal, 'h264')

    def warned() -> bool:
        status = quick_peer.status()
        return status['level'] == 1 and 'thermal_unreadable' in status['message']

    send_until(send_unreadable, warned, 'a warning')
    text = "thermal: image encoding 'h264' is not supported; expected one of rgb8, bgr8, "
    assert text in quick_peer.status()['message']
    assert f'thermal is not used: {text}' in quick_node.output
    assert 'cv_bridge' in quick_node.output
    assert not quick_peer.status()['dropped.bad_frame']

    assert quick_peer.set_parameters(thermal__on_stall='drop') == [(True, '')]
    send_until(send_unreadable, lambda: quick_peer.status()['dropped.bad_frame'], 'a dropped pair')
    changes = quick_peer.set_parameters(thermal__on_stall='hold', thermal__hold_at_most=60.0)
    assert [done for done, _ in changes] == [True, True]
    good = sender.outputs(quick_peer.labels, rgb, 'rgb8', thermal, 'mono8')
    held = sender.outputs(quick_peer.labels, rgb, 'rgb8', thermal, 'h264')
    np.testing.assert_array_equal(held[1:-1], good[1:-1])
    assert (good[1:-1] != ALONE).all()


def test_a_cv_bridge_that_crashes_does_not_crash_the_node(peer, tmp_path, checkpoint, monkeypatch):
    """It was built for another NumPy: a child process finds that out."""
    packages = tmp_path / 'packages'
    packages.mkdir()
    (packages / 'cv_bridge.py').write_text(CRASHING_CV_BRIDGE)
    paths = filter(None, [str(packages), os.environ.get('PYTHONPATH')])
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(paths))
    with running_node(Path(tmp_path), {'checkpoint': checkpoint}, QUICK) as node:
        node.wait_for_output('active')
        sender, (rgb, thermal) = Sender(peer), scene(0, *SIZE)
        found = sender.outputs(peer.labels, rgb, 'rgb8', thermal, 'h264')
        assert (found[1:] == ALONE).all()
        text = 'cv_bridge was tried and ended its process by SIGSEGV'
        wait_until(lambda: text in node.output, text)
        found = sender.outputs(peer.labels, rgb, 'rgb8', thermal, 'mono8')
        np.testing.assert_array_equal(found[1:-1, :, 0], thermal[1:-1] % 100)
        assert node.stop(signal.SIGINT) == 0
