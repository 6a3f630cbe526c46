"""Which pixels of a thermal image see nothing: the border of a rectification, and fill.

A few percent of such pixels would set the percentile range: with a border of zeros around a 16-bit
image nothing of the scene keeps any contrast. Everything that computes with thermal counts leaves
them out, and the network is given the mean in their place.

The functions take numpy arrays and torch tensors. On tensors no shape depends on a value and the
host never waits, so that a CUDA graph can record them and ONNX can express them. Tensors on a CPU
are examined as arrays, because then ordinary images take a fraction of the time.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

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

BEYOND = 1e9
"""Stands for the counts that are left out of a sorted list; more than any count."""

GRID_PIXELS = 1200
"""What is fill is decided on a grid of about this many pixels."""


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
    border, is_border, is_edge = _border_count(counts, eight_bits, xp)
    extremes = () if eight_bits else (0.0, 65535.0)
    step = max(1, round(math.sqrt(counts.shape[0] * counts.shape[1] / GRID_PIXELS)))
    grid = counts[::step, ::step].flatten()
    excluded = _equals_any(grid, (*values, *extremes)) | (grid == border)
    known = (~excluded).sum()
    low, median, high = _quartiles(xp.where(excluded, BEYOND, grid), known, xp)
    least_spread = min_span(eight_bits) / FILL_DISTANCE
    spread = (high - low).clip(least_spread)

    def is_apart(count: Any, distance: float) -> Any:
        return (abs(median - count) > distance * spread) & (known > 0)

    def share(count: Any) -> Any:
        return (grid == count).sum() / len(grid)

    fills_edges = _fills_opposite_edges(counts == border)
    is_border = is_border & (is_apart(border, FILL_DISTANCE) | fills_edges)
    is_border = is_border & (share(border) <= MAX_BORDER_SHARE)
    is_edge = is_edge & is_apart(border, FILL_DISTANCE) & (high - low >= least_spread)
    is_border = is_border | (is_edge & (share(border) <= MAX_EDGE_SHARE))
    saturated = is_apart(65535.0, SATURATION_DISTANCE) & (share(65535.0) >= MIN_SATURATED_SHARE)
    fills = [is_apart(0.0, FILL_DISTANCE), saturated][: len(extremes)]
    invalid = _equals_any(counts, values)
    for count, fill in zip(extremes, fills, strict=True):
        invalid = invalid | ((counts == count) & fill)
    if xp is np and not is_border and not invalid.any():
        return invalid  # ordinary images need no more
    return _grow(invalid | (_connected_with_edge(counts == border, xp) & is_border), xp)


def _module_of(array: Any) -> ModuleType:
    """Return numpy or torch; torch is not imported where there are arrays alone."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def _border_count(counts: Any, eight_bits: bool, xp: ModuleType) -> tuple[Any, Any, Any]:
    """Return the count that a border would have, and whether it is around the image or at an edge.

    At an edge: the left, the right or the lower one has this count alone, in an image of 16 bits.
    """
    middle_row, middle_column = counts.shape[0] // 2, counts.shape[1] // 2
    corners = [counts[row, column] for row in (0, -1) for column in (0, -1)]
    middles = [counts[row, middle_column] for row in (0, -1)]
    middles += [counts[middle_row, column] for column in (0, -1)]
    at_corners, at_middles = (_are_equal(points) for points in (corners, middles))
    is_around = at_corners | at_middles
    border = xp.where(at_corners, corners[0], middles[0])
    if eight_bits:
        return border, is_around, is_around & False
    *_, lower_left, lower_right = corners
    left_or_lower = _is_uniform(counts[:, 0]) | _is_uniform(counts[-1])
    is_edge = (left_or_lower | _is_uniform(counts[:, -1])) & ~is_around
    edge_count = xp.where(left_or_lower, lower_left, lower_right)
    return xp.where(is_edge, edge_count, border), is_around, is_edge


def _is_uniform(edge: Any) -> Any:
    return (edge == edge[0]).all()


def _are_equal(points: list[Any]) -> Any:
    return (points[0] == points[1]) & (points[0] == points[2]) & (points[0] == points[3])


def _equals_any(counts: Any, values: tuple[float, ...]) -> Any:
    found = counts != counts
    for value in values:
        found = found | (counts == value)
    return found


def _quartiles(counts: Any, valid: Any, xp: ModuleType) -> Any:
    """Return the quartiles of the first `valid` of the sorted counts, float32 `[3]`."""
    ordered = np.sort(counts) if xp is np else counts.sort().values
    return ordered[xp.stack([(valid * quarter) // 4 for quarter in (1, 2, 3)])]


def _fills_opposite_edges(same: Any) -> Any:
    """Return whether two opposite edges of a mask `[h, w]` are set entirely."""
    return (same[0] & same[-1]).all() | (same[:, 0] & same[:, -1]).all()


def _connected_with_edge(same: Any, xp: ModuleType) -> Any:
    """Return the part of a mask `[h, w]` that runs on from an edge along a row or a column."""
    height, width = same.shape
    connected = same & False
    for axis, length in ((0, height), (1, width)):
        device = {} if xp is np else {'device': same.device}
        index = xp.arange(length, dtype=xp.int32, **device)
        index = index[:, None] if axis == 0 else index[None]
        first = xp.amin(xp.where(same, length, index), axis)
        last = xp.amax(xp.where(same, -1, index), axis)
        first, last = (first[None], last[None]) if axis == 0 else (first[:, None], last[:, None])
        connected = connected | (index < first) | (index > last)
    return connected


def _grow(mask: Any, xp: ModuleType) -> Any:
    """Set the pixels of a mask `[h, w]` in the square of `GROWTH` around each that is set."""
    height, width = mask.shape
    if xp is np:
        padded = np.pad(mask, GROWTH)
    else:  # TensorRT pads numbers alone
        padded = xp.nn.functional.pad(mask.float(), (GROWTH,) * 4) > 0
    rows = padded[:height]
    for shift in range(1, 2 * GROWTH + 1):
        rows = rows | padded[shift : shift + height]
    grown = rows[:, :width]
    for shift in range(1, 2 * GROWTH + 1):
        grown = grown | rows[:, shift : shift + width]
    return grown
