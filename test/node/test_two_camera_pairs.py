"""Two nodes in two namespaces on one machine and one device, over DDS."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from processes import running_node, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from ros_helpers import SECOND, Peer, image, send_until, stamp_of
from sensor_msgs.msg import Image
from std_msgs.msg import String
from untrained_checkpoint import save_untrained

from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET, LabelSpace

PAIRS = 30
SIZE = (64, 96)
REAR = LabelSpace('rear', ('ground', 'person', 'dog'), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))


class CameraPair:
    """Publishers of images and subscriptions to results in one namespace."""

    def __init__(self, peer: Peer, name: str) -> None:
        self.name = name
        self.rgb = peer.publisher(Image, f'/{name}/camera/color/image_raw', qos_profile_sensor_data)
        self.thermal = peer.publisher(Image, f'/{name}/thermal/image_raw', QoSProfile(depth=5))
        self.labels = peer.listen(Image, f'/{name}/sartm/labels', QoSProfile(depth=100))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.classes = peer.listen(String, f'/{name}/sartm/classes', latched)
        self.sent = 0

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Different images for every index and either camera pair."""
        rng = np.random.default_rng([index, self.name == 'rear'])
        return (
            rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
            rng.integers(0, 256, SIZE, dtype=np.uint8),
        )

    def send(self) -> None:
        """Publish the next pair; both camera pairs use the same stamps."""
        self.sent += 1
        rgb, thermal = self.pair(self.sent)
        stamp = SECOND + self.sent * SECOND // 10
        self.rgb.publish(image(rgb, 'rgb8', stamp, f'{self.name}_{self.sent}'))
        self.thermal.publish(image(thermal, 'mono8', stamp))

    def answered(self) -> bool:
        """Whether the labels of the last pair have arrived."""
        return bool(self.labels) and stamp_of(self.labels[-1]) == SECOND + self.sent * SECOND // 10


def test_two_nodes_do_not_meet(tmp_path, peer):
    """Each of 30 pairs of either gives labels, by its own images, network and classes.

    The namespace moves the default topics.
    """
    folders = {name: tmp_path / name for name in ('front', 'rear')}
    for folder in folders.values():
        folder.mkdir()
    weights = {
        'front': save_untrained(folders['front'] / 'a.safetensors', MFNET),
        'rear': save_untrained(folders['rear'] / 'b.safetensors', REAR, seed=7),
    }
    camera_pairs = [CameraPair(peer, name) for name in folders]

    def start(name):
        parameters = {
            'checkpoint': weights[name],
            'device': 'cpu',
            'warm_up.height': SIZE[0],
            'warm_up.width': SIZE[1],
            # Under the full name, which the namespace is a part of.
            f'qos_overrides./{name}/thermal/image_raw.subscription.reliability': 'reliable',
        }
        return running_node(folders[name], parameters, namespace=f'/{name}')

    with start('front') as front, start('rear') as rear:
        for node, name in ((front, 'front'), (rear, 'rear')):
            node.wait_for_output(
                f'active: /{name}/camera/color/image_raw (raw) + /{name}/thermal/image_raw (raw)'
            )
            for camera, expected in (('camera/color', 'BEST_EFFORT'), ('thermal', 'RELIABLE')):
                topic = f'/{name}/{camera}/image_raw'
                (info,) = wait_until(
                    lambda t=topic: peer.node.get_subscriptions_info_by_topic(t),
                    f'the subscription to {topic}',
                )
                assert info.qos_profile.reliability.name == expected
        for cameras in camera_pairs:
            send_until(cameras.send, lambda c=cameras: c.labels, f'labels of {cameras.name}')
            wait_until(cameras.answered, 'the last labels')
        begun = {cameras.name: cameras.sent for cameras in camera_pairs}
        for cameras in camera_pairs:
            cameras.labels.clear()
        for _ in range(PAIRS):
            for cameras in camera_pairs:
                cameras.send()
            for cameras in camera_pairs:
                wait_until(cameras.answered, f'labels of {cameras.name}')
        for cameras in camera_pairs:
            name = cameras.name
            predictor = Predictor(weights[name], device='cpu')
            classes = json.loads(cameras.classes[0].data)['classes']
            assert classes == list(predictor.label_space.classes)
            first = begun[name] + 1
            indices = range(first, first + PAIRS)
            assert [m.header.frame_id for m in cameras.labels] == [f'{name}_{i}' for i in indices]
            for index, msg in zip(indices, cameras.labels, strict=True):
                found = np.frombuffer(msg.data, np.uint8).reshape(SIZE)
                wanted = predictor.predict(*cameras.pair(index)).labels
                assert (found == wanted).mean() > 0.999  # where two classes tie, threads may differ

        def reporting():
            return {msg.status[0].name for msg in list(peer.diagnostics)}

        names = {'front/sartm: inference', 'rear/sartm: inference'}
        wait_until(lambda: names <= reporting(), 'both diagnostics')
        assert front.stop(signal.SIGINT) == 0  # and the other one goes on
        rear_cameras = camera_pairs[1]
        rear_cameras.send()
        wait_until(rear_cameras.answered, 'labels of the rear, alone')
        assert rear.stop(signal.SIGINT) == 0
        assert 'Traceback' not in front.output + rear.output
