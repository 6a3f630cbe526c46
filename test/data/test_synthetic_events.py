"""Events of the procedural scenes: they follow the change of the light, and come with motion."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_scenes import rng, scene_of

from sartm_model.data.synthetic import event_camera, objects
from sartm_model.data.synthetic.builder import HIDDEN_CONTRAST
from sartm_model.data.synthetic.painting import paint
from sartm_model.data.synthetic.scene import SceneObject

SIZE = (240, 320)


@pytest.fixture
def exact(monkeypatch) -> float:
    """Every pixel has the same threshold, which is returned, and there is no noise."""
    monkeypatch.setattr(event_camera, 'THRESHOLD', (0.2, 0.2))
    monkeypatch.setattr(event_camera, 'MISMATCH', 0.0)
    monkeypatch.setattr(event_camera, 'SPURIOUS', (0.0, 0.0))
    return 0.2


def person(contrast: float = 1.0, along: float = 6.0) -> SceneObject:
    draw = objects.person(rng(2), night=True)
    return SceneObject(draw, 2, along, 0.0, velocity=(0.0, 1.5), rgb_contrast=contrast)


def watch(scene, bins: int = 1, seed: int = 0) -> np.ndarray:
    return event_camera.watch(scene, 0.0, SIZE, bins, rng(seed), rng(seed + 1))


def test_an_event_for_each_threshold_of_log_intensity(exact):
    light = np.full((20, 30), 40.0, np.float32)
    for factor in (1.0, 1.2, 2.0, 4.0, 0.5):
        later = factor * (light + event_camera.DARK) - event_camera.DARK
        events = event_camera.count([light, later], rng(0), rng(1))
        assert events.shape == (20, 30, 1)
        steps = np.log(factor) / exact
        # A pixel starts at a random place between two thresholds.
        assert (np.abs(events) <= abs(steps) + 0.5).all()
        assert (np.abs(events) > abs(steps) - 1.5).all()
        assert (events * steps >= 0).all()
        assert factor != 1 or not events.any()


def test_the_polarity_is_that_of_the_change(exact):
    scene = scene_of(person(), ambient=0.9)
    events = watch(scene)[..., 0]
    before, after = (
        paint(scene, time_s, *SIZE).rgb @ np.array([0.299, 0.587, 0.114])
        for time_s in (-event_camera.WINDOW_S, 0.0)
    )
    certain = (events != 0) & (np.abs(after - before) > 10)
    assert certain.sum() > 50
    # The ground far away, whose texture is finer than a pixel, is drawn differently for events.
    assert (np.sign(events) == np.sign(after - before))[certain].mean() > 0.95


def test_without_motion_there_is_noise_alone():
    still = SceneObject(objects.car_stop(rng(1), night=True, kind='fence'), 4, 6.0, 0.0)
    share = (watch(scene_of(still, speed=0.0)) != 0).mean()
    least, most = event_camera.SPURIOUS
    assert 0.5 * least < share < 1.5 * most


@pytest.mark.parametrize('contrast', [1.0, HIDDEN_CONTRAST])
def test_what_moves_is_seen_at_night_even_if_rgb_does_not_show_it(contrast):
    scene = scene_of(person(contrast), night=True, ambient=0.05, head=0.0, speed=0.0)
    canvas = paint(scene, 0.0, *SIZE)
    events = watch(scene)[..., 0] != 0
    shown = canvas.labels == 2
    assert events[shown].mean() > 0.08
    assert events[shown].mean() > 6 * events[~shown].mean()


def test_the_bins_of_a_grid_divide_the_window(exact):
    scene = scene_of(person(), ambient=0.9)
    whole, *grids = (watch(scene, bins) for bins in (1, 3, 5))
    for grid in grids:
        assert grid.dtype == np.float32
        assert (np.abs(grid).sum(axis=(0, 1)) > 0).all()
        agree = np.abs(grid.sum(axis=2) - whole[..., 0]) <= 1
        assert agree.mean() > 0.995


def test_an_image_shows_more_light_red_and_less_blue():
    voxels = np.zeros((2, 2, 2), np.float32)
    voxels[0, 0] = (1, 2)
    voxels[0, 1] = (-1, 0)
    voxels[1, 0] = (1, -1)
    image = event_camera.as_image(voxels)
    assert image.dtype == np.uint8
    assert image[0].tolist() == [[255, 0, 0], [0, 0, 85]]
    assert not image[1].any()
