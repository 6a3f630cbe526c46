"""Contact sheets and animations show the pixels they are given."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageSequence

from sartm_model.evaluation.contact_sheet import Row, contact_sheet, png_bytes, webp_bytes
from sartm_model.labels import FMB, MFNET
from sartm_model.modalities import MODALITIES

CELL = 64


def make_row(**changes) -> Row:
    gradient = np.tile(np.arange(128, dtype=np.uint8), (96, 1))
    values = {
        'caption': 'frame 1',
        'images': {'rgb': np.full((96, 128, 3), (200, 10, 10), np.uint8), 'thermal': gradient},
        'labels': np.full((96, 128), 3, np.uint8),
        'overlay': np.full((96, 128, 3), (10, 200, 10), np.uint8),
        'ground_truth': np.full((96, 128), 7, np.uint8),
    }
    return Row(**(values | changes))


def colors(image: Image.Image) -> dict[tuple[int, int, int], int]:
    found, counts = np.unique(
        np.asarray(image.convert('RGB')).reshape(-1, 3), axis=0, return_counts=True
    )
    return {tuple(color.tolist()): n for color, n in zip(found, counts, strict=True)}


def test_a_row_has_a_cell_of_each_picture():
    found = colors(contact_sheet([make_row()], MFNET, 'title', cell_width=CELL))
    cell = CELL * CELL * 96 // 128
    for color in [(200, 10, 10), (10, 200, 10), MFNET.colors[3], MFNET.colors[7]]:
        assert found[color] >= cell


def test_rows_and_the_ground_truth_make_a_sheet_larger():
    row, bare = make_row(), make_row(ground_truth=None)
    one = contact_sheet([row], MFNET, 'title', cell_width=CELL)
    two = contact_sheet([row, row], MFNET, 'title', cell_width=CELL)
    assert two.height - one.height > CELL * 96 // 128
    assert contact_sheet([bare], MFNET, 'title', cell_width=CELL).width < one.width
    kept = contact_sheet([bare], MFNET, 'title', cell_width=CELL, with_ground_truth=True)
    assert kept.size == one.size


def test_what_is_missing_is_shown_as_missing():
    row = Row('nothing came', {'rgb': None, 'thermal': None}, None, None)
    sheet = contact_sheet([row], MFNET, 'title', cell_width=CELL)
    assert colors(sheet)[225, 225, 222] > 3 * CELL * CELL * 3 // 4


def test_another_sensor_is_shown_by_its_own_function():
    """Depth goes from red, near, to blue, far; without a reading it is black."""
    depth = np.full((96, 128), 900, np.uint16)
    depth[:, 32:64], depth[:, 64:] = 9000, 0
    row = make_row(images={'rgb': None, 'depth': depth}, labels=None, overlay=None)
    found = colors(contact_sheet([row], MFNET, 'title', cell_width=128))
    near, far, black = (tuple(MODALITIES['depth'].show(depth)[0, x]) for x in (0, 40, 100))
    assert near[0] > 100 > near[2]
    assert far[2] > far[0]
    assert found[near] >= 32 * 96 <= found[far]
    assert found[black] >= 64 * 96


def test_the_legend_has_every_colour():
    for space in (MFNET, FMB):
        found = colors(contact_sheet([make_row(labels=None)], space, 'title', cell_width=CELL))
        assert set(space.colors) <= set(found)


def test_hot_is_brighter_than_cold_at_any_depth():
    counts = np.linspace(29_000, 31_000, 100).reshape(10, 10)
    for image in (counts.astype(np.uint16), (counts / 122).astype(np.uint8)):
        shown = MODALITIES['thermal'].show(image).astype(int).sum(axis=-1)
        assert shown[0, 0] < shown[5, 5] < shown[-1, -1]
    assert MODALITIES['thermal'].show(np.full((4, 4), 7, np.uint8)).shape == (4, 4, 3)


def test_files():
    sheets = [
        contact_sheet([make_row(caption=str(n))], MFNET, f'title {n}', cell_width=CELL)
        for n in range(3)
    ]
    png = Image.open(io.BytesIO(png_bytes(sheets[0])))
    np.testing.assert_array_equal(np.asarray(png), np.asarray(sheets[0]))
    animation = Image.open(io.BytesIO(webp_bytes(sheets, 0.1)))
    assert animation.n_frames == 3
    for frame, sheet in zip(ImageSequence.Iterator(animation), sheets, strict=True):
        difference = np.abs(np.asarray(frame.convert('RGB'), int) - np.asarray(sheet, int))
        assert difference.mean() < 3
