"""The policies of message_filters, if it is installed."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sartm_model.errors import SartmError
from sartm_ros.sync.message_filters_matcher import MessageFilterMatcher

INSTALLED = importlib.util.find_spec('message_filters') is not None
MS = 1_000_000


@pytest.mark.skipif(INSTALLED, reason='message_filters is installed: nothing is missing')
@pytest.mark.parametrize('policy', ['approximate', 'exact'])
def test_without_the_package_the_error_names_it(policy):
    with pytest.raises(SartmError, match=f'sync.policy is {policy}.*message_filters.*use nearest'):
        MessageFilterMatcher(policy, 0.05, 10, 'thermal')


@pytest.mark.skipif(not INSTALLED, reason='needs ROS 2 (message_filters); it is not on PyPI')
@pytest.mark.parametrize(('policy', 'skew_ms'), [('approximate', 10), ('exact', 0)])
def test_pairs_come_out(policy, skew_ms):
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    def image(stamp):
        header = Header()
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10**9)
        return Image(header=header)

    matcher = MessageFilterMatcher(policy, 0.05, 10, 'thermal')
    stamps = np.arange(1, 31, dtype=int) * 100 * MS
    pairs = []
    for stamp in stamps.tolist():
        thermal = stamp + skew_ms * MS
        pairs += matcher.add_rgb(stamp, image(stamp), stamp)
        pairs += matcher.add_x(thermal, image(thermal), thermal)
    assert [pair.stamp_ns for pair in pairs] == stamps.tolist()
    assert {pair.skew_ns for pair in pairs} == {skew_ms * MS}
    # Latency counts from the RGB message, though thermal came last.
    assert [pair.arrival_ns for pair in pairs] == stamps.tolist()
    assert {type(message) for pair in pairs for message in (pair.rgb, pair.x)} == {Image}
    assert matcher.add_rgb(0, image(0), 0) == []
    matcher.stop()
    assert +matcher.drops == {'rgb_no_stamp': 1}  # no image waits


class SimpleFilter:
    """Stands for `message_filters.SimpleFilter`."""

    def __init__(self):
        self.callbacks = []

    def registerCallback(self, callback):
        self.callbacks.append(callback)

    def signalMessage(self, *messages):
        for callback in self.callbacks:
            callback(*messages)


class ArrivalOrder(SimpleFilter):
    """Stands for `message_filters.ApproximateTimeSynchronizer`: the n-th messages are a pair."""

    def __init__(self, sources, queue_size, slop):
        super().__init__()
        self.queues = [{} for _ in sources]
        for source, queue in zip(sources, self.queues, strict=True):
            source.registerCallback(lambda message, queue=queue: self.add(queue, message))

    def add(self, queue, message):
        queue[message.header.stamp.sec] = message
        if all(self.queues):
            self.signalMessage(*(queue.pop(min(queue)) for queue in self.queues))


def test_what_a_pair_of_the_policies_says_and_what_is_counted(monkeypatch):
    stand_in = SimpleNamespace(SimpleFilter=SimpleFilter, ApproximateTimeSynchronizer=ArrivalOrder)
    monkeypatch.setitem(sys.modules, 'message_filters', stand_in)

    def image(stamp):
        seconds, nanoseconds = divmod(stamp, 10**9)
        stamp = SimpleNamespace(sec=seconds, nanosec=nanoseconds)
        return SimpleNamespace(header=SimpleNamespace(stamp=stamp))

    matcher = MessageFilterMatcher('approximate', 0.05, 10, x_name='depth')
    stamp = 1000 * MS
    rgb, x = image(stamp), image(stamp + 10 * MS)
    assert matcher.add_rgb(stamp, rgb, 5) == []
    (pair,) = matcher.add_x(stamp + 10 * MS, x, 7)
    # Latency counts from the RGB message, though the other one came last.
    assert (pair.stamp_ns, pair.skew_ns, pair.arrival_ns) == (stamp, 10 * MS, 5)
    assert pair.rgb is rgb
    assert pair.x is x
    assert matcher.add_rgb(0, image(0), 8) == matcher.add_x(-MS, image(-MS), 8) == []
    assert matcher.drops == {'rgb_no_stamp': 1, 'depth_no_stamp': 1}
    matcher.add_x(2 * stamp, image(2 * stamp), 9)
    for _ in range(2):  # the second time there is nothing left
        matcher.stop()
        assert +matcher.drops == {'rgb_no_stamp': 1, 'depth_no_stamp': 1, 'depth_stopped': 1}
