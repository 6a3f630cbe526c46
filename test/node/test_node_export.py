"""The node with an exported network, over DDS."""

from __future__ import annotations

import signal
from functools import partial

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('onnxruntime', reason='needs onnxruntime')

from processes import running_node, wait_until
from ros_helpers import SECOND, image, send_until, stamp_of

from sartm_model.data.synthetic import render
from sartm_model.inference.predictor import Predictor


def test_the_node_gives_the_labels_of_the_checkpoint_that_was_exported(tmp_path, peer, demo_onnx):
    """Of pairs, and of RGB alone where thermal shows the camera's shutter."""
    frame = render(3, 480, 640)
    rgb, thermal = frame.rgb, frame.thermal
    predictor = Predictor('demo', device='cpu')
    expected = {
        'both': predictor.predict(rgb, thermal).labels,
        'rgb': predictor.predict(rgb, None).labels,
    }
    assert (expected['both'] != expected['rgb']).any()
    stamp = 0

    def send(second, rows=480):
        nonlocal stamp
        stamp += SECOND // 1000
        peer.send(image(rgb[:rows], 'rgb8', stamp), image(second[:rows], 'mono8', stamp))

    def found():
        """Labels by the modality that they were made of."""
        made_of = {status['stamp_ns']: status['modality'] for status in peer.statuses}
        stamped = {stamp_of(msg): msg for msg in peer.labels}
        return {made_of[at]: msg for at, msg in stamped.items() if at in made_of}

    with running_node(tmp_path, {'checkpoint': demo_onnx, 'device': 'cpu'}) as node:
        node.wait_for_output('active')
        for modality, second in (('both', thermal), ('rgb', np.full_like(thermal, 7))):
            send_until(partial(send, second), lambda m=modality: m in found(), f'of {modality}')
        for modality, msg in found().items():
            labels = np.frombuffer(msg.data, np.uint8).reshape(480, 640)
            assert (labels == expected[modality]).mean() >= 0.999
        # A bad frame, which the node survives.
        send(thermal, 240)
        wait_until(lambda: 'got 640x240' in node.output, 'the size in the log')
        assert node.stop(signal.SIGTERM) == 0
        assert 'Traceback' not in node.output
