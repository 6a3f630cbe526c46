"""The node's publishers: images, raw and compressed, camera info, classes, status and latency."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32, String

from sartm_model.labels import IGNORE_ID, LabelSpace
from sartm_ros.messages.cdr import write_image
from sartm_ros.messages.compressed import compress
from sartm_ros.node import qos
from sartm_ros.node.subscriptions import info_topic

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:
    LabelInfo = VisionClass = None

ENCODINGS = {'labels': 'mono8', 'confidence': 'mono8', 'overlay': 'rgb8'}
"""The encoding of each image topic."""

COMPRESSIONS = {'labels': 'png', 'confidence': 'png', 'overlay': 'jpeg'}
"""The format of each `<topic>/compressed`. JPEG blurs the border between two labels into ids of
other classes."""

ACKNOWLEDGE_TIMEOUT = Duration(seconds=0.5)
"""How long closing waits for subscribers that do not acknowledge the last message."""


class Publishers:
    """Publishes `~/labels`, `~/confidence`, `~/overlay`, each with `/compressed`, `~/camera_info`,
    `~/classes`, `~/status` and `~/latency`, and `~/label_info` where `vision_msgs` is installed.

    Where an image topic is remapped, its compressed topic goes with it, and with the labels the
    camera info, unless they are remapped themselves. Beside the images of a camera the camera info
    stays where it is, because that camera's driver publishes its own there.

    Args:
        node: the lifecycle node.
        image_topics: the full names of the cameras' topics.

    Raises:
        SartmError: a publisher cannot be created.
    """

    def __init__(self, node: Any, image_topics: Iterable[str]) -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        self._topics: dict[str, str] = {}  # as rclpy was given them
        self._camera_infos: dict[str, bytes] = {}  # the last serialised CameraInfo of each camera
        self._label_info: Any = None  # the last message of ~/label_info
        try:
            for name in ENCODINGS:
                self._create(Image, name)
                image_topic = self._publishers[name].topic_name
                self._create(CompressedImage, _compressed(name), _compressed(image_topic))
            beside_labels = info_topic(self._publishers['labels'].topic_name)
            is_of_driver = beside_labels in map(info_topic, image_topics)
            self._create(CameraInfo, 'camera_info', '' if is_of_driver else beside_labels)
            self._create(String, 'status')
            self._create(Float32, 'latency')
            self._create(String, 'classes', latched=True)
            if LabelInfo is not None:
                self._create(LabelInfo, 'label_info', latched=True)
        except Exception:
            self.close()
            raise

    def has_listener(self, name: str) -> bool:
        """Return whether an image topic, or its compressed topic, has a subscriber."""
        return self._is_subscribed(name) or self._is_subscribed(_compressed(name))

    def publish(self, name: str, image: np.ndarray, header: Any) -> None:
        """Publish uint8 `[H, W]` or `[H, W, 3]`.

        Before labels of another frame than the last ones, `~/label_info` is published with the
        stamp and the frame of these.
        """
        info = self._label_info
        if name == 'labels' and info is not None and info.header.frame_id != header.frame_id:
            info.header = header
            self._publishers['label_info'].publish(info)
        self._publishers[name].publish(write_image(image, ENCODINGS[name], header))

    def publish_compressed(self, name: str, image: np.ndarray, header: Any) -> None:
        """Compress and publish an image on `<name>/compressed`, if that has a subscriber."""
        if self._is_subscribed(_compressed(name)):
            message = compress(image, COMPRESSIONS[name], header)
            self._publishers[_compressed(name)].publish(message)

    def keep_camera_info(self, camera: str, message: bytes) -> None:
        """Take a serialised CameraInfo of a camera, for the results in its geometry."""
        self._camera_infos[camera] = message

    def publish_camera_info(self, camera: str, size: tuple[int, ...], header: Any) -> None:
        """Publish the last CameraInfo of a camera with a result's header, if anyone subscribes.

        That of images of another height and width than `size`, the result's, is not published.
        """
        message = self._camera_infos.get(camera)
        if message is None or not self._is_subscribed('camera_info'):
            return
        try:
            info = deserialize_message(message, CameraInfo)
        except Exception:  # rclpy's RMWError: it cannot be read, and is not tried again
            del self._camera_infos[camera]
            return
        if (info.height, info.width) == size:
            info.header = header
            self._publishers['camera_info'].publish(info)

    def publish_status(self, status: dict[str, Any]) -> None:
        """Publish how a result was computed, as JSON, if anyone subscribes."""
        if self._is_subscribed('status'):
            self._publishers['status'].publish(String(data=json.dumps(status)))

    def publish_latency(self, latency_s: float) -> None:
        """Publish the latency in milliseconds, for a plot, if anyone subscribes."""
        if self._is_subscribed('latency'):
            self._publishers['latency'].publish(Float32(data=latency_s * 1e3))

    def publish_classes(self, space: LabelSpace) -> None:
        """Publish the names and colours of the label ids as JSON, and the names as LabelInfo.

        LabelInfo has the present time and no frame, because no image has arrived yet. It also names
        the unknown id, which JSON has apart from the classes.
        """
        text = json.dumps({**space.to_dict(), 'unknown_id': IGNORE_ID})
        self._publishers['classes'].publish(String(data=text))
        if 'label_info' in self._publishers:
            message = LabelInfo()
            message.header.stamp = self._node.get_clock().now().to_msg()
            names = [*enumerate(space.classes), (IGNORE_ID, 'unknown')]
            message.class_map = [VisionClass(class_id=i, class_name=name) for i, name in names]
            self._publishers['label_info'].publish(message)
            self._label_info = message

    def qos_mismatches(self) -> list[str]:
        """Describe each topic with an incompatible subscriber: see `qos.output_mismatch`."""
        texts = []
        for name, publisher in self._publishers.items():
            subscriptions = self._node.get_subscriptions_info_by_topic(self._topics[name])
            texts.append(
                qos.output_mismatch(publisher.topic_name, subscriptions, publisher.qos_profile)
            )
        return [text for text in texts if text]

    def close(self) -> None:
        """Destroy the publishers, after the subscribers have acknowledged the last labels."""
        for name in ('labels', 'status'):
            if name in self._publishers:
                self._publishers[name].wait_for_all_acked(ACKNOWLEDGE_TIMEOUT)
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def _is_subscribed(self, name: str) -> bool:
        return self._publishers[name].get_subscription_count() > 0

    def _create(
        self, message_type: Any, name: str, beside: str = '', *, latched: bool = False
    ) -> None:
        """Create the publisher of `~/name`, or of the topic `beside` unless that is remapped."""
        node = self._node
        topic = f'~/{name}'
        if beside and node.resolve_topic_name(topic) == node.resolve_topic_name(
            topic, only_expand=True
        ):
            topic = beside
        self._topics[name] = topic
        profile = qos.latched_qos() if latched else qos.output_qos()
        with qos.translate_errors(node.resolve_topic_name(topic)):
            self._publishers[name] = node.create_lifecycle_publisher(
                message_type,
                topic,
                profile,
                event_callbacks=qos.QUIET_PUBLISHER,
                qos_overriding_options=None if latched else qos.overridable(),
            )


def _compressed(name: str) -> str:
    return f'{name}/compressed'
