"""The node's two image subscriptions, raw or compressed, whichever the topics carry.

rclpy is asked for the serialised messages, which `cdr` reads without a copy of the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sensor_msgs.msg import CompressedImage, Image

from sartm_model.errors import SartmError
from sartm_ros.messages import cdr
from sartm_ros.node import qos
from sartm_ros.node.health import TOPICS
from sartm_ros.node.parameters import Parameters

_TYPES = {'raw': Image, 'compressed': CompressedImage}
_TRANSPORTS = {'sensor_msgs/msg/Image': 'raw', 'sensor_msgs/msg/CompressedImage': 'compressed'}
_READERS: dict[str, Callable[[bytes], Any]] = {
    'raw': cdr.read_image,
    'compressed': cdr.read_compressed_image,
}
_TYPE_NAMES = {transport: name for name, transport in _TRANSPORTS.items()}


def topic_names(node: Any, settings: Parameters) -> dict[str, str]:
    """Full names of 'rgb' and 'thermal'. Raises SartmError where one is not a topic's name."""
    names = dict(zip(TOPICS, (settings.rgb_topic, settings.thermal_topic), strict=True))
    for which, name in names.items():
        try:
            names[which] = node.resolve_topic_name(name)
        except (RuntimeError, ValueError) as error:
            raise SartmError(
                f'parameter {which}_topic is {name!r}; expected a topic name'
            ) from error
    return names


class Inputs:
    """Subscribes to both topics.

    Args:
        node: subscribes.
        settings: the topics and their transports.
        on_image: called with 'rgb' or 'thermal' and the message, as `cdr` reads it.
        on_bad: called with 'rgb' or 'thermal' and why a message cannot be read.

    Attributes:
        topics: full names of 'rgb' and 'thermal'.

    Raises:
        SartmError: a subscription cannot be made.
    """

    def __init__(
        self,
        node: Any,
        settings: Parameters,
        on_image: Callable[[str, Any], None],
        on_bad: Callable[[str, SartmError], None],
    ) -> None:
        self._node = node
        self._on_image = on_image
        self._on_bad = on_bad
        self._asked = dict(
            zip(TOPICS, (settings.rgb_transport, settings.thermal_transport), strict=True)
        )
        self.topics = topic_names(node, settings)
        self._transports: dict[str, str] = {}
        self._subscriptions: dict[str, Any] = {}
        try:
            self.follow()
        except Exception:
            self.close()
            raise

    def follow(self) -> None:
        """Subscribe, or anew where publishers have shown that a topic is of another type."""
        for which, topic in self.topics.items():
            transport = self._transport(which)
            if transport == self._transports.get(which):
                continue
            if which in self._subscriptions:
                self._node.get_logger().info(f'{topic} carries {transport} images: listening anew')
                self._node.destroy_subscription(self._subscriptions.pop(which))
            self._subscriptions[which] = self._subscribe(which, topic, transport)
            self._transports[which] = transport

    def describe(self) -> str:
        """The topics and their transports, for the log."""
        return ' + '.join(f'{topic} ({self._transports[w]})' for w, topic in self.topics.items())

    def why_silent(self, which: str) -> str:
        """What may be wrong with a topic that brings nothing."""
        topic, transport = self.topics[which], self._transports[which]
        types = {i.topic_type for i in self._node.get_publishers_info_by_topic(topic)}
        if types and transport not in (_TRANSPORTS.get(name) for name in types):
            return (
                f'which carries {" and ".join(sorted(types))}, but this node listens for '
                f'{transport} images: is {which}_topic right, is {which}_transport?'
            )
        return (
            f'which has {self._node.count_publishers(topic)} publishers: is the driver running, '
            f'is {which}_topic right?'
        )

    def mismatches(self) -> list[str]:
        """Of each topic with a publisher that cannot be heard: see `qos.input_mismatch`."""
        texts = []
        for which, subscription in self._subscriptions.items():
            type_name = _TYPE_NAMES[self._transports[which]]
            profile = subscription.qos_profile
            texts.append(qos.input_mismatch(self._node, self.topics[which], type_name, profile))
        return [text for text in texts if text]

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def _transport(self, which: str) -> str:
        """By the setting; by what is offered; as before; by the name."""
        topic = self.topics[which]
        if self._asked[which] != 'auto':
            return self._asked[which]
        infos = self._node.get_publishers_info_by_topic(topic)
        offered = {_TRANSPORTS[i.topic_type] for i in infos if i.topic_type in _TRANSPORTS}
        if len(offered) == 1:
            return offered.pop()
        by_name = 'compressed' if topic.endswith('/compressed') else 'raw'
        return self._transports.get(which, by_name)

    def _subscribe(self, which: str, topic: str, transport: str) -> Any:
        profile = qos.input_qos()
        with qos.checked(topic):
            return self._node.create_subscription(
                _TYPES[transport],
                topic,
                partial(self._read, which, _READERS[transport]),
                profile,
                event_callbacks=qos.QUIET_SUBSCRIPTION,
                qos_overriding_options=qos.overridable(),
                raw=True,
            )

    def _read(self, which: str, read: Callable[[bytes], Any], message: bytes) -> None:
        try:
            image = read(message)
        except SartmError as error:
            self._on_bad(which, error)
        else:
            self._on_image(which, image)
