"""Checks the homography between the cameras, and reads and writes its file.

The homography is a 3x3 matrix H that maps thermal pixels to RGB pixels at native resolution:
`(u, v, w) = H (x, y, 1)`, and `(u / w, v / w)` is the pixel in the RGB image. x points right, y
down, and the centre of the first pixel is (0, 0). It is exact for one plane of the scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.utils.files import write_file

PARAMETER = 'thermal.homography'

_SINGULAR = 1e-9
"""A determinant below this fraction of the product of the columns' norms counts as zero."""


def check_homography(
    values: Sequence[float] | np.ndarray, rgb_size: tuple[int, int] | None = None
) -> np.ndarray:
    """Check a homography and scale it so that its last element is 1.

    Args:
        values: `[3, 3]`, or nine numbers row by row.
        rgb_size: `(H, W)` of the RGB images, if known.

    Returns:
        float64 `[3, 3]`.

    Raises:
        SartmError: the matrix has no inverse, mirrors the image, or its horizon crosses the RGB
            image.
    """
    matrix = np.array(values, np.float64)
    if matrix.size != 9 or matrix.shape not in ((9,), (3, 3)):
        raise SartmError(
            f'{matrix.size} numbers; expected 9, the rows of the 3x3 homography one by one'
        )
    matrix = matrix.reshape(3, 3)
    if not np.isfinite(matrix).all():
        raise SartmError(
            'the homography has numbers that are not finite; expected 9 finite numbers'
        )
    if abs(matrix[2, 2]) <= _SINGULAR * np.abs(matrix).max():
        raise SartmError(
            'the last number of the homography is 0, which maps the first thermal pixel to '
            'infinity; expected 1, or any other scale of the whole matrix'
        )
    matrix = matrix / matrix[2, 2]
    determinant = np.linalg.det(matrix)
    if abs(determinant) <= _SINGULAR * np.linalg.norm(matrix, axis=0).prod():
        raise SartmError(
            'the homography has no inverse (determinant 0): it maps the thermal image to a '
            'line; estimate it again with sartm align'
        )
    if determinant < 0:
        raise SartmError(
            'the homography mirrors the image (negative determinant), which two cameras never do; '
            'are x and y exchanged, or the points in another order?'
        )
    if rgb_size is not None:
        _check_horizon(matrix, rgb_size)
    return matrix


def _check_horizon(matrix: np.ndarray, rgb_size: tuple[int, int]) -> None:
    """Check that w > 0 at all corners, so that no RGB pixel maps behind the thermal camera."""
    bottom, right = rgb_size[0] - 1, rgb_size[1] - 1
    corners = np.array([[0, 0, 1], [right, 0, 1], [0, bottom, 1], [right, bottom, 1]])
    depths = corners @ np.linalg.inv(matrix)[2]  # 1 / w
    if (depths <= 0).any():
        raise SartmError(
            f'the homography is degenerate in an RGB image of {rgb_size[1]}x{rgb_size[0]}: '
            'its horizon crosses the image; estimate it again with sartm align for this size'
        )


def read_homography(path: Path) -> np.ndarray:
    """Read the matrix `[3, 3]` from a ROS parameter file, such as `write_homography` writes.

    Raises:
        SartmError: the file is not one, has no or several homographies, or one that is invalid.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SartmError(f'{path} does not exist; expected a file that sartm align wrote') from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = ' '.join(str(error).split())
        raise SartmError(f'{path} is not a YAML file: {reason}') from error
    values = [value for name, value in _leaves(document) if name.endswith(PARAMETER)]
    if len(values) != 1:
        raise SartmError(f'{path} has {len(values)} entries {PARAMETER}; expected one')
    try:
        return check_homography(values[0])
    except (SartmError, TypeError, ValueError) as error:
        raise SartmError(f'{path}: {PARAMETER}: {error}') from error


def write_homography(path: Path, matrix: np.ndarray, comments: Sequence[str]) -> None:
    """Write a ROS parameter file that sets the matrix, with `comments` as its first lines."""
    rows = [', '.join(_decimal(value) for value in row) for row in matrix]
    lines = [f'# {comment}' for comment in comments]
    lines += ['/**:', '  ros__parameters:', '    thermal:', '      homography: [']
    lines += [f'        {row},' for row in rows[:2]] + [f'        {rows[2]}]']
    write_file(path, '\n'.join(lines) + '\n')


def _decimal(value: float) -> str:
    """Format with as few digits as restore the value; rcl and YAML need the decimal point."""
    mantissa, exponent, power = repr(float(value)).partition('e')
    return mantissa + ('' if '.' in mantissa else '.0') + exponent + power


def _leaves(tree: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each leaf of nested mappings."""
    if not isinstance(tree, dict):
        yield prefix.removesuffix('.'), tree
        return
    for key, value in tree.items():
        yield from _leaves(value, f'{prefix}{key}.')
