"""Exported files, run by ONNX Runtime, against the predictor."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

pytest.importorskip('onnxruntime', reason='needs onnxruntime')
pytest.importorskip('onnx', reason='needs onnx')
pytest.importorskip('onnxscript', reason='needs onnxscript')

import onnx
import onnxruntime
from untrained_checkpoint import save_untrained

from sartm_model.cli.main import main
from sartm_model.data.registry import open_dataset
from sartm_model.errors import SartmError
from sartm_model.export.exported_model import ExportedModel
from sartm_model.export.onnx_export import export_onnx
from sartm_model.inference.export_config import FORMAT, ExportConfig
from sartm_model.inference.onnx_predictor import OnnxPredictor
from sartm_model.inference.open_predictor import open_predictor
from sartm_model.inference.prediction import Prediction
from sartm_model.inference.predictor import Predictor
from sartm_model.labels import MFNET
from sartm_model.modalities.thermal_settings import ThermalSettings
from sartm_model.models import checkpoint as checkpoints
from sartm_model.utils.visualization import encode

AGREEMENT = 0.999
"""Sums are taken in another order: where two classes are as likely, either may be the label."""


def pair(height=70, width=100, thermal_size=None, bits=8, seed=0):
    """Blocks of random colours and temperatures."""
    rng = np.random.default_rng(seed)
    rows, columns = thermal_size or (height, width)
    block = np.ones((16, 16), np.uint8)
    rgb = np.stack([np.kron(rng.integers(0, 256, (99, 99)), block) for _ in range(3)], axis=-1)
    thermal = np.kron(rng.integers(0, 2**bits, (99, 99)), block)
    dtype = np.uint8 if bits == 8 else np.uint16
    return rgb[:height, :width].astype(np.uint8), thermal[:rows, :columns].astype(dtype)


def check_agreement(found, expected):
    """Nearly all pixels have the same label and a confidence that differs by 1 at most."""
    assert found.labels.dtype == np.uint8
    assert found.labels.shape == expected.labels.shape
    same = found.labels == expected.labels
    difference = np.abs(found.confidence.astype(int) - expected.confidence)
    assert (difference[same] <= 1).mean() > AGREEMENT
    assert same.mean() >= AGREEMENT
    return same


def run_module(checkpoint, config, *images):
    """The module before it is written, because writing takes long."""
    module = ExportedModel(checkpoints.build(checkpoints.load(checkpoint)), config).eval()
    with torch.no_grad():
        return Prediction(*(output.numpy() for output in module(*map(torch.from_numpy, images))))


def check_versions(path):
    """The file has the oldest IR version that its opset allows, and nothing that came later.

    ONNX Runtime 1.14 is the first with opset 18, and reads versions up to 8. Notes on the parts of
    a graph (metadata_props) came with version 10.
    """
    model = onnx.load(path, load_external_data=False)
    assert [(item.domain, item.version) for item in model.opset_import] == [('', 18)]
    assert model.ir_version == onnx.helper.find_min_ir_version_for(model.opset_import) == 8
    graph = model.graph
    for parts in (graph.node, graph.initializer, graph.value_info, graph.input, graph.output):
        assert not any(part.metadata_props for part in parts)
    assert not graph.metadata_props
    assert not model.functions


def test_it_gives_what_the_predictor_gives_on_scenes(demo_onnx):
    exported, predictor = open_predictor(demo_onnx, device='cpu'), Predictor('demo', device='cpu')
    scenes = open_dataset('synthetic', None, 'test')
    for frame in (scenes[0], scenes[1]):
        found = exported.predict(frame.rgb, frame.thermal, confidence=True, overlay=True)
        expected = predictor.predict(frame.rgb, frame.thermal, confidence=True, overlay=True)
        same = check_agreement(found, expected)
        assert len(np.unique(found.labels)) > 1
        assert np.abs(found.overlay.astype(int) - expected.overlay)[same].max() <= 1


def test_it_gives_what_the_predictor_gives_on_real_frames(demo_onnx, real_data):
    exported, predictor = open_predictor(demo_onnx, device='cpu'), Predictor('demo', device='cpu')
    frames = open_dataset('mfnet', real_data / 'mfnet', 'val')
    for frame in (frames[0], frames[1]):
        found = exported.predict(frame.rgb, frame.thermal, confidence=True)
        expected = predictor.predict(frame.rgb, frame.thermal, confidence=True)
        check_agreement(found, expected)


def test_either_image_may_be_missing(demo_onnx):
    exported, predictor = open_predictor(demo_onnx, device='cpu'), Predictor('demo', device='cpu')
    rgb, thermal = pair(480, 640)
    for given in ((rgb, None), (None, thermal)):
        found = exported.predict(*given, confidence=True)
        check_agreement(found, predictor.predict(*given, confidence=True))


@pytest.mark.parametrize(
    'settings',
    [
        {'modality': 'rgb'},
        {'modality': 'thermal', 'thermal_range': ('fixed', 20.0, 200.0)},
        {'thermal_height': 40, 'thermal_width': 60, 'thermal_type': 'uint16'},
        {'thermal_type': 'float32'},
        {'thermal_crop': (9, 0, 3, 5), 'thermal_invalid': (7,), 'thermal_polarity': 'black_hot'},
    ],
    ids=['rgb', 'fixed range', 'another size and type', 'counts as floats', 'thermal settings'],
)
def test_what_is_exported_takes_other_inputs(nano_checkpoint, settings):
    config = ExportConfig(height=70, width=100, **settings)
    bits = 8 if config.thermal_type == 'uint8' else 16
    images = dict(
        zip(
            ('rgb', 'thermal'),
            pair(thermal_size=config.sizes.get('thermal'), bits=bits),
            strict=True,
        )
    )
    given = {name: images[name] for name in config.sizes}
    inputs = [image.astype(config.dtype(name)) for name, image in given.items()]
    found = run_module(nano_checkpoint, config, *inputs)
    predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=config.thermal_settings)
    expected = predictor.predict(given.get('rgb'), given.get('thermal'), confidence=True)
    check_agreement(found, expected)


def test_a_thermal_pixel_that_is_no_number_is_no_measurement(nano_checkpoint):
    config = ExportConfig(height=70, width=100, thermal_type='float32')
    rgb, thermal = pair(bits=16)
    thermal = (29000 + thermal % 1000).astype(np.float32)
    thermal[10:14, 20:40] = 0
    expected = run_module(nano_checkpoint, config, rgb, thermal)
    thermal[thermal == 0] = np.nan
    found = run_module(nano_checkpoint, config, rgb, thermal)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.labels.max() < len(MFNET)


def test_a_depth_pixel_that_is_no_number_is_no_reading():
    modalities = ('rgb', 'depth')
    config = ExportConfig(height=70, width=100, thermal_type='float32', modalities=modalities)
    rgb, depth = pair(bits=16)
    depth = (1 + depth % 9000).astype(np.float32)
    depth[10:14, 20:40] = 0
    expected = run_module('demo_depth', config, rgb, depth)
    depth[depth == 0] = np.nan
    found = run_module('demo_depth', config, rgb, depth)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.labels.max() < len(MFNET)


@pytest.fixture(scope='module')
def nano_16_bits(nano_checkpoint, tmp_path_factory):
    """A file for thermal images of 60x42 in 16 bits whose last two rows are telemetry."""
    path = tmp_path_factory.mktemp('exported') / 'nano.onnx'
    size = ['--height', '70', '--width', '100', '--thermal-type', 'uint16']
    thermal = ['--thermal-size', '42', '60', '--thermal-crop', '0', '0', '2', '0']
    thermal += ['--thermal-invalid', '77', '78', '--thermal-polarity', 'black_hot']
    options = ['--checkpoint', str(nano_checkpoint), '--out', str(path)]
    assert main(['export', *options, *size, *thermal]) == 0
    return path


def test_a_file_leaves_out_what_sees_nothing(nano_checkpoint, nano_16_bits):
    """A border, fill, counts without a measurement, telemetry, and none of them."""
    settings = ThermalSettings(crop=(0, 0, 2, 0), invalid=(77, 78), polarity='black_hot')
    exported = OnnxPredictor(nano_16_bits, device='cpu', threads=1, thermal_settings=settings)
    predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=settings)
    rgb, _ = pair()
    rng = np.random.default_rng(1)
    plain = (29000 + 20 * np.indices((42, 60)).sum(0) + rng.integers(0, 9, (42, 60))).astype('u2')
    plain[-2:] = rng.integers(0, 65536, (2, 60))
    border, filled = np.zeros_like(plain), plain.copy()
    border[3:-5, 3:-3] = plain[3:-5, 3:-3]
    filled[10:20, 10:30] = 0
    filled[25:28, 40:50] = 78
    labels = []
    for thermal in (plain, border, filled, np.full_like(plain, 77)):
        found = exported.predict(rgb, thermal, confidence=True)
        check_agreement(found, predictor.predict(rgb, thermal, confidence=True))
        labels.append(found.labels)
    assert all((other != labels[0]).any() for other in labels[1:])


@pytest.mark.slow
def test_half_precision_and_16_bits(nano_checkpoint, tmp_path):
    """Random weights leave classes close to each other, and halves have eleven bits."""
    config = ExportConfig(
        *(70, 100), thermal_height=40, thermal_width=60, thermal_type='float32', precision='fp16'
    )
    export_onnx(nano_checkpoint, tmp_path / 'x.onnx', config)
    check_versions(tmp_path / 'x.onnx')
    exported = OnnxPredictor(tmp_path / 'x.onnx', device='cpu', threads=1)
    assert exported.precision == 'fp16'
    assert (tmp_path / 'x.onnx').stat().st_size < 0.85 * nano_checkpoint.stat().st_size
    rgb, thermal = pair(thermal_size=(40, 60), bits=16)
    found = exported.predict(rgb, thermal, confidence=True)
    expected = Predictor(nano_checkpoint, device='cpu').predict(rgb, thermal, confidence=True)
    assert np.abs(found.confidence.astype(int) - expected.confidence).max() <= 4
    assert (found.labels == expected.labels).mean() > 0.95
    with pytest.raises(SartmError, match=r'of thermal alone, which has another; .*safetensors'):
        exported.predict(None, thermal)


@pytest.mark.slow
@pytest.mark.parametrize('rows', [66, 64])
def test_thermal_alone_after_a_crop(nano_checkpoint, tmp_path, rows):
    """Labels have the size of what the crop leaves; of 64 rows it is not that of the RGB images."""
    crop = ThermalSettings(crop=(0, 0, 2, 0))
    config = ExportConfig(64, 96, thermal_height=rows, thermal_width=96, thermal_crop=crop.crop)
    export_onnx(nano_checkpoint, tmp_path / 'x.onnx', config)
    exported = OnnxPredictor(tmp_path / 'x.onnx', device='cpu', threads=1)
    _, thermal = pair(thermal_size=(rows, 96))
    if rows == 64:
        with pytest.raises(SartmError, match='thermal alone, which has another'):
            exported.predict(None, thermal)
        return
    found = exported.predict(None, thermal, confidence=True, overlay=True)
    predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=crop)
    check_agreement(found, predictor.predict(None, thermal, confidence=True))
    assert found.overlay.shape == (64, 96, 3)


@pytest.mark.slow
def test_a_sensor_whose_images_are_floats(tmp_path):
    modalities = ('rgb', 'event_voxel3')
    checkpoint = save_untrained(tmp_path / 'x.safetensors', modalities=modalities)
    config = ExportConfig(64, 96, modalities=modalities)
    export_onnx(checkpoint, tmp_path / 'x.onnx', config)
    exported = OnnxPredictor(tmp_path / 'x.onnx', device='cpu', threads=1)
    rgb, _ = pair(64, 96)
    voxels = np.random.default_rng(0).normal(size=(64, 96, 3)).astype(np.float32)
    images = {'rgb': rgb, 'event_voxel3': voxels}
    expected = Predictor(checkpoint, device='cpu').predict(images, confidence=True)
    check_agreement(exported.predict(images, confidence=True), expected)


def test_logits_are_upsampled_by_a_factor_that_is_not_whole():
    """Sizes at which ONNX Runtime would round the number of rows or columns down."""
    predictor = Predictor('demo', device='cpu')
    for height, width in ((447, 63), (33, 65), (64, 31)):
        images = pair(height, width)
        found = run_module('demo', ExportConfig(height, width), *images)
        check_agreement(found, predictor.predict(*images, confidence=True))


def test_a_prediction_imports_neither_torch_nor_sam2(demo_onnx, tmp_path):
    """Of the class, as the node uses it, and of the command."""
    rgb, thermal = pair(480, 640)
    (tmp_path / 'rgb.png').write_bytes(encode(rgb))
    (tmp_path / 'thermal.png').write_bytes(encode(thermal))
    code = f"""
import sys
import numpy as np
from sartm_model.cli.main import main
from sartm_model.inference.open_predictor import open_predictor

predictor = open_predictor({str(demo_onnx)!r}, device='cpu')
predictor.warm_up(480, 640)
predictor.predict(None, np.zeros((480, 640), np.uint8), confidence=True, overlay=True)
folder = {str(tmp_path)!r}
status = main(
    ['predict', '--checkpoint', {str(demo_onnx)!r}, '--rgb', folder + '/rgb.png']
    + ['--thermal', folder + '/thermal.png', '--out', folder + '/out']
)
print(status, sorted({{'torch', 'sam2'}} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1:] == ['0 []'], result.stderr
    assert len(list((tmp_path / 'out').iterdir())) == 2


def test_an_overlay_over_thermal_alone_is_the_predictors(demo_onnx):
    _, thermal = pair(480, 640)
    found, expected = (
        open_predictor(checkpoint, device='cpu').predict(None, thermal, overlay=True)
        for checkpoint in (demo_onnx, 'demo')
    )
    same = found.labels == expected.labels
    assert np.abs(found.overlay.astype(int) - expected.overlay)[same].max() <= 1


@pytest.mark.parametrize('background_id', [1, None])
def test_the_overlay_leaves_the_background_of_the_label_space_transparent(demo_onnx, background_id):
    exported = open_predictor(demo_onnx, device='cpu')
    exported.label_space = replace(MFNET, background_id=background_id)
    rgb, thermal = pair(480, 640)
    found = exported.predict(rgb, thermal, overlay=True, overlay_opacity=1.0)
    expected = MFNET.palette()[found.labels]
    if background_id is not None:
        expected = np.where((found.labels == background_id)[..., None], rgb, expected)
    assert (found.labels != 0).any()
    np.testing.assert_array_equal(found.overlay, expected)


def test_the_file_says_what_it_is(demo_onnx):
    model = onnx.load(demo_onnx)
    onnx.checker.check_model(model)
    check_versions(demo_onnx)
    texts = {item.key: item.value for item in model.metadata_props}
    assert json.loads(texts['labels']) == MFNET.to_dict()
    assert json.loads(texts['export'])['modality'] == 'both'
    assert {node.domain for node in model.graph.node} == {''}
    exported = OnnxPredictor(demo_onnx, device='cpu')
    assert exported.label_space == MFNET
    assert (exported.head, exported.precision, str(exported.device)) == ('mean', 'fp32', 'cpu')


@pytest.mark.parametrize(
    ('text', 'expected', 'match'),
    [
        ('Failed to allocate memory for a buffer', MemoryError, 'thermal of 640x480; export it'),
        ('Invalid graph', RuntimeError, 'Invalid graph'),
    ],
)
def test_a_lack_of_memory_is_told_from_other_faults(demo_onnx, monkeypatch, text, expected, match):
    exported = OnnxPredictor(demo_onnx, device='cpu')
    session = SimpleNamespace(run=Mock(side_effect=RuntimeError(text)))
    monkeypatch.setattr(exported, '_session', session)
    with pytest.raises(expected, match=match):
        exported.predict(*pair(480, 640))


def test_what_does_not_fit_the_file_is_named(demo_onnx):
    exported = OnnxPredictor(demo_onnx, device='cpu')
    rgb, thermal = pair(480, 640)
    with pytest.raises(SartmError, match='takes rgb images of 640x480 pixels, got 100x70'):
        exported.predict(*pair())
    with pytest.raises(SartmError, match='thermal of uint8, got uint16'):
        exported.predict(rgb, thermal.astype(np.uint16))
    with pytest.raises(SartmError, match='scales thermal by itself: percentile'):
        exported.thermal_settings = ThermalSettings('fixed', 0, 255)
    with pytest.raises(SartmError, match='smoothed over 2 s'):
        exported.thermal_settings = ThermalSettings(smoothing_s=2)
    with pytest.raises(SartmError, match=r'set is percentile, crop \[0, 0, 2, 0\]; .*thermal-crop'):
        exported.thermal_settings = ThermalSettings(crop=(0, 0, 2, 0))
    exported.thermal_settings = ThermalSettings()
    exported.homography = None
    with pytest.raises(SartmError, match='leave the homography out'):
        exported.homography = np.eye(3)
    for settings in ({'precision': 'fp16'}, {'head': 'mask'}, {'device': 'tpu'}):
        with pytest.raises(SartmError):
            OnnxPredictor(demo_onnx, **settings)


def test_an_image_that_the_file_does_not_take_is_refused(demo_onnx):
    """Although the network was trained with it."""
    exported = OnnxPredictor(demo_onnx, device='cpu')
    exported.config = replace(exported.config, modality='rgb')
    with pytest.raises(SartmError, match='thermal image given, but the network takes rgb; leave'):
        exported.predict(*pair(480, 640))


def test_a_gpu_whose_libraries_are_missing_is_not_claimed(tmp_path, monkeypatch, caplog):
    """ONNX Runtime then runs on the CPU, without an error."""
    node = onnx.helper.make_node('Identity', ['x'], ['y'])
    x, y = (onnx.helper.make_tensor_value_info(n, 1, [1]) for n in 'xy')
    graph = onnx.helper.make_graph([node], 'g', [x], [y])
    opset = onnx.helper.make_opsetid('', 18)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    contents = {'model': {'prediction': 'mean'}, 'labels': MFNET.to_dict(), 'export': {}}
    texts = {'format': FORMAT, **{key: json.dumps(value) for key, value in contents.items()}}
    onnx.helper.set_model_props(model, texts)
    file = tmp_path / 'x.onnx'
    file.write_bytes(model.SerializeToString())
    available = ['CUDAExecutionProvider', 'CPUExecutionProvider']
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: available)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # ONNX Runtime, which has no CUDA here, says so
        assert OnnxPredictor(file).device == 'cpu'
        with pytest.raises(SartmError, match="device 'cuda' cannot be used"):
            OnnxPredictor(file, device='cuda')
    assert caplog.messages == ['the CPU is used: ONNX Runtime cannot load the libraries of CUDA']


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
    for settings in (
        {'height': 0},
        {'modality': 'depth'},
        {'thermal_range': ('fixed', 9, 9)},
        {'thermal_crop': (400, 0, 80, 0)},
        {'thermal_height': 640, 'thermal_width': 480},  # upright beside RGB of 640x480
    ):
        with pytest.raises(SartmError):
            ExportConfig(**settings)
    for fixed in ((28000, 32000), (255, 300), (-9, 0)):
        with pytest.raises(SartmError, match='from 0 to 255; is --thermal-type uint16 meant'):
            ExportConfig(thermal_range=('fixed', *fixed))
    ExportConfig(thermal_range=('fixed', 28000, 32000), thermal_type='uint16')
    ExportConfig(thermal_range=('fixed', 200, 300))
    with pytest.raises(SartmError, match=r'ends in \.onnx'):
        export_onnx('demo', tmp_path / 'x.pt', ExportConfig())
    assert main(['export', '--out', str(tmp_path / 'x')]) == 2
    assert not list(Path(tmp_path).iterdir())
