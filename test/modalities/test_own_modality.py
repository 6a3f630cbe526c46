"""A modality that this test alone registers: from its own files to training, evaluation, labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from small_training import splits, write_config

from sartm_model.cli.main import main
from sartm_model.data.declaration_draft import write_draft
from sartm_model.data.registry import open_dataset
from sartm_model.data.validation import check
from sartm_model.data.validation_report import summary
from sartm_model.errors import SartmError
from sartm_model.export.exported_model import ExportedModel
from sartm_model.export.onnx_export import export_onnx
from sartm_model.inference.benchmark import benchmark
from sartm_model.inference.export_config import ExportConfig
from sartm_model.inference.onnx_predictor import OnnxPredictor
from sartm_model.inference.predictor import Predictor
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.base import Modality, to_counts
from sartm_model.models import checkpoint as checkpoints
from sartm_model.training.run import train
from sartm_model.utils.image_io import read_counts

HEIGHT, WIDTH = 48, 64
FAR_MM = 20000


class RangeSensor(Modality):
    """Distances in millimetres, uint16 `[h, w]`, in files of NumPy."""

    name = 'range'
    title = 'range'
    dtypes = ('uint16',)
    mean = (10.0,)  # metres
    std = (5.0,)
    folder_names = 'range'

    def read(self, path: Path) -> np.ndarray:
        return np.load(path, allow_pickle=False)

    def scale(self, image, limits=None):
        return to_counts(image) / 1000


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(MODALITIES, 'range', RangeSensor())


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    """Ten frames of noise in which what is near is an obstacle: only the range tells."""
    root = tmp_path_factory.mktemp('yard')
    rng = np.random.default_rng(0)
    for folder in ('rgb', 'range', 'masks'):
        (root / folder).mkdir()
    for number in range(10):
        near = np.zeros((HEIGHT, WIDTH), bool)
        near[:, rng.integers(0, 20) : rng.integers(30, 60)] = True
        distances = np.where(near, 3000, FAR_MM) + rng.integers(0, 500, near.shape)
        cv2.imwrite(
            str(root / 'rgb' / f'{number}.png'), rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        )
        np.save(root / 'range' / f'{number}.npy', distances.astype(np.uint16))
        cv2.imwrite(str(root / 'masks' / f'{number}.png'), near.astype(np.uint8))
    declaration = {
        'label_space': {'name': 'yard', 'names': ['free', 'obstacle']},
        'images': {'rgb': 'rgb/{stem}.*', 'range': 'range/{stem}.npy'},
        'labels': 'masks/{stem}.png',
        'splits': {'train': [str(n) for n in range(8)], 'val': ['8', '9']},
    }
    (root / 'data.yaml').write_text(yaml.safe_dump(declaration))
    return root


@pytest.fixture(scope='module')
def trained(root) -> Path:
    """A network of RGB and range after a few steps, which suffice to see what is near."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODALITIES, 'range', RangeSensor())
        config = write_config(
            root / 'train.yaml',
            {
                **splits(Path('data.yaml')),
                'crop_height': HEIGHT,
                'crop_width': WIDTH,
                'scale_min': 1.0,
                'scale_max': 1.0,
            },
            steps=20,
            model={'size': 'nano', 'modalities': ['rgb', 'range']},
            loss={'language': 0},
            optim={'lr': 0.004},
        )
        return train(config, root / 'run')


def test_the_data_set_reads_and_checks_it(root):
    frame = open_dataset('folder', root / 'data.yaml', 'val')[0]
    assert list(frame.images) == ['rgb', 'range']
    np.testing.assert_array_equal(frame.images['range'], np.load(root / 'range' / '8.npy'))
    assert 'thermal' not in frame.images
    report = check('folder', root / 'data.yaml')
    assert not report.faults
    assert 'range uint16 3000 to 20499' in summary(report)


def test_the_network_learns_from_it_and_predicts(root, trained):
    predictor = Predictor(trained, device='cpu')
    assert predictor.modalities == ('rgb', 'range')
    replayed = Predictor(trained, device='cpu', engine='graph')
    for frame in open_dataset('folder', root / 'data.yaml', 'val'):
        found = predictor.predict(frame.images, confidence=True, overlay=True)
        assert (found.labels == frame.labels).mean() > 0.9
        assert found.overlay.shape == (HEIGHT, WIDTH, 3)
        # The same by hand: millimetres to metres, ImageNet's statistics, the network.
        rgb = torch.from_numpy(frame.images['rgb'] / 255.0).float()
        rgb = (rgb - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
        metres = torch.from_numpy(frame.images['range'].astype(np.float32) / 1000)
        inputs = {'rgb': rgb.permute(2, 0, 1)[None], 'range': ((metres - 10) / 5)[None, None]}
        with torch.no_grad():
            expected = predictor.pipeline.model.segment(inputs)[0]
        confidence = (expected.amax(dim=0) * 255).round().int().numpy()
        assert np.abs(confidence - found.confidence).max() <= 1
        alone = predictor.predict({'range': frame.images['range']}, overlay=True)
        assert alone.labels.shape == (HEIGHT, WIDTH)
        same = replayed.predict(frame.images, confidence=True)
        np.testing.assert_array_equal(same.labels, found.labels)
        np.testing.assert_array_equal(
            replayed.predict({'range': frame.images['range']}).labels, alone.labels
        )


def test_an_image_of_another_modality_is_refused_in_one_line(trained):
    predictor = Predictor(trained, device='cpu')
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    refused = r'^thermal image given, but .* takes rgb and range; leave it out$'
    with pytest.raises(SartmError, match=refused):
        predictor.predict(rgb, rgb[..., 0])
    with pytest.raises(SartmError, match='range image is uint8'):
        predictor.predict({'rgb': rgb, 'range': rgb[..., 0]})
    with pytest.raises(SartmError, match='no image is given; the network takes rgb and range'):
        predictor.predict({'rgb': None})


def test_it_is_evaluated_with_a_report(root, trained, tmp_path):
    base = ['evaluate', '--checkpoint', str(trained), '--dataset', 'folder', '--split', 'val']
    base += ['--root', str(root / 'data.yaml')]
    predictor = Predictor(trained, device='cpu')
    frames = list(open_dataset('folder', root / 'data.yaml', 'val'))
    for selection in ('both', 'range'):
        out = tmp_path / f'{selection}.json'
        arguments = ['--modality', selection, '--json', str(out), '--report', str(tmp_path)]
        assert main([*base, *arguments]) == 0
        names = ('rgb', 'range') if selection == 'both' else ('range',)
        right = [predictor.predict(f.select(names)).labels == f.labels for f in frames]
        accuracy = json.loads(out.read_text())['pixel_accuracy']
        assert accuracy == pytest.approx(100 * np.mean(right))
        page = (tmp_path / 'report.html').read_text()
        assert ('RGB and range' if selection == 'both' else 'range alone') in page
    assert main([*base, '--modality', 'thermal']) == 2


def test_it_is_timed(trained):
    found = benchmark(trained, HEIGHT, WIDTH, device='cpu', iterations=1)
    assert found['total_ms']['median'] > 0


def test_a_folder_of_it_is_found(tmp_path, monkeypatch):
    class Depth(RangeSensor):
        name = title = folder_names = 'depth'

        def read(self, path):
            return read_counts(path, self.title)

    monkeypatch.setitem(MODALITIES, 'depth', Depth())
    rng = np.random.default_rng(0)
    for folder, shape, dtype in (
        ('Depth16', (8, 8), np.uint16),
        ('color', (8, 8, 3), np.uint8),
        ('masks', (8, 8), np.uint8),
    ):
        (tmp_path / folder).mkdir()
        for number in range(3):
            cv2.imwrite(str(tmp_path / folder / f'{number}.png'), rng.integers(0, 3, shape, dtype))
    draft = write_draft(tmp_path)
    assert {part: path.name for part, path in draft.folders.items()} == {
        'rgb': 'color', 'depth': 'Depth16', 'labels': 'masks'
    }  # fmt: skip
    frame = open_dataset('folder', draft.path, 'train')[0]
    assert list(frame.images) == ['rgb', 'depth']
    assert frame.images['depth'].dtype == np.uint16


def test_it_is_exported(root, trained):
    frame = open_dataset('folder', root / 'data.yaml', 'val')[0]
    config = ExportConfig(HEIGHT, WIDTH, modalities=('rgb', 'range'))
    module = ExportedModel(checkpoints.build(checkpoints.load(trained)), config).eval()
    with torch.no_grad():
        labels, confidence = module(*map(torch.from_numpy, frame.images.values()))
    expected = Predictor(trained, device='cpu').predict(frame.images, confidence=True)
    assert (labels.numpy() == expected.labels).mean() > 0.999
    assert np.abs(confidence.numpy().astype(int) - expected.confidence).max() <= 1


@pytest.mark.slow
def test_the_exported_file_takes_it(root, trained, tmp_path):
    file = tmp_path / 'x.onnx'
    size = ['--height', str(HEIGHT), '--width', str(WIDTH)]
    assert main(['export', '--checkpoint', str(trained), '--out', str(file), *size]) == 0
    exported, predictor = OnnxPredictor(file, device='cpu'), Predictor(trained, device='cpu')
    assert exported.modalities == ('rgb', 'range')
    frame = open_dataset('folder', root / 'data.yaml', 'val')[0]
    for name in ('rgb', 'range', None):
        images = frame.images if name is None else {name: frame.images[name]}
        found, expected = (one.predict(images, confidence=True) for one in (exported, predictor))
        assert (found.labels == expected.labels).mean() > 0.999
        assert np.abs(found.confidence.astype(int) - expected.confidence).max() <= 1
    with pytest.raises(SartmError, match='thermal image given'):
        exported.predict(frame.images['rgb'], frame.images['rgb'][..., 0])
    with pytest.raises(SartmError, match='takes rgb, range'):
        export_onnx(trained, tmp_path / 'y.onnx', ExportConfig())


def test_a_split_is_predicted_by_the_command(root, trained, tmp_path):
    """Of a data set with images of a sensor more than the network takes."""
    declaration = yaml.safe_load((root / 'data.yaml').read_text())
    shutil.copytree(root / 'rgb', tmp_path / 'copies')
    declaration['images']['thermal'] = f'{tmp_path}/copies/{{stem}}.*'
    more = root / 'more.yaml'
    more.write_text(yaml.safe_dump(declaration))
    data = ['--dataset', 'folder', '--root', str(more), '--split', 'val']
    assert main(['predict', '--checkpoint', str(trained), *data, '--out', str(tmp_path)]) == 0
    for frame in open_dataset('folder', root / 'data.yaml', 'val'):
        labels = cv2.imread(str(tmp_path / f'{frame.name}_labels.png'), cv2.IMREAD_UNCHANGED)
        expected = Predictor(trained, device='cpu').predict(frame.images).labels
        np.testing.assert_array_equal(labels, expected)


def test_a_network_of_an_unknown_modality_is_refused(root, trained, monkeypatch):
    monkeypatch.delitem(MODALITIES, 'range')
    with pytest.raises(SartmError, match="no modality is called 'range'; expected one of rgb"):
        Predictor(trained, device='cpu')
    with pytest.raises(SartmError, match=r"images of 'range'; expected one or more of rgb"):
        open_dataset('folder', root / 'data.yaml', 'val')
    with pytest.raises(SartmError, match="no modality is called 'sonar'"):
        train(
            root / 'train.yaml',
            root / 'other',
            ['model.modalities=[rgb,sonar]', 'data.train=[{}]', 'data.val={}'],
        )
