"""The overlay is the same of NumPy arrays and of tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sartm_model.inference.overlay import blend_classes
from sartm_model.labels import MFNET


@pytest.mark.parametrize('background_id', [0, 2, None])
def test_arrays_and_tensors_are_blended_alike(background_id):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (6, 8), np.uint8)
    colors = MFNET.palette()[labels].astype(np.float32)
    for channels in (3, 1):
        image = rng.integers(0, 256, (6, 8, channels)).astype(np.float32)
        of_arrays = blend_classes(image, labels, colors, np.float32(0.25), background_id)
        of_tensors = blend_classes(
            *map(torch.from_numpy, (image, labels, colors)), torch.tensor(0.25), background_id
        )
        transparent = np.zeros_like(labels) if background_id is None else labels == background_id
        expected = np.where(transparent[..., None], image, 0.75 * image + 0.25 * colors)
        assert of_arrays.shape == (6, 8, 3)
        assert np.abs(of_arrays - expected).max() <= 0.5 + 1e-4
        np.testing.assert_array_equal(of_arrays, of_tensors)
