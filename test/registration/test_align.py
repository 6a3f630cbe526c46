"""`sartm align`: recovers a known homography from points, checkerboards and clicks."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from frame_list import FrameList

from sartm_model.cli.main import main
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.registration.align import (
    align,
    blend,
    collect_points,
    describe_points,
    find_outliers,
    read_points,
)
from sartm_model.registration.checkerboard import corner_pairs, parse_pattern
from sartm_model.registration.clicks import click_pairs, clicks_to_pairs, side_by_side
from sartm_model.registration.homography import read_homography

THERMAL, RGB = (256, 320), (480, 640)
TRUE = np.array([[1.9, 0.06, 25.0], [-0.05, 1.85, 14.0], [6e-5, -4e-5, 1.0]])
PATTERN = (7, 5)


def project(matrix, points) -> np.ndarray:
    """Apply a homography to points `[N, 2]`, by its definition."""
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def true_pairs(count: int, seed: int = 0) -> np.ndarray:
    thermal = np.random.default_rng(seed).uniform((20, 20), (300, 236), (count, 2))
    return np.hstack([thermal, project(TRUE, thermal)])


def far_off(found: np.ndarray) -> float:
    """Return the largest error of a matrix over the thermal image, in RGB pixels."""
    places = np.array([[x, y] for x in (0, 160, 319) for y in (0, 128, 255)], float)
    return np.linalg.norm(project(found, places) - project(TRUE, places), axis=1).max()


def board(turned: bool = False, pattern: tuple[int, int] = PATTERN) -> np.ndarray:
    """A checkerboard, by default 7x5 inner corners, 20 pixels per square and a white margin."""
    squares = np.indices((pattern[1] + 1, pattern[0] + 1)).sum(axis=0) % 2 * 255
    picture = np.pad(np.kron(squares, np.ones((20, 20))), 20, constant_values=255)
    return np.rot90(picture, 2 * turned).astype(np.float32)


def board_views(place: np.ndarray, *, inverted: bool = False, turned: bool = False):
    """RGB and thermal of a board that the matrix `place` maps to the thermal image."""
    white = {'borderMode': cv2.BORDER_CONSTANT, 'borderValue': 255}
    # Drawn four times as large and averaged, so that edges have their grey levels.
    big = np.array([[4, 0, 1.5], [0, 4, 1.5], [0, 0, 1.0]])

    def view(matrix, size):
        large = cv2.warpPerspective(
            board(turned), big @ matrix, (size[1] * 4, size[0] * 4), **white
        )
        return cv2.resize(large, size[::-1], interpolation=cv2.INTER_AREA)

    rng = np.random.default_rng(2)
    grey = view(TRUE @ place, RGB) * 0.6 + 40 + rng.normal(0, 2, RGB)
    heat = view(place, THERMAL)
    heat = (255 - heat if inverted else heat) * 3 + 7000 + rng.normal(0, 6, THERMAL)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8), heat.astype(np.uint16)


PLACES = [
    np.array([[1.2, 0.1, 50], [-0.1, 1.1, 60], [2e-4, 1e-4, 1]]),
    np.array([[0.9, -0.2, 120], [0.15, 1.0, 30], [0, 3e-4, 1]]),
]


# Points -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('count', [4, 5, 30])
def test_exact_points_give_the_matrix_back(count):
    found = align(true_pairs(count, seed=count), THERMAL, RGB)
    assert far_off(found.homography) < 5e-3
    assert found.errors.shape == (count,)
    assert found.errors.max() < 1e-3


def test_noise_averages_out_and_is_measured():
    pairs = true_pairs(200)
    pairs[:, 2:] += np.random.default_rng(1).normal(0, 1, (200, 2))
    found = align(pairs, THERMAL, RGB)
    assert far_off(found.homography) < 1
    expected = np.linalg.norm(project(found.homography, pairs[:, :2]) - pairs[:, 2:], axis=1)
    np.testing.assert_allclose(found.errors, expected, atol=1e-6)
    assert found.rms == pytest.approx(np.sqrt(2), rel=0.15)


def test_a_wrong_point_is_pointed_at():
    pairs = true_pairs(10)
    pairs[6, 2] += 25
    found = align(pairs, THERMAL, RGB)
    assert find_outliers(pairs, found, RGB) == [6]
    good = true_pairs(10)
    good[:, 2:] += np.random.default_rng(1).normal(0, 1, (10, 2))
    assert find_outliers(good, align(good, THERMAL, RGB), RGB) == []


def test_of_five_points_none_is_pointed_at():
    """Four points always fit exactly, so each of the five would seem to be the wrong one."""
    pairs = true_pairs(5)
    pairs[2, 2] += 12
    found = align(pairs, THERMAL, RGB)
    assert found.rms > 1
    assert find_outliers(pairs, found, RGB) == []


def test_each_frame_has_its_own_errors():
    frames = {'good': true_pairs(30, seed=1), 'bad': true_pairs(40, seed=2)}
    frames['bad'][:, 2:] += np.random.default_rng(0).normal(0, 2, (40, 2))
    found = align(np.vstack(list(frames.values())), THERMAL, RGB)
    lines = []
    for name, pairs in frames.items():
        errors = np.linalg.norm(project(found.homography, pairs[:, :2]) - pairs[:, 2:], axis=1)
        rms = np.sqrt((errors**2).mean())
        lines.append(f'{name}: {len(pairs)} points, RMS {rms:.2f}, largest {errors.max():.2f}')
    assert describe_points(frames, found, RGB) == lines


def line_of(count: int) -> np.ndarray:
    thermal = np.linspace((20, 30), (300, 200), count)
    return np.hstack([thermal, project(TRUE, thermal)])


@pytest.mark.parametrize(
    ('pairs', 'fault'),
    [
        (true_pairs(3), '3 point pairs; expected at least 4'),
        (line_of(8), 'nearly all of the points lie on one line of the thermal'),
        (np.vstack([line_of(7), true_pairs(1)]), 'nearly all'),
        (np.vstack([line_of(3), true_pairs(1)]), 'three of the points'),
        (np.repeat(true_pairs(2), 2, axis=0), 'on one line'),
        (true_pairs(6)[:, [2, 3, 0, 1]], 'of the thermal image, outside of its 320x256'),
        (np.vstack([true_pairs(6), [[10, 10, 640, 5]]]), r'point 7 .*\(640, 5\) of the RGB image'),
        (true_pairs(6) * [1, 1, -1, 1] + [0, 0, 639, 0], 'mirrors'),
    ],
)
def test_points_that_cannot_do(pairs, fault):
    with pytest.raises(SartmError, match=fault):
        align(pairs, THERMAL, RGB)


def test_point_files(tmp_path):
    path = tmp_path / 'points.csv'
    path.write_text('# x, y, u, v\n1, 2, 3.5, 4\n\n5 6\t7 8  # a corner\n')
    np.testing.assert_array_equal(read_points(path), [[1, 2, 3.5, 4], [5, 6, 7, 8]])
    path.write_bytes(b'\xef\xbb\xbf1,2,3.5,4\r\n5,6,7,8\r\n')  # as Excel writes it
    np.testing.assert_array_equal(read_points(path), [[1, 2, 3.5, 4], [5, 6, 7, 8]])
    for bad in ('1 2 3', '1,2,3,4,5', '1;2;3;4', 'x,y,u,v', '1 2 3 nan'):
        path.write_text(f'1 2 3 4\n{bad}\n')
        with pytest.raises(SartmError, match=r'points.csv, line 2.*expected four numbers'):
            read_points(path)


# Checkerboards ------------------------------------------------------------------------------------


@pytest.mark.parametrize('inverted', [False, True])
@pytest.mark.parametrize('turned', [False, True])
@pytest.mark.parametrize('place', PLACES)
def test_corners_of_a_board(place, inverted, turned):
    found = corner_pairs(*board_views(place, inverted=inverted, turned=turned), PATTERN)
    assert found is not None
    assert found.shape == (35, 4)
    # The corners lie between pixels 20 k + 39 and 20 k + 40 of the board.
    x, y = np.meshgrid(np.arange(7) * 20 + 39.5, np.arange(5) * 20 + 39.5)
    corners = project(place, np.column_stack([x.ravel(), y.ravel()]))
    distances = np.linalg.norm(found[:, None, :2] - corners, axis=2)
    assert sorted(distances.argmin(axis=1)) == list(range(35))
    assert distances.min(axis=1).max() < 0.15
    np.testing.assert_allclose(project(TRUE, found[:, :2]), found[:, 2:], atol=0.4)


@pytest.mark.parametrize(
    ('pattern', 'roll'), [((7, 5), 75), ((5, 7), 75), ((5, 5), 35), ((6, 6), 35)]
)
def test_corners_are_matched_for_every_angle_of_the_board(pattern, roll):
    """The cameras are rolled against each other, and thermal sees black and white exchanged."""
    picture = board(pattern=pattern)
    centre = (np.array(picture.shape[::-1]) - 1) / 2

    def view(angle):
        matrix = cv2.getRotationMatrix2D(centre.tolist(), angle, 1.3)
        matrix[:, 2] += 160 - centre
        image = cv2.warpAffine(picture, matrix, (320, 320), borderValue=255)
        return matrix, cv2.GaussianBlur(image, (3, 3), 0).astype(np.uint8)

    for angle in range(0, 360, 30):
        (of_rgb, grey), (of_thermal, heat) = view(angle), view(angle + roll)
        found = corner_pairs(np.repeat(grey[..., None], 3, axis=2), 255 - heat, pattern)
        on_board = found[:, :2] - of_thermal[:, 2]
        on_board = on_board @ np.linalg.inv(of_thermal[:, :2]).T
        expected = on_board @ of_rgb[:, :2].T + of_rgb[:, 2]
        np.testing.assert_allclose(found[:, 2:], expected, atol=0.5)


def test_no_board_no_corners():
    rgb, thermal = board_views(PLACES[0])
    assert corner_pairs(rgb, np.full_like(thermal, 7000), PATTERN) is None
    for bad in ('7', '7x', 'x5', '7,5', '2x9', '-7x5'):
        with pytest.raises(SartmError, match='COLUMNSxROWS'):
            parse_pattern(bad)


def test_frames_of_different_sizes_are_refused():
    """Also where only thermal differs and the board is not found in it."""
    rgb, thermal = board_views(PLACES[0])
    small = np.full((THERMAL[0] // 2, THERMAL[1] // 2), 7000, np.uint16)
    frames = [
        Frame('a', {'rgb': rgb, 'thermal': thermal}),
        Frame('b', {'rgb': rgb, 'thermal': small}),
    ]
    with pytest.raises(SartmError, match='the pairs of images differ in size'):
        collect_points(FrameList(frames), None, '7x5')


# Clicks -------------------------------------------------------------------------------------------


def test_clicks_come_back_as_pixels():
    rgb, thermal = board_views(PLACES[0])
    canvas, scale = side_by_side(rgb, thermal)
    assert canvas.shape == (480, 640 + 600, 3)
    pairs = true_pairs(6)
    # The same places by what `side_by_side` does: pixel edges scale, centres are half a pixel in.
    clicks = []
    for x, y, u, v in pairs:
        clicks += [(u, v), (639.5 + (x + 0.5) * 1.875, (y + 0.5) * 1.875 - 0.5)]
    np.testing.assert_allclose(clicks_to_pairs(clicks, 640, scale), pairs)
    for bad in (clicks[:3], [clicks[1], clicks[0]], [clicks[0], clicks[2]]):
        with pytest.raises(SartmError, match='click'):
            clicks_to_pairs(bad, 640, scale)


def test_a_window_is_asked_for_clicks(monkeypatch):
    plt = pytest.importorskip('matplotlib.pyplot', reason='needs matplotlib')
    monkeypatch.setenv('DISPLAY', ':0')
    rgb, thermal = board_views(PLACES[0])
    monkeypatch.setattr(plt, 'get_backend', lambda: 'agg')
    with pytest.raises(SartmError, match='no toolkit'):
        click_pairs(rgb, thermal)
    monkeypatch.setattr(plt, 'get_backend', lambda: 'window')
    monkeypatch.setattr(plt, 'ginput', lambda n, timeout: [(10, 20), (639.5, -0.5)] * 2)
    np.testing.assert_allclose(click_pairs(rgb, thermal), [[-0.5, -0.5, 10, 20]] * 2)


# The verb -----------------------------------------------------------------------------------------


@pytest.fixture
def pairs_of_images(tmp_path):
    for part in ('rgb', 'thermal'):
        (tmp_path / part).mkdir()
    for number, place in enumerate(PLACES):
        rgb, thermal = board_views(place, inverted=True)
        assert cv2.imwrite(str(tmp_path / 'rgb' / f'{number}.png'), rgb)
        assert cv2.imwrite(str(tmp_path / 'thermal' / f'{number}.png'), thermal)
    return tmp_path


def run(folder, *arguments, images=('rgb', 'thermal')) -> int:
    rgb, thermal = (str(folder / image) for image in images)
    out = ['--out', str(folder / 'out.yaml')]
    return main(['align', '--rgb', rgb, '--thermal', thermal, *map(str, arguments), *out])


def test_align_by_checkerboards(pairs_of_images, capsys):
    folder = pairs_of_images
    blank = np.full((*RGB, 3), 90, np.uint8)
    assert cv2.imwrite(str(folder / 'rgb' / '2.png'), blank)
    assert cv2.imwrite(str(folder / 'thermal' / '2.png'), blank[: THERMAL[0], : THERMAL[1], 0])
    assert run(folder, '--checkerboard', '7x5', '--blend', folder / 'blend.png') == 0
    printed = capsys.readouterr().out
    assert printed.startswith('0: 35 points, RMS 0.')
    assert 'no checkerboard found in both images: 2\n' in printed
    assert 'Reprojection error in RGB pixels: RMS 0.' in printed
    assert far_off(read_homography(folder / 'out.yaml')) < 0.5
    text = (folder / 'out.yaml').read_text()
    assert '# ' + printed.splitlines()[-1] in text.splitlines()
    assert 'thermal images of 320x256 and RGB images of 640x480' in text
    rgb = cv2.imread(str(folder / 'rgb' / '0.png'))
    picture = cv2.imread(str(folder / 'blend.png'))
    np.testing.assert_array_equal(picture[:60, :60], rgb[:60, :60])
    assert (picture[60:120, :60] != rgb[60:120, :60]).any()


def test_align_by_a_file_of_points(pairs_of_images, capsys):
    folder = pairs_of_images
    pairs = true_pairs(9)
    pairs[4, 3] -= 30
    np.savetxt(folder / 'points.csv', pairs, delimiter=',')
    images = ('rgb/0.png', 'thermal/0.png')
    assert run(folder, '--points', folder / 'points.csv', images=images) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [number for number, line in enumerate(lines, 1) if 'is it wrong?' in line] == [5]
    assert len(lines) == 10


@pytest.mark.parametrize(
    ('arguments', 'images', 'fault'),
    [
        (['--points', 'none.csv'], ('rgb/0.png', 'thermal/0.png'), 'none.csv does not exist'),
        (['--points', 'none.csv'], ('rgb', 'thermal'), 'only --checkerboard'),
        (['--checkerboard', '9x6'], ('rgb', 'thermal'), 'no 9x6 checkerboard'),
        (['--checkerboard', 'a'], ('rgb', 'thermal'), 'COLUMNSxROWS'),
        (['--click'], ('rgb/0.png', 'thermal/0.png'), 'needs a display'),
    ],
)
def test_what_align_refuses(pairs_of_images, capsys, monkeypatch, arguments, images, fault):
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    monkeypatch.setattr(sys, 'platform', 'linux')
    assert run(pairs_of_images, *arguments, images=images) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert fault in error
    assert not (pairs_of_images / 'out.yaml').exists()


def test_blend_shows_thermal_where_it_comes_to_lie():
    rgb = np.full((64, 80, 3), (200, 10, 10), np.uint8)
    thermal = np.zeros((64, 80), np.uint8)
    thermal[:, 40:] = 250
    tiles = blend(rgb, thermal, np.array([[1, 0, -16], [0, 1, 0], [0, 0, 1.0]]))
    for y in range(64):
        for x in range(80):
            if (x // 8 + y // 8) % 2 == 0:
                assert tuple(tiles[y, x]) == (200, 10, 10)
            elif x < 63:
                assert tuple(tiles[y, x]) == ((255,) * 3 if x >= 24 else (0,) * 3)
