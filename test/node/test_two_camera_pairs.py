"""Two nodes in two namespaces on one machine and one device, over DDS."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
import torch

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from ros_helpers import SECOND, Peer, image, running_node, send_until, stamp_of, wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import String
from untrained_checkpoint import save_untrained

from sartm_model.config import ModelConfig
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET, LabelSpace
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm

PAIRS = 30
SIZE = (64, 96)
REAR = LabelSpace('rear', ('ground', 'person', 'dog'), ((0, 0, 0), (255, 0, 0), (0, 255, 0)))


class Rig:
    """Cameras and listeners of one namespace; the topics are relative to it."""

    def __init__(self, peer: Peer, name: str) -> None:
        self.name = name
        self.rgb = peer.publisher(Image, f'/{name}/rgb', qos_profile_sensor_data)
        self.thermal = peer.publisher(Image, f'/{name}/thermal', qos_profile_sensor_data)
        self.labels = peer.listen(Image, f'/{name}/sartm/labels', QoSProfile(depth=100))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.legends = peer.listen(String, f'/{name}/sartm/label_info', latched)
        self.sent = 0

    def pair(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Other images for every index, and for either rig."""
        rng = np.random.default_rng([index, self.name == 'rear'])
        return (
            rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
            rng.integers(0, 256, SIZE, dtype=np.uint8),
        )

    def send(self) -> None:
        """The next pair; both rigs' stamps are the same."""
        self.sent += 1
        rgb, thermal = self.pair(self.sent)
        stamp = SECOND + self.sent * SECOND // 10
        self.rgb.publish(image(rgb, 'rgb8', stamp, f'{self.name}_{self.sent}'))
        self.thermal.publish(image(thermal, 'mono8', stamp))

    def answered(self) -> bool:
        """Whether the labels of the last pair are there."""
        return bool(self.labels) and stamp_of(self.labels[-1]) == SECOND + self.sent * SECOND // 10


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


def test_two_nodes_do_not_meet(tmp_path, peer):
    """Of 30 pairs a rig all come out, of that rig's images, network and classes."""
    folders = {name: tmp_path / name for name in ('front', 'rear')}
    for folder in folders.values():
        folder.mkdir()
    weights = {
        'front': save_untrained(folders['front'] / 'a.safetensors', MFNET),
        'rear': folders['rear'] / 'b.safetensors',
    }
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = Sartm(ModelConfig(), len(REAR))
    checkpoints.save(weights['rear'], network, REAR, {})
    rigs = [Rig(peer, name) for name in folders]

    def start(name):
        parameters = {
            'checkpoint': weights[name],
            'device': 'cpu',
            'rgb_topic': 'rgb',
            'thermal_topic': 'thermal',
            'warm_up.height': SIZE[0],
            'warm_up.width': SIZE[1],
        }
        return running_node(folders[name], parameters, namespace=f'/{name}')

    with start('front') as front, start('rear') as rear:
        for node, name in ((front, 'front'), (rear, 'rear')):
            node.wait_for_output(f'active: /{name}/rgb (raw) + /{name}/thermal (raw)')
        for rig in rigs:
            send_until(rig.send, lambda rig=rig: rig.labels, f'labels of {rig.name}')
            wait_until(rig.answered, 'the last labels')
        begun = {rig.name: rig.sent for rig in rigs}
        for rig in rigs:
            rig.labels.clear()
        for _ in range(PAIRS):
            for rig in rigs:
                rig.send()
            for rig in rigs:
                wait_until(rig.answered, f'labels of {rig.name}')
        for rig in rigs:
            predictor = Predictor(weights[rig.name], device='cpu')
            assert json.loads(rig.legends[0].data)['classes'] == list(predictor.label_space.classes)
            first = begun[rig.name] + 1
            indices = range(first, first + PAIRS)
            assert [m.header.frame_id for m in rig.labels] == [f'{rig.name}_{i}' for i in indices]
            for index, msg in zip(indices, rig.labels, strict=True):
                found = np.frombuffer(msg.data, np.uint8).reshape(SIZE)
                wanted = predictor.predict(*rig.pair(index)).labels
                assert (found == wanted).mean() > 0.999  # where two classes tie, threads may differ

        def reporting():
            return {msg.status[0].name for msg in list(peer.diagnostics)}

        names = {'/front/sartm: inference', '/rear/sartm: inference'}
        wait_until(lambda: names <= reporting(), 'both diagnostics')
        assert front.stop(signal.SIGINT) == 0  # and the other one goes on
        (other,) = [rig for rig in rigs if rig.name == 'rear']
        other.send()
        wait_until(other.answered, 'labels of the rear, alone')
        assert rear.stop(signal.SIGINT) == 0
        assert 'Traceback' not in front.output + rear.output
