"""The node's status, latency and diagnostics, over DDS."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import SECOND, image, scene, send_at_rate, send_pair, send_until, stamp_of
from sensor_msgs.msg import Image
from std_msgs.msg import Float32

STAGES = ('match', 'wait', 'read', 'preprocess', 'network', 'postprocess', 'publish')


def test_latency_by_stage_agrees_on_every_topic(real_node, real_peer):
    """With the real network. The figures of the diagnostics are computed again from ~/status."""
    peer = real_peer
    # The counters and samples begin anew when the node is configured.
    for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert peer.change_state(transition)
    peer.connect()
    latencies = peer.listen(Float32, '/sartm/latency', QoSProfile(depth=500))
    send_until(lambda: send_pair(peer, 0, height=32, width=32), lambda: latencies, 'a latency')
    latencies.clear()
    last = send_at_rate(peer, 40)[-1]
    wait_until(lambda: peer.labels and stamp_of(peer.labels[-1]) == last, 'the last labels')
    status = peer.wait_for_counts(pairs_out=len(peer.labels))
    wait_until(lambda: peer.statuses[-1]['stamp_ns'] == last, 'the last status')
    results = peer.statuses
    reported_ms = np.array([result['latency_ms'] for result in results])
    wait_until(lambda: latencies, 'latencies')
    for message in list(latencies):
        assert np.abs(reported_ms - message.data).min() < 0.01

    for result in results:
        stages_ms = result['stages_ms']
        assert tuple(stages_ms) == STAGES
        assert min(stages_ms.values()) >= 0
        assert sum(stages_ms.values()) <= result['latency_ms'] + 0.01

    assert status['modality'] == 'both'
    assert status['device'] == 'cpu'
    resident = float(status['process_memory_mib'])
    assert resident == pytest.approx(real_node.resident_mib, rel=0.2)
    # The node's figures include the probes of `connect`, which `results` does not.
    unseen = int(peer._status()['pairs_out']) - len(results)
    for stage in ('latency', *STAGES):
        reported = sorted(
            r['latency_ms'] if stage == 'latency' else r['stages_ms'][stage] for r in results
        )
        middle = len(reported) // 2
        low, high = (
            reported[max(middle - 1 - unseen, 0)],
            reported[min(middle + unseen, len(reported) - 1)],
        )
        assert low - 0.01 <= float(status[f'{stage}_median_ms']) <= high + 0.01
        assert float(status[f'{stage}_median_ms']) <= float(status[f'{stage}_p99_ms'])


def test_a_subscriber_that_asks_for_too_much_is_named_until_it_is_gone(quick_node, quick_peer):
    indices = itertools.count()

    def send():
        send_pair(quick_peer, next(indices), height=32, width=32)

    send_until(send, lambda: quick_peer.status()['level'] == 0, 'all to be well')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    quick_peer.listen(Image, '/sartm/overlay', latched)
    send_until(send, lambda: quick_peer.status()['level'] == 1, 'a warning')
    message = quick_peer.status()['message']
    assert '/sartm/overlay: this node offers RELIABLE VOLATILE' in message
    assert '/test/peer (RELIABLE TRANSIENT_LOCAL)' in message
    assert 'Change the subscriber' in message
    assert 'qos_overrides' not in message  # which cannot help
    assert '/sartm/overlay: this node offers RELIABLE VOLATILE' in quick_node.output
    quick_peer.unsubscribe('/sartm/overlay')
    send_until(send, lambda: quick_peer.status()['level'] == 0, 'all to be well again')
    assert 'is incompatible with' not in quick_peer.status()['message']


def test_the_last_error_stays_with_its_age(quick_peer):
    rgb, thermal = scene(3, 32, 32)
    bad = image(thermal, 'mono8', SECOND)
    bad.encoding = 'jpeg2000'
    quick_peer.send(image(rgb, 'rgb8', SECOND), bad)
    quick_peer.wait_for_counts(thermal_unreadable=1)
    first = quick_peer.status()
    assert "thermal: image encoding 'jpeg2000'" in first['last_error']
    indices = itertools.count(60)

    def older() -> bool:
        status = quick_peer.status()
        age_s = float(status['last_error_age_s'])
        return status['level'] == 0 and age_s > float(first['last_error_age_s'])

    send_until(
        lambda: send_pair(quick_peer, next(indices), height=32, width=32), older, 'a good end'
    )
    assert quick_peer.status()['last_error'] == first['last_error']
    assert float(quick_peer.status()['rgb_hz']) > 0
    assert float(quick_peer.status()['thermal_hz']) > 0
