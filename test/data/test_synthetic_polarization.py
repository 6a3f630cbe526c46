"""Polarisation of the procedural scenes, compared with Fresnel's equations and with geometry."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_scenes import rng, scene_of

from sartm_model.data.synthetic import polarization_camera, vehicles
from sartm_model.data.synthetic.painting import paint
from sartm_model.data.synthetic.scene import SceneObject
from sartm_model.data.synthetic.scenery import facade, hedge
from sartm_model.data.synthetic.surfaces import Material

SIZE = (240, 320)


def measure(scene, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the image as cos 2a and sin 2a in [-1, 1] and DoLP in [0, 1], and the material."""
    canvas = paint(scene, 0.0, *SIZE, with_surfaces=True)
    image = polarization_camera.measure(canvas, scene.night, rng(seed), rng(seed + 1))
    assert image.dtype == np.uint8
    assert image.shape == (*SIZE, 3)
    return image[..., :2] / 127.5 - 1, image[..., 2] / 255, canvas.surfaces.material


def test_the_degrees_are_those_of_fresnel():
    n, angle = polarization_camera.INDEX, np.linspace(0.01, 1.55, 50)
    cosine, inner = np.cos(angle), np.sqrt(1 - (np.sin(angle) / n) ** 2)
    across = ((cosine - n * inner) / (cosine + n * inner)) ** 2
    along = ((inner - n * cosine) / (inner + n * cosine)) ** 2
    specular, diffuse = polarization_camera.degrees(cosine)
    np.testing.assert_allclose(specular, (across - along) / (across + along), atol=1e-9)
    np.testing.assert_allclose(diffuse, (across - along) / (2 - across - along), atol=1e-9)


def test_each_surface_has_its_angle():
    wall = SceneObject(facade(rng(5), 25.0, -1.0, night=False), 0, 30.0, 6.0)
    vector, degree, material = measure(scene_of(wall, paved=False))
    road, glass = material == Material.ROAD, material == Material.GLASS
    assert glass.sum() > 200
    # The light of the level road is polarised horizontally, that of an upright wall vertically.
    assert np.median(vector[road, 0]) > 0.8
    assert np.median(vector[glass, 0]) < -0.8
    # Where the polarisation is clear, cosine and sine are those of one angle.
    length = np.hypot(*vector[glass & (degree > 0.3)].T)
    assert np.abs(length - 1).max() < 0.02


def test_the_angle_of_a_tilted_pane_follows_its_normal():
    """A pane whose normal is turned by 45 degrees in the image polarises across that."""
    canvas = paint(scene_of(), 0.0, *SIZE, with_surfaces=True)
    surfaces = canvas.surfaces
    surfaces.normals[:] = np.array([1, 1, -1]) / np.sqrt(3)
    surfaces.material[:] = Material.GLASS
    row, column = round(canvas.camera.horizon), SIZE[1] // 2
    cosine, sine, degree = polarization_camera.polarization(canvas, False, None)
    angle = 0.5 * np.arctan2(sine[row, column], cosine[row, column])
    assert np.rad2deg(angle) % 180 == pytest.approx(135, abs=0.5)
    assert degree[row, column] > 0.8


def test_smooth_surfaces_have_a_higher_degree_than_foliage():
    things = (
        SceneObject(facade(rng(5), 25.0, -1.0, night=False), 0, 30.0, 6.0),
        SceneObject(hedge(rng(5), 20.0, -1.0, night=False), 0, 25.0, -5.0),
        SceneObject(vehicles.car(rng(3), night=False, running=False), 1, 8.0, 0.0),
    )
    _, degree, material = measure(scene_of(*things))
    foliage = np.median(degree[material == Material.FOLIAGE])
    assert np.median(degree[material == Material.GLASS]) > foliage + 0.3
    assert np.percentile(degree[material == Material.LACQUER], 75) > foliage
    near_road = material == Material.ROAD
    near_road[: SIZE[0] * 3 // 4] = False
    assert np.median(degree[near_road]) > foliage + 0.1


def test_a_wet_road_has_a_higher_degree_than_a_dry_one():
    canvas = paint(scene_of(), 0.0, *SIZE, with_surfaces=True)
    road = canvas.surfaces.material == Material.ROAD
    wet, dry = (
        polarization_camera.polarization(canvas, is_wet, None)[2][road].mean()
        for is_wet in (True, False)
    )
    assert wet > 1.5 * dry


def test_the_dark_hides_the_angle():
    spread = {}
    for ambient in (0.03, 0.3, 1.0):
        vector, _, material = measure(scene_of(night=True, ambient=ambient, head=0.0))
        road = material == Material.ROAD
        road[: SIZE[0] * 3 // 4] = False
        spread[ambient] = 1 - np.hypot(*vector[road].mean(axis=0))
    assert spread[0.03] > spread[0.3] > spread[1.0]
    assert spread[1.0] < 0.1


def test_the_sky_is_polarised_by_day_alone():
    canvas = paint(scene_of(), 0.0, *SIZE, with_surfaces=True)
    sky = canvas.surfaces.material == Material.SKY
    beside = np.array([1.0, 0.0, 0.0])
    day = polarization_camera.polarization(canvas, False, beside)
    assert day[2][sky].mean() > 0.15
    # With the sun to the right, the light from ahead is polarised vertically.
    middle = np.zeros_like(sky)
    middle[:, 155:165] = sky[:, 155:165]
    assert day[0][middle].mean() < -0.8
    assert not polarization_camera.polarization(canvas, False, None)[2][sky].any()
