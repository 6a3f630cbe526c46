"""From a folder of images to labels with the classes of a user, none of which is background.

The walk of docs/own_data.md, with photographs of a phone and to the node, is in
test/node/test_own_data_walk.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from command_line import read, run

from sartm_model.models import checkpoint as checkpoints

RAW_IDS = {0: 'ground', 7: 'road', 11: 'person'}
FRAMES = 5


@pytest.fixture
def frames(tmp_path) -> Path:
    """JPEG of a phone, 16-bit TIFF of a smaller thermal camera, and masks with raw ids."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'yard'
    for part in ('rgb', 'thermal', 'masks'):
        (root / part).mkdir(parents=True)
    for number in range(FRAMES):
        mask = np.zeros((96, 128), np.uint8)
        mask[48:] = 7
        mask[20:70, 20 + 8 * number : 40 + 8 * number] = 11
        rgb = rng.integers(0, 256, (96, 128, 3), np.uint8) // 2 + (mask * 8)[..., None]
        thermal = 28000 + 100 * cv2.resize(mask, (64, 48)).astype(np.uint16)
        for path, image in (
            (root / 'rgb' / f'IMG_{number:04d}.JPG', rgb),
            (root / 'thermal' / f'IMG_{number:04d}.tiff', thermal),
            (root / 'masks' / f'IMG_{number:04d}.png', mask),
        ):
            assert cv2.imwrite(str(path), image)
    return root


def test_from_a_folder_of_images_to_labels(frames, tmp_path, capsys):
    data = frames / 'data.yaml'
    assert run('data', 'init', frames) == 0
    text = data.read_text()
    for raw_id, name in RAW_IDS.items():
        text = text.replace(f'id_{raw_id}\n', f'{name}\n').replace(f'id_{raw_id} ', f'{name} ')
    assert 'background_id: null' in text
    data.write_text(text)
    assert run('data', 'check', '--dataset', 'folder', '--root', data) == 0

    settings = {
        'data': {
            'train': [{'dataset': 'folder', 'root': 'data.yaml', 'split': 'train'}],
            'val': {'dataset': 'folder', 'root': 'data.yaml', 'split': 'val'},
            'crop_height': 64,
            'crop_width': 64,
            'batch_size': 2,
            'workers': 0,
            'object_crop': 0.5,
        },
        'loss': {'language': 0, 'class_weights': [1, 1, 3]},
        'steps': 2,
        'val_every': 2,
        'device': 'cpu',
    }
    (frames / 'train.yaml').write_text(yaml.safe_dump(settings))
    assert run('train', '--config', frames / 'train.yaml', '--out', tmp_path / 'run') == 0
    checkpoint = tmp_path / 'run' / 'best.safetensors'
    space = checkpoints.load(checkpoint).label_space
    assert space.classes == ('ground', 'road', 'person')
    assert (space.name, space.background_id) == ('yard', None)

    figures = tmp_path / 'val.json'
    source = ('--dataset', 'folder', '--root', data, '--split', 'val')
    model = ('--checkpoint', checkpoint, '--device', 'cpu')
    assert run('evaluate', *model, *source, '--json', figures) == 0
    found = json.loads(figures.read_text())
    assert list(found['per_class_iou']) == ['ground', 'road', 'person']
    assert found['frames'] == 1
    # Ground, class 0, counts in each mean as any other class does.
    per_class = np.array(list(found['per_class_iou'].values()), float)
    assert found['miou'] == pytest.approx(np.nan_to_num(per_class).mean())
    assert found['miou_foreground'] is None

    images = ('--rgb', frames / 'rgb', '--thermal', frames / 'thermal')
    assert run('predict', *model, *images, '--out', tmp_path / 'labels') == 0
    assert len(list((tmp_path / 'labels').iterdir())) == 2 * FRAMES
    colors = np.array(space.colors)
    is_ground = []
    for number in range(FRAMES):
        labels = read(tmp_path / 'labels' / f'IMG_{number:04d}_labels.png')
        assert labels.shape == (96, 128)
        assert labels.max() < 3
        is_ground.append((labels == 0).mean())
        # Half of every pixel is the colour of its class, also where that is class 0.
        rgb = read(frames / 'rgb' / f'IMG_{number:04d}.JPG')[..., ::-1]
        overlay = read(tmp_path / 'labels' / f'IMG_{number:04d}_overlay.png')[..., ::-1]
        assert np.abs(overlay - (rgb + colors[labels]) / 2).max() <= 2
    assert 0 < np.mean(is_ground) < 1

    capsys.readouterr()
    assert run('info', checkpoint) == 0
    assert 'person' in capsys.readouterr().out


def test_frames_without_masks_are_not_asked_for_names_of_classes(frames, capsys):
    shutil.rmtree(frames / 'masks')
    assert run('data', 'init', frames) == 0
    printed = capsys.readouterr().out
    assert f'{FRAMES} frames, no masks\n' in printed
    assert printed.endswith('data.yaml; sartm pseudo-label labels them\n')
    assert len((frames / 'all.txt').read_text().split()) == FRAMES


def test_classes_of_another_data_set_are_refused(frames, tmp_path, capsys):
    assert run('data', 'init', frames) == 0
    capsys.readouterr()
    source = ('--dataset', 'folder', '--root', frames / 'data.yaml', '--split', 'val')
    assert run('evaluate', '--checkpoint', 'demo', '--device', 'cpu', *source) == 2
    error = capsys.readouterr().err
    assert "knows the classes of 'mfnet', but those of 'yard' are asked for" in error
    assert (
        'only the former has unlabeled, car, person and 6 more, only the latter has id_0' in error
    )
