"""Products in 8-bit integers: the arithmetic, where it is taken, and how far the labels agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sartm_model.benchmark import images
from sartm_model.datasets import open_dataset
from sartm_model.errors import SartmError
from sartm_model.network.int8 import MIN_WIDTH, Int8Linear, check_int8
from sartm_model.predictor import Predictor


def able() -> bool:
    try:
        check_int8(torch.device('cpu'))
    except SartmError:
        return False
    return True


needs_vnni = pytest.mark.skipif(not able(), reason='this processor has no VNNI instructions')


@needs_vnni
@pytest.mark.parametrize('shape', [(5, 96), (2, 3, 4, 96)])
def test_the_product_of_rounded_numbers(shape):
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(96, 40)
    with torch.no_grad():
        layer.weight[3] = 0
    x = torch.randn(shape, generator=generator) * 3 + 1
    # The definition in float64, with numpy's rounding to even.
    weight, wide = layer.weight.detach().double().numpy(), x.double().numpy()
    row_scale = np.maximum(np.abs(weight).max(axis=1), 1e-12) / 127
    low, high = min(wide.min(), 0.0), max(wide.max(), 0.0)
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    x_q = np.clip(np.round(wide / scale) + zero, 0, 255) - zero
    w_q = np.round(weight / row_scale[:, None])
    wanted = x_q @ w_q.T * scale * row_scale + layer.bias.detach().numpy()
    got = Int8Linear(layer)(x).detach().numpy()
    # A value between two steps may be rounded either way in float32: one step times a weight each.
    np.testing.assert_allclose(got, wanted, atol=3 * scale * np.abs(weight).max())
    assert np.abs(got - layer(x).detach().numpy()).max() > 0


@needs_vnni
def test_the_wide_layers_of_the_encoder_and_no_others():
    model = Predictor('demo', precision='int8', device='cpu').network.model
    encoder = [m for m in model.encoder.modules() if isinstance(m, nn.Linear)]
    assert all(layer.in_features < MIN_WIDTH for layer in encoder)
    rounded = [name for name, m in model.named_modules() if isinstance(m, Int8Linear)]
    assert rounded
    assert all(name.startswith('encoder.') for name in rounded)


@needs_vnni
def test_labels_agree_with_float32():
    whole, rounded = (Predictor('demo', device='cpu', precision=name) for name in ('fp32', 'int8'))
    shares: list[float] = []
    classes: set[int] = set()
    for rgb, thermal in images(480, 640):
        labels = whole.predict(rgb, thermal).labels
        shares.append(np.mean(labels == rounded.predict(rgb, thermal).labels))
        classes.update(np.unique(labels).tolist())
    assert len(classes) > 2
    assert np.mean(shares) >= 0.995
    assert min(shares) < 1


@needs_vnni
def test_on_real_frames(real_data):
    whole, rounded = (Predictor('demo', device='cpu', precision=name) for name in ('fp32', 'int8'))
    frames = open_dataset('mfnet', real_data / 'mfnet', 'train')
    for frame in (frames[0], frames[1]):
        pair = frame.rgb, frame.thermal
        assert np.mean(whole.predict(*pair).labels == rounded.predict(*pair).labels) >= 0.995


def test_where_it_cannot_be_had(monkeypatch):
    with pytest.raises(SartmError, match='int8 is for the CPU'):
        check_int8(torch.device('cuda'))
    monkeypatch.setattr(torch.cpu, 'get_capabilities', dict)
    with pytest.raises(SartmError, match='no VNNI'):
        Predictor('demo', device='cpu', precision='int8')


@needs_vnni
def test_one_operation_after_another_gives_the_same():
    rgb, thermal = images(96, 128)[0]
    halves, eager = (
        Predictor('demo', device='cpu', precision='int8', engine=engine)
        for engine in ('halves', 'eager')
    )
    assert any(isinstance(m, Int8Linear) for m in eager.network.model.modules())
    same = halves.predict(rgb, thermal).labels == eager.predict(rgb, thermal).labels
    assert same.mean() > 0.999  # products of other shapes round in another order
