"""Every sensor from files through training, evaluation, prediction and export, in one network."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from small_training import splits, write_config
from toy_model import ENTRY

from sartm_model.cli.main import main
from sartm_model.config import ModelConfig
from sartm_model.data.registry import open_dataset
from sartm_model.data.validation import check
from sartm_model.errors import SartmError
from sartm_model.export.exported_model import ExportedModel
from sartm_model.inference.export_config import ExportConfig
from sartm_model.inference.predictor import Predictor
from sartm_model.modalities import MODALITIES
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models import registry
from sartm_model.training.run import train

HEIGHT, WIDTH = 32, 48
SENSORS = tuple(MODALITIES)
PATTERNS = {
    'rgb': 'rgb/{stem}.png',
    'thermal': 'thermal/{stem}.png',
    'depth': 'depth/{stem}.png',
    'depth_coded': 'depth8/{stem}.png',
    'hha': 'hha/{stem}.png',
    'lidar': 'lidar/{stem}.png',
    'event': 'event/{stem}.png',
    'event_voxel3': 'voxels3/{stem}.npy',
    'event_voxel5': 'voxels5/{stem}.npy',
    'polarization': 'aolp/{stem}.png',
    'light_field': 'views/{stem}_1_5.png',
    'light_field_row': 'views/{stem}_5_1.png',
}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.MODELS, 'toy', ENTRY)


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Four frames in which every sensor sees the object on the left side."""
    root = tmp_path_factory.mktemp('sensors')
    rng = np.random.default_rng(0)
    folders = ('rgb', 'thermal', 'depth', 'depth8', 'hha', 'lidar', 'event', 'aolp', 'dolp')
    for folder in (*folders, 'voxels3', 'voxels5', 'views', 'masks'):
        (root / folder).mkdir()
    for number in range(4):
        near = np.zeros((HEIGHT, WIDTH), np.uint8)
        near[:, : rng.integers(16, 32)] = 1
        colour = (120 * near + rng.integers(0, 100, near.shape)).astype(np.uint8)
        for folder in folders:
            image = colour if folder != 'depth' else np.where(near, 2000, 8000).astype(np.uint16)
            cv2.imwrite(str(root / folder / f'{number}.png'), image)
        for bins in (3, 5):
            grid = np.repeat(near[None], bins, axis=0) * rng.normal(size=(bins, 1, 1))
            np.save(root / f'voxels{bins}' / f'{number}.npy', grid)
        for view in ('1_5', *(f'5_{column}' for column in range(1, 10))):
            cv2.imwrite(str(root / 'views' / f'{number}_{view}.png'), colour)
        cv2.imwrite(str(root / 'masks' / f'{number}.png'), near)
    declaration = {
        'label_space': {'name': 'yard', 'names': ['free', 'obstacle']},
        'images': PATTERNS,
        'labels': 'masks/{stem}.png',
        'splits': {'train': ['0', '1', '2'], 'val': ['3']},
    }
    (root / 'data.yaml').write_text(yaml.safe_dump(declaration))
    return root


@pytest.fixture(scope='module')
def trained(root) -> Path:
    """A network of all sensors after a few steps."""
    crop = {'crop_height': HEIGHT, 'crop_width': WIDTH}
    config = write_config(
        root / 'train.yaml',
        {**splits(root / 'data.yaml'), **crop, 'drop_modality': {'depth': 0.3, 'event': 0.3}},
        steps=4,
        model={'name': 'toy', 'size': '', 'modalities': list(SENSORS)},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.MODELS, 'toy', ENTRY)
        return train(config, root / 'run')


def test_the_data_set_has_all_of_them(root):
    frame = open_dataset('folder', root / 'data.yaml', 'val')[0]
    assert tuple(frame.images) == SENSORS
    for name, image in frame.images.items():
        MODALITIES[name].check(image)
    assert not check('folder', root / 'data.yaml').faults


def test_images_of_another_size_are_resized_or_refused(root):
    """An event camera has fewer pixels, and one that stands upright shows another view."""
    declaration = yaml.safe_load((root / 'data.yaml').read_text())
    images = {'rgb': PATTERNS['rgb'], 'event_voxel5': 'small/{stem}.npy', 'depth': 'far/{stem}.png'}
    for folder in ('small', 'far'):
        (root / folder).mkdir()
    np.save(root / 'small' / '3.npy', np.ones((HEIGHT // 2, WIDTH // 2, 5)))
    depth = np.where(np.arange(WIDTH // 2) % 2, np.uint16(4000), np.uint16(0))
    cv2.imwrite(str(root / 'far' / '3.png'), np.tile(depth, (HEIGHT // 2, 1)))
    path = root / 'small.yaml'
    changed = {**declaration, 'images': images, 'splits': {'val': ['3']}}
    path.write_text(yaml.safe_dump({**changed, 'resize': True}))
    frame = open_dataset('folder', path, 'val')[0]
    assert frame.images['event_voxel5'].shape == (HEIGHT, WIDTH, 5)
    assert frame.images['depth'].shape == (HEIGHT, WIDTH)
    assert set(np.unique(frame.images['depth'])) == {0, 4000}  # nothing in between
    path.write_text(yaml.safe_dump(changed))
    with pytest.raises(SartmError, match=r'far/3\.png is 24x16, but .*rgb/3\.png is 48x32'):
        open_dataset('folder', path, 'val')[0]
    np.save(root / 'small' / '3.npy', np.ones((WIDTH, HEIGHT, 5)))
    cv2.imwrite(str(root / 'far' / '3.png'), np.full((HEIGHT, WIDTH), 4000, np.uint16))
    with pytest.raises(SartmError, match=r'small/3\.npy is 32x48, but .*rgb/3\.png is 48x32'):
        open_dataset('folder', path, 'val')[0]


def test_a_prediction_is_the_networks_on_normalised_images(root, trained):
    predictor = Predictor(trained, device='cpu', engine='eager')
    frame = open_dataset('folder', root / 'data.yaml', 'val')[0]
    found = predictor.predict(frame.images, confidence=True, overlay=True)
    inputs = {}
    for name, image in frame.images.items():
        modality = MODALITIES[name]
        scaled = np.asarray(modality.scale(image), np.float32).reshape(HEIGHT, WIDTH, -1)
        normalised = (scaled - np.float32(modality.mean)) / np.float32(modality.std)
        inputs[name] = torch.from_numpy(normalised).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = predictor.pipeline.model.segment(inputs)[0].amax(dim=0)
    assert np.abs((expected * 255).round().numpy() - found.confidence).max() <= 1
    assert found.overlay.shape == (HEIGHT, WIDTH, 3)
    for name in SENSORS:  # each alone: all the others are missing
        alone = predictor.predict({name: frame.images[name]}, overlay=True)
        assert alone.overlay.shape == (HEIGHT, WIDTH, 3)
        assert set(np.unique(alone.labels)) <= {0, 1}


def test_the_exported_network_computes_the_same(root, trained):
    frame = open_dataset('folder', root / 'data.yaml', 'val')[0]
    config = ExportConfig(HEIGHT, WIDTH, modalities=SENSORS)
    module = ExportedModel(checkpoints.build(checkpoints.load(trained)), config).eval()
    with torch.no_grad():
        labels, confidence = module(*map(torch.from_numpy, frame.images.values()))
    expected = Predictor(trained, device='cpu').predict(frame.images, confidence=True)
    assert (labels.numpy() == expected.labels).mean() > 0.999
    assert np.abs(confidence.numpy().astype(int) - expected.confidence).max() <= 1


def test_commands_take_them(root, trained, tmp_path):
    data = ['--dataset', 'folder', '--root', str(root / 'data.yaml'), '--split', 'val']
    named = ['--checkpoint', str(trained), *data]
    out = tmp_path / 'scores.json'
    fault = ['--corruption', 'depth_holes', '--severity', '3']
    report = ['--flip', '--report', str(tmp_path), '--json', str(out)]
    assert main(['evaluate', *named, *fault, *report]) == 0
    assert json.loads(out.read_text())['frames'] == 1
    assert 'light field (8 views)' in (tmp_path / 'report.html').read_text()
    assert main(['evaluate', *named, '--modality', 'event_voxel5', '--json', str(out)]) == 0
    assert main(['evaluate', *named, '--corruption', 'depth_fog', '--severity', '3']) == 2
    assert main(['predict', *named, '--out', str(tmp_path)]) == 0
    assert (tmp_path / '3_labels.png').exists()


@pytest.mark.parametrize(
    ('name', 'modality', 'channels'),
    [('sartm', 'event_voxel5', 5), ('sartm', 'light_field_row', 24)],
)
def test_channels_that_do_not_fit_are_refused_in_one_line(name, modality, channels):
    fault = rf'^model\.modalities has {modality}, with {channels} channels; {name} takes .* 1 or 3$'
    with pytest.raises(SartmError, match=fault):
        registry.build(ModelConfig(name=name, modalities=('rgb', modality)), 2)


def test_sartm_takes_what_has_one_channel_or_three():
    for sensor in ('depth', 'hha', 'event', 'polarization', 'light_field'):
        model = registry.build(ModelConfig(modalities=('rgb', sensor)), 2).eval()
        channels = MODALITIES[sensor].channels
        images = {'rgb': torch.zeros(1, 3, 32, 32), sensor: torch.zeros(1, channels, 32, 32)}
        with torch.no_grad():
            assert model.segment(images).shape == (1, 2, 32, 32)
