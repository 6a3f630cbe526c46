"""The percentile range of thermal over a video, against a loop in plain Python."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sartm_model.errors import SartmError
from sartm_model.inference.predictor import Predictor
from sartm_model.modalities import MODALITIES
from sartm_model.modalities.thermal_range import (
    ema_update,
    enforce_min_span,
    scale_counts,
)
from sartm_model.modalities.thermal_settings import ThermalSettings

SMOOTH = ThermalSettings(smoothing_s=0.5)


def scene(hot: int = 0, base: int = 3000) -> np.ndarray:
    """Counts of `base` to `base` + 400, and a hot box in a sixteenth of the image."""
    counts = np.linspace(base, base + 400, 64 * 64).reshape(64, 64).astype(np.uint16)
    counts[16:32, 16:32] += np.uint16(hot)
    return counts


def percentiles(counts: np.ndarray) -> np.ndarray:
    return np.percentile(counts[::4, ::4].astype(float), (1, 99))


def by_loop(images, times, smoothing_s) -> list[np.ndarray]:
    """The limits of each image's range, step by step."""
    limits, before, result = None, None, []
    for image, time_s in zip(images, times, strict=True):
        new = percentiles(image)
        if limits is None or time_s < before or new[0] > limits[1] or new[1] < limits[0]:
            limits = new
        else:
            keep = math.exp(-(time_s - before) / smoothing_s)
            limits = keep * limits + (1 - keep) * new
        before = time_s
        result.append(limits)
    return result


def scaled(predictor: Predictor, image: np.ndarray, time_s: float | None) -> np.ndarray:
    """What the network is shown of a thermal image: counts as 0 to 1, clipped by the overshoot."""
    normalised = predictor.preprocess(None, image, time_s).images['thermal']
    return normalised[0, 0].numpy() * 0.226 + 0.449


def test_the_range_follows_as_the_exponential_average_does(nano_checkpoint):
    predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=SMOOTH)
    # A hot thing comes and goes; time goes on unevenly; the camera sets itself anew; a bag loops.
    images = [scene(), scene(), scene(900), scene(900), scene(), scene(0, 9000), scene(0, 9100)]
    images += [scene(), scene(500)]
    times = [100.0, 100.1, 100.2, 100.25, 100.9, 101.0, 101.1, 101.2, 50.0]
    for image, time_s, (low, high) in zip(images, times, by_loop(images, times, 0.5), strict=True):
        expected = np.clip((image.astype(float) - low) / (high - low), -1, 2)
        np.testing.assert_allclose(scaled(predictor, image, time_s), expected, atol=2e-3)


def test_a_hot_thing_changes_the_rest_by_little_at_once(nano_checkpoint):
    """Behind the box nothing has changed: what the network is shown there should not either."""
    change = {}
    for range_ in (ThermalSettings(), SMOOTH):
        predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=range_)
        before, after = (scaled(predictor, scene(hot), t) for t, hot in ((0.0, 0), (0.033, 2000)))
        change[range_.smoothing_s] = np.abs(after - before)[32:].mean()
    assert change[0.5] < change[0.0] / 2


def test_after_a_time_without_images_nothing_is_left_of_what_was(nano_checkpoint):
    predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=SMOOTH)
    scaled(predictor, scene(900), 0.0)
    own = scaled(Predictor(nano_checkpoint, device='cpu'), scene(), None)
    np.testing.assert_allclose(scaled(predictor, scene(), 10.0), own, atol=1e-3)


def test_a_time_of_rgb_alone_is_one_without_thermal_images(nano_checkpoint):
    smooth = ThermalSettings(smoothing_s=1.0)
    predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=smooth)
    scaled(predictor, scene(900), 0.0)
    rgb = np.zeros((64, 64, 3), np.uint8)
    for time_s in (20.0, 40.0, 60.0):
        predictor.preprocess(rgb, None, time_s)
    own = scaled(Predictor(nano_checkpoint, device='cpu'), scene(), None)
    np.testing.assert_allclose(scaled(predictor, scene(), 60.1), own, atol=1e-3)


@pytest.mark.parametrize('before', ['fixed range', 'no valid pixel'])
def test_what_was_not_measured_does_not_count(nano_checkpoint, before):
    """The image before has no range of its own, so the average begins with the next one.

    It must not begin with 0 counts, which a camera with gain control has in every image.
    """
    first = ThermalSettings('fixed', 0, 255, smoothing_s=2.0)
    if before == 'no valid pixel':
        first = ThermalSettings(smoothing_s=2.0, invalid=(255,))
    predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=first)
    image = np.random.default_rng(2).integers(0, 255, (64, 96), dtype=np.uint8)
    image[::8, ::8] = 0
    scaled(predictor, image if before == 'fixed range' else np.full_like(image, 255), 0.0)
    predictor.thermal_settings = ThermalSettings(smoothing_s=2.0)
    own = MODALITIES['thermal'].scale(image)
    np.testing.assert_allclose(scaled(predictor, image, 0.1), own, atol=1e-5)


def test_a_fixed_range_in_between_leaves_no_average(nano_checkpoint):
    smooth = ThermalSettings(smoothing_s=1.0)
    predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=smooth)
    scaled(predictor, scene(900), 0.0)
    predictor.thermal_settings = ThermalSettings('fixed', 0, 9000, smoothing_s=1.0)
    scaled(predictor, scene(900), 0.1)
    predictor.thermal_settings = smooth
    own = scaled(Predictor(nano_checkpoint, device='cpu', thermal_settings=smooth), scene(), 0.2)
    np.testing.assert_array_equal(scaled(predictor, scene(), 0.2), own)


def test_without_a_time_or_a_constant_each_image_has_its_own_range(nano_checkpoint):
    images = [scene(), scene(900), scene(200)]
    for range_, times in ((SMOOTH, (None,) * 3), (ThermalSettings(), (0.0, 0.1, 0.2))):
        predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=range_)
        for image, time_s in zip(images, times, strict=True):
            own = MODALITIES['thermal'].scale(image)
            np.testing.assert_allclose(scaled(predictor, image, time_s), own, atol=1e-5)


@pytest.mark.parametrize('settings', [SMOOTH, ThermalSettings()])
def test_an_image_seen_only_between_the_sampled_pixels_depends_on_itself_alone(
    nano_checkpoint, settings
):
    """The percentiles are of every fourth row and column, and here no pixel of those is valid."""
    image = np.full((64, 96), 9, np.uint16)
    image[21:24, 21:24] = 30000
    settings = replace(settings, invalid=(9,))
    predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=settings)
    first = scaled(predictor, image, None)
    assert np.isfinite(first).all()
    assert first[22, 22] > 1  # the pixels beside fill count as fill
    scaled(predictor, scene(), None)
    np.testing.assert_array_equal(scaled(predictor, image, None), first)


def test_a_fixed_range_stays_where_it_is(nano_checkpoint):
    fixed = ThermalSettings('fixed', 3000, 4000, smoothing_s=0.5)
    predictor = Predictor(nano_checkpoint, device='cpu', thermal_settings=fixed)
    for time_s, hot in enumerate((0, 900)):
        expected = np.clip((scene(hot).astype(float) - 3000) / 1000, -1, 2)
        np.testing.assert_allclose(scaled(predictor, scene(hot), time_s), expected, atol=1e-5)


def test_a_flat_image_is_centred_with_a_smoothed_range_too():
    flat = torch.full((64, 64), 3000.0)
    own_range, running_range = torch.tensor([2999.0, 3001.0]), torch.tensor([2990.0, 3010.0])
    smoothed = ema_update(running_range, own_range, torch.tensor(0.5))
    np.testing.assert_allclose(scale_counts(flat, enforce_min_span(smoothed, False)), 0.5)


@pytest.mark.parametrize('smoothing_s', [-0.1, math.nan])
def test_a_time_constant_below_0_is_refused(smoothing_s):
    with pytest.raises(SartmError, match=r'thermal smoothing is .* s; expected 0 or more'):
        ThermalSettings(smoothing_s=smoothing_s)
