"""The examples as processes of their own, with nothing but the messages that the node publishes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import ROOT, Process
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import SECOND, Peer, image, send_until, stamp_of
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import String

CLASSES = {'classes': ['sky', 'car', 'tree', 'person'], 'unknown_id': 255}
LABELS = np.array([[0, 1, 2, 3], [3, 255, 1, 0], [2, 3, 1, 255]], np.uint8)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def examples(monkeypatch):
    """The module that the examples share."""
    monkeypatch.syspath_prepend(str(ROOT / 'examples'))
    return importlib.import_module('label_images')


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


def run_example(name: str, folder, *arguments: str) -> Process:
    command = [sys.executable, str(ROOT / 'examples' / name), '--ros-args', *arguments]
    return Process(command, folder / f'{name}.log')


def test_obstacles_in_the_view(peer, tmp_path):
    """Persons and cars are lethal; what is unknown or unsure is not called free."""
    classes = peer.publisher(String, '/sartm/classes', LATCHED)
    classes.publish(String(data=json.dumps(CLASSES)))
    labels = peer.publisher(Image, '/sartm/labels', QoSProfile(depth=1))
    confidence = peer.publisher(Image, '/sartm/confidence', QoSProfile(depth=1))
    costs = peer.listen(Image, '/obstacle_costs/costs', QoSProfile(depth=10))
    probability = np.full(LABELS.shape, 0.9)
    probability[0] = [0.3, 0.59, 0.61, 0.61]
    sent = 0

    def send():
        nonlocal sent
        sent += 1
        labels.publish(image(LABELS, 'mono8', sent * SECOND))
        values = np.round(probability * 255).astype(np.uint8)
        confidence.publish(image(values, 'mono8', sent * SECOND))

    process = run_example('obstacle_costs.py', tmp_path, '-p', 'classes:=[person, car, tram]')
    try:
        send_until(send, lambda: costs, 'costs')
        assert "no class ['tram']" in process.output
        message = costs[-1]
        assert (message.header.frame_id, message.encoding) == ('camera', 'mono8')
        assert stamp_of(message) in [index * SECOND for index in range(1, sent + 1)]
        found = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)
        expected = [[255, 255, 0, 254], [254, 255, 254, 0], [0, 254, 254, 255]]
        assert found.tolist() == expected
        assert process.stop(signal.SIGINT) == 0
    finally:
        process.end()


@pytest.mark.parametrize(
    ('encoding', 'dtype', 'unit'), [('16UC1', '<u2', 1000), ('32FC1', '<f4', 1)]
)
def test_depth_is_read_in_metres(examples, encoding, dtype, unit):
    """Rows are padded, and both byte orders occur."""
    metres = np.array([[0.0, 1.5, 2.25], [0.004, 9.0, 3.125]])
    for order, is_bigendian in (('<', 0), ('>', 1)):
        rows = (metres * unit).astype(dtype.replace('<', order))
        padded = np.zeros((2, rows.shape[1] * rows.itemsize + 5), np.uint8)
        padded[:, :-5] = rows.view(np.uint8)
        message = SimpleNamespace(
            height=2,
            width=3,
            step=padded.shape[1],
            encoding=encoding,
            is_bigendian=is_bigendian,
            data=padded.tobytes(),
        )
        np.testing.assert_allclose(examples.depth_m(message), metres, rtol=1e-6)
    message.encoding = 'rgb8'
    with pytest.raises(ValueError, match='depth is rgb8'):
        examples.depth_m(message)


def test_points_project_back_to_their_pixels(examples):
    """The camera matrix takes each point to the pixel that it came from."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, (30, 40)).astype(np.uint8)
    depth = rng.uniform(0.5, 12, labels.shape).astype(np.float32)
    depth[rng.random(labels.shape) < 0.2] = 0
    depth[rng.random(labels.shape) < 0.1] = np.nan
    matrix = np.array([[50.0, 0, 19.5], [0, 55.0, 14.5], [0, 0, 1]])
    ids = np.array([1, 3], np.uint8)
    points = examples.obstacle_points(labels, depth, ids, matrix, 10.0)
    projected = points @ matrix.T
    pixels = np.round(projected[:, :2] / projected[:, 2:]).astype(int)
    wanted = [
        (u, v)
        for v in range(30)
        for u in range(40)
        if labels[v, u] in (1, 3) and 0 < depth[v, u] <= 10.0
    ]
    assert [tuple(pixel) for pixel in pixels.tolist()] == wanted
    assert [float(z) for z in points[:, 2]] == [float(depth[v, u]) for u, v in wanted]


def test_labels_are_joined_with_depth(peer, tmp_path, monkeypatch):
    """Depth of 20 ms later, in a process that uses message_filters or, without it, a stand-in."""
    if importlib.util.find_spec('message_filters') is None:
        path = [str(ROOT / 'test' / 'stand_ins'), os.environ.get('PYTHONPATH', '')]
        monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, path)))
    classes = peer.publisher(String, '/sartm/classes', LATCHED)
    classes.publish(String(data=json.dumps(CLASSES)))
    labels = peer.publisher(Image, '/sartm/labels', QoSProfile(depth=1))
    depth = peer.publisher(Image, '/depth', QoSProfile(depth=1))
    infos = peer.publisher(CameraInfo, '/info', QoSProfile(depth=1))
    clouds = peer.listen(PointCloud2, '/obstacle_points/points', QoSProfile(depth=10))
    metres = np.full(LABELS.shape, 2.0, '<f4')
    metres[1, 0], metres[2, 1] = np.nan, 11.0  # no measurement, and too far away
    sent = 0

    def send():
        nonlocal sent
        sent += 1
        infos.publish(CameraInfo(k=[2.0, 0.0, 1.5, 0.0, 4.0, 1.0, 0.0, 0.0, 1.0]))
        labels.publish(image(LABELS, 'mono8', sent * SECOND, 'optical'))
        depth.publish(image(metres, '32FC1', sent * SECOND + 20_000_000, 'depth'))

    process = run_example(
        'obstacle_points.py', tmp_path, '-p', 'depth_topic:=/depth', '-p', 'info_topic:=/info'
    )
    try:
        send_until(send, lambda: clouds, 'points')
        cloud = clouds[-1]
        assert cloud.header.frame_id == 'optical'
        assert stamp_of(cloud) % SECOND == 0
        assert [field.name for field in cloud.fields] == ['x', 'y', 'z']
        points = np.frombuffer(cloud.data, '<f4').reshape(cloud.width, 3)
        pixels = [(1, 0), (3, 0), (2, 1), (2, 2)]  # (u, v) of cars and persons with a depth
        expected = [((u - 1.5) * 2 / 2, (v - 1) * 2 / 4, 2) for u, v in pixels]
        np.testing.assert_allclose(points, expected)
        assert process.stop(signal.SIGINT) == 0
    finally:
        process.end()
