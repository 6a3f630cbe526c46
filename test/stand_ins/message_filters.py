"""Stands for the ROS package message_filters, which PyPI does not have, in the examples' test.

`ApproximateTimeSynchronizer` of two subscribers pairs each first message with the first of the
second topic that is near enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Subscriber:
    """A subscription that keeps what it receives until it is paired."""

    def __init__(self, node: Any, message_type: Any, topic: str, qos_profile: Any) -> None:
        self.messages: list[Any] = []
        self.on_message: Callable[[], None] = lambda: None
        node.create_subscription(message_type, topic, self._receive, qos_profile)

    def _receive(self, msg: Any) -> None:
        self.messages.append(msg)
        self.on_message()


class ApproximateTimeSynchronizer:
    """Calls back with pairs whose stamps differ by at most `slop` seconds."""

    def __init__(self, fs: list[Subscriber], queue_size: int, slop: float) -> None:
        self._first, self._second = fs
        self._slop = slop
        for subscriber in fs:
            subscriber.on_message = self._pair

    def registerCallback(self, callback: Callable[[Any, Any], None]) -> None:
        self._callback = callback

    def _pair(self) -> None:
        for first in list(self._first.messages):
            for second in list(self._second.messages):
                if abs(_seconds(first) - _seconds(second)) <= self._slop:
                    self._first.messages.remove(first)
                    self._second.messages.remove(second)
                    self._callback(first, second)
                    break


def _seconds(msg: Any) -> float:
    return msg.header.stamp.sec + 1e-9 * msg.header.stamp.nanosec
