"""The node with one camera: a thermal topic alone, or a network that takes thermal images alone."""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('transformers', reason='needs transformers')

import torch
from processes import running_node, wait_until
from ros_helpers import QUICK, SECOND, image, scene, send_until, stamp_of

from sartm_model.config import ModelConfig
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.segformer import Segformer

SIZE = (64, 96)
MS = SECOND // 1000
EMPTY = "''"
"""An empty text, as rcl reads it from a command line."""


class ThermalCamera:
    """Publishes thermal images 10 ms apart, and RGB images of other labels beside them."""

    def __init__(self, peer, rgb=False):
        self.peer = peer
        self.rgb = rgb
        self.index = 0

    def send(self, pixels=None):
        """Publish the next image; returns its stamp."""
        self.index += 1
        stamp = SECOND + 10 * self.index * MS
        if pixels is None:
            pixels = scene(self.index, *SIZE)[1]
        if self.rgb:
            self.peer.rgb.publish(image(np.zeros((*SIZE, 3), np.uint8), 'rgb8', stamp, 'rgb'))
        self.peer.thermal.publish(image(pixels, 'mono8', stamp, 'thermal'))
        return stamp

    def result(self):
        """Send until a new label image arrives; returns it."""
        self.peer.labels.clear()
        send_until(self.send, lambda: self.peer.labels, 'labels from thermal alone')
        return self.peer.labels[-1]


def test_a_thermal_topic_alone_with_a_network_of_both(tmp_path, checkpoint, peer):
    parameters = {'checkpoint': checkpoint, 'rgb_topic': EMPTY, 'sync.thermal_offset': 0.002}
    with running_node(tmp_path, parameters, QUICK) as node:
        node.wait_for_output('active: /thermal/image_raw (raw)')
        assert peer.node.count_subscribers('/camera/color/image_raw') == 0
        camera = ThermalCamera(peer)
        labels = camera.result()
        # Each image is published at once, in thermal's geometry and with its header.
        last = camera.send()
        wait_until(lambda: stamp_of(peer.labels[-1]) == last + 2 * MS, 'labels of the last image')
        assert labels.header.frame_id == 'thermal'
        assert (labels.height, labels.width) == SIZE
        assert peer.labels[-1].data[-1] == camera.index % 97
        status = peer.newest
        assert (status['modality'], status['rgb'], status['thermal']) == ('thermal', 'off', 'ok')
        good = []

        def in_order() -> bool:
            status = peer.status()
            if 'images a second' in status['message']:
                good.append(status)
            return bool(good)

        send_until(camera.send, in_order, 'diagnostics without a fault')
        assert good[0]['level'] == 0
        assert 'RGB' not in good[0]['message']
        assert good[0]['rgb_gap'] == 0
        assert good[0]['dropped.thermal_unused'] == 0
        # A closed shutter: nothing else is left, so nothing is published.
        flat = np.full(SIZE, 7, np.uint8)
        send_until(
            lambda: camera.send(flat), lambda: peer.status()['dropped.stall_flat'], 'stall_flat'
        )
        stamps = [stamp_of(msg) for msg in peer.labels]
        assert stamps == sorted(set(stamps))
        assert 'rgb stalls' not in node.output
        assert camera.result().header.frame_id == 'thermal'
        # Parameters are changed at run time as with two cameras.
        assert peer.set_parameters(overlay__opacity=0.25) == [(True, '')]
        [(done, reason)] = peer.set_parameters(rgb_topic='/other')
        assert not done
        assert 'read-only' in reason
        assert node.stop(signal.SIGINT) == 0


def test_a_network_of_thermal_alone_uses_no_other_topic(tmp_path, peer):
    torch.manual_seed(0)
    config = ModelConfig(name='segformer', size='b0', modalities=('thermal',))
    path = tmp_path / 'segformer.safetensors'
    checkpoints.save(path, Segformer(config, len(MFNET)), MFNET, {})
    pixels = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
    expected = Predictor(path, device='cpu').predict(None, pixels).labels
    parameters = {'checkpoint': path, 'device': 'cpu', 'warm_up.width': 96, 'warm_up.height': 64}
    with running_node(tmp_path, parameters) as node:
        node.wait_for_output('rgb_topic is not used: the network takes thermal alone')
        node.wait_for_output('active: /thermal/image_raw (raw)')
        camera = ThermalCamera(peer, rgb=True)
        peer.labels.clear()
        send_until(lambda: camera.send(pixels), lambda: peer.labels, 'labels')
        labels = np.frombuffer(peer.labels[0].data, np.uint8).reshape(SIZE)
        assert (labels == expected).mean() > 0.999
        assert peer.labels[0].header.frame_id == 'thermal'
        # Of a file of all parameters, those that are as they were are no change.
        same = peer.set_parameters(rgb_topic='camera/color/image_raw')
        assert same == [(True, '')]
        assert node.stop(signal.SIGINT) == 0
