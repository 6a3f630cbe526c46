"""SATIR as its user runs it: segments, pretraining, fine-tuning, measuring, the node."""

from __future__ import annotations

import json
import signal

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('transformers', reason='needs transformers')
pytest.importorskip('skimage', reason='needs scikit-image')

from processes import running_node
from ros_helpers import SECOND, image, send_until
from small_training import splits, write_config, write_folder

from sartm_model.cli.main import main
from sartm_model.inference.predictor import Predictor
from sartm_model.models import checkpoint as checkpoints

pytestmark = pytest.mark.slow

SIZE = (64, 96)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A warm person before a cold wall and a ground, and the labels of MFNet."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SIZE, np.uint8)
    top, left = rng.integers(0, SIZE[0] - 32), rng.integers(0, SIZE[1] - 20)
    labels[top : top + 32, left : left + 20] = 2
    thermal = np.where(np.arange(SIZE[0])[:, None] < 30, 40, 90) + np.zeros(SIZE)
    thermal = np.where(labels == 2, 190, thermal) + rng.normal(0, 6, SIZE)
    return thermal.clip(0, 255).astype(np.uint8), labels


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def test_from_unlabelled_images_to_labels_on_a_topic(tmp_path, peer, capsys):
    recordings = tmp_path / 'recordings'
    recordings.mkdir()
    for number in range(12):
        cv2.imwrite(str(recordings / f'{number}.png'), scene(100 + number)[0])
    pseudo = tmp_path / 'pseudo'
    run('pseudo-label', '--source', 'graph', '--images', recordings, '--out', pseudo)
    run('data', 'check', '--dataset', 'folder', '--root', pseudo / 'data.yaml')

    data = splits(pseudo / 'data.yaml')
    pretrain = write_config(
        tmp_path / 'pretrain.yaml',
        {**data, 'val': {**data['val'], 'split': 'train', 'frames': 2}},
        steps=40,
        stage='pretrain',
        model={'name': 'segformer', 'size': 'b0', 'modalities': ['thermal']},
        optim={'lr': 1e-3},
    )
    run('train', '--config', pretrain, '--out', tmp_path / 'pretrained')
    frames = [dict(zip(('thermal', 'labels'), scene(seed), strict=True)) for seed in range(10)]
    data = write_folder(tmp_path / 'labelled', frames, train=6)
    start = tmp_path / 'pretrained' / 'last.safetensors'
    tune = write_config(
        tmp_path / 'tune.yaml', splits(data), steps=80, start_from=str(start), optim={'lr': 1e-3}
    )
    capsys.readouterr()
    run('train', '--config', tune, '--out', tmp_path / 'tuned')
    assert 'start anew' in capsys.readouterr().out

    best = tmp_path / 'tuned' / 'last.safetensors'
    assert checkpoints.load(best).config.modalities == ('thermal',)
    figures = tmp_path / 'figures.json'
    measured = ['--dataset', 'folder', '--root', data, '--split', 'val', '--f-measure']
    run('evaluate', '--checkpoint', best, *measured, '--json', figures)
    found = json.loads(figures.read_text())
    assert found['per_class_iou']['person'] > 50
    assert found['per_class_f_measure']['person'] > 50

    thermal, _ = scene(50)
    expected = Predictor(best, device='cpu').predict(None, thermal).labels
    parameters = {
        'checkpoint': best, 'device': 'cpu', 'rgb_topic': "''",
        'warm_up.width': SIZE[1], 'warm_up.height': SIZE[0],
    }  # fmt: skip
    stamp = 0

    def send():
        nonlocal stamp
        stamp += SECOND // 100
        peer.thermal.publish(image(thermal, 'mono8', stamp, 'thermal'))

    with running_node(tmp_path, parameters) as node:
        node.wait_for_output('active')
        send_until(send, lambda: peer.labels, 'labels')
        labels = np.frombuffer(peer.labels[0].data, np.uint8).reshape(SIZE)
        assert (labels == expected).mean() > 0.999
        assert {0, 2} <= set(np.unique(labels))
        assert node.stop(signal.SIGINT) == 0
