"""Exported files for any size, and of one image where the other is missing: as the predictor."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from exports import AGREE, agreement, pair
from untrained import save_untrained

pytest.importorskip('onnxruntime', reason='needs onnxruntime')
pytest.importorskip('onnx', reason='needs onnx')
pytest.importorskip('onnxscript', reason='needs onnxscript')

import onnx

from sartm_model import cli
from sartm_model.any_size import AnySizeEncoder
from sartm_model.config import ModelConfig
from sartm_model.datasets import open_dataset
from sartm_model.errors import SartmError
from sartm_model.export import export_onnx
from sartm_model.exported_model import ExportConfig
from sartm_model.network.encoder import Encoder
from sartm_model.onnx_predictor import OnnxPredictor
from sartm_model.predictor import Predictor

# RGB's size, and thermal's. The network sees half of them, padded to multiples of 32: one that
# needs no padding, odd ones, one side far longer, and less than a stride.
SIZES = [
    ((128, 192), (128, 192)),
    ((130, 171), (100, 90)),
    ((33, 65), (240, 320)),
    ((447, 63), (447, 63)),
    ((64, 600), (17, 19)),
    ((3, 5), (1, 1)),
]


@pytest.fixture(scope='module')
def untrained(tmp_path_factory):
    return save_untrained(tmp_path_factory.mktemp('untrained') / 'untrained.safetensors')


@pytest.fixture(scope='module')
def any_size(tmp_path_factory):
    path = tmp_path_factory.mktemp('any') / 'any.onnx'
    assert cli.main(['export', '--dynamic', '--out', str(path)]) == 0
    return OnnxPredictor(path, device='cpu', threads=1)


@pytest.fixture(scope='module')
def demo():
    return Predictor('demo', device='cpu')


@pytest.mark.parametrize(('size', 'thermal_size'), SIZES)
def test_one_file_gives_what_the_predictor_gives_at_any_size(any_size, demo, size, thermal_size):
    rgb, thermal = pair(*size, thermal_size)
    found = any_size.predict(rgb, thermal, confidence=True)
    assert found.labels.shape == size
    assert agreement(found, demo.predict(rgb, thermal, confidence=True)) >= AGREE


def test_it_does_so_on_real_frames_whatever_is_cut_off(any_size, demo, real_data):
    frame = open_dataset('mfnet', real_data / 'mfnet', 'val')[0]
    for rows, columns in ((480, 640), (301, 415)):
        rgb, thermal = frame.rgb[:rows, :columns], frame.thermal[:rows, :columns]
        found = any_size.predict(rgb, thermal, confidence=True)
        assert agreement(found, demo.predict(rgb, thermal, confidence=True)) >= AGREE
        assert len(np.unique(found.labels)) > 1


def test_either_image_may_be_missing(any_size, demo):
    rgb, thermal = pair(130, 171, (100, 90))
    whole = any_size.predict(rgb, thermal).labels
    for given in ((rgb, None), (None, thermal)):
        found = any_size.predict(*given, confidence=True)
        expected = demo.predict(*given, confidence=True)
        assert agreement(found, expected) >= AGREE
        assert found.labels.shape != whole.shape or (found.labels != whole).mean() > 0.01
    with pytest.raises(SartmError, match='no image'):
        any_size.predict(None, None)


@pytest.mark.parametrize(
    ('modality', 'dynamic'),
    [('rgb', False), ('rgb', True), ('thermal', True)],  # to write a fixed one takes long
    ids=['rgb, fixed size', 'rgb', 'thermal'],
)
def test_a_file_for_one_modality(untrained, tmp_path, modality, dynamic):
    range_ = ('fixed', 20.0, 200.0)
    config = ExportConfig(*(70, 100), modality=modality, dynamic=dynamic, thermal_range=range_)
    export_onnx(untrained, tmp_path / 'x.onnx', config)
    exported = OnnxPredictor(tmp_path / 'x.onnx', device='cpu', threads=1)
    predictor = Predictor(untrained, device='cpu', thermal_range=config.range)
    for size in ((70, 100), (91, 40)) if dynamic else ((70, 100),):
        rgb, thermal = pair(*size)
        given = (rgb, None) if modality == 'rgb' else (None, thermal)
        expected = predictor.predict(*given, confidence=True)
        assert agreement(exported.predict(*given, confidence=True), expected) >= AGREE
        other = (None, thermal) if modality == 'rgb' else (rgb, None)
        with pytest.raises(SartmError, match=f'takes {modality} in every pair'):
            exported.predict(*other)


def test_half_precision_and_16_bits_at_any_size(untrained, tmp_path):
    config = ExportConfig(dynamic=True, thermal_type='uint16', precision='fp16')
    export_onnx(untrained, tmp_path / 'x.onnx', config)
    onnx.checker.check_model(onnx.load(tmp_path / 'x.onnx'))
    exported = OnnxPredictor(tmp_path / 'x.onnx', device='cpu', threads=1)
    predictor = Predictor(untrained, device='cpu')
    for size, thermal_size in (((70, 100), (40, 60)), ((33, 130), (64, 64))):
        rgb, thermal = pair(*size, thermal_size, bits=16)
        found = exported.predict(rgb, thermal, confidence=True)
        expected = predictor.predict(rgb, thermal, confidence=True)
        assert np.abs(found.confidence.astype(int) - expected.confidence).max() <= 4
        assert (found.labels == expected.labels).mean() > 0.95  # halves, and random weights
    with pytest.raises(SartmError, match='thermal of uint16, got uint8'):
        exported.predict(rgb, thermal.astype(np.uint8))


def test_torchscript_of_any_size(any_size, demo, tmp_path):
    """After ONNX, as both exporters share scripted parts."""
    path = tmp_path / 'x.pt'
    assert cli.main(['export', '--dynamic', '--format', 'torch', '--out', str(path)]) == 0
    module = torch.jit.load(io.BytesIO(path.read_bytes()))
    for size, thermal_size in SIZES:
        rgb, thermal = pair(*size, thermal_size)
        labels, _ = module(torch.tensor(rgb), torch.tensor(thermal))
        assert (labels.numpy() == demo.predict(rgb, thermal).labels).mean() >= AGREE


@pytest.mark.parametrize('size', ['nano', 'tiny'])
def test_its_encoder_gives_the_maps_of_the_encoder(size):
    """Of random weights, on grids that the windows divide, and that they do not."""
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(size=size), merged=True).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    for height, width in ((64, 64), (96, 160)):
        images = {name: torch.randn(1, 3, height, width) for name in encoder.modalities}
        with torch.no_grad():
            found, expected = AnySizeEncoder(encoder)(images), encoder(images)
        for name, pyramid in expected.items():
            for one, other in zip(found[name], pyramid, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_file_says_that_it_takes_any_size(any_size):
    model = onnx.load(any_size.path)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {''}
    assert any_size.config.dynamic
    shapes = {
        value.name: [part.dim_param or part.dim_value for part in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        'rgb': ['rgb_height', 'rgb_width', 3],
        'thermal': ['thermal_height', 'thermal_width'],
        'present': [2],
        'labels': ['rgb_height', 'rgb_width'],
        'confidence': ['rgb_height', 'rgb_width'],
    }


def test_what_it_cannot_take_is_named(any_size, tmp_path, monkeypatch, capsys):
    any_size.warm_up(64, 96)
    rgb, thermal = pair(64, 96)
    with pytest.raises(SartmError, match='RGB image is empty'):
        any_size.predict(rgb[:0], thermal)
    with pytest.raises(SartmError, match='thermal of uint8, got uint16'):
        any_size.predict(rgb, thermal.astype(np.uint16))

    class Full:
        def run(self, *_):
            raise RuntimeError('Failed to allocate memory for requested buffer of size 70688000000')

    monkeypatch.setattr(any_size, '_session', Full())
    with pytest.raises(MemoryError, match=r'on rgb of 96x64 and thermal of 96x64; .* smaller'):
        any_size.predict(rgb, thermal)
    given = ['export', '--dynamic', '--height', '64', '--out', str(tmp_path / 'x.onnx')]
    assert cli.main(given) == 2
    assert 'leave --height, --width and --thermal-size out' in capsys.readouterr().err
