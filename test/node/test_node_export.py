"""The node with an exported network, over DDS."""

from __future__ import annotations

import signal
from functools import partial

import numpy as np
import pytest
from untrained_checkpoint import save_untrained

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('onnxruntime', reason='needs onnxruntime')
pytest.importorskip('onnxscript', reason='needs onnxscript')

from processes import running_node, wait_until
from ros_helpers import SECOND, image, send_until, stamp_of

from sartm_model.export.onnx_export import export_onnx
from sartm_model.inference.export_config import ExportConfig
from sartm_model.inference.predictor import Predictor

pytestmark = pytest.mark.slow


def test_the_node_gives_the_labels_of_the_checkpoint_that_was_exported(tmp_path, peer):
    """Of pairs, and of RGB alone where thermal shows the camera's shutter."""
    weights = save_untrained(tmp_path / 'x.safetensors')
    export_onnx(weights, tmp_path / 'x.onnx', ExportConfig(64, 96))
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    thermal = rng.integers(0, 256, (64, 96), dtype=np.uint8)
    predictor = Predictor(weights, device='cpu')
    expected = {
        'both': predictor.predict(rgb, thermal).labels,
        'rgb': predictor.predict(rgb, None).labels,
    }
    assert (expected['both'] != expected['rgb']).any()
    stamp = 0

    def send(second, rows=64):
        nonlocal stamp
        stamp += SECOND // 1000
        peer.send(image(rgb[:rows], 'rgb8', stamp), image(second[:rows], 'mono8', stamp))

    def found():
        """Labels by the modality that they were made of."""
        made_of = {status['stamp_ns']: status['modality'] for status in peer.statuses}
        stamped = {stamp_of(msg): msg for msg in peer.labels}
        return {made_of[at]: msg for at, msg in stamped.items() if at in made_of}

    with running_node(tmp_path, {'checkpoint': tmp_path / 'x.onnx', 'device': 'cpu'}) as node:
        node.wait_for_output('active')
        for modality, second in (('both', thermal), ('rgb', np.full_like(thermal, 7))):
            send_until(partial(send, second), lambda m=modality: m in found(), f'of {modality}')
        for modality, msg in found().items():
            labels = np.frombuffer(msg.data, np.uint8).reshape(64, 96)
            assert (labels == expected[modality]).mean() >= 0.999
        # A bad frame, which the node survives.
        send(thermal, 32)
        wait_until(lambda: 'got 96x32' in node.output, 'the size in the log')
        assert node.stop(signal.SIGTERM) == 0
        assert 'Traceback' not in node.output
