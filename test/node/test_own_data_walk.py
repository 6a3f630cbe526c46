"""The walk of docs/own_data.md: from a folder of photographs to labels on a topic of the node."""

from __future__ import annotations

import itertools
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('onnxruntime', reason='needs onnxruntime')

from command_line import read, run
from processes import ROOT, running_node, wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_helpers import SECOND, image, send_until, stamp_of
from std_msgs.msg import String

from sartm_model.inference.onnx_predictor import OnnxPredictor
from sartm_model.inference.predictor import Predictor

CLASSES = {0: 'ground', 7: 'road', 11: 'person', 26: 'Gabelstapler'}
FRAMES = 4
HEIGHT, WIDTH = 4032, 3024  # of a photograph held upright, which is stored lying
CAMERA = (1008, 756)  # height and width of what the node is sent
THERMAL = (640, 480)


def upright_images(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """RGB, thermal of 16 bits and a mask with raw ids of a scene."""
    rng = np.random.default_rng(number)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3 * HEIGHT // 4 :] = 7
    left = 600 + 300 * number
    mask[1200:3200, left : left + 500] = 11
    mask[2000:3100, left + 800 : left + 1400] = 26
    mask[:40] = 255
    texture = rng.integers(0, 60, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    rgb = cv2.resize(texture, (WIDTH, HEIGHT)) + 7 * np.minimum(mask, 26)[..., None]
    small = cv2.resize(mask, THERMAL[::-1], interpolation=cv2.INTER_NEAREST)
    thermal = 28000 + 100 * np.minimum(small, 26).astype(int) + rng.integers(0, 40, THERMAL)
    return rgb.astype(np.uint8), thermal.astype(np.uint16), mask


@pytest.fixture
def yard(tmp_path) -> Path:
    root = tmp_path / 'yard'
    for part in ('rgb', 'thermal', 'masks'):
        (root / part).mkdir(parents=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for number in range(FRAMES):
        rgb, thermal, mask = upright_images(number)
        stem = f'IMG_{number:04d}_{"night" if number % 2 else "day"}'
        lying = Image.fromarray(np.rot90(rgb))
        lying.save(root / 'rgb' / f'{stem}.JPG', quality=85, exif=exif)
        Image.fromarray(thermal).save(root / 'thermal' / f'{stem}.tiff')
        Image.fromarray(mask).save(root / 'masks' / f'{stem}.png')
    return root


@pytest.mark.slow
def test_from_a_folder_of_photographs_to_labels_on_a_topic(yard, tmp_path, peer, capsys):
    data = yard / 'data.yaml'
    assert run('data', 'init', yard) == 0
    text = data.read_text().replace('background_id: null', 'background_id: 0')
    for raw_id, name in CLASSES.items():
        text = text.replace(f'id_{raw_id}\n', f'{name}\n').replace(f'id_{raw_id} ', f'{name} ')
    data.write_text(f'{text}condition: {{night: _night, day: _day}}\n')
    capsys.readouterr()
    assert run('data', 'check', '--dataset', 'folder', '--root', data) == 0
    printed = capsys.readouterr().out
    assert 'val: 1 frames' in printed
    assert f'{WIDTH}x{HEIGHT}, thermal uint16 28000 to ' in printed

    shutil.copy(ROOT / 'config' / 'train' / 'own_data.yaml', yard / 'train.yaml')
    scales = ['model.input_scale=0.125', 'data.scale_min=0.06', 'data.scale_max=0.2']
    small = ['data.crop_height=160', 'data.crop_width=128', 'data.batch_size=2', 'data.workers=0']
    settings = [*scales, *small, 'steps=2', 'val_every=2', 'device=cpu']
    assert run('train', '--config', yard / 'train.yaml', '--out', tmp_path / 'run', *settings) == 0
    assert 'of the same name keep their weights: person' in capsys.readouterr().out
    checkpoint = tmp_path / 'run' / 'best.safetensors'
    model = ('--checkpoint', checkpoint, '--device', 'cpu')

    val = ('--dataset', 'folder', '--root', data, '--split', 'val')
    figures = tmp_path / 'val.json'
    report = tmp_path / 'report'
    assert run('evaluate', *model, *val, '--json', figures, '--report', report) == 0
    assert list(json.loads(figures.read_text())['per_class_iou']) == list(CLASSES.values())
    assert 'Gabelstapler' in (report / 'report.html').read_text()

    assert run('predict', *model, *val, '--out', tmp_path / 'labels') == 0
    (stem,) = (yard / 'val.txt').read_text().split()
    labels = read(tmp_path / 'labels' / f'{stem}_labels.png')
    assert labels.shape == (HEIGHT, WIDTH)
    assert labels.max() < len(CLASSES)

    onnx = tmp_path / 'yard.onnx'
    sizes = ['--height', CAMERA[0], '--width', CAMERA[1], '--thermal-size', *THERMAL]
    sizes += ['--thermal-type', 'uint16']
    assert run('export', '--checkpoint', checkpoint, *sizes, '--out', onnx) == 0
    rgb, thermal, _ = upright_images(FRAMES)
    rgb = cv2.resize(rgb, CAMERA[::-1], interpolation=cv2.INTER_AREA)
    expected = Predictor(checkpoint, device='cpu').predict(rgb, thermal).labels
    exported = OnnxPredictor(onnx)
    assert exported.label_space.classes == tuple(CLASSES.values())
    assert (exported.predict(rgb, thermal).labels == expected).mean() >= 0.999

    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    legends = peer.listen(String, '/sartm/classes', latched)
    stamps = itertools.count(SECOND, SECOND)

    def send():
        stamp = next(stamps)
        peer.send(image(rgb, 'rgb8', stamp), image(thermal, 'mono16', stamp))

    def of_both() -> list[Any]:
        """Labels of both images; thermal that stands still is left out after a while."""
        both = {status['stamp_ns'] for status in peer.statuses if status['modality'] == 'both'}
        return [msg for msg in list(peer.labels) if stamp_of(msg) in both]

    with running_node(tmp_path, {'checkpoint': checkpoint, 'device': 'cpu'}) as node:
        node.wait_for_output('active')
        send_until(send, of_both, 'labels of a pair')
        wait_until(lambda: legends, 'the legend')
        assert node.stop(signal.SIGTERM) == 0
        assert 'Traceback' not in node.output
    legend = json.loads(legends[0].data)
    assert legend['classes'] == list(CLASSES.values())
    assert legend['background_id'] == 0
    msg = of_both()[0]
    served = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.width)
    assert (served == expected).mean() >= 0.999
