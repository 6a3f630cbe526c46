"""The messages of the node's publishers, with stand-ins for the node and for vision_msgs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from builtin_interfaces.msg import Time
from rclpy.context import Context
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from sartm_model.errors import SartmError
from sartm_model.labels import MFNET
from sartm_ros.node import publishers, qos
from sartm_ros.node.publishers import Publishers


@dataclass
class VisionClass:
    """The fields of vision_msgs/VisionClass."""

    class_id: int = 0
    class_name: str = ''


@dataclass
class LabelInfo:
    """The fields of vision_msgs/LabelInfo that are set."""

    header: Header = field(default_factory=Header)
    class_map: list[VisionClass] = field(default_factory=list)


class Node:
    """Records what its publishers publish, by the name of the topic."""

    def __init__(self) -> None:
        self.published: dict[str, list[Any]] = {}

    def resolve_topic_name(self, name: str, only_expand: bool = False) -> str:
        return name.replace('~', '/sartm')

    def create_lifecycle_publisher(self, message_type: Any, topic: str, *_: Any, **__: Any) -> Any:
        messages = self.published.setdefault(self.resolve_topic_name(topic), [])

        def publish(message: Any) -> None:
            frame_id = message.header.frame_id if isinstance(message, LabelInfo) else None
            messages.append((message, frame_id))

        return SimpleNamespace(
            publish=publish,
            get_subscription_count=lambda: 1,
            topic_name=self.resolve_topic_name(topic),
        )

    def get_clock(self) -> Any:
        now = SimpleNamespace(to_msg=lambda: Time(sec=7))
        return SimpleNamespace(now=lambda: now)


@pytest.fixture
def vision_msgs(monkeypatch):
    """The messages of vision_msgs, which PyPI does not have."""
    monkeypatch.setattr(publishers, 'LabelInfo', LabelInfo)
    monkeypatch.setattr(publishers, 'VisionClass', VisionClass)


def test_the_camera_info_of_another_camera_or_size_is_not_published():
    node = Node()
    results = Publishers(node, [])
    header = Header(frame_id='rgb', stamp=Time(sec=9))
    for camera, size in (('rgb', (480, 640)), ('thermal', (240, 320))):
        info = CameraInfo(height=size[0], width=size[1])
        results.keep_camera_info(camera, serialize_message(info))
    for camera, size in (('rgb', (480, 640)), ('rgb', (240, 320)), ('depth', (480, 640))):
        results.publish_camera_info(camera, size, header)
    results.keep_camera_info('rgb', bytes(40))
    results.publish_camera_info('rgb', (480, 640), header)
    ((found, _),) = node.published['/sartm/camera_info']
    assert (found.header, found.height, found.width) == (header, 480, 640)


def labels_of(frame_id: str) -> tuple[str, np.ndarray, Header]:
    return 'labels', np.zeros((2, 3), np.uint8), Header(frame_id=frame_id, stamp=Time(sec=9))


def test_label_info_has_the_names_and_follows_the_frame_of_the_labels(vision_msgs):
    node = Node()
    results = Publishers(node, [])
    results.publish_classes(MFNET)
    ((info, frame_id),) = node.published['/sartm/label_info']
    named = {item.class_id: item.class_name for item in info.class_map}
    assert named == {**dict(enumerate(MFNET.classes)), 255: 'unknown'}
    assert (info.header.stamp.sec, frame_id) == (7, '')
    for labels in ('left', 'left', 'right', 'right', 'left'):
        results.publish(*labels_of(labels))
    infos = node.published['/sartm/label_info']
    assert [frame for _, frame in infos] == ['', 'left', 'right', 'left']
    assert infos[-1][0].header.stamp.sec == 9
    assert len(infos[-1][0].class_map) == len(named)


def test_without_vision_msgs_there_are_the_classes_alone(monkeypatch):
    monkeypatch.setattr(publishers, 'LabelInfo', None)
    node = Node()
    results = Publishers(node, [])
    results.publish_classes(MFNET)
    results.publish(*labels_of('left'))
    assert '/sartm/label_info' not in node.published
    ((classes, _),) = node.published['/sartm/classes']
    assert json.loads(classes.data) == {**MFNET.to_dict(), 'unknown_id': 255}


@pytest.mark.parametrize(
    ('override', 'expected'),
    [
        ('reliability:=sure', 'reliability`: `sure`'),
        ('reliability:=3', 'expecting type'),
        ('depth:=ten', 'expecting type'),
    ],
)
def test_an_override_of_the_qos_that_cannot_be_used_is_named(monkeypatch, override, expected):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    context = Context()
    context.init(['--ros-args', '-p', f'qos_overrides./labels.publisher.{override}'])
    node = rclpy.create_node('sartm', context=context)
    profile, options = qos.output_qos(), qos.overridable()
    named = pytest.raises(SartmError, match=f'^/labels cannot be opened: .*{expected}')
    try:
        with named, qos.translate_errors('/labels'):
            node.create_publisher(Header, '/labels', profile, qos_overriding_options=options)
    finally:
        node.destroy_node()
        context.shutdown()
