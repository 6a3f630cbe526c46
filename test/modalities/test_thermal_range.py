"""The thermal range, on the host and in torch, against NumPy's and torch's own quantiles."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from sartm_model.modalities import MODALITIES
from sartm_model.modalities.base import to_counts
from sartm_model.modalities.thermal_range import own_range
from sartm_model.modalities.thermal_settings import ThermalSettings
from sartm_model.utils.percentiles import percentiles

RANGES = [ThermalSettings(), ThermalSettings('fixed', 20, 180)]


def random_counts(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, np.iinfo(dtype).max, shape) >> rng.integers(0, 4)).astype(dtype)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_percentiles_on_the_host_are_numpys(dtype):
    shares = (0.0, 0.01, 0.5, 0.997, 1.0)
    for seed, size in enumerate((1, 2, 3, 7, 100, 4800)):
        counts = random_counts(dtype, size, seed)
        np.testing.assert_allclose(percentiles(counts, shares), np.quantile(counts, shares))


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('shape', [(1, 1), (3, 5), (5, 9), (64, 48), (480, 640)])
def test_the_range_is_torchs_quantiles_of_every_fourth_pixel(dtype, shape):
    image = random_counts(dtype, shape)
    expected = torch.from_numpy(np.quantile(image[::4, ::4], (0.01, 0.99))).float()
    counts = torch.from_numpy(image)
    for kind in (counts, to_counts(counts)):
        found = own_range(kind, torch.zeros(shape, dtype=torch.bool))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('range_', RANGES, ids=['percentile', 'fixed'])
@pytest.mark.parametrize('flat', [False, True])
def test_the_host_scales_as_torch_does(dtype, range_, flat):
    thermal = np.full((40, 30), 100, dtype) if flat else random_counts(dtype, (40, 30))
    modality = MODALITIES['thermal']
    expected = modality.scale(torch.from_numpy(thermal), range_.fixed_range).numpy()
    scaled = modality.scale(thermal, range_.fixed_range)
    assert scaled.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(scaled, expected, atol=1e-5)


def test_the_range_needs_no_torch():
    code = 'import sys, sartm_model.modalities; print("torch" in sys.modules)'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout == 'False\n', result.stderr
