"""Test-time augmentation, compared with runs of the network on copies made by Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from untrained_checkpoint import save_untrained

from sartm_model.errors import SartmError
from sartm_model.evaluation.multi_scale_flip import probabilities
from sartm_model.inference.predictor import Predictor

HEIGHT, WIDTH = 72, 100


@pytest.fixture(scope='module')
def predictor(tmp_path_factory):
    path = save_untrained(tmp_path_factory.mktemp('model') / 'nano.safetensors')
    return Predictor(path, device='cpu')


@pytest.fixture(scope='module')
def pair():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    return rgb, rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)


def resized(x: torch.Tensor | None, height: int, width: int) -> torch.Tensor | None:
    """Resize each channel of `[..., h, w]` with Pillow, which averages when it shrinks."""
    if x is None:
        return None
    planes = [
        np.array(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))
        for plane in x.reshape(-1, *x.shape[-2:]).numpy()
    ]
    return torch.from_numpy(np.stack(planes)).reshape(*x.shape[:-2], height, width)


def named(rgb, thermal):
    return {'rgb': rgb, 'thermal': thermal}


def test_without_augmentation_it_equals_the_prediction(predictor, pair):
    found = probabilities(predictor, named(*pair))
    assert found.shape == (9, HEIGHT, WIDTH)
    assert found.dtype == torch.float32
    prediction = predictor.predict(*pair, confidence=True)
    np.testing.assert_array_equal(found.argmax(dim=0), prediction.labels)
    np.testing.assert_array_equal((found.amax(dim=0) * 255).round(), prediction.confidence)


@pytest.mark.parametrize('given', ['both', 'rgb', 'thermal'])
def test_mean_over_scales_and_mirrorings(predictor, pair, given):
    rgb = None if given == 'thermal' else pair[0]
    thermal = None if given == 'rgb' else pair[1]
    inputs = predictor.preprocess(rgb, thermal).images
    copies = []
    for height, width in ((54, 75), (HEIGHT, WIDTH), (90, 125)):
        images = {name: resized(x, height, width) for name, x in inputs.items()}
        for side in (1, -1):
            mirrored = {
                name: torch.from_numpy(x.numpy()[..., ::side].copy()) for name, x in images.items()
            }
            flipped_back = predictor.probabilities(mirrored).numpy()[..., ::side].copy()
            copies.append(resized(torch.from_numpy(flipped_back), HEIGHT, WIDTH))
    expected = sum(copies) / 6
    found = probabilities(predictor, named(rgb, thermal), flip=True, scales=(0.75, 1, 1.25))
    assert (found - expected).abs().max() < 1e-4
    assert (found - copies[2]).abs().max() > 1e-3  # it is not that of the pair alone
    assert (found.sum(dim=0) - 1).abs().max() < 1e-4


def test_with_flips_a_mirrored_pair_gives_the_mirrored_probabilities(predictor, pair):
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in pair]
    plain = probabilities(predictor, named(*pair), flip=True)
    flipped_back = probabilities(predictor, named(*mirrored), flip=True).flip(-1)
    # The percentiles of thermal come from every fourth pixel, which are others in the mirror.
    assert (plain - flipped_back).abs().max() < 0.02


@pytest.mark.parametrize('scales', [(), (0,), (1, -0.5), (float('nan'),), (float('inf'),)])
def test_scales_that_cannot_be_used(predictor, pair, scales):
    with pytest.raises(SartmError, match='greater than 0'):
        probabilities(predictor, named(*pair), scales=scales)
