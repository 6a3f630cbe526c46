"""The node's two image subscriptions, raw or compressed as the topics are, and camera infos.

The callbacks get serialised messages; those of images `cdr` reads without copying the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from sartm_model.errors import SartmError
from sartm_ros.messages import cdr
from sartm_ros.node import qos
from sartm_ros.settings.cameras import (
    camera_topics,
    camera_transports,
    require_two_topics,
    topic_parameter,
    transport_parameter,
)
from sartm_ros.settings.parameters import Parameters

COMPRESSED_NAMES = ('/compressed', '/compressedDepth')
"""Ends of the names of topics that carry compressed images."""

_TYPES = {'raw': Image, 'compressed': CompressedImage}
_TRANSPORTS = {'sensor_msgs/msg/Image': 'raw', 'sensor_msgs/msg/CompressedImage': 'compressed'}
_READERS: dict[str, Callable[[bytes], Any]] = {
    'raw': cdr.read_image,
    'compressed': cdr.read_compressed_image,
}
_TYPE_NAMES = {transport: name for name, transport in _TRANSPORTS.items()}


def topic_names(node: Any, parameters: Parameters) -> dict[str, str]:
    """Return the full topic name of each camera, as far as it is not empty.

    Raises:
        SartmError: a name is invalid, or both are the same topic.
    """
    names = {camera: name for camera, name in camera_topics(parameters).items() if name}
    for camera, name in names.items():
        try:
            names[camera] = node.resolve_topic_name(name)
        except (RuntimeError, ValueError) as error:
            raise SartmError(
                f'parameter {topic_parameter(camera)} is {name!r}; expected a topic name'
            ) from error
    require_two_topics(parameters, names)
    return names


def info_topic(image_topic: str) -> str:
    """Return the topic of a camera's CameraInfo, beside that of its images, as drivers name it."""
    for end in COMPRESSED_NAMES:
        image_topic = image_topic.removesuffix(end)
    return f'{image_topic.rpartition("/")[0]}/camera_info'


class Subscriptions:
    """Subscribes to the topics of both cameras, or of one if the other's topic is empty.

    Args:
        node: the node.
        parameters: the topics and their transports.
        on_image: called with a camera and the message, as `cdr` reads it.
        on_unreadable: called with a camera and the reason why a message cannot be read.
        on_camera_info: called with a camera and its serialised CameraInfo.

    Attributes:
        topics: the full topic name of each camera, as far as it is not empty.

    Raises:
        SartmError: a subscription cannot be created.
    """

    def __init__(
        self,
        node: Any,
        parameters: Parameters,
        on_image: Callable[[str, Any], None],
        on_unreadable: Callable[[str, SartmError], None],
        on_camera_info: Callable[[str, bytes], None],
    ) -> None:
        self._node = node
        self._on_image = on_image
        self._on_unreadable = on_unreadable
        self._requested = camera_transports(parameters)
        self.topics = topic_names(node, parameters)
        # rclpy remaps the names that it is given, so it must not be given those of `topics`.
        self._names = camera_topics(parameters)
        self._transports: dict[str, str] = {}
        self._subscriptions: dict[str, Any] = {}
        self._info_subscriptions: list[Any] = []
        try:
            self.refresh_subscriptions()
            for camera, topic in self.topics.items():
                self._info_subscriptions.append(
                    node.create_subscription(
                        CameraInfo,
                        info_topic(topic),
                        partial(on_camera_info, camera),
                        qos.input_qos(),
                        event_callbacks=qos.QUIET_SUBSCRIPTION,
                        raw=True,
                    )
                )
        except Exception:
            self.close()
            raise

    def refresh_subscriptions(self) -> None:
        """Subscribe, or subscribe again where the publishers of a topic offer another type."""
        for camera, topic in self.topics.items():
            transport = self._transport(camera)
            if transport == self._transports.get(camera):
                continue
            if camera in self._subscriptions:
                self._node.get_logger().info(
                    f'{topic} carries {transport} images: subscribing again'
                )
                self._node.destroy_subscription(self._subscriptions.pop(camera))
            self._subscriptions[camera] = self._subscribe(camera, transport)
            self._transports[camera] = transport

    def describe(self) -> str:
        """Return the topics and their transports, for the log."""
        return ' + '.join(f'{topic} ({self._transports[c]})' for c, topic in self.topics.items())

    def explain_silence(self, camera: str) -> str:
        """Return what may be wrong with a topic on which no message arrives."""
        transport, parameter = self._transports[camera], topic_parameter(camera)
        publishers = self._publishers(camera)
        types = {i.topic_type for i in publishers}
        if types and transport not in (_TRANSPORTS.get(name) for name in types):
            return (
                f'which carries {" and ".join(sorted(types))}, but this node subscribes to '
                f'{transport} images: is {parameter} right, is {transport_parameter(camera)}?'
            )
        return (
            f'which has {len(publishers)} publishers: is the driver running, is {parameter} right?'
        )

    def qos_mismatches(self) -> list[str]:
        """Describe each topic with an incompatible publisher: see `qos.input_mismatch`."""
        texts = []
        for camera, subscription in self._subscriptions.items():
            type_name = _TYPE_NAMES[self._transports[camera]]
            publishers = [i for i in self._publishers(camera) if i.topic_type == type_name]
            profile = subscription.qos_profile
            texts.append(qos.input_mismatch(self.topics[camera], publishers, profile))
        return [text for text in texts if text]

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in [*self._subscriptions.values(), *self._info_subscriptions]:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._info_subscriptions.clear()

    def _transport(self, camera: str) -> str:
        """Return 'raw' or 'compressed' for a camera's topic.

        The parameter decides; with 'auto' the type that the publishers offer, without publishers
        the present subscription, and before there is one the topic's name.
        """
        if self._requested[camera] != 'auto':
            return self._requested[camera]
        types = {i.topic_type for i in self._publishers(camera)}
        offered = {_TRANSPORTS[name] for name in types if name in _TRANSPORTS}
        if len(offered) == 1:
            return offered.pop()
        by_name = 'compressed' if self.topics[camera].endswith(COMPRESSED_NAMES) else 'raw'
        return self._transports.get(camera, by_name)

    def _publishers(self, camera: str) -> list[Any]:
        """Return what the graph knows of the publishers of a camera's topic, of any type."""
        return list(self._node.get_publishers_info_by_topic(self._names[camera]))

    def _subscribe(self, camera: str, transport: str) -> Any:
        profile = qos.input_qos()
        with qos.translate_errors(self.topics[camera]):
            return self._node.create_subscription(
                _TYPES[transport],
                self._names[camera],
                partial(self._read, camera, _READERS[transport]),
                profile,
                event_callbacks=qos.QUIET_SUBSCRIPTION,
                qos_overriding_options=qos.overridable(),
                raw=True,
            )

    def _read(self, camera: str, read: Callable[[bytes], Any], message: bytes) -> None:
        try:
            image = read(message)
        except SartmError as error:
            self._on_unreadable(camera, error)
        else:
            self._on_image(camera, image)
