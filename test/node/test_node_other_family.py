"""The node with a network of another family, over DDS."""

from __future__ import annotations

import signal

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import torch
from processes import running_node
from ros_helpers import SECOND, image, send_until
from toy_model import ENTRY, Toy

from sartm_model.config import ModelConfig
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.registry import MODELS


def test_the_node_serves_a_family_that_is_only_registered(tmp_path, peer, monkeypatch):
    monkeypatch.setitem(MODELS, 'toy', ENTRY)
    torch.manual_seed(0)
    path = tmp_path / 'toy.safetensors'
    checkpoints.save(path, Toy(ModelConfig(name='toy'), len(MFNET)), MFNET, {})
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
    thermal = rng.integers(0, 256, (60, 90), dtype=np.uint8)
    expected = Predictor(path, device='cpu').predict(rgb, thermal).labels
    stamp = 0

    def send():
        nonlocal stamp
        stamp += SECOND // 1000
        peer.send(image(rgb, 'rgb8', stamp), image(thermal, 'mono8', stamp))

    with running_node(tmp_path, {'checkpoint': path, 'device': 'cpu'}, 'toy_model.py') as node:
        node.wait_for_output('active')
        send_until(send, lambda: peer.labels, 'labels')
        labels = np.frombuffer(peer.labels[0].data, np.uint8).reshape(60, 90)
        assert (labels == expected).mean() > 0.999
        assert node.stop(signal.SIGINT) == 0
