"""The policies of `message_filters` behind the interface of `PairMatcher`.

`approximate` takes the first partner within the tolerance, not the nearest. After time jumps back
it pairs old messages with new ones, or outputs almost nothing: see `docs/matching.md`. The policies
are here for users who rely on them in other nodes.
"""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any, NamedTuple

from sartm_model.errors import SartmError
from sartm_ros.messages.images import stamp_of
from sartm_ros.sync.pair_matcher import Pair


class _Arrived(NamedTuple):
    """A message and its arrival. The filters read only `header.stamp`."""

    header: Any
    msg: Any
    arrival_ns: int


class MessageFilterMatcher:
    """`message_filters`' TimeSynchronizer ('exact') or ApproximateTimeSynchronizer.

    Raises:
        SartmError: `message_filters` is not installed.
    """

    def __init__(self, policy: str, max_skew_s: float, queue_size: int, x_name: str) -> None:
        try:
            filters = importlib.import_module('message_filters')
        except ImportError:
            raise SartmError(
                f'parameter sync.policy is {policy}, which needs the ROS package message_filters; '
                'install it, or use nearest'
            ) from None
        self.drops: Counter[str] = Counter()
        self.deadline_ns = None
        # Attributes of `PairMatcher` without effect here: these policies output only pairs.
        self.rgb_alone_after_ns: int | None = None
        self.x_alone_after_ns: int | None = None
        self._ready: list[Pair] = []
        self._filters = {'rgb': filters.SimpleFilter(), x_name: filters.SimpleFilter()}
        self._x_name = x_name
        sources = list(self._filters.values())
        if policy == 'exact':
            self._sync = filters.TimeSynchronizer(sources, queue_size)
        else:
            self._sync = filters.ApproximateTimeSynchronizer(sources, queue_size, max_skew_s)
        # The callback only fills a list, because an exception in it would leave the filter locked.
        self._sync.registerCallback(self._on_pair)

    @property
    def max_skew_ns(self) -> int:
        """The tolerance of 'approximate' in nanoseconds; 0 for 'exact'."""
        return int(getattr(getattr(self._sync, 'slop', None), 'nanoseconds', 0))

    @max_skew_ns.setter
    def max_skew_ns(self, value: int) -> None:
        if hasattr(self._sync, 'slop'):
            self._sync.slop = type(self._sync.slop)(nanoseconds=value)

    def add_rgb(self, stamp_ns: int, msg: Any, now_ns: int) -> list[Pair]:
        """Take an RGB message: see `PairMatcher.add_rgb`."""
        return self._add('rgb', stamp_ns, msg, now_ns)

    def add_x(self, stamp_ns: int, msg: Any, now_ns: int) -> list[Pair]:
        """Take a message of X: see `PairMatcher.add_x`."""
        return self._add(self._x_name, stamp_ns, msg, now_ns)

    def poll(self, now_ns: int) -> list[Pair]:
        """Return no pairs, because these policies never wait for time to pass."""
        return []

    def stop(self) -> None:
        """Drop the messages that wait."""
        for topic, queue in zip(self._filters, self._sync.queues, strict=True):
            self.drops[f'{topic}_stopped'] += len(queue)
            queue.clear()

    def _add(self, topic: str, stamp_ns: int, msg: Any, now_ns: int) -> list[Pair]:
        if stamp_ns <= 0:
            self.drops[f'{topic}_no_stamp'] += 1
            return []
        self._filters[topic].signalMessage(_Arrived(msg.header, msg, now_ns))
        ready, self._ready = self._ready, []
        return ready

    def _on_pair(self, rgb: _Arrived, x: _Arrived) -> None:
        stamp_ns = stamp_of(rgb.header)
        skew_ns = stamp_of(x.header) - stamp_ns
        self._ready.append(Pair(rgb.msg, x.msg, stamp_ns, skew_ns, rgb.arrival_ns))
