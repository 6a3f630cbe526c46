"""The policies of message_filters, if it is installed."""

from __future__ import annotations

import importlib.util

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
        MessageFilterMatcher(policy, 0.05, 10)


@pytest.mark.skipif(not INSTALLED, reason='needs ROS 2 (message_filters); it is not on PyPI')
@pytest.mark.parametrize(('policy', 'skew_ms'), [('approximate', 10), ('exact', 0)])
def test_pairs_come_out(policy, skew_ms):
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    def image(stamp):
        header = Header()
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10**9)
        return Image(header=header)

    matcher = MessageFilterMatcher(policy, 0.05, 10)
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
    assert matcher.num_buffered == 0
    assert matcher.add_rgb(0, image(0), 0) == []
    assert matcher.drops == {'rgb_no_stamp': 1}
