"""A label space of a user, without background, through the node over DDS."""

from __future__ import annotations

import itertools
import json
import signal

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import running_node, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import SECOND, image, send_until, stamp_of
from sensor_msgs.msg import Image
from std_msgs.msg import String
from untrained_checkpoint import save_untrained

from sartm_model.labels import LabelSpace

YARD = LabelSpace('yard', ('road', 'Zaun', 'person'), ((200, 0, 0), (0, 200, 0), (0, 0, 200)))


def test_every_class_is_shown_and_the_legend_names_it(tmp_path, peer):
    checkpoint = save_untrained(tmp_path / 'yard.safetensors', YARD)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    legends = peer.listen(String, '/sartm/classes', latched)
    overlays = peer.listen(Image, '/sartm/overlay', QoSProfile(depth=10))
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    thermal = rng.integers(0, 256, (6, 8), np.uint8).repeat(16, 0).repeat(16, 1)
    stamps = itertools.count(SECOND, SECOND)

    def send():
        stamp = next(stamps)
        peer.send(image(rgb, 'rgb8', stamp), image(thermal, 'mono8', stamp))

    def pair():
        """Labels and overlay of one stamp."""
        by_stamp = {stamp_of(msg): msg for msg in list(peer.labels)}
        return [(by_stamp[stamp_of(m)], m) for m in list(overlays) if stamp_of(m) in by_stamp]

    with running_node(tmp_path, {'checkpoint': checkpoint, 'device': 'cpu'}) as node:
        node.wait_for_output('active')
        send_until(send, pair, 'labels and an overlay')
        wait_until(lambda: legends, 'the legend')
        assert node.stop(signal.SIGTERM) == 0
    legend = json.loads(legends[0].data)
    assert legend['classes'] == ['road', 'Zaun', 'person']
    assert legend['colors'] == [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
    assert legend['background_id'] is None

    labels, overlay = (np.frombuffer(msg.data, np.uint8) for msg in pair()[0])
    labels, overlay = labels.reshape(96, 128), overlay.reshape(96, 128, 3)
    assert 0 < (labels == 0).sum() < labels.size
    # Half of every pixel is the colour of its class, also where that is class 0.
    expected = (rgb + np.array(legend['colors'])[labels]) / 2
    assert np.abs(overlay - expected).max() <= 1
