"""Frames through an active node over DDS."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from processes import wait_until
from rcl_interfaces.srv import DescribeParameters, SetParametersAtomically
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import (
    SECOND,
    image,
    parameter,
    scene,
    send_at_rate,
    send_pair,
    send_until,
    stamp_of,
)
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from sartm_model.labels import MFNET
from sartm_ros.settings.parameters import NAMES


def check_labels(peer, stamps):
    """The labels of each pair have come in order, with its header and size, and nothing is lost."""
    assert [stamp_of(msg) for msg in peer.labels] == stamps
    for index, msg in enumerate(peer.labels):
        assert msg.header.frame_id == f'camera_{index}'
        assert (msg.height, msg.width, msg.step, msg.encoding) == (480, 640, 640, 'mono8')
        labels = np.frombuffer(msg.data, np.uint8)
        np.testing.assert_array_equal(labels[1:], index % 97)
    count = len(stamps)
    status = peer.wait_for_counts(pairs_out=count)
    assert status['name'] == 'sartm: inference'
    assert (status['rgb_received'], status['thermal_received']) == (count, count)
    assert status['pairs_in'] == count
    assert not [name for name, lost in status.items() if name.startswith('dropped') and lost]
    wait_until(lambda: len(peer.statuses) == count, 'every status')


def test_labels_come_in_order_with_the_header_of_their_pair(quick_peer):
    stamps = []
    for index in range(8):
        stamps.append(send_pair(quick_peer, index))
        wait_until(lambda: len(quick_peer.labels) == len(stamps), 'the labels of the pair')
    check_labels(quick_peer, stamps)


@pytest.mark.slow  # beside another process of tests the camera's rate is not kept
def test_no_pair_is_lost_at_thirty_hertz(quick_peer):
    stamps = send_at_rate(quick_peer, 90)
    wait_until(lambda: len(quick_peer.labels) == 90, '90 label images')
    check_labels(quick_peer, stamps)
    assert {result['skew_ms'] for result in quick_peer.statuses} == {2.0}


def test_camera_info_comes_with_the_header_of_the_labels(quick_peer):
    driver = quick_peer.publisher(CameraInfo, '/camera/color/camera_info', QoSProfile(depth=1))
    infos = quick_peer.listen(CameraInfo, '/sartm/camera_info', QoSProfile(depth=500))
    given = CameraInfo(height=480, width=640, k=[500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0, 0, 1])
    given.header.frame_id = 'of the driver'
    indices = itertools.count()

    def send() -> None:
        driver.publish(given)
        send_pair(quick_peer, next(indices))

    send_until(send, lambda: infos, 'a camera info')
    quick_peer.node.destroy_publisher(driver)
    found = infos[-1]
    wait_until(lambda: any(m.header == found.header for m in quick_peer.labels), 'its labels')
    assert (found.height, found.width) == (480, 640)
    assert list(found.k) == list(given.k)


def test_the_profile_gives_images_their_shared_memory(quick_peer):
    if rclpy.get_rmw_implementation_identifier() != 'rmw_fastrtps_cpp':
        pytest.skip('the middleware is not Fast DDS')
    sizes = [path.stat().st_size for path in Path('/dev/shm').glob('fastrtps_*')]
    assert sum(size >= 16 * 2**20 for size in sizes) >= 2  # one for either process


def test_bad_messages_are_counted_and_survived(quick_node, quick_peer):
    rgb, thermal = scene(7)
    wrong_encoding = image(rgb, 'rgb8', SECOND)
    wrong_encoding.encoding = 'jpeg2000'
    wrong_step = image(rgb, 'rgb8', 2 * SECOND)
    wrong_step.step = 600
    truncated = image(rgb, 'rgb8', 3 * SECOND)
    truncated.data = truncated.data[:1000]
    empty = Image(header=image(rgb, 'rgb8', 4 * SECOND).header, encoding='rgb8')
    for second, bad in enumerate((wrong_encoding, wrong_step, truncated, empty), start=1):
        quick_peer.send(bad, image(thermal, 'mono8', second * SECOND))
        quick_peer.wait_for_counts(dropped__bad_frame=second)
    quick_peer.send(image(rgb, 'rgb8', 0), image(thermal, 'mono8', 0))
    malformed = image(rgb, 'rgb8', 5 * SECOND)
    malformed.header.stamp.nanosec = 4_000_000_000
    quick_peer.rgb.publish(malformed)
    quick_peer.wait_for_counts(dropped__rgb_no_stamp=2, dropped__thermal_no_stamp=1)
    # The network itself fails.
    failing = thermal.copy()
    failing[0, 0] = 255
    quick_peer.send(image(rgb, 'rgb8', 6 * SECOND), image(failing, 'mono8', 6 * SECOND))
    quick_peer.wait_for_counts(dropped__failed=1)
    assert quick_peer.labels == []
    quick_peer.send(image(rgb, 'rgb8', 7 * SECOND), image(thermal, 'mono8', 7 * SECOND))
    wait_until(lambda: quick_peer.labels, 'labels after all that')
    assert "RGB: image encoding 'jpeg2000' is not supported" in quick_node.output
    assert 'RuntimeError: no such kernel' in quick_node.output


def test_overlay_and_confidence_are_made_only_for_those_who_listen(quick_peer):
    def first_label(index):
        """Send a pair; return its first label, which tells the requested outputs."""
        before = len(quick_peer.labels)
        send_pair(quick_peer, index)
        wait_until(lambda: len(quick_peer.labels) > before, 'labels')
        return quick_peer.labels[-1].data[0]

    assert first_label(0) == 100
    overlays = quick_peer.listen(Image, '/sartm/overlay', QoSProfile(depth=10))
    indices = iter(range(1, 1000))
    wait_until(lambda: first_label(next(indices)) == 102, 'the overlay to be asked for')
    wait_until(lambda: overlays, 'an overlay')
    assert overlays[-1].encoding == 'rgb8'
    assert stamp_of(overlays[-1]) in [stamp_of(msg) for msg in quick_peer.labels]
    assert overlays[-1].header.frame_id.startswith('camera')
    confidences = quick_peer.listen(Image, '/sartm/confidence', QoSProfile(depth=10))
    wait_until(lambda: first_label(next(indices)) == 103, 'the confidence to be asked for')
    wait_until(lambda: confidences, 'a confidence image')
    assert confidences[-1].encoding == 'mono8'
    quick_peer.unsubscribe('/sartm/overlay', '/sartm/confidence')
    wait_until(lambda: first_label(next(indices)) == 100, 'nothing more to be asked for')


def test_the_classes_reach_a_late_subscriber(quick_peer):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    infos = quick_peer.listen(String, '/sartm/classes', latched)
    wait_until(lambda: infos, 'the legend')
    legend = json.loads(infos[0].data)
    assert legend.pop('unknown_id') == 255
    assert legend == MFNET.to_dict()


def test_label_info_has_the_frame_of_the_labels(quick_peer):
    vision = pytest.importorskip(
        'vision_msgs.msg', reason='needs ROS 2 (vision_msgs); it is not on PyPI'
    )
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    infos = quick_peer.listen(vision.LabelInfo, '/sartm/label_info', latched)
    indices = iter(range(5000, 6000))
    send_until(
        lambda: send_pair(quick_peer, next(indices)),
        lambda: infos and infos[-1].header.frame_id.startswith('camera'),
        'label info with a frame',
    )
    names = {item.class_id: item.class_name for item in infos[-1].class_map}
    assert names == {**dict(enumerate(MFNET.classes)), 255: 'unknown'}


def test_parameters_at_run_time(quick_peer):
    def set_one(name, value):
        (result,) = quick_peer.set_parameters(**{name: value})
        return result

    described = quick_peer.call(
        DescribeParameters, '/sartm/describe_parameters', DescribeParameters.Request(names=NAMES)
    ).descriptors
    assert all(len(descriptor.description) > 20 for descriptor in described)

    assert set_one('device', 'cuda') == (
        False,
        'parameter device is read-only while the node is configured; '
        'clean the node up first, or set it at the start',
    )
    assert not set_one('overlay.opacity', 1.5)[0]
    overlays = quick_peer.listen(Image, '/sartm/overlay', QoSProfile(depth=10))
    wait_until(
        lambda: quick_peer.node.count_subscribers('/sartm/overlay'), 'the overlay subscription'
    )
    # All or nothing: the skew is wrong, so the opacity must stay as it was.
    request = SetParametersAtomically.Request(
        parameters=[parameter('overlay.opacity', 1.0), parameter('sync.max_skew', -1.0)]
    )
    answer = quick_peer.call(SetParametersAtomically, '/sartm/set_parameters_atomically', request)
    assert not answer.result.successful
    indices = iter(range(1000))

    def send():
        send_pair(quick_peer, next(indices), height=32, width=32)

    send_until(send, lambda: overlays, 'an overlay')
    assert overlays[-1].data[0] == 128
    assert set_one('overlay.opacity', 1) == (True, '')  # an integer where a float is meant
    send_until(send, lambda: overlays[-1].data[0] == 255, 'the new opacity')

    # A smaller skew than the pair's own, so that it no longer matches.
    assert set_one('sync.max_skew', 0.005) == (True, '')
    quick_peer.labels.clear()
    send_until(
        lambda: send_pair(quick_peer, 2000 + next(indices), thermal_ms=10),
        lambda: quick_peer.status()['dropped.rgb_no_partner'],
        'a pair to be refused',
    )
    assert quick_peer.labels == []
    assert set_one('sync.max_skew', 0.05) == (True, '')
