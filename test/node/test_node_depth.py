"""The node with a depth camera in place of a thermal one, over DDS.

The network is a toy whose labels follow from the depth alone: 1 where it is less than 4 m, 2 where
it is more than 6 m, and 0 elsewhere: at 5 m, without a reading, or without a depth image.
"""

from __future__ import annotations

import itertools
import signal
import struct
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import torch
from processes import TIMEOUT_S, running_node, wait_until
from rclpy.qos import qos_profile_sensor_data
from ros_helpers import SECOND, image, send_until, stamp_of
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from toy_model import ENTRY, Toy

from sartm_model.config import ModelConfig
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.registry import MODELS
from sartm_ros.settings.loading import load_predictor
from sartm_ros.settings.ros_parameters import parse

SCRIPT = 'toy_model.py'
TOPIC = '/depth/image_raw'
SIZE = (64, 96)
INTERVAL = SECOND // 20
NEAR, FAR, MIDDLE, NONE = 2000, 8000, 5000, 0


def depth_scene() -> tuple[np.ndarray, np.ndarray]:
    """Return depth in millimetres, and the labels that follow from it."""
    depth, labels = np.zeros(SIZE, np.uint16), np.zeros(SIZE, np.uint8)
    for column, (value, label) in enumerate(((NEAR, 1), (FAR, 2), (MIDDLE, 0), (NONE, 0))):
        depth[:, 24 * column : 24 * (column + 1)] = value
        labels[:, 24 * column : 24 * (column + 1)] = label
    return depth, labels


def check_labels(found: np.ndarray) -> None:
    """Compare labels with those of the scene; logits are interpolated over 8 pixels at a border."""
    _, expected = depth_scene()
    inside = np.arange(SIZE[1]) % 24
    inside = (inside >= 8) & (inside < 16)
    np.testing.assert_array_equal(found[:, inside], expected[:, inside])


@pytest.fixture(scope='module')
def depth_checkpoint(tmp_path_factory):
    config = ModelConfig(name='toy', modalities=('rgb', 'depth'))
    model = Toy(config, len(MFNET))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        # Depth is normalised to (metres - 5) / 5; the first feature is what is farther, the second
        # what is nearer. Their mean over 8x8 pixels is at least 0.2 from 6 m on and up to 4 m.
        model.stems['depth'].weight[0] = 1 / 64
        model.stems['depth'].weight[1] = -1 / 64
        model.classifier.bias[0] = 0.2
        model.classifier.weight[1, 1] = model.classifier.weight[2, 0] = 1
    path = tmp_path_factory.mktemp('depth') / 'toy.safetensors'
    checkpoints.save(path, model, MFNET, {})
    return path


class DepthCamera:
    """Publishes RGB and depth images at 20 Hz of stamps."""

    def __init__(self, peer) -> None:
        self.peer = peer
        self.publisher = peer.publisher(Image, TOPIC, qos_profile_sensor_data)
        self._stamps = itertools.count(SECOND, INTERVAL)

    def send(self, depth: np.ndarray | None, encoding: str = '16UC1', *, rgb: bool = True) -> int:
        """Publish a pair, or one image of it; return its stamp."""
        stamp = next(self._stamps)
        if rgb:
            self.peer.rgb.publish(image(np.full((*SIZE, 3), 90, np.uint8), 'rgb8', stamp, 'rgb'))
        if depth is not None:
            message = Image(encoding=encoding, step=depth.strides[0], data=depth.tobytes())
            message.header = header(stamp)
            message.height, message.width = depth.shape[:2]
            self.publisher.publish(message)
        return stamp

    def labels_of(self, send) -> np.ndarray:
        """Send with a function until labels of both cameras come; return them."""
        sent = set()

        def served() -> list:
            both = {s['stamp_ns'] for s in self.peer.statuses if s['modality'] == 'both'} & sent
            return [message for message in list(self.peer.labels) if stamp_of(message) in both]

        send_until(lambda: sent.add(send()), served, 'labels from RGB and depth')
        message = served()[-1]
        return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)

    def run_until(self, send, condition, what: str) -> None:
        """Send with a function until a condition holds."""
        send_until(send, condition, what)


def header(stamp: int) -> Header:
    result = Header(frame_id='depth')
    result.stamp.sec, result.stamp.nanosec = divmod(stamp, SECOND)
    return result


def test_depth_reaches_the_network_and_its_faults_are_those_of_a_camera(
    tmp_path, depth_checkpoint, peer
):
    depth, _ = depth_scene()
    parameters = {'checkpoint': depth_checkpoint, 'device': 'cpu', 'x_modality': 'depth'}
    with running_node(tmp_path, parameters, SCRIPT) as node:
        node.wait_for_output(f'active: /camera/color/image_raw (raw) + {TOPIC} (raw)')
        assert peer.node.count_subscribers('/thermal/image_raw') == 0
        camera = DepthCamera(peer)
        # Millimetres and metres.
        found = camera.labels_of(lambda: camera.send(depth))
        check_labels(found)
        metres = np.where(depth > 0, depth / 1000, np.nan).astype(np.float32)
        found = camera.labels_of(lambda: camera.send(metres, '32FC1'))
        check_labels(found)
        status = peer.newest
        assert (status['rgb'], status['depth'], status['modality']) == ('ok', 'ok', 'both')

        # Messages that cannot be depth: labels from RGB alone, counted and said.
        colours = np.zeros((*SIZE, 3), np.uint8)
        wrong = [
            (
                lambda: camera.send(colours, 'rgb8'),
                "depth: the image has encoding 'rgb8'; expected one of 16UC1, mono16, 32FC1",
            ),
            (
                lambda: camera.send(depth // 1000, '16UC1'),
                'at most 8; expected millimetres. Is it in metres?',
            ),
            (
                lambda: camera.send(depth.astype(np.float32), '32FC1'),
                'expected metres. Is it in millimetres?',
            ),
        ]
        for send, text in wrong:
            camera.run_until(
                send,
                lambda text=text: (
                    peer.newest.get('depth') == 'unreadable' and text in peer.status()['message']
                ),
                f'labels from RGB alone and {text!r}',
            )
            assert peer.newest['modality'] == 'rgb'
        assert f'depth is not used: {wrong[0][1]}' in node.output
        assert int(peer.status()['depth_unreadable']) > 0
        assert peer.status()['dropped.bad_frame'] == 0

        # A cable that comes loose.
        peer.labels.clear()
        camera.run_until(
            lambda: camera.send(None),
            lambda: peer.newest.get('depth') == 'gap' and 'depth_gap' in peer.status()['message'],
            'labels from RGB alone in a gap',
        )
        assert peer.newest['modality'] == 'rgb'
        assert not np.frombuffer(peer.labels[-1].data, np.uint8).any()
        assert 'depth stalls: gap (thermal.on_stall: rgb_only)' in node.output
        assert TOPIC in peer.status()['message']
        assert 'results from RGB alone' in peer.status()['message']
        # A covered lens: no reading anywhere.
        covered = np.zeros(SIZE, np.uint16)
        camera.run_until(
            lambda: camera.send(covered), lambda: peer.newest.get('depth') == 'flat', 'depth flat'
        )
        check_labels(camera.labels_of(lambda: camera.send(depth)))
        wait_until(lambda: 'depth is back' in node.output, 'depth is back')

        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output
        done = node.output[node.output.index('done: ') :]
        assert 'served_depth 0' in done
        assert 'thermal' not in done


def test_depth_alone_by_the_transport_compressed_depth(tmp_path, depth_checkpoint, peer):
    topic = f'{TOPIC}/compressedDepth'
    parameters = {
        'checkpoint': depth_checkpoint,
        'device': 'cpu',
        'x_modality': 'depth',
        'x_topic': topic,
        'rgb_topic': "''",
    }
    depth, _ = depth_scene()
    png = cv2.imencode('.png', depth)[1].tobytes()
    stamps = itertools.count(SECOND, INTERVAL)
    publisher = peer.publisher(CompressedImage, topic, qos_profile_sensor_data)

    def send() -> None:
        message = CompressedImage(format='16UC1; compressedDepth', header=header(next(stamps)))
        message.data = struct.pack('<iff', 0, 0, 0) + png
        publisher.publish(message)

    with running_node(tmp_path, parameters, SCRIPT) as node:
        node.wait_for_output(f'active: {topic} (compressed)')
        send_until(send, lambda: peer.labels, 'labels')
        check_labels(np.frombuffer(peer.labels[0].data, np.uint8).reshape(SIZE))
        assert peer.labels[0].header.frame_id == 'depth'
        wait_until(lambda: peer.newest, 'a status')
        assert (peer.newest['modality'], peer.newest['rgb']) == ('depth', 'off')
        assert node.stop(signal.SIGINT) == 0


def test_a_network_that_takes_another_sensor_says_what_it_takes(tmp_path, depth_checkpoint, peer):
    parameters = {'checkpoint': depth_checkpoint, 'device': 'cpu', 'x_modality': 'event'}
    with running_node(tmp_path, parameters, SCRIPT) as node:
        wait_until(lambda: node.ended, 'the end of the node', 2 * TIMEOUT_S)
        assert node.wait() == 2
        lines = [line for line in node.output.splitlines() if 'x_modality' in line]
        assert len(lines) == 1
        text = 'x_modality is event, but the network takes rgb and depth images; set x_modality to'
        assert f'{text} depth, or use another checkpoint' in lines[0]


def test_at_the_default_such_a_network_is_given_rgb_alone_and_a_line_says_so(
    depth_checkpoint, monkeypatch
):
    monkeypatch.setitem(MODELS, 'toy', ENTRY)
    lines = []
    logger = SimpleNamespace(info=lines.append, warning=lambda text: lines.append(f'W {text}'))
    settings = parse({'checkpoint': str(depth_checkpoint), 'device': 'cpu'})
    load_predictor(settings, logger)
    assert lines[1:] == [
        'W thermal_topic is not used: the network takes rgb and depth; for labels from both '
        'cameras set x_modality to depth, and x_topic'
    ]
    lines.clear()
    load_predictor(replace(settings, x_modality='depth', thermal_topic='/flir'), logger)
    assert lines[1:] == ['thermal_topic is not used: x_modality is depth']
