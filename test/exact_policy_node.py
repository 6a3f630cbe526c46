"""The node with an instant network, and a stand-in for `message_filters` where that is missing.

The stand-in has what `sync.policy: exact` needs: messages of equal stamps are put together.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from quick_network_node import main


class SimpleFilter:
    """Passes messages on to a callback."""

    def registerCallback(self, callback: Callable[..., None], *arguments: Any) -> None:
        self.call = lambda *messages: callback(*messages, *arguments)

    def signalMessage(self, *messages: Any) -> None:
        self.call(*messages)


class TimeSynchronizer(SimpleFilter):
    """Passes on the messages of all sources that have one stamp."""

    def __init__(self, sources: list[SimpleFilter], queue_size: int) -> None:
        self.queues: list[dict[tuple[int, int], Any]] = [{} for _ in sources]
        self._queue_size = queue_size
        for source, queue in zip(sources, self.queues, strict=True):
            source.registerCallback(self._add, queue)

    def _add(self, message: Any, queue: dict[tuple[int, int], Any]) -> None:
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        queue[stamp] = message
        while len(queue) > self._queue_size:
            del queue[min(queue)]
        if all(stamp in other for other in self.queues):
            self.signalMessage(*(other.pop(stamp) for other in self.queues))


if __name__ == '__main__':
    if importlib.util.find_spec('message_filters') is None:
        stand_in = ModuleType('message_filters')
        vars(stand_in).update(SimpleFilter=SimpleFilter, TimeSynchronizer=TimeSynchronizer)
        sys.modules['message_filters'] = stand_in
    sys.exit(main())
