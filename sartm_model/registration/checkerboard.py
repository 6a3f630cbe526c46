"""Places seen by both cameras: the inner corners of a checkerboard."""

from __future__ import annotations

import re

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.utils.visualization import to_grey


def parse_pattern(text: str) -> tuple[int, int]:
    """'9x6' as (columns, rows) of inner corners. Raises SartmError where it is something else."""
    match = re.fullmatch(r'(\d+)x(\d+)', text)
    pattern = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(pattern) < 3:
        raise SartmError(
            f'checkerboard {text!r}; expected COLUMNSxROWS of inner corners, like 9x6, at least 3'
        )
    return pattern


def corner_pairs(
    rgb: np.ndarray, thermal: np.ndarray, pattern: tuple[int, int]
) -> np.ndarray | None:
    """The corners in both images, `[N, 4]` as thermal x, thermal y, RGB x, RGB y; None if unseen.

    A board looks the same turned by half, so an order of the corners has to be chosen: that in
    which the two images of it are most alike. It is right for cameras that are mounted with less
    than 90 degrees of roll between them, 45 where the board has as many columns as rows.

    Args:
        rgb: uint8 `[H, W, 3]`.
        thermal: uint8 or uint16 `[h, w]`; the board may be inverted there.
        pattern: (columns, rows) of inner corners.
    """
    import cv2

    there = _corners(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), pattern)
    here = _corners(to_grey(thermal), pattern)
    if there is None or here is None:
        return None
    wanted = _shape(there.reshape(-1, 2))
    here = min(_orders(here), key=lambda grid: np.square(_shape(grid) - wanted).sum())
    return np.hstack([here, there.reshape(-1, 2)]).astype(np.float64)


def _corners(grey: np.ndarray, pattern: tuple[int, int]) -> np.ndarray | None:
    """The inner corners `[rows, columns, 2]` of a uint8 image, or None."""
    import cv2

    flags = cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_NORMALIZE_IMAGE
    for image in (grey, 255 - grey):
        found, corners = cv2.findChessboardCornersSB(image, pattern, flags=flags)
        if found:
            grid = corners.reshape(pattern[1], pattern[0], 2)
            return _refined(grey, grid)
    return None


def _refined(grey: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The corners to a few hundredths of a pixel; where contrast was normalised they are coarse."""
    import cv2

    sides = (np.linalg.norm(np.diff(grid, axis=axis), axis=2).min() for axis in (0, 1))
    reach = max(int(min(sides) / 3), 2)  # pixels to either side, no other corner among them
    until = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 40, 1e-3)
    corners = np.ascontiguousarray(grid.reshape(-1, 1, 2))
    return cv2.cornerSubPix(grey, corners, (reach, reach), (-1, -1), until).reshape(grid.shape)


def _orders(grid: np.ndarray) -> list[np.ndarray]:
    """The corners `[N, 2]` in every order that a board turned or seen from behind would have."""
    views = [grid, grid[::-1], grid[:, ::-1], grid[::-1, ::-1]]
    if grid.shape[0] == grid.shape[1]:
        views += [view.transpose(1, 0, 2) for view in views]
    return [view.reshape(-1, 2) for view in views]


def _shape(points: np.ndarray) -> np.ndarray:
    """The points with neither place nor size."""
    centred = points - points.mean(axis=0)
    return centred / np.linalg.norm(centred)
