"""Depth of the procedural scenes, compared with distances known from the scene itself."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_scenes import rng, scene_of

from sartm_model.data.synthetic import depth_camera, objects, vehicles
from sartm_model.data.synthetic.builder import HIDDEN_CONTRAST
from sartm_model.data.synthetic.painting import paint
from sartm_model.data.synthetic.scene import SceneObject
from sartm_model.data.synthetic.scenery import facade

HEIGHT, WIDTH = 240, 320


def measure(scene, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return depth in metres, NaN without a reading, and labels."""
    canvas = paint(scene, 0.0, HEIGHT, WIDTH, with_surfaces=True)
    depth = depth_camera.measure(canvas.surfaces, rng(seed), rng(seed + 1))
    assert depth.dtype == np.uint16
    return np.where(depth > 0, depth / 1000, np.nan), canvas.labels


def road_rows(scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows up to 25 m, and the distance of the road in each, by similar triangles."""
    horizon = scene.horizon * HEIGHT
    rows = np.arange(int(horizon) + 5, HEIGHT)
    distance = scene.focal * WIDTH * scene.mount_m / (rows - horizon)
    return rows[distance < 25], distance[distance < 25]


@pytest.mark.parametrize('seed', range(3))
def test_the_road_is_a_plane(seed):
    scene = scene_of(seed=seed)
    rows, expected = road_rows(scene)
    depth, _ = measure(scene)
    np.testing.assert_allclose(np.nanmedian(depth[rows, 60:], axis=1), expected, rtol=0.01)


def test_the_error_grows_with_the_square_of_the_distance():
    scene = scene_of(mount_m=1.5)
    rows, expected = road_rows(scene)
    depth, _ = measure(scene)
    deviation = np.nanstd(depth[rows, 60:], axis=1)
    slope, _ = np.polyfit(np.log(expected), np.log(deviation), 1)
    assert 1.8 < slope < 2.2
    assert 0.0005 < np.median(deviation / expected**2) < 0.002


@pytest.mark.parametrize(
    ('distance', 'across'), [(4.0, 0.0), (9.0, -1.5), (9.0, 2.0), (20.0, -1.5), (20.0, 2.0)]
)
def test_a_person_is_at_its_distance(distance, across):
    person = SceneObject(objects.person(rng(2), night=True), 2, distance, across)
    depth, labels = measure(scene_of(person))
    found = depth[labels == 2]
    assert np.isfinite(found).mean() > 0.5
    assert np.nanmedian(found) == pytest.approx(distance, rel=0.01)


@pytest.mark.parametrize('yaw', [0.0, np.pi / 2, np.pi, 2.0])
def test_a_car_is_within_its_length_of_its_distance(yaw):
    car = SceneObject(vehicles.car(rng(3), night=True, running=False), 1, 12.0, 0.0, yaw=yaw)
    depth, labels = measure(scene_of(car))
    found = depth[labels == 1]
    # Half a length of at most 3.5 m to each side, and an error of 0.3 m at most.
    assert np.nanmin(found) > 12 - 3.5 - 1
    assert np.nanmax(found) < 12 + 3.5 + 1
    assert np.nanmedian(found) < 12


def test_a_wall_along_the_road_recedes():
    wall = SceneObject(facade(rng(5), 25.0, -1.0, night=False), 0, 30.0, 6.0)
    scene = scene_of(wall)
    depth, _ = measure(scene)
    # The wall is at x = 6 m, so a column of it shows the distance focal 6 / (column - W / 2).
    row, columns = int(scene.horizon * HEIGHT) - 12, np.arange(WIDTH // 2 + 100, WIDTH - 2, 4)
    expected = scene.focal * WIDTH * 6.0 / (columns - WIDTH / 2)
    shown = np.isfinite(depth[row, columns]) & (expected > 6) & (expected < 30)
    assert shown.sum() > 3
    np.testing.assert_allclose(depth[row, columns][shown], expected[shown], rtol=0.1)


def test_the_sky_and_what_is_out_of_range_have_no_reading():
    scene = scene_of()
    depth, _ = measure(scene)
    assert np.isnan(depth[: int(scene.horizon * HEIGHT)]).all()
    nearest, farthest = depth_camera.RANGE_M
    assert nearest - 10 < np.nanmax(depth) < farthest + 15


def test_glass_mostly_has_no_reading():
    car = SceneObject(vehicles.car(rng(3), night=True, running=False), 1, 6.0, 0.0)
    lost = {}
    for glazed in (True, False):
        canvas = paint(scene_of(car), 0.0, HEIGHT, WIDTH, with_surfaces=True)
        pane = canvas.surfaces.material == depth_camera.Material.GLASS
        if not glazed:
            canvas.surfaces.material[pane] = depth_camera.Material.MATTE
        depth = depth_camera.measure(canvas.surfaces, rng(0), rng(1))
        assert pane.sum() > 200
        lost[glazed] = (depth[pane] == 0).mean()
    assert lost[True] > 0.6
    assert lost[False] < 0.3


def test_the_second_camera_does_not_see_what_is_beside_a_near_object():
    post = SceneObject(objects.car_stop(rng(1), night=True, kind='block'), 4, 4.0, 0.0)
    scene = scene_of(post, mount_m=1.5)
    depth, labels = measure(scene)
    rows, columns = np.nonzero(labels == 4)
    row = rows.min() + (rows.max() - rows.min()) // 2
    left, right = columns[rows == row].min(), columns[rows == row].max()
    ground = scene.focal * WIDTH * scene.mount_m / (row - scene.horizon * HEIGHT)
    width = depth_camera.BASELINE_M * scene.focal * WIDTH * (1 / 4.0 - 1 / ground)
    assert width > 2
    assert np.isnan(depth[row, left - int(width) + 1 : left]).all()
    assert np.isfinite(depth[row, left - int(width) - 12 : left - int(width) - 3]).all()
    assert np.isfinite(depth[row, right + 3 : right + 12]).all()


def test_an_object_hidden_in_rgb_is_seen_and_light_does_not_matter():
    def person(contrast: float) -> SceneObject:
        draw = objects.person(rng(2), night=True)
        return SceneObject(draw, 2, 6.0, 0.0, rgb_contrast=contrast, thermal_contrast=contrast)

    plain, _ = measure(scene_of(person(1.0), night=True, head=0.5))
    hidden, _ = measure(scene_of(person(HIDDEN_CONTRAST), night=True, ambient=0.0, head=0.0))
    np.testing.assert_array_equal(plain, hidden)
