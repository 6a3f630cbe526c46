"""The light field of the procedural scenes: parallax, measured in the images, fits the distance."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from synthetic_scenes import rng, scene_of

from sartm_model.data.synthetic import camera_array, objects, render, scenery
from sartm_model.data.synthetic.builder import build
from sartm_model.data.synthetic.painting import paint
from sartm_model.data.synthetic.scene import SceneObject
from sartm_model.modalities import light_field

SIZE = (480, 640)


def views_of(scene, names) -> list[np.ndarray]:
    image = camera_array.take(scene, 0.0, SIZE, names, rng(0))
    assert image.shape == (*SIZE, 3 * len(names))
    return [image[..., 3 * index : 3 * index + 3] for index in range(len(names))]


def shift(image: np.ndarray, other: np.ndarray, where: np.ndarray, reach: int = 24) -> np.ndarray:
    """Find the piece of `image` around the pixels `where` in `other`, by block matching.

    Returns:
        The movement (right, down) in pixels.
    """
    rows, columns = np.nonzero(where)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    padded = cv2.copyMakeBorder(other, reach, reach, reach, reach, cv2.BORDER_REFLECT)
    window = padded[top : bottom + 2 * reach, left : right + 2 * reach]
    mask = np.repeat(where[top:bottom, left:right, None], 3, axis=2).astype(np.float32)
    piece = image[top:bottom, left:right]
    error = cv2.matchTemplate(
        window.astype(np.float32), piece.astype(np.float32), cv2.TM_SQDIFF, mask=mask
    )
    down, right = np.unravel_index(np.argmin(error), error.shape)
    return np.array([right, down]) - reach


@pytest.mark.parametrize('distance', [4.0, 8.0, 16.0])
@pytest.mark.parametrize('view', ['1_5', '5_1', '5_9', '3_7'])
def test_parallax_is_baseline_times_focal_length_by_distance(distance, view):
    person = SceneObject(objects.person(rng(2), night=False), 2, distance, 0.3)
    scene = scene_of(person)
    centre, other = views_of(scene, ['5_5', view])
    where = paint(scene, 0.0, *SIZE).labels == 2
    row, column = map(int, view.split('_'))
    # A camera further left sees things further right, one further up sees them further down.
    steps = np.array([5 - column, 5 - row])
    focal = scene.focal * SIZE[1]
    expected = camera_array.SPACING_M * steps * focal / distance
    np.testing.assert_allclose(shift(centre, other, where), expected, atol=1.0)


def test_the_ground_and_what_is_painted_on_it_move_with_it():
    crossing = SceneObject(scenery.marking(rng(1), 'crossing', 3.0), 0, 6.0, 0.0, flat=True)
    scene = scene_of(crossing, paved=True)
    centre, other = views_of(scene, ['5_5', '5_1'])
    focal, horizon = scene.focal * SIZE[1], scene.horizon * SIZE[0]
    row = round(horizon + focal * scene.mount_m / 7.0)  # the road at 7 m
    where = np.zeros(SIZE, bool)
    where[row - 2 : row + 3, 200:440] = True
    expected = 4 * camera_array.SPACING_M * focal / 7.0
    np.testing.assert_allclose(shift(centre, other, where), [expected, 0], atol=1.0)


def test_leaves_move_with_their_tree():
    tree = SceneObject(scenery.tree(rng(3), night=False), 0, 12.0, 0.0, extent=(4, 7))
    scene = scene_of(tree)
    canvas = paint(scene, 0.0, *SIZE)
    # A square within the crown, so that there is nothing but leaves.
    crown = canvas.leaves[: int(0.8 * canvas.camera.horizon)].copy()
    crown[[0, -1]] = crown[:, [0, -1]] = 0
    space = cv2.distanceTransform(crown, cv2.DIST_C, 3)
    row, column = np.unravel_index(space.argmax(), space.shape)
    half = int(space.max()) - 2
    assert half > 15
    inside = np.zeros(SIZE, bool)
    inside[row - half : row + half, column - half : column + half] = True
    for view, direction in (('5_1', (1, 0)), ('1_5', (0, 1))):
        centre, other = views_of(scene, ['5_5', view])
        expected = 4 * camera_array.SPACING_M * scene.focal * SIZE[1] / 12.0 * np.array(direction)
        np.testing.assert_allclose(shift(centre, other, inside), expected, atol=1.0)


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('place', [(-0.08, 0.0), (0.0, 0.08)])
def test_the_depth_of_a_view_tells_where_the_centre_shows_the_same(seed, place):
    """Of a whole random scene: each pixel of a view, moved by f d / z, has the same colour."""
    scene = build(rng(seed), False, duration_s=0.0)
    centre = paint(scene, 0.0, 240, 320)
    other = paint(replace(scene, view_m=place), 0.0, 240, 320, with_surfaces=True)
    moves = scene.focal * 320 * other.surfaces.inverse_depth
    columns = (np.arange(320)[None] + moves * place[0]).astype(np.float32)
    rows = (np.arange(240)[:, None] - moves * place[1]).astype(np.float32)
    inside = (columns >= 0) & (columns <= 319) & (rows >= 0) & (rows <= 239)

    def error(image: np.ndarray) -> float:
        return np.abs(image.astype(float) - other.rgb)[inside].mean()

    moved = cv2.remap(centre.rgb, columns, rows, cv2.INTER_LINEAR)
    assert error(moved) < 0.5 * error(centre.rgb)
    labels = cv2.remap(centre.labels, columns, rows, cv2.INTER_NEAREST)
    wrong, unmoved = ((found != other.labels)[inside].mean() for found in (labels, centre.labels))
    assert wrong < 0.5 * unmoved


def test_the_sky_line_hardly_moves():
    scene = scene_of()
    centre, other = views_of(scene, ['5_5', '5_1'])
    where = np.zeros(SIZE, bool)
    where[40 : int(scene.horizon * SIZE[0]) - 10, 60:580] = True
    assert np.abs(shift(centre, other, where)).max() <= 1


def test_the_central_view_is_the_rgb_image():
    scene = scene_of(SceneObject(objects.cone(rng(1), night=False), 6, 5.0, 0.0))
    (centre,) = views_of(scene, ['5_5'])
    assert np.array_equal(centre, scene.sensor.expose_rgb(paint(scene, 0.0, *SIZE), rng(0)))


def test_a_frame_has_the_views_of_the_modality_in_their_order():
    frame = render(3, 120, 160, condition='day', modalities=['rgb', 'light_field_row'])
    row = frame.images['light_field_row'].astype(float)
    assert row.shape == (120, 160, 3 * len(light_field.ROW))
    views = [row[..., 3 * index : 3 * index + 3] for index in range(len(light_field.ROW))]
    difference = [np.abs(view - frame.rgb).mean() for view in views]
    # From the outermost views to the inner ones they are more and more like the centre.
    assert difference[0] > difference[3] < difference[7]
    assert difference[7] > difference[4] < difference[0]
    assert len({view.tobytes() for view in views}) == len(views)
