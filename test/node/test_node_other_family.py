"""The node with a network of another family, over DDS."""

from __future__ import annotations

import shutil
import signal

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import torch
from processes import running_node, wait_until
from ros_helpers import SECOND, image, send_until
from toy_model import ENTRY, Toy

from sartm_model.config import ModelConfig
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.registry import MODELS

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (60, 90, 3), dtype=np.uint8)
THERMAL = RNG.integers(0, 256, (60, 90), dtype=np.uint8)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A checkpoint of the family, which this process knows too."""
    monkeypatch.setitem(MODELS, 'toy', ENTRY)
    torch.manual_seed(0)
    path = tmp_path / 'toy.safetensors'
    checkpoints.save(path, Toy(ModelConfig(name='toy'), len(MFNET)), MFNET, {})
    return path


def check_labels(peer, checkpoint):
    """Send pairs until there are labels, and compare the first of them."""
    expected = Predictor(checkpoint, device='cpu').predict(RGB, THERMAL).labels
    stamp = 0

    def send():
        nonlocal stamp
        stamp += SECOND // 1000
        peer.send(image(RGB, 'rgb8', stamp), image(THERMAL, 'mono8', stamp))

    send_until(send, lambda: peer.labels, 'labels')
    labels = np.frombuffer(peer.labels[0].data, np.uint8).reshape(60, 90)
    assert (labels == expected).mean() > 0.999


def test_the_node_serves_a_family_that_is_only_registered(tmp_path, peer, toy):
    with running_node(tmp_path, {'checkpoint': toy, 'device': 'cpu'}, 'toy_model.py') as node:
        node.wait_for_output('active')
        check_labels(peer, toy)
        assert node.stop(signal.SIGINT) == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='there is no g++')
def test_the_node_compiles_its_network_when_it_is_configured(tmp_path, peer, toy, monkeypatch):
    monkeypatch.setenv('TORCHINDUCTOR_CACHE_DIR', '')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    parameters = {'checkpoint': toy, 'device': 'cpu', 'engine': 'compile'}
    parameters |= {'warm_up.width': 90, 'warm_up.height': 60}
    with running_node(tmp_path, parameters, 'toy_model.py') as node:
        node.wait_for_output('compiling the network for 90x60')
        wait_until(lambda: 'active: ' in node.output, 'the end of the compilation', 300)
        assert f'later starts take it from {tmp_path}/sartm/torch_' in node.output
        assert 'engine compile' in node.output
        files = sorted(tmp_path.rglob('*.so'))
        assert files
        check_labels(peer, toy)
        assert sorted(tmp_path.rglob('*.so')) == files
        assert node.stop(signal.SIGINT) == 0
