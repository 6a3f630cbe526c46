"""Finds points that both cameras see: the inner corners of a checkerboard."""

from __future__ import annotations

import re

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.utils.visualization import to_grey


def parse_pattern(text: str) -> tuple[int, int]:
    """Parse '9x6' as (columns, rows) of inner corners. Raises SartmError for anything else."""
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
    """Find the corners in both images and match them.

    A board looks the same after half a turn, so the order of the corners is ambiguous. The order in
    which the two images of the board are most similar is chosen. It is right if the roll between
    the cameras is less than 90 degrees, or 45 for a board with as many columns as rows.

    Args:
        rgb: uint8 `[H, W, 3]`.
        thermal: uint8 or uint16 `[h, w]`; dark and bright squares may be exchanged in it.
        pattern: (columns, rows) of inner corners.

    Returns:
        `[N, 4]`: thermal x, thermal y, RGB x, RGB y; None if the board is not found in both images.
    """
    import cv2

    rgb_grid = _find_corners(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), pattern)
    thermal_grid = _find_corners(to_grey(thermal), pattern)
    if rgb_grid is None or thermal_grid is None:
        return None
    rgb_points = rgb_grid.reshape(-1, 2)
    target = _normalise(rgb_points)
    thermal_points = min(
        _possible_orders(thermal_grid),
        key=lambda points: np.square(_normalise(points) - target).sum(),
    )
    return np.hstack([thermal_points, rgb_points]).astype(np.float64)


def _find_corners(grey: np.ndarray, pattern: tuple[int, int]) -> np.ndarray | None:
    """Find the inner corners `[rows, columns, 2]` in a uint8 image; None if there is no board."""
    import cv2

    flags = cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_NORMALIZE_IMAGE
    for image in (grey, 255 - grey):
        found, corners = cv2.findChessboardCornersSB(image, pattern, flags=flags)
        if found:
            grid = corners.reshape(pattern[1], pattern[0], 2)
            return _refine(grey, grid)
    return None


def _refine(grey: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Refine corners to a few hundredths of a pixel.

    The search normalises the contrast, which makes its own result less exact.
    """
    import cv2

    sides = (np.linalg.norm(np.diff(grid, axis=axis), axis=2).min() for axis in (0, 1))
    radius = max(int(min(sides) / 3), 2)  # pixels; small enough to contain no other corner
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 40, 1e-3)
    corners = np.ascontiguousarray(grid.reshape(-1, 1, 2))
    return cv2.cornerSubPix(grey, corners, (radius, radius), (-1, -1), criteria).reshape(grid.shape)


def _possible_orders(grid: np.ndarray) -> list[np.ndarray]:
    """Return the corners `[N, 2]` in the orders of a board that is rotated.

    None is of a mirrored board, because OpenCV never gives the corners in such an order.
    """
    quarters = range(4) if grid.shape[0] == grid.shape[1] else (0, 2)
    return [np.rot90(grid, turns).reshape(-1, 2) for turns in quarters]


def _normalise(points: np.ndarray) -> np.ndarray:
    """Shift the points to mean zero and scale them to norm one."""
    centred = points - points.mean(axis=0)
    return centred / np.linalg.norm(centred)
