"""What the node says of itself, on topics, before a node that is a process of its own, over DDS."""

from __future__ import annotations

import itertools
import signal

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import (
    QUICK,
    SECOND,
    Peer,
    image,
    random_checkpoint,
    running_node,
    scene,
    send_at_rate,
    send_pair,
    send_until,
    stamp_of,
    wait_until,
)
from sensor_msgs.msg import Image
from std_msgs.msg import Float32

STAGES = ('match', 'wait', 'read', 'upload', 'network', 'download', 'publish')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp('checkpoint'))


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture(scope='module')
def quick(tmp_path_factory, checkpoint):
    """The node with an instant network, active.

    The test that has a node of its own comes before: both have the one name.
    """
    with running_node(tmp_path_factory.mktemp('quick'), {'checkpoint': checkpoint}, QUICK) as node:
        node.wait_for_output('active')
        yield node
        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output


@pytest.fixture
def connected(quick, peer):
    """The other side of `quick`."""
    peer.connect()
    return peer


def test_latency_by_stage_agrees_on_every_topic(tmp_path, checkpoint, peer):
    """With the real network; what the diagnostics make of it is computed anew from ~/status."""
    latencies = peer.listen(Float32, '/sartm/latency', QoSProfile(depth=500))
    with running_node(tmp_path, {'checkpoint': checkpoint, 'device': 'cpu'}) as node:
        node.wait_for_output('active')
        peer.connect()
        send_until(lambda: send_pair(peer, 0, height=32, width=32), lambda: latencies, 'a latency')
        latencies.clear()
        last = send_at_rate(peer, 40)[-1]
        wait_until(lambda: peer.labels and stamp_of(peer.labels[-1]) == last, 'the last labels')
        status = peer.wait_for_counts(pairs_out=len(peer.labels))
        wait_until(lambda: peer.statuses[-1]['stamp_ns'] == last, 'the last status')
        results = peer.statuses
        told_ms = np.array([result['latency_ms'] for result in results])
        wait_until(lambda: latencies, 'latencies')
        for message in list(latencies):
            assert np.abs(told_ms - message.data).min() < 0.01

        for result in results:
            stages_ms = result['stages_ms']
            assert tuple(stages_ms) == STAGES
            assert min(stages_ms.values()) >= 0
            assert sum(stages_ms.values()) <= result['latency_ms'] + 0.01

        assert status['level'] == 0, status['message']
        assert status['modality'] == 'both'
        assert status['device'] == 'cpu'
        resident = float(status['process_memory_mib'])
        assert resident == pytest.approx(node.resident_mib, rel=0.2)
        # Those sent before `connect` returned are in the node's figures and not in these.
        unseen = int(peer._status()['pairs_out']) - len(results)
        for stage in ('latency', *STAGES):
            told = sorted(
                r['latency_ms'] if stage == 'latency' else r['stages_ms'][stage] for r in results
            )
            middle = len(told) // 2
            low, high = told[max(middle - 1 - unseen, 0)], told[min(middle + unseen, len(told) - 1)]
            assert low - 0.01 <= float(status[f'{stage}_median_ms']) <= high + 0.01
            assert float(status[f'{stage}_median_ms']) <= float(status[f'{stage}_p99_ms'])
        assert node.stop(signal.SIGINT) == 0


def test_a_subscriber_that_asks_for_too_much_is_named_until_it_is_gone(quick, connected):
    indices = itertools.count()

    def send():
        send_pair(connected, next(indices), height=32, width=32)

    send_until(send, lambda: connected.status()['level'] == 0, 'all to be well')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    connected.listen(Image, '/sartm/overlay', latched)
    send_until(send, lambda: connected.status()['level'] == 1, 'a warning')
    message = connected.status()['message']
    assert '/sartm/overlay: this node offers RELIABLE VOLATILE' in message
    assert '/test/peer (RELIABLE TRANSIENT_LOCAL)' in message
    assert 'Change the subscriber' in message
    assert 'qos_overrides' not in message  # which cannot help
    assert '/sartm/overlay: this node offers RELIABLE VOLATILE' in quick.output
    for subscription in list(connected.node.subscriptions):
        if subscription.topic_name == '/sartm/overlay':
            connected.node.destroy_subscription(subscription)
    send_until(send, lambda: connected.status()['level'] == 0, 'all to be well again')
    assert 'is incompatible with' not in connected.status()['message']


def test_the_last_error_stays_with_its_age(connected):
    rgb, thermal = scene(3, 32, 32)
    bad = image(thermal, 'mono8', SECOND)
    bad.encoding = 'jpeg2000'
    connected.send(image(rgb, 'rgb8', SECOND), bad)
    connected.wait_for_counts(dropped__bad_frame=1)
    first = connected.status()
    assert "thermal: image encoding 'jpeg2000'" in first['last_error']
    indices = itertools.count(60)

    def older() -> bool:
        status = connected.status()
        age_s = float(status['last_error_age_s'])
        return status['level'] == 0 and age_s > float(first['last_error_age_s'])

    send_until(
        lambda: send_pair(connected, next(indices), height=32, width=32), older, 'a good end'
    )
    assert connected.status()['last_error'] == first['last_error']
    assert float(connected.status()['rgb_hz']) > 0
    assert float(connected.status()['thermal_hz']) > 0
