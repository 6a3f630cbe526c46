"""Compressed topics and a homography, through a node over DDS."""

from __future__ import annotations

import itertools
import signal

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import cv2
from processes import running_node, wait_until
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from ros_helpers import QUICK, SECOND, image, send_until, stamp_of
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from sartm_model.inference.predictor import Predictor
from sartm_ros.messages.images import to_rgb, to_thermal


def compressed(pixels: np.ndarray, kind: str, format_: str, stamp_ns: int) -> CompressedImage:
    """Return a message as image_transport makes it; `pixels` are BGR."""
    message = CompressedImage(header=Header(frame_id='camera'), format=format_)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, SECOND)
    message.data = cv2.imencode(f'.{kind}', pixels)[1].tobytes()
    return message


def compressed_pair(index: int) -> tuple[CompressedImage, CompressedImage]:
    """Return RGB as JPEG and thermal counts of 16 bits as PNG."""
    stamp = SECOND + index * SECOND // 30
    bgr = np.full((48, 64, 3), index % 200, np.uint8)
    counts = np.full((48, 64), 30_000 + index, np.uint16)
    counts[:, 32:] += 1000  # or it would be a flat frame
    return (
        compressed(bgr, 'jpeg', 'rgb8; jpeg compressed bgr8', stamp),
        compressed(counts, 'png', '16UC1; png compressed ', stamp),
    )


def pixels_of(msg: Image) -> np.ndarray:
    return np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.width, -1).squeeze()


def test_compressed_in_and_out(peer, tmp_path, checkpoint):
    """One topic by its name, the other by what its publisher offers after the node has started."""
    parameters = {
        'checkpoint': checkpoint,
        'rgb_topic': '/front/image/compressed',
        'thermal_topic': '/thermal/packed',
    }
    with running_node(tmp_path, parameters, QUICK) as node:
        node.wait_for_output('active: /front/image/compressed (compressed) + /thermal/packed (raw)')
        rgb = peer.publisher(CompressedImage, '/front/image/compressed', qos_profile_sensor_data)
        thermal = peer.publisher(CompressedImage, '/thermal/packed', qos_profile_sensor_data)
        node.wait_for_output('/thermal/packed carries compressed images: subscribing again')
        reliable = QoSProfile(depth=100)
        packed = peer.listen(CompressedImage, '/sartm/labels/compressed', reliable)
        confidences = peer.listen(CompressedImage, '/sartm/confidence/compressed', reliable)
        overlays = peer.listen(CompressedImage, '/sartm/overlay/compressed', reliable)
        sent = 0

        def send():
            nonlocal sent
            sent += 1
            for publisher, msg in zip((rgb, thermal), compressed_pair(sent), strict=True):
                publisher.publish(msg)

        send_until(send, lambda: peer.labels and packed and confidences and overlays, 'all outputs')

        stamp = stamp_of(packed[-1])
        index = round((stamp - SECOND) * 30 / SECOND)
        by_stamp = {stamp_of(msg): msg for msg in peer.labels}
        labels = pixels_of(wait_until(lambda: by_stamp.get(stamp), 'the labels of that stamp'))
        assert (labels[1:] == (30_000 + index) % 100).all()  # of counts beyond 8 bits
        assert packed[-1].format == 'mono8; png compressed mono8'
        np.testing.assert_array_equal(to_thermal(packed[-1]), labels)
        assert confidences[-1].format == 'mono8; png compressed mono8'
        assert overlays[-1].format == 'rgb8; jpeg compressed bgr8'
        np.testing.assert_allclose(to_rgb(overlays[-1]).astype(int), 128, atol=2)

        # Rubbish is counted and survived.
        bad_rgb, good = compressed_pair(1000)
        bad_rgb.data = bad_rgb.data[:-30]
        rgb.publish(bad_rgb)
        thermal.publish(good)
        wait_until(lambda: peer.status().get('dropped.bad_frame'), 'a bad frame')
        assert peer.status()['dropped.bad_frame'] == 1
        assert 'frame dropped: RGB: a compressed image' in node.output
        sent = 2000
        peer.labels.clear()
        send_until(send, lambda: peer.labels, 'labels after that')

        # Thermal counts as JPEG have lost their lower bits: labels come from RGB alone.
        def send_cut() -> None:
            nonlocal sent
            sent += 1
            good, cut = compressed_pair(sent)
            cut.format, cut.data = '16UC1; jpeg compressed ', good.data
            rgb.publish(good)
            thermal.publish(cut)

        send_until(
            send_cut, lambda: peer.newest.get('thermal') == 'unreadable', 'labels of RGB alone'
        )
        assert peer.newest['modality'] == 'rgb'
        assert "format '16UC1; jpeg compressed ': counts of 16UC1 were cut to 8" in node.output
        assert node.stop(signal.SIGINT) == 0


def test_a_transport_that_is_not_there_is_explained(peer, tmp_path, checkpoint):
    with running_node(
        tmp_path, {'checkpoint': checkpoint, 'rgb_transport': 'compressed'}, QUICK
    ) as node:
        node.wait_for_output(
            'which carries sensor_msgs/msg/Image, but this node subscribes to compressed images: '
            'is rgb_topic right, is rgb_transport?'
        )
        assert node.stop(signal.SIGINT) == 0
        assert 'done: rgb_received 0, thermal_received 0, pairs_in 0' in node.output


def test_labels_follow_the_homography_that_is_set(peer, tmp_path, checkpoint):
    """The node with its real network gives what a predictor with that homography gives."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    thermal = np.full((48, 64), 60, np.uint8)
    thermal[12:24, 10:30] = 220
    first = [1.2, 0.0, 10.0, 0.0, 1.2, 4.0, 0.0, 0.0, 1.0]
    second = [1.2, 0.05, 30.0, -0.05, 1.2, 12.0, 1e-4, 0.0, 1.0]
    predictor = Predictor(checkpoint, device='cpu')
    expected = []
    for matrix in (first, second, None):
        predictor.homography = None if matrix is None else np.reshape(matrix, (3, 3))
        expected.append(predictor.predict(rgb, thermal).labels)
    assert all((a != b).any() for a, b in itertools.pairwise(expected))

    settings = {
        'checkpoint': checkpoint,
        'device': 'cpu',
        'warm_up.width': 96,
        'warm_up.height': 64,
        'thermal.homography': first,
    }

    def set_one(value: list[float]) -> tuple[bool, str]:
        (result,) = peer.set_parameters(thermal__homography=value)
        return result

    with running_node(tmp_path, settings) as node:
        node.wait_for_output('active')
        stamp = 0

        def labels() -> np.ndarray:
            """Of a pair that is sent now."""

            def send():
                nonlocal stamp
                stamp += SECOND // 1000  # the same image for long would be a frozen one
                peer.send(image(rgb, 'rgb8', stamp), image(thermal, 'mono8', stamp))

            peer.labels.clear()
            begun = stamp
            send_until(send, lambda: peer.labels and stamp_of(peer.labels[-1]) > begun, 'labels')
            return pixels_of(peer.labels[-1])

        def agree(found: np.ndarray, wanted: np.ndarray) -> None:
            assert (found == wanted).mean() > 0.999  # where two classes tie, threads may differ

        agree(labels(), expected[0])
        assert set_one(second) == (True, '')
        agree(labels(), expected[1])
        done, reason = set_one([-1.0, 0.0, 96.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0])
        assert not done
        assert reason.startswith(
            'parameter thermal.homography is not usable: the homography mirrors'
        )
        agree(labels(), expected[1])
        assert set_one([]) == (True, '')
        agree(labels(), expected[2])
        assert node.stop(signal.SIGINT) == 0
