"""The node with an exported network, as a process of its own, over DDS."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from untrained import save_untrained

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('onnxruntime', reason='needs onnxruntime')
pytest.importorskip('onnxscript', reason='needs onnxscript')

from ros_helpers import SECOND, Peer, image, running_node, send_until, wait_until

from sartm_model.export import export_onnx
from sartm_model.exported_model import ExportConfig
from sartm_model.predictor import Predictor


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


def test_the_node_gives_the_labels_of_the_checkpoint_that_was_exported(tmp_path, peer):
    weights = save_untrained(tmp_path / 'x.safetensors')
    export_onnx(weights, tmp_path / 'x.onnx', ExportConfig(64, 96))
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    thermal = rng.integers(0, 256, (64, 96), dtype=np.uint8)
    expected = Predictor(weights, device='cpu').predict(rgb, thermal).labels
    with running_node(tmp_path, {'checkpoint': tmp_path / 'x.onnx', 'device': 'cpu'}) as node:
        node.wait_for_output('active')
        stamp = 0

        def send():
            nonlocal stamp
            stamp += SECOND // 1000
            peer.send(image(rgb, 'rgb8', stamp), image(thermal, 'mono8', stamp))

        def fused():
            return any(status['modality'] == 'both' for status in peer.statuses)

        send_until(send, lambda: peer.labels and fused(), 'labels')
        found = np.frombuffer(peer.labels[-1].data, np.uint8).reshape(64, 96)
        assert (found == expected).mean() >= 0.999
        # Another size is a bad frame, which the node survives.
        other = image(rgb[:32], 'rgb8', 2 * SECOND), image(thermal[:32], 'mono8', 2 * SECOND)
        peer.send(*other)
        wait_until(lambda: 'got 96x32' in node.output, 'the size in the log')
        assert node.stop(signal.SIGTERM) == 0
        assert 'Traceback' not in node.output
