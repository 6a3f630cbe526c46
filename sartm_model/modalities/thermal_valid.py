"""Which pixels of a thermal image see nothing: the border of a rectification, and fill.

A few percent of such pixels would set the percentile range: with a border of zeros around a 16-bit
image nothing of the scene keeps any contrast. Everything that computes with thermal counts leaves
them out, and the network is given the mean in their place.

The functions take numpy arrays and torch tensors. On tensors no shape depends on a value and the
host never waits, so that a CUDA graph can record them and ONNX can express them. Tensors on a CPU
are examined as arrays, because then ordinary images take a fraction of the time.

On a GPU each operation costs a few microseconds whatever its size, so all counts that may be fill
are treated at once: they are one vector, the conditions on them are one comparison of a matrix, and
what a kind of border needs to be one is looked up in a table (see `_Tables`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import numpy as np

MIN_SPAN_8BIT = 8.0
MIN_SPAN_16BIT = 64.0
"""Counts between the percentiles below which an image is flat: stretching it would show noise."""

FILL_DISTANCE = 4.0
"""Fill lies further from the median of the other pixels than so many times their interquartile
range. What a scene shows in saturation is nearer, because the counts in between occur too."""

SATURATION_DISTANCE = 20.0
"""The same for 65535, which a very hot object may reach, and which is only taken for fill in counts
that use a small part of the 16 bits."""

MIN_SATURATED_SHARE = 0.005
"""Share of the pixels with 65535 below which they are hot spots."""

MAX_BORDER_SHARE = 0.5
"""Share of the pixels above which a uniform area is no border but the background of a scene, such
as the sky in a simulation."""

MAX_EDGE_SHARE = 0.25
"""The same for an area that covers one edge, which may be the ground or a wall in a simulation. For
that reason the other pixels must differ from each other, as those of a camera do."""

GROWTH = 1
"""Pixels around fill that count as invalid too, because a bilinear warp mixes it into them."""

NOTHING = -1e9
"""Stands for counts that are left out; less than any count."""

ANY_COUNT = NOTHING / 2
"""More than `NOTHING`, and less than any count."""

GRID_PIXELS = 1200
"""What is fill is decided on a grid of about this many pixels."""


class _Tables(NamedTuple):
    """What depends on the size and the type of the images alone, as arrays or as tensors.

    There are K kinds of borders, and C candidates: counts that may be fill, of which the first is
    that of the border.

    Attributes:
        lines: for each kind the pixels that have one count if there is such a border, as places in
            the flattened image, int64 `[K, n]`. Short lines repeat their last pixel. The border
            has the count of the first pixel, and the last kind that fits is taken. The first kind
            is 'none'.
        kinds: 0 to K - 1.
        candidates: all but the first, float32 `[C - 1]`.
        bounds: the least and the most `_measures` with which a candidate is fill, for each kind of
            border, float32 `[K, 2, 4, C]`.
        quartiles: for each number of pixels that are left out the places of the three quartiles of
            the others in the sorted grid, repeated for each candidate, int64 `[G + 1, 3, C]`.
        rows, columns: row numbers counted from the upper and from the lower edge, float32
            `[2, h, 1]`; column numbers from the left and from the right, `[2, 1, w]`.
        nothing: the number `NOTHING`.
    """

    lines: Any
    kinds: Any
    candidates: Any
    bounds: Any
    quartiles: Any
    rows: Any
    columns: Any
    nothing: Any


def min_span(eight_bits: bool) -> float:
    """Return the counts between an image's percentiles below which it counts as flat."""
    return MIN_SPAN_8BIT if eight_bits else MIN_SPAN_16BIT


def invalid_pixels(counts: Any, eight_bits: bool, values: tuple[int, ...] = ()) -> Any:
    """Find the pixels of a thermal image that see nothing.

    They are, each with the `GROWTH` pixels around it:

    - pixels with one of the counts in `values`;
    - in 16-bit images 0 and 65535, where they are fill (see `FILL_DISTANCE`);
    - a border: the pixels of one count that are connected with the edge along their row or column.
      The four corners, or the middles of the four edges, have this count, and it is fill, or it
      fills two opposite edges. In 8-bit images black and white areas occur in scenes, and only a
      border is taken out;
    - in 16-bit images also fill that covers one edge, of an image that was shifted: see
      `MAX_EDGE_SHARE`. The upper edge alone may be sky.

    Args:
        counts: float32 `[h, w]`.
        eight_bits: whether the image is uint8 rather than uint16.
        values: counts that mean 'no measurement'.

    Returns:
        bool `[h, w]`, array or tensor as `counts` is.
    """
    xp = _module_of(counts)
    if xp is not np and counts.device.type == 'cpu' and not xp.compiler.is_compiling():
        return xp.from_numpy(invalid_pixels(counts.numpy(), eight_bits, values))
    tables = _tables(counts, eight_bits, values)
    lines = counts.reshape(-1)[tables.lines]
    starts = lines[:, :1]
    kind = xp.amax((lines == starts).all(1) * tables.kinds, 0, keepdims=True)
    if xp is np and eight_bits and not values and kind == 0:
        return np.zeros(counts.shape, bool)  # ordinary images need no more
    candidates = starts[:, 0][kind]
    if len(tables.candidates):
        candidates = xp.concatenate([candidates, tables.candidates])
    measures = _measures(counts, candidates, eight_bits, tables, xp)
    least, most = tables.bounds[kind][0]
    is_fill = (measures.clip(least, most) == measures).all(0)
    fills = xp.where(is_fill, candidates, tables.nothing)
    if xp is np:
        fills = fills[[True, *is_fill[1:]]]  # a count that is not fill needs no mask
    masks = counts == fills[:, None, None]  # [C, h, w]
    if xp is np and not masks.any():
        return masks[0]  # no pixel has such a count
    border, others = masks[0], list(masks[1:, None])
    return _grow(xp.concatenate([*others, *_connected_with_edge(border, tables, xp)]).any(0), xp)


def _module_of(array: Any) -> ModuleType:
    """Return numpy or torch; torch is not imported where there are arrays alone."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def _measures(
    counts: Any, candidates: Any, eight_bits: bool, tables: _Tables, xp: ModuleType
) -> Any:
    """Return what decides whether counts are fill, `[4, C]`.

    Taken on a grid, and where the quartiles are concerned on its pixels that have none of the
    counts: how many interquartile ranges a count lies from the median, the share of the pixels that
    have it, the interquartile range, and the lower quartile, `NOTHING` without such pixels.

    Args:
        counts: float32 `[h, w]`.
        candidates: the counts, float32 `[C]`.
        eight_bits: as in `invalid_pixels`.
        tables: `_Tables`.
        xp: the module of the arrays.
    """
    step = _grid_step(*counts.shape)
    grid = counts[::step, ::step]
    same = grid == candidates[:, None, None]
    left_out = same.any(0)
    numbers = xp.concatenate([same, left_out[None]]).sum((1, 2))
    others = xp.where(left_out, tables.nothing, grid).reshape(-1)
    ordered = np.sort(others) if xp is np else others.sort().values
    low, median, high = ordered[tables.quartiles[numbers[-1:]]][0]
    span = high - low
    distance = abs(median - candidates) / span.clip(_least_spread(eight_bits))
    return xp.stack([distance, numbers[:-1] / len(others), span, low])


def _connected_with_edge(same: Any, tables: _Tables, xp: ModuleType) -> list[Any]:
    """Return the parts of a mask `[h, w]` that run on from an edge along rows or columns.

    They are those beyond the last pixel that is not set: `[2, h, w]` for the two directions along
    the columns, and again along the rows.
    """
    parts = []
    for axis, numbers in ((1, tables.rows), (2, tables.columns)):
        last = xp.amax(xp.where(same, tables.nothing, numbers), axis, keepdims=True)
        parts.append(numbers > last)
    return parts


def _grow(mask: Any, xp: ModuleType) -> Any:
    """Set the pixels of a mask `[h, w]` in the square of `GROWTH` around each that is set."""
    side = 2 * GROWTH + 1
    if xp is np:
        return cv2.dilate(mask.view(np.uint8), np.ones((side, side), np.uint8)).view(bool)
    grown = xp.nn.functional.max_pool2d(mask[None, None].float(), side, 1, GROWTH)
    return grown[0, 0] > 0


def _grid_step(height: int, width: int) -> int:
    return max(1, round(math.sqrt(height * width / GRID_PIXELS)))


def _least_spread(eight_bits: bool) -> float:
    """Return the interquartile range below which an image counts as flat."""
    return min_span(eight_bits) / FILL_DISTANCE


def _tables(counts: Any, eight_bits: bool, values: tuple[int, ...]) -> _Tables:
    """Return the tables for an image, as arrays or as tensors on its device."""
    height, width = counts.shape
    if isinstance(counts, np.ndarray):
        return _make_tables(height, width, eight_bits, values)
    from sartm_model.utils.grid_cache import constant_tensors

    def compute() -> _Tables:
        return _make_tables(height, width, eight_bits, values)

    key = ('thermal_valid', height, width, eight_bits, values)
    return _Tables(*constant_tensors(key, compute, counts.device))


class _Fill(NamedTuple):
    """The least `_measures` with which a count is fill, and the largest share of the pixels."""

    distance: float = 0
    share: float = 0
    span: float = 0
    low: float = NOTHING
    largest_share: float = 1

    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the least and the largest of the `_measures`."""
        unbounded = -NOTHING
        least = (self.distance, self.share, self.span, self.low)
        return least, (unbounded, self.largest_share, unbounded, unbounded)


@lru_cache(maxsize=8)
def _make_tables(height: int, width: int, eight_bits: bool, values: tuple[int, ...]) -> _Tables:
    """Return the tables for images of a size and a type, as arrays."""
    step = _grid_step(height, width)
    size = len(range(0, height, step)) * len(range(0, width, step))
    # The distance is to be more than these. The median that it is from needs another pixel.
    apart, saturated = (
        float(np.nextafter(np.float32(distance), np.float32(math.inf)))
        for distance in (FILL_DISTANCE, SATURATION_DISTANCE)
    )
    kinds = _border_kinds(height, width, eight_bits)
    borders = {
        'none': _Fill(largest_share=-1),  # never
        'edge': _Fill(
            apart,
            span=_least_spread(eight_bits),
            low=ANY_COUNT,
            largest_share=MAX_EDGE_SHARE,
        ),
        'around': _Fill(apart, low=ANY_COUNT, largest_share=MAX_BORDER_SHARE),
        'opposite edges': _Fill(largest_share=MAX_BORDER_SHARE),
    }
    extremes = {
        0: _Fill(apart, low=ANY_COUNT),
        65535: _Fill(saturated, MIN_SATURATED_SHARE, low=ANY_COUNT),
    }
    others = [*({} if eight_bits else extremes).items(), *((value, _Fill()) for value in values)]
    conditions = [[borders[name], *(fill for _, fill in others)] for name, _ in kinds]
    bounds = np.array([[fill.bounds() for fill in of_kind] for of_kind in conditions], np.float32)
    length = max(len(line) for _, line in kinds)
    left_out = np.arange(size + 1)[:, None]
    quartiles = left_out + (size - left_out) * np.arange(1, 4) // 4
    return _Tables(
        lines=np.stack([line[np.minimum(np.arange(length), len(line) - 1)] for _, line in kinds]),
        kinds=np.arange(len(kinds)),
        candidates=np.array([count for count, _ in others], np.float32),
        bounds=bounds.transpose(0, 2, 3, 1).copy(),  # from [K, C, 2, 4]
        quartiles=np.repeat(quartiles.clip(max=size - 1)[..., None], 1 + len(others), axis=2),
        rows=_both_ways(height)[:, :, None],
        columns=_both_ways(width)[:, None],
        nothing=np.array(NOTHING, np.float32),
    )


def _border_kinds(height: int, width: int, eight_bits: bool) -> list[tuple[str, np.ndarray]]:
    """Return the kinds of borders in rising precedence, and their lines; see `_Tables`."""
    columns, rows = np.arange(width), width * np.arange(height)  # places of the first of each
    upper, lower = columns, rows[-1] + columns
    left, right = rows, rows + width - 1
    corners = np.array([upper[0], upper[-1], lower[0], lower[-1]])
    middle, central = width // 2, height // 2
    middles = np.array([upper[middle], lower[middle], left[central], right[central]])
    edges = [right[::-1], left[::-1], lower]  # from the lower corners
    return [
        ('none', middles[:1]),
        *(('edge', edge) for edge in ([] if eight_bits else edges)),
        ('around', middles),
        ('around', corners),
        ('opposite edges', np.concatenate([upper, lower])),
        ('opposite edges', np.concatenate([left, right])),
    ]


def _both_ways(length: int) -> np.ndarray:
    """Return the numbers from 0 up and down to 0, float32 `[2, length]`."""
    up = np.arange(length, dtype=np.float32)
    return np.stack([up, up[::-1]])
