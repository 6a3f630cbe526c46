"""SATIR as its user runs it: segments, pretraining, fine-tuning, measuring, the node."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('transformers', reason='needs transformers')
pytest.importorskip('skimage', reason='needs scikit-image')

from processes import running_node
from ros_helpers import SECOND, image, send_until

from sartm_model.cli.main import main
from sartm_model.inference.predictor import Predictor
from sartm_model.models import checkpoint as checkpoints

pytestmark = pytest.mark.slow

SIZE = (64, 96)
SMALL = {'crop_height': 64, 'crop_width': 64, 'batch_size': 2, 'workers': 0}


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


def labelled_frames(root: Path) -> Path:
    """Six labelled frames to train on and four to measure, declared in a YAML file."""
    for name in ('thermal', 'masks'):
        (root / name).mkdir(parents=True)
    for number in range(10):
        thermal, labels = scene(number)
        cv2.imwrite(str(root / 'thermal' / f'{number}.png'), thermal)
        cv2.imwrite(str(root / 'masks' / f'{number}.png'), labels)
    declaration = {
        'label_space': 'mfnet',
        'images': {'thermal': 'thermal/{stem}.png'},
        'labels': 'masks/{stem}.png',
        'splits': {'train': [str(n) for n in range(6)], 'val': [str(n) for n in range(6, 10)]},
    }
    (root / 'data.yaml').write_text(yaml.safe_dump(declaration))
    return root / 'data.yaml'


def configuration(path: Path, data: Path, val: str, **settings) -> Path:
    source = {'dataset': 'folder', 'root': str(data)}
    values = {
        'data': {'train': [source], 'val': {**source, 'split': val, 'frames': 2}, **SMALL},
        'optim': {'lr': 1e-3},
        'val_every': 40,
        'ema_decay': 0.0,
        'device': 'cpu',
        **settings,
    }
    path.write_text(yaml.safe_dump(values))
    return path


def test_from_unlabelled_images_to_labels_on_a_topic(tmp_path, peer, capsys):
    recordings = tmp_path / 'recordings'
    recordings.mkdir()
    for number in range(12):
        cv2.imwrite(str(recordings / f'{number}.png'), scene(100 + number)[0])
    pseudo = tmp_path / 'pseudo'
    run('pseudo-label', '--source', 'graph', '--images', recordings, '--out', pseudo)
    run('data', 'check', '--dataset', 'folder', '--root', pseudo / 'data.yaml')

    network = {'name': 'segformer', 'size': 'b0', 'modalities': ['thermal']}
    pretrain = configuration(
        tmp_path / 'pretrain.yaml',
        pseudo / 'data.yaml',
        'train',
        stage='pretrain',
        model=network,
        steps=40,
    )
    run('train', '--config', pretrain, '--out', tmp_path / 'pretrained')
    data = labelled_frames(tmp_path / 'labelled')
    start = tmp_path / 'pretrained' / 'last.safetensors'
    tune = configuration(tmp_path / 'tune.yaml', data, 'val', start_from=str(start), steps=80)
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
