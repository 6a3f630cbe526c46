"""The predictor on numpy images against the network with preprocessing written out here."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from untrained_checkpoint import save_untrained

from sartm_model.config import ModelConfig
from sartm_model.errors import SartmError
from sartm_model.inference.predictor import Predictor
from sartm_model.inference.transfer import Staging
from sartm_model.labels import MFNET, LabelSpace
from sartm_model.modalities.thermal_settings import ThermalSettings
from sartm_model.models import checkpoint as checkpoints
from sartm_model.models.sartm import Sartm

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason='torch sees no CUDA device')

FULL = ThermalSettings('fixed', 0, 255)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(1)
    model = Sartm(ModelConfig(), len(MFNET))
    for name, parameter in model.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.05)
    path = tmp_path_factory.mktemp('predictor') / 'random.safetensors'
    checkpoints.save(path, model, MFNET, {})
    return path


@pytest.fixture(scope='module', params=[(1, 'eager'), (2, 'parallel')], ids=['eager', 'parallel'])
def predictor(request, checkpoint):
    """The engines that 'auto' chooses on a CPU of one core and of several."""
    threads, engine = request.param
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    predictor = Predictor(checkpoint, device='cpu', thermal_settings=FULL)
    assert predictor.engine == engine
    yield predictor
    torch.set_num_threads(before)


def images(height=70, width=100):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return rgb, rng.integers(0, 256, (height, width), dtype=np.uint8)


def by_hand(checkpoint, rgb, thermal):
    """Probabilities [K, H, W] of both heads on the mean."""
    return sum(heads_by_hand(checkpoint, rgb, thermal).values()) / 2


def heads_by_hand(checkpoint, rgb, thermal):
    """Probabilities [K, H, W] by ImageNet's published statistics and the unmerged network."""
    model = checkpoints.build(checkpoints.load(checkpoint), merged=False)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = torch.from_numpy(((rgb / 255 - mean) / std).astype(np.float32).transpose(2, 0, 1)[None])
    t = torch.from_numpy(((thermal / 255 - 0.449) / 0.226).astype(np.float32)[None, None])
    with torch.no_grad():
        logits = model({'rgb': x, 'thermal': t}).logits
        return {name: values.softmax(1)[0].numpy() for name, values in logits.items()}


def test_labels_confidence_and_overlay(checkpoint, predictor):
    rgb, thermal = images()
    wanted = by_hand(checkpoint, rgb, thermal)
    found = predictor.predict(rgb, thermal, confidence=True, overlay=True, overlay_opacity=0.25)
    best, second = np.sort(wanted, axis=0)[-1], np.sort(wanted, axis=0)[-2]
    clear = best - second > 1e-4  # elsewhere float32 rounding may decide
    assert clear.mean() > 0.9
    labels = wanted.argmax(axis=0)
    np.testing.assert_array_equal(found.labels[clear], labels[clear])
    assert np.abs(found.confidence / 255 - best).max() < 1 / 255
    colours = MFNET.palette()[found.labels].astype(float)
    blend = np.where(found.labels[..., None] == 0, rgb, 0.75 * rgb + 0.25 * colours)
    assert np.abs(found.overlay - blend).max() <= 0.5 + 1e-3
    for image in (found.labels, found.confidence, found.overlay):
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous


@pytest.mark.parametrize('background_id', [1, None])
def test_the_overlay_leaves_the_background_of_the_label_space_transparent(tmp_path, background_id):
    space = LabelSpace('own', ('a', 'b', 'c'), ((9, 9, 9), (200, 0, 0), (0, 200, 0)), background_id)
    own = Predictor(save_untrained(tmp_path / 'own.safetensors', space), device='cpu')
    rgb, thermal = images()
    found = own.predict(rgb, thermal, overlay=True, overlay_opacity=1.0)
    expected = space.palette()[found.labels]
    if background_id is not None:
        expected = np.where((found.labels == background_id)[..., None], rgb, expected)
    assert len(np.unique(found.labels)) > 1
    np.testing.assert_array_equal(found.overlay, expected)


@pytest.mark.parametrize('head', ['mask', 'auxiliary'])
def test_each_head_alone(checkpoint, head):
    rgb, thermal = images()
    alone = Predictor(checkpoint, device='cpu', head=head, thermal_settings=FULL)
    found = alone.predict(rgb, thermal, confidence=True)
    wanted = heads_by_hand(checkpoint, rgb, thermal)[head]
    assert np.abs(found.confidence / 255 - wanted.max(axis=0)).max() < 1 / 255
    assert (found.labels == wanted.argmax(axis=0)).mean() > 0.99
    assert alone.head == head


def test_only_what_is_requested_is_returned(predictor):
    found = predictor.predict(*images())
    assert found.confidence is None
    assert found.overlay is None


def test_bgr_view_padded_rows_and_read_only_memory_are_taken_as_they_are(predictor):
    rgb, thermal = images()
    wanted = predictor.predict(rgb, thermal).labels
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    padded = np.zeros((70, 128, 3), np.uint8)
    padded[:, :100] = rgb
    read_only = np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape)
    for view in (bgr[..., ::-1], padded[:, :100], read_only):
        np.testing.assert_array_equal(predictor.predict(view, thermal).labels, wanted)


def test_counts_at_odd_places_in_memory(predictor):
    """As in an array of records, whose pixels of two bytes are three bytes apart."""
    rgb, thermal = images()
    records = np.zeros(thermal.shape, [('counts', '<u2'), ('quality', 'u1')])
    records['counts'] = counts = 30000 + 40 * thermal.astype(np.uint16)
    for view in (slice(None), slice(None, None, -1)):
        found = predictor.predict(rgb, records['counts'][:, view]).labels
        np.testing.assert_array_equal(found, predictor.predict(rgb, counts[:, view]).labels)


def test_other_warnings_of_the_process_are_not_repeated(predictor):
    """Python shows a warning once for each line, until the filters of warnings are set back."""
    rgb, thermal = images()
    read_only = np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('default')
        for _ in range(3):
            warnings.warn('from elsewhere', stacklevel=1)
            predictor.predict(read_only, thermal)
    assert [str(each.message) for each in caught if 'NumPy' not in str(each.message)] == [
        'from elsewhere'
    ]


def test_thermal_of_another_size_and_depth(predictor):
    rgb, _ = images()
    thermal = np.linspace(2000, 9000, 35 * 50).astype(np.uint16).reshape(35, 50)
    predictor.thermal_settings = ThermalSettings('fixed', 2000, 9000)
    deep = predictor.predict(rgb, thermal).labels
    predictor.thermal_settings = ThermalSettings('fixed', 0, 7000)
    same = predictor.predict(rgb, thermal - 2000).labels
    predictor.thermal_settings = ThermalSettings('fixed', 0, 255)
    assert deep.shape == rgb.shape[:2]
    assert (deep == same).mean() > 0.999


def test_one_modality_is_enough(predictor):
    rgb, thermal = images()
    both = predictor.predict(rgb, thermal, confidence=True)
    alone = predictor.predict(rgb, None, confidence=True)
    warm = predictor.predict(None, thermal[:40, :60], overlay=True)
    assert (alone.confidence != both.confidence).any()
    assert warm.labels.shape == (40, 60)
    assert warm.overlay.shape == (40, 60, 3)


def test_bf16_agrees_with_fp32(checkpoint):
    """8 bits of mantissa move probabilities by about a hundredth; most labels must stand."""
    rgb, thermal = images()
    full = Predictor(checkpoint, device='cpu').predict(rgb, thermal, confidence=True)
    half = Predictor(checkpoint, device='cpu', precision='bf16').predict(
        rgb, thermal, confidence=True
    )
    assert (full.labels == half.labels).mean() > 0.9
    assert np.abs(full.confidence.astype(int) - half.confidence).mean() < 4


def test_staging_holds_every_kind_of_image_in_one_buffer():
    """The GPU's path, run on the CPU: odd sizes, 16 bits, a reversed view, one image."""
    rgb, _ = images(3, 5)  # 45 bytes: what follows must still be aligned
    deep = np.arange(15, dtype=np.uint16).reshape(3, 5) * 4000
    for given in ([rgb[..., ::-1], deep], [deep], [rgb], [deep[::-1, ::-1], rgb[::-1]]):
        staging = Staging(given, torch.device('cpu'))
        for arrays in (given, [image // 2 if image is deep else image + 1 for image in given]):
            staging.fill(arrays)
            for image, tensor in zip(arrays, staging.send(), strict=True):
                np.testing.assert_array_equal(tensor.numpy(), image)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_images_of_a_camera_mounted_upside_down(checkpoint, dtype):
    """NumPy turns an image without a copy, and torch has no such views."""
    rgb, thermal = images(64, 96)
    turned = [np.rot90(image, 2) for image in (rgb, thermal.astype(dtype))]
    predictor = Predictor(checkpoint, device='cpu')
    copies = [np.ascontiguousarray(image) for image in turned]
    np.testing.assert_array_equal(
        predictor.predict(*turned).labels, predictor.predict(*copies).labels
    )


@CUDA
def test_cuda_fp16_agrees_with_cpu(checkpoint):
    rgb, thermal = images(480, 640)
    full = Predictor(checkpoint, device='cpu').predict(rgb, thermal)
    on_gpu = Predictor(checkpoint, device='cuda')
    assert on_gpu.precision == 'fp16'
    assert (full.labels == on_gpu.predict(rgb, thermal).labels).mean() > 0.98


@pytest.mark.parametrize(
    ('rgb', 'thermal', 'fault'),
    [
        (None, None, 'no image'),
        (np.zeros((4, 4), np.uint8), None, 'RGB image is uint8'),
        (np.zeros((4, 4, 3), np.float32), None, 'RGB image is float32'),
        (None, np.zeros((4, 4), np.float32), 'thermal image is float32'),
        (None, np.zeros((4, 4, 3), np.uint8), 'thermal image'),
        (np.zeros((0, 4, 3), np.uint8), None, 'empty'),
    ],
)
def test_images_that_cannot_be_used(predictor, rgb, thermal, fault):
    with pytest.raises(SartmError, match=fault):
        predictor.predict(rgb, thermal)


def test_settings_that_cannot_be_used(checkpoint):
    with pytest.raises(SartmError, match='expected auto, cpu, cuda'):
        Predictor(checkpoint, device='tpu')
    with pytest.raises(SartmError, match='CUDA devices'):
        Predictor(checkpoint, device='cuda:99')
    with pytest.raises(SartmError, match='precision'):
        Predictor(checkpoint, device='cpu', precision='int3')
    with pytest.raises(SartmError, match=r"engine 'steam' on cpu; expected auto, .* parallel"):
        Predictor(checkpoint, device='cpu', engine='steam')
    with pytest.raises(SartmError, match='mean, mask, auxiliary'):
        Predictor(checkpoint, device='cpu', head='best')
    with pytest.raises(SartmError, match='low < high'):
        ThermalSettings('fixed', 5, 5)


def test_pixels_without_a_number_are_unknown(predictor, monkeypatch):
    rgb, thermal = images()
    request = {'confidence': True, 'overlay': True, 'overlay_opacity': 1.0}
    sound = predictor.predict(rgb, thermal, **request)
    bad = np.zeros(thermal.shape, bool)
    bad[6:] = True  # pixel rows that the third row of logits has a part in
    forward_logits = predictor.pipeline.model.forward_logits

    def with_nan(images):
        heads, extent = forward_logits(images)
        for column in range(heads[1].shape[-1]):
            heads[1][column % len(MFNET), 2:, column] = torch.nan  # of one class or another
        return heads, extent

    monkeypatch.setattr(predictor.pipeline.model, 'forward_logits', with_nan)
    found = predictor.predict(rgb, thermal, **request)
    np.testing.assert_array_equal(found.labels, np.where(bad, 255, sound.labels))
    np.testing.assert_array_equal(predictor.predict(rgb, thermal).labels, found.labels)
    np.testing.assert_array_equal(found.confidence, np.where(bad, 0, sound.confidence))
    np.testing.assert_array_equal(found.overlay[~bad], sound.overlay[~bad])
    assert (found.overlay[bad] == MFNET.palette()[255]).all()
