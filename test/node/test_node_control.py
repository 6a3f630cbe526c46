"""Parameters and models that change while the node runs, and disabling it, over DDS."""

from __future__ import annotations

import itertools
import json
import signal
import threading

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from faulty_network_node import FAULTS
from processes import running_node, wait_until
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import (
    QUICK,
    SECOND,
    Peer,
    image,
    parameter,
    scene,
    send_pair,
    send_until,
    stamp_of,
)
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool
from untrained_checkpoint import save_untrained

from sartm_model.labels import MFNET, PST900

CODES = {name: code for code, name in enumerate(FAULTS)}


def test_another_model_by_way_of_the_lifecycle_and_its_memory_given_back(
    tmp_path, checkpoint, peer
):
    other_checkpoint = save_untrained(tmp_path / 'pst900.safetensors', PST900)
    paths = {MFNET.name: checkpoint, PST900.name: other_checkpoint}
    weights_mib = checkpoint.stat().st_size / 2**20
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    legends = peer.listen(String, '/sartm/classes', latched)

    def set_checkpoint(path) -> bool:
        ((done, _),) = peer.set_parameters(checkpoint=str(path))
        return done

    def memory_in(message: str) -> float:
        """MiB of the process, from the first report with that message."""

        def reported() -> bool:
            return bool(peer.diagnostics) and peer.status()['message'] == message

        peer.diagnostics.clear()
        wait_until(reported, f'diagnostics that say {message}')
        mib = float(peer.status()['process_memory_mib'])
        assert mib == pytest.approx(node.resident_mib, rel=0.1)
        return mib

    def change(*labels) -> None:
        assert all(peer.change_state(label) for label in labels)

    # Without autostart every network is loaded by the same thread, which keeps memory of its own.
    parameters = {'checkpoint': checkpoint, 'device': 'cpu', 'autostart': 'false'}
    with running_node(tmp_path, parameters) as node:
        cleaned = []
        change('configure', 'activate')
        for space in (PST900, MFNET, PST900):
            peer.connect()
            change('deactivate')
            assert not set_checkpoint(paths[space.name])  # read-only while configured
            configured = memory_in('inactive')
            change('cleanup')
            cleaned.append(memory_in('unconfigured'))
            # At least the weights are freed; intermediate maps are several times as much.
            assert cleaned[-1] < configured - weights_mib
            assert set_checkpoint(paths[space.name])
            legends.clear()
            change('configure', 'activate')
            wait_until(lambda: legends, 'the label info')
            legend = json.loads(legends[-1].data)
            assert legend.pop('unknown_id') == 255
            assert legend == space.to_dict()
        peer.connect()
        send_pair(peer, 3)
        wait_until(lambda: peer.labels, 'labels')
        assert max(peer.labels[-1].data) < len(PST900)
        change('deactivate', 'cleanup')
        # What allocators keep has varied by the memory of seven networks; 16 not freed are more.
        before = memory_in('unconfigured')
        change(*16 * ['configure', 'cleanup'])
        assert memory_in('unconfigured') < before + 10 * weights_mib
        assert node.stop(signal.SIGTERM) == 0
        assert 'Traceback' not in node.output


def set_together(peer: Peer, **values) -> tuple[bool, str]:
    """Set `thermal__low=0.0` and the like in one request; `__` stands for a dot."""
    wanted = [parameter(name.replace('__', '.'), value) for name, value in values.items()]
    request = SetParametersAtomically.Request(parameters=wanted)
    answer = peer.call(SetParametersAtomically, '/sartm/set_parameters_atomically', request)
    return answer.result.successful, answer.result.reason


def set_enabled(peer: Peer, enabled: bool) -> tuple[bool, str]:
    answer = peer.call(SetBool, '/sartm/set_enabled', SetBool.Request(data=enabled))
    return answer.success, answer.message


def test_a_disabled_node_ignores_images_and_starts_afresh(tmp_path, checkpoint, peer):
    """Images wait long for their partners here."""
    parameters = {'checkpoint': checkpoint, 'sync.max_wait': 10.0}
    with running_node(tmp_path, parameters, QUICK) as node:
        node.wait_for_output('active')
        peer.connect()
        rgb, thermal = scene(5, 32, 32)
        # This image waits for its partner, which is sent after the node was disabled and enabled.
        peer.rgb.publish(image(rgb, 'rgb8', SECOND))
        peer.wait_for_counts(rgb_received=1)
        assert set_enabled(peer, False) == (True, 'disabled')
        assert set_enabled(peer, False) == (True, 'disabled')
        peer.diagnostics.clear()
        wait_until(lambda: peer.diagnostics, 'a report')
        assert (peer.status()['level'], peer.status()['message']) == (0, 'disabled')
        assert peer.status()['dropped.rgb_stopped'] == 1
        assert peer.state() == 'active'
        for index in range(5):
            send_pair(peer, index, height=32, width=32)
        peer.diagnostics.clear()
        wait_until(lambda: len(peer.diagnostics) >= 2, 'two more reports')
        assert peer.status()['message'] == 'disabled'
        assert (peer.status()['rgb_received'], peer.status()['pairs_in']) == (1, 0)
        assert peer.labels == []

        assert set_enabled(peer, True) == (True, 'enabled')
        assert set_enabled(peer, True) == (True, 'enabled')
        peer.thermal.publish(image(thermal, 'mono8', SECOND))
        peer.wait_for_counts(thermal_received=1)
        stamp = send_pair(peer, 60, height=32, width=32)
        wait_until(lambda: peer.labels, 'labels')
        status = peer.wait_for_counts(pairs_out=1)
        assert [stamp_of(msg) for msg in peer.labels] == [stamp]
        assert (status['rgb_received'], status['thermal_received']) == (2, 2)
        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output


def test_disabling_does_not_wait_for_the_network(faulty_node, exchange):
    """The pair in work is finished; the one that waits for the network is dropped."""
    peer = exchange.peer
    exchange.send(code=CODES['hold'])
    held = exchange.stamp, f'camera_{exchange.index}'
    faulty_node.wait_for_output('holding')
    exchange.send()
    peer.wait_for_counts(pairs_in=2)
    assert set_enabled(peer, False) == (True, 'disabled')
    wait_until(lambda: peer.status()['message'] == 'disabled', 'diagnostics that say so')
    assert peer.status()['dropped.stopped'] == 1
    assert peer.labels == []
    assert set_enabled(peer, True) == (True, 'enabled')
    faulty_node.send_signal(signal.SIGUSR1)  # lets the network go on
    wait_until(lambda: peer.labels, 'the labels of the pair in work')
    assert (stamp_of(peer.labels[0]), peer.labels[0].header.frame_id) == held
    exchange.good()
    peer.wait_for_counts(pairs_in=3, pairs_out=2)


def test_what_another_callback_refuses_has_no_effect(tmp_path, checkpoint, peer):
    """The confidence of the instant network is the value of `thermal.low` in use."""
    with running_node(tmp_path, {'checkpoint': checkpoint}, 'second_opinion_node.py') as node:
        node.wait_for_output('active')
        peer.connect()
        confidences = peer.listen(Image, '/sartm/confidence', QoSProfile(depth=10))
        indices = itertools.count()

        def confidence() -> int:
            confidences.clear()
            send_until(
                lambda: send_pair(peer, next(indices), height=32, width=32),
                lambda: confidences,
                'a confidence',
            )
            return confidences[-1].data[1]

        assert set_together(peer, thermal__low=7.0, thermal__high=900.0) == (True, '')
        assert confidence() == 7
        refused = set_together(peer, thermal__low=9.0, thermal__high=1001.0)
        assert refused == (False, 'refused here')
        assert confidence() == 7
        assert node.stop(signal.SIGINT) == 0
        assert 'Traceback' not in node.output


def test_only_an_active_node_can_be_disabled(quick_peer):
    assert quick_peer.change_state('deactivate')
    done, message = set_enabled(quick_peer, False)
    assert (done, message) == (False, 'the node is not active; activate it first')
    assert quick_peer.change_state('activate')
    quick_peer.connect()


def test_of_a_request_with_one_bad_value_nothing_is_taken(quick_peer):
    names = ['overlay.opacity', 'thermal.low', 'thermal.range']

    def values():
        request = GetParameters.Request(names=names)
        return quick_peer.call(GetParameters, '/sartm/get_parameters', request).values

    overlays = quick_peer.listen(Image, '/sartm/overlay', QoSProfile(depth=10))
    before = values()
    good = {'overlay__opacity': 1.0, 'thermal__low': 9.0, 'thermal__range': 'fixed'}
    for bad, expected in [
        ({'sync__max_skew': -1.0}, 'sync.max_skew'),
        ({'thermal__high': 5.0}, 'parameter thermal.low is 9; expected less'),
        ({'device': 'cuda'}, 'parameter device is read-only'),
        ({'thermal__crop': None}, 'parameter thermal.crop cannot be deleted'),
        ({'use_sim_time': 'perhaps'}, 'Wrong parameter type'),
        ({'no_such_parameter': 1.0}, 'undeclared parameter'),
    ]:
        done, reason = set_together(quick_peer, **good, **bad)
        assert not done
        assert expected in reason
        assert values() == before
    indices = itertools.count()
    send_until(
        lambda: send_pair(quick_peer, next(indices), height=32, width=32),
        lambda: overlays,
        'an overlay',
    )
    assert overlays[-1].data[0] == 128


def test_values_set_together_begin_with_the_same_frame(quick_peer):
    """The overlay shows the opacity used for a frame, the confidence its `thermal.low`."""
    overlays = quick_peer.listen(Image, '/sartm/overlay', QoSProfile(depth=5000))
    confidences = quick_peer.listen(Image, '/sartm/confidence', QoSProfile(depth=5000))
    indices = itertools.count()

    def send():
        send_pair(quick_peer, next(indices), rate_hz=200, height=32, width=32)

    send_until(send, lambda: overlays and confidences, 'both images')
    ended = threading.Event()

    def keep_sending():
        while not ended.wait(0.005):
            send()

    sender = threading.Thread(target=keep_sending)
    sender.start()
    try:
        for opacity, low in 4 * [(1.0, 200.0), (0.0, 100.0)]:
            result = set_together(quick_peer, overlay__opacity=opacity, thermal__low=low)
            assert result == (True, '')
            wait_until(
                lambda low=low: confidences[-1].data[0] == low, 'the new values to be in use'
            )
    finally:
        ended.set()
        sender.join()
        assert set_together(quick_peer, overlay__opacity=0.5, thermal__low=0.0) == (True, '')
    opacities = {stamp_of(msg): msg.data[0] for msg in overlays}
    lows = {stamp_of(msg): msg.data[0] for msg in confidences}
    seen = {(opacities[stamp], low) for stamp, low in lows.items() if stamp in opacities}
    assert {(255, 200), (0, 100)} <= seen <= {(128, 0), (255, 200), (0, 100)}
