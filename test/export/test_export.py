"""Exported files, run by ONNX Runtime and by libtorch, held against the predictor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import AGREE, agreement, pair
from untrained_checkpoint import save_untrained

pytest.importorskip('onnxruntime', reason='needs onnxruntime')
pytest.importorskip('onnx', reason='needs onnx')
pytest.importorskip('onnxscript', reason='needs onnxscript')

import onnx

from sartm_model.cli.main import main as cli
from sartm_model.data.registry import open_dataset
from sartm_model.data.transforms import ThermalRange
from sartm_model.errors import SartmError
from sartm_model.export.exported_model import ExportConfig, percentiles
from sartm_model.export.onnx_export import _prepare, export_onnx
from sartm_model.inference.onnx_predictor import OnnxPredictor, open_predictor
from sartm_model.inference.predictor import Prediction, Predictor
from sartm_model.labels import MFNET


@pytest.fixture(scope='module')
def untrained(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp('untrained') / 'untrained.safetensors')


@pytest.fixture(scope='module')
def demo_onnx(tmp_path_factory):
    path = tmp_path_factory.mktemp('demo') / 'demo.onnx'
    assert cli.main(['export', '--out', str(path)]) == 0
    return path


def test_it_gives_what_the_predictor_gives_on_scenes(demo_onnx):
    exported, predictor = open_predictor(demo_onnx, device='cpu'), Predictor('demo', device='cpu')
    scenes = open_dataset('synthetic', None, 'test')
    for frame in (scenes[0], scenes[1]):
        found = exported.predict(frame.rgb, frame.thermal, confidence=True, overlay=True)
        expected = predictor.predict(frame.rgb, frame.thermal, confidence=True, overlay=True)
        assert agreement(found, expected) >= AGREE
        assert len(np.unique(found.labels)) > 1
        same = found.labels == expected.labels
        assert np.abs(found.overlay.astype(int) - expected.overlay)[same].max() <= 1


def test_it_gives_what_the_predictor_gives_on_real_frames(demo_onnx, real_data):
    exported, predictor = open_predictor(demo_onnx, device='cpu'), Predictor('demo', device='cpu')
    frames = open_dataset('mfnet', real_data / 'mfnet', 'val')
    for frame in (frames[0], frames[1]):
        found = exported.predict(frame.rgb, frame.thermal, confidence=True)
        expected = predictor.predict(frame.rgb, frame.thermal, confidence=True)
        assert agreement(found, expected) >= AGREE


def test_either_image_may_be_missing(demo_onnx):
    exported, predictor = open_predictor(demo_onnx, device='cpu'), Predictor('demo', device='cpu')
    rgb, thermal = pair(480, 640)
    for given in ((rgb, None), (None, thermal)):
        found = exported.predict(*given, confidence=True)
        assert agreement(found, predictor.predict(*given, confidence=True)) >= AGREE


@pytest.mark.parametrize(
    'settings',
    [
        {'modality': 'rgb'},
        {'modality': 'thermal', 'thermal_range': ('fixed', 20.0, 200.0)},
        {'thermal_height': 40, 'thermal_width': 60, 'thermal_type': 'uint16'},
    ],
    ids=['rgb', 'thermal, fixed range', 'thermal of another size and type'],
)
def test_what_is_exported_takes_other_inputs(untrained, settings):
    """The module before it is written, because writing takes long."""
    config = ExportConfig(height=70, width=100, **settings)
    module, _ = _prepare(untrained, config)
    bits = 16 if config.thermal_type == 'uint16' else 8
    images = dict(
        zip(
            ('rgb', 'thermal'),
            pair(thermal_size=config.sizes.get('thermal'), bits=bits),
            strict=True,
        )
    )
    given = {name: images[name] for name in config.sizes}
    with torch.no_grad():
        found = Prediction(*(x.numpy() for x in module(*map(torch.from_numpy, given.values()))))
    predictor = Predictor(untrained, device='cpu', thermal_range=config.range)
    expected = predictor.predict(given.get('rgb'), given.get('thermal'), confidence=True)
    assert agreement(found, expected) >= AGREE


def test_half_precision_and_16_bits(untrained, tmp_path):
    """Random weights leave classes close to each other, and halves have eleven bits."""
    config = ExportConfig(
        *(70, 100), thermal_height=40, thermal_width=60, thermal_type='uint16', precision='fp16'
    )
    export_onnx(untrained, tmp_path / 'x.onnx', config)
    exported = OnnxPredictor(tmp_path / 'x.onnx', device='cpu', threads=1)
    assert exported.precision == 'fp16'
    assert (tmp_path / 'x.onnx').stat().st_size < 0.85 * untrained.stat().st_size
    rgb, thermal = pair(thermal_size=(40, 60), bits=16)
    found = exported.predict(rgb, thermal, confidence=True)
    expected = Predictor(untrained, device='cpu').predict(rgb, thermal, confidence=True)
    assert np.abs(found.confidence.astype(int) - expected.confidence).max() <= 4
    assert (found.labels == expected.labels).mean() > 0.95
    with pytest.raises(SartmError, match=r'of thermal alone, which has another; .*safetensors'):
        exported.predict(None, thermal)


def test_a_scale_that_is_not_whole(untrained, tmp_path):
    """The module alone, over sizes whose logits have to be enlarged by an odd factor."""
    for height, width in ((447, 63), (33, 65), (64, 31)):
        module, _ = _prepare('demo', ExportConfig(height, width))
        rgb, thermal = pair(height, width)
        with torch.no_grad():
            labels, _ = module(torch.from_numpy(rgb), torch.from_numpy(thermal))
        expected = Predictor('demo', device='cpu').predict(rgb, thermal).labels
        assert labels.shape == (height, width)
        assert (labels.numpy() == expected).mean() >= AGREE


@pytest.mark.parametrize('bits', [8, 16])
def test_percentiles_by_bisection_are_those_by_sorting(bits):
    rng = np.random.default_rng(bits)
    for size in (1, 2, 3, 100, 4801):
        numbers = rng.integers(0, 2**bits, size) >> rng.integers(0, bits)
        found = percentiles(torch.from_numpy(numbers)[None].float(), bits)
        np.testing.assert_allclose(found, np.quantile(numbers, (0.01, 0.99)), rtol=1e-6, atol=1e-3)


def test_the_file_says_what_it_is(demo_onnx):
    model = onnx.load(demo_onnx)
    onnx.checker.check_model(model)
    texts = {item.key: item.value for item in model.metadata_props}
    assert json.loads(texts['labels']) == MFNET.to_dict()
    assert json.loads(texts['export'])['modality'] == 'both'
    assert {node.domain for node in model.graph.node} == {''}
    exported = OnnxPredictor(demo_onnx, device='cpu')
    assert exported.label_space == MFNET
    assert (exported.head, exported.precision, str(exported.device)) == ('mean', 'fp32', 'cpu')


def test_what_does_not_fit_the_file_is_named(demo_onnx):
    exported = OnnxPredictor(demo_onnx, device='cpu')
    rgb, thermal = pair(480, 640)
    with pytest.raises(SartmError, match='takes rgb images of 640x480 pixels, got 100x70'):
        exported.predict(*pair())
    with pytest.raises(SartmError, match='thermal of uint8, got uint16'):
        exported.predict(rgb, thermal.astype(np.uint16))
    with pytest.raises(SartmError, match='scales thermal by itself: percentile'):
        exported.thermal_range = ThermalRange('fixed', 0, 255)
    with pytest.raises(SartmError, match='smoothed over 2 s'):
        exported.thermal_range = ThermalRange(smoothing_s=2)
    exported.thermal_range = ThermalRange()
    exported.homography = None
    with pytest.raises(SartmError, match='leave the homography out'):
        exported.homography = np.eye(3)
    for settings in ({'precision': 'fp16'}, {'head': 'mask'}, {'device': 'tpu'}):
        with pytest.raises(SartmError):
            OnnxPredictor(demo_onnx, **settings)


def test_files_of_others_are_refused(tmp_path):
    node = onnx.helper.make_node('Identity', ['x'], ['y'])
    x, y = (onnx.helper.make_tensor_value_info(n, 1, [1]) for n in 'xy')
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph([node], 'g', [x], [y]),
        opset_imports=[onnx.helper.make_opsetid('', 18)],
        ir_version=10,
    )
    contents = {
        'foreign.onnx': (foreign.SerializeToString(), 'has format None'),
        'damaged.onnx': (b'\x08\x0a no model', 'damaged or foreign'),
        'empty.onnx': (b'', 'damaged or foreign|has format None'),
    }
    for name, (content, fault) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SartmError, match=fault):
            open_predictor(tmp_path / name)
    with pytest.raises(SartmError, match='no checkpoint'):
        open_predictor(tmp_path / 'missing.onnx')


def test_settings_that_cannot_be(tmp_path):
    for settings in ({'height': 0}, {'modality': 'depth'}, {'thermal_range': ('fixed', 9, 9)}):
        with pytest.raises(SartmError):
            ExportConfig(**settings)
    with pytest.raises(SartmError, match=r'ends in \.onnx'):
        export_onnx('demo', tmp_path / 'x.pt', ExportConfig())
    assert cli.main(['export', '--out', str(tmp_path / 'x')]) == 2
    assert not list(Path(tmp_path).iterdir())
