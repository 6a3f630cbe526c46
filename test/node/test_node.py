"""The node as a process: start, lifecycle, QoS mismatches, end; and with the real network."""

from __future__ import annotations

import importlib.util
import re
import signal

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from lifecycle_msgs.msg import Transition
from processes import running_node, wait_until
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_helpers import QUICK, SECOND, image, scene, send_at_rate, send_until, stamp_of
from sensor_msgs.msg import Image

from sartm_model.labels import MFNET


def test_with_the_real_network_every_pair_is_accounted_for(real_node, real_peer):
    peer = real_peer
    stamps = send_at_rate(peer, 45)
    last = stamps[-1]
    # The newest pair is never the one that is replaced.
    wait_until(lambda: peer.labels and stamp_of(peer.labels[-1]) == last, 'the last labels')
    status = peer.wait_for_counts(pairs_out=len(peer.labels))
    # Best effort loses a message now and then if every core is busy; the node cannot know.
    lost = 2 * 45 - status['rgb_received'] - status['thermal_received']
    assert 45 - lost <= status['pairs_in'] <= 45
    assert len(peer.labels) + status['dropped.replaced'] == status['pairs_in']
    received = [stamp_of(msg) for msg in peer.labels]
    assert received == sorted(set(received) & set(stamps))
    for msg in peer.labels:
        assert (msg.height, msg.width) == (480, 640)
        assert max(msg.data) < len(MFNET)
    assert 'Traceback' not in real_node.output


def test_lifecycle_over_services(tmp_path, checkpoint, peer):
    parameters = {'checkpoint': tmp_path / 'missing.safetensors', 'autostart': 'false'}

    state, change = peer.state, peer.change_state
    with running_node(tmp_path, parameters, QUICK) as node:
        assert state() == 'unconfigured'
        assert not change('configure')
        assert state() == 'unconfigured'
        errors = [line for line in node.output.splitlines() if 'ERROR' in line]
        assert len(errors) == 1
        assert 'missing.safetensors' in errors[0]
        assert 'Traceback' not in node.output
        wait_until(lambda: peer.status().get('level') == 2, 'the diagnostics to turn to error')
        assert 'cannot be configured: no checkpoint' in peer.status()['message']

        ((deleted, reason),) = peer.set_parameters(sync__max_wait=None)
        assert not deleted
        assert reason == (
            'parameter sync.max_wait cannot be deleted; set it to a value, such as its default, 0.1'
        )
        assert peer.set_parameters(checkpoint=str(checkpoint)) == [(True, '')]
        assert change('configure')
        assert state() == 'inactive'
        assert peer.rgb.get_subscription_count() == 0
        for _ in range(2):
            assert change('activate')
            assert state() == 'active'
            peer.connect()
            assert not change('configure')
            assert not change(number=Transition.TRANSITION_CONFIGURE)
            assert state() == 'active'
            assert change(number=Transition.TRANSITION_DEACTIVATE)
            assert state() == 'inactive'
            wait_until(lambda: peer.rgb.get_subscription_count() == 0, 'the node to unsubscribe')
        wait_until(lambda: peer.status()['message'] == 'inactive', 'the diagnostics to say so')
        assert change('cleanup')
        assert state() == 'unconfigured'
        wait_until(lambda: not peer.node.count_publishers('/sartm/labels'), 'the topics to go')
        assert change('configure')
        assert change('activate')
        assert change('shutdown')
        assert state() == 'finalized'
        for line in ('active: ', 'deactivated', 'cleaned up', 'shut down'):
            assert f'[sartm]: {line}' in node.output
        assert 'Traceback' not in node.output
        assert node.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ('parameters', 'expected'),
    [
        ({'checkpoint': '/nowhere/x.safetensors'}, 'no checkpoint /nowhere/x.safetensors'),
        ({'sync.max_wait': '-1.0'}, 'parameter sync.max_wait'),
        ({'rgb_topic': '/a//b'}, "parameter rgb_topic is '/a//b'"),
        (
            {'rgb_topic': '/front/image', 'thermal_topic': 'front/image'},
            "parameter thermal_topic is 'front/image'; expected another topic than rgb_topic",
        ),
    ],
)
def test_a_start_that_cannot_be_ends_with_one_line_and_status_2(tmp_path, parameters, expected):
    with running_node(tmp_path, parameters) as node:
        assert node.wait() == 2
        lines = [line for line in node.output.splitlines() if line.strip()]
        assert len(lines) == 1, node.output
        assert expected in lines[0]


@pytest.mark.skipif(
    importlib.util.find_spec('message_filters') is not None,
    reason='message_filters is installed: nothing is missing',
)
def test_a_policy_that_is_not_installed_says_so(tmp_path):
    with running_node(tmp_path, {'sync.policy': 'approximate'}) as node:
        assert node.wait() == 2
        assert 'sync.policy is approximate, which needs the ROS package message_filters' in (
            node.output
        )


def test_mismatched_qos_and_silence_are_warned_of_and_time_is_the_walls(tmp_path, checkpoint, peer):
    """The simulation's clock stands still here: waiting and reporting must not depend on it."""
    parameters = {
        'checkpoint': checkpoint,
        'use_sim_time': 'true',
        'thermal_topic': '/strict/thermal',
        'qos_overrides./strict/thermal.subscription.reliability': 'reliable',
    }
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    lossy = peer.publisher(Image, '/strict/thermal', best_effort)
    reliable = peer.publisher(Image, '/strict/thermal', QoSProfile(depth=5))
    with running_node(tmp_path, parameters, QUICK) as node:
        # A name may be discovered after its publisher; then the warning is repeated with it.
        node.wait_for_output('/test/peer (BEST_EFFORT VOLATILE)')
        line = [line for line in node.output.splitlines() if 'is incompatible with' in line][-1]
        assert 'WARN' in line
        assert '/strict/thermal: this node requests RELIABLE' in line
        assert 'Set qos_overrides./strict/thermal.subscription.reliability to best_effort' in line
        rgb, thermal = scene(1)
        stamps = iter(range(SECOND, 1000 * SECOND, SECOND))

        def send_early_thermal():
            """10 ms before RGB: a nearer one may come, until max_wait has passed."""
            stamp = next(stamps)
            reliable.publish(image(thermal, 'mono8', stamp - 10_000_000))
            peer.rgb.publish(image(rgb, 'rgb8', stamp))
            return stamp

        send_until(send_early_thermal, lambda: peer.labels, 'labels')
        last = send_early_thermal()
        wait_until(lambda: stamp_of(peer.labels[-1]) == last, 'a pair to be let go at max_wait')
        node.wait_for_output('no messages on /strict/thermal')
        assert 'which has 2 publishers' in node.output
        wait_until(lambda: peer.status()['level'] == 2, 'the diagnostics to turn to error')
        message = peer.status()['message']
        assert line.endswith(message.split('; no messages on')[0])
        assert 'no messages on /strict/thermal, which has 2 publishers: is the driver' in message
        peer.node.destroy_publisher(lossy)
        wait_until(
            lambda: 'is incompatible with' not in peer.status()['message'],
            'the mismatch to be over',
        )
        assert 'no messages on /strict/thermal, which has 1 publishers' in peer.status()['message']
        assert node.stop(signal.SIGINT) == 0
        assert re.search(r'done: .* pairs_in \d+, pairs_matched \d+, pairs_out \d+', node.output)
        assert 'Traceback' not in node.output
