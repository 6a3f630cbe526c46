"""The node as its own process, over DDS."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import torch
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters, SetParametersAtomically
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_helpers import Peer, image, running_node, send_until, stamp_of, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import String

from sartm_model import checkpoint as checkpoints
from sartm_model.config import ModelConfig
from sartm_model.labels import MFNET
from sartm_model.network import Sartm
from sartm_ros.parameters import NAMES

SECOND = 1_000_000_000
QUICK = 'quick_network_node.py'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A real checkpoint; its weights are random."""
    path = tmp_path_factory.mktemp('checkpoint') / 'random.safetensors'
    torch.manual_seed(0)
    checkpoints.save(path, Sartm(ModelConfig(), len(MFNET)), MFNET, {'about': 'a test'})
    return path


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def quick(tmp_path, checkpoint, peer):
    """The node with an instant network, active and connected."""
    with running_node(tmp_path, {'checkpoint': checkpoint}, QUICK) as node:
        node.wait_for_output('active')
        peer.connect()
        yield node


def scene(index, height=480, width=640):
    """A pair whose every pixel tells its index: (RGB, thermal)."""
    rgb = np.full((height, width, 3), index % 251, np.uint8)
    return rgb, np.full((height, width), index % 97, np.uint8)


def send_pair(peer, index, *, rate_hz=30, height=480, width=640, thermal_ms=0):
    rgb, thermal = scene(index, height, width)
    stamp = SECOND + round(index * SECOND / rate_hz)
    peer.send(
        image(rgb, 'rgb8', stamp, f'camera_{index}'),
        image(thermal, 'mono8', stamp + thermal_ms * 1_000_000, 'thermal'),
    )
    return stamp


def send_at_rate(peer, count, rate_hz=30, start=0):
    """Publish pairs in step with the clock; returns their RGB stamps."""
    begun = time.monotonic()
    stamps = []
    for index in range(start, start + count):
        stamps.append(send_pair(peer, index, rate_hz=rate_hz, thermal_ms=2))
        time.sleep(max(0.0, begun + len(stamps) / rate_hz - time.monotonic()))
    return stamps


def test_no_pair_is_lost_at_thirty_hertz(quick, peer):
    stamps = send_at_rate(peer, 90)
    wait_until(lambda: len(peer.labels) == 90, '90 label images')
    assert [stamp_of(msg) for msg in peer.labels] == stamps
    for index, msg in enumerate(peer.labels):
        assert msg.header.frame_id == f'camera_{index}'
        assert (msg.height, msg.width, msg.step, msg.encoding) == (480, 640, 640, 'mono8')
        labels = np.frombuffer(msg.data, np.uint8)
        np.testing.assert_array_equal(labels[1:], index % 97)
    status = peer.wait_for_counts(pairs_out=90)
    assert status['name'] == '/sartm: inference'
    assert (status['rgb_received'], status['thermal_received']) == (90, 90)
    assert status['pairs_in'] == 90
    assert not [name for name, count in status.items() if name.startswith('dropped') and count]
    assert float(status['skew_max_ms']) == pytest.approx(2.0)
    assert quick.stop(signal.SIGINT) == 0
    assert re.search(r'done: .* pairs_in \d+, pairs_out \d+', quick.output)
    assert 'Traceback' not in quick.output


def test_with_the_real_network_every_pair_is_accounted_for(tmp_path, checkpoint, peer):
    with running_node(tmp_path, {'checkpoint': checkpoint}) as node:
        node.wait_for_output('active')
        peer.connect()
        stamps = send_at_rate(peer, 45)
        last = stamps[-1]
        # The newest pair is never the one that is replaced.
        wait_until(lambda: peer.labels and stamp_of(peer.labels[-1]) == last, 'the last labels')
        status = peer.wait_for_counts(pairs_in=45, pairs_out=len(peer.labels))
        assert len(peer.labels) + status['dropped.replaced'] == 45
        received = [stamp_of(msg) for msg in peer.labels]
        assert received == sorted(set(received) & set(stamps))
        for msg in peer.labels:
            assert (msg.height, msg.width) == (480, 640)
            assert max(msg.data) < len(MFNET)
        assert node.stop(signal.SIGTERM) == 0
        assert 'Traceback' not in node.output


def test_bad_messages_are_counted_and_survived(quick, peer):
    rgb, thermal = scene(7)
    wrong_encoding = image(thermal, 'mono8', SECOND)
    wrong_encoding.encoding = 'jpeg2000'
    wrong_step = image(thermal, 'mono8', 2 * SECOND)
    wrong_step.step = 600
    truncated = image(thermal, 'mono8', 3 * SECOND)
    truncated.data = truncated.data[:1000]
    empty = Image(header=image(thermal, 'mono8', 4 * SECOND).header, encoding='mono8')
    for second, bad in enumerate((wrong_encoding, wrong_step, truncated, empty), start=1):
        peer.send(image(rgb, 'rgb8', second * SECOND), bad)
        peer.wait_for_counts(dropped__bad_frame=second)
    peer.send(image(rgb, 'rgb8', 0), image(thermal, 'mono8', 0))
    malformed = image(rgb, 'rgb8', 5 * SECOND)
    malformed.header.stamp.nanosec = 4_000_000_000
    peer.rgb.publish(malformed)
    peer.wait_for_counts(dropped__rgb_no_stamp=2, dropped__thermal_no_stamp=1)
    # The network itself fails.
    peer.send(
        image(rgb, 'rgb8', 6 * SECOND),
        image(np.full((480, 640), 255, np.uint8), 'mono8', 6 * SECOND),
    )
    peer.wait_for_counts(dropped__failed=1)
    assert peer.labels == []
    peer.send(image(rgb, 'rgb8', 7 * SECOND), image(thermal, 'mono8', 7 * SECOND))
    wait_until(lambda: peer.labels, 'labels after all that')
    assert "thermal: image encoding 'jpeg2000' is not supported" in quick.output
    assert 'RuntimeError: out of memory' in quick.output
    assert quick.stop() == 0


def test_overlay_and_confidence_are_made_only_for_those_who_listen(quick, peer):
    def first_label(index):
        """Send pairs until one comes back; what was asked of the network for the last."""
        before = len(peer.labels)
        send_pair(peer, index)
        wait_until(lambda: len(peer.labels) > before, 'labels')
        return peer.labels[-1].data[0]

    assert first_label(0) == 100
    overlays = peer.listen(Image, '/sartm/overlay', QoSProfile(depth=10))
    indices = iter(range(1, 1000))
    wait_until(lambda: first_label(next(indices)) == 102, 'the overlay to be asked for')
    wait_until(lambda: overlays, 'an overlay')
    assert overlays[-1].encoding == 'rgb8'
    assert stamp_of(overlays[-1]) in [stamp_of(msg) for msg in peer.labels]
    assert overlays[-1].header.frame_id.startswith('camera')
    confidences = peer.listen(Image, '/sartm/confidence', QoSProfile(depth=10))
    wait_until(lambda: first_label(next(indices)) == 103, 'the confidence to be asked for')
    wait_until(lambda: confidences, 'a confidence image')
    assert confidences[-1].encoding == 'mono8'
    for subscription in list(peer.node.subscriptions):
        if subscription.topic_name in ('/sartm/overlay', '/sartm/confidence'):
            peer.node.destroy_subscription(subscription)
    wait_until(lambda: first_label(next(indices)) == 100, 'nothing more to be asked for')


def test_label_info_reaches_a_late_subscriber(quick, peer):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    infos = peer.listen(String, '/sartm/label_info', latched)
    wait_until(lambda: infos, 'the legend')
    legend = json.loads(infos[0].data)
    assert legend.pop('unknown_id') == 255
    assert legend == MFNET.to_dict()


def parameter(name, value):
    kinds = {float: 'double', str: 'string', int: 'integer', bool: 'bool'}
    kind = kinds[type(value)]
    return Parameter(
        name=name,
        value=ParameterValue(
            type=getattr(ParameterType, f'PARAMETER_{kind.upper()}'), **{f'{kind}_value': value}
        ),
    )


def test_parameters_at_run_time(quick, peer):
    def set_one(name, value):
        request = SetParameters.Request(parameters=[parameter(name, value)])
        (result,) = peer.call(SetParameters, '/sartm/set_parameters', request).results
        return result.successful, result.reason

    described = peer.call(
        DescribeParameters, '/sartm/describe_parameters', DescribeParameters.Request(names=NAMES)
    ).descriptors
    assert all(len(descriptor.description) > 20 for descriptor in described)

    assert set_one('device', 'cuda') == (
        False,
        'parameter device is read-only while the node is configured; '
        'clean the node up first, or set it at the start',
    )
    assert not set_one('overlay.opacity', 1.5)[0]
    overlays = peer.listen(Image, '/sartm/overlay', QoSProfile(depth=10))
    wait_until(lambda: peer.node.count_subscribers('/sartm/overlay'), 'the overlay subscription')
    # All or nothing: the skew is wrong, so the opacity must stay as it was.
    request = SetParametersAtomically.Request(
        parameters=[parameter('overlay.opacity', 1.0), parameter('sync.max_skew', -1.0)]
    )
    answer = peer.call(SetParametersAtomically, '/sartm/set_parameters_atomically', request)
    assert not answer.result.successful
    indices = iter(range(1000))

    def overlay_value():
        before = len(overlays)
        send_pair(peer, next(indices))
        return len(overlays) > before and overlays[-1].data[0]

    assert wait_until(overlay_value, 'an overlay') == 128
    assert set_one('overlay.opacity', 1) == (True, '')  # an integer where a float is meant
    wait_until(lambda: overlay_value() == 255, 'the new opacity')

    # A smaller skew than the pair's own, so that it no longer matches.
    assert set_one('sync.max_skew', 0.005) == (True, '')
    count = len(peer.labels)
    send_pair(peer, 2000, thermal_ms=10)
    peer.wait_for_counts(dropped__rgb_no_partner=1)
    assert len(peer.labels) == count


def test_lifecycle_over_services(tmp_path, checkpoint, peer):
    parameters = {'checkpoint': tmp_path / 'missing.safetensors', 'autostart': 'false'}

    def state():
        return peer.call(GetState, '/sartm/get_state', GetState.Request()).current_state.label

    def change(label):
        request = ChangeState.Request()
        request.transition.label = label
        return peer.call(ChangeState, '/sartm/change_state', request).success

    with running_node(tmp_path, parameters, QUICK) as node:
        assert state() == 'unconfigured'
        assert not change('configure')
        assert state() == 'unconfigured'
        errors = [line for line in node.output.splitlines() if 'ERROR' in line]
        assert len(errors) == 1
        assert 'missing.safetensors' in errors[0]
        assert 'Traceback' not in node.output

        request = SetParameters.Request(parameters=[parameter('checkpoint', str(checkpoint))])
        (result,) = peer.call(SetParameters, '/sartm/set_parameters', request).results
        assert result.successful
        assert change('configure')
        assert state() == 'inactive'
        assert peer.rgb.get_subscription_count() == 0
        for _ in range(2):
            assert change('activate')
            assert state() == 'active'
            peer.connect()
            assert change('deactivate')
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
        assert node.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ('parameters', 'expected'),
    [
        ({'checkpoint': '/nowhere/x.safetensors'}, 'no checkpoint /nowhere/x.safetensors'),
        ({'sync.max_wait': '-1.0'}, 'parameter sync.max_wait'),
        ({'rgb_topic': '/a//b'}, "parameter rgb_topic is '/a//b'"),
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
    peer.publisher(Image, '/strict/thermal', best_effort)
    reliable = peer.publisher(Image, '/strict/thermal', QoSProfile(depth=5))
    with running_node(tmp_path, parameters, QUICK) as node:
        node.wait_for_output('does not go with the offer')
        (line,) = [line for line in node.output.splitlines() if 'does not go with' in line]
        assert 'WARN' in line
        assert '/strict/thermal: this node asks for RELIABLE' in line
        assert '/test/peer (BEST_EFFORT VOLATILE)' in line
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
        node.wait_for_output('no thermal images on /strict/thermal')
        assert 'which has 2 publishers' in node.output
        wait_until(lambda: peer.status()['level'] == 2, 'the diagnostics to turn to error')
        assert '/strict/thermal' in peer.status()['message']
        assert node.stop() == 0
