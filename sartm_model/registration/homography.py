"""The homography between the cameras: its checks, and the file in which it is kept.

A homography is a 3x3 matrix H that takes thermal pixels to RGB pixels, both of the native images:
`(u, v, w) = H (x, y, 1)`, and `(u / w, v / w)` is the place in the RGB image. x goes right, y goes
down, and the centre of an image's first pixel is at (0, 0). It is exact for one plane of the scene.
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
"""A determinant this small beside the product of the columns' lengths is 0 but for rounding."""


def check_homography(
    values: Sequence[float] | np.ndarray, rgb_size: tuple[int, int] | None = None
) -> np.ndarray:
    """Nine numbers, row by row, as float64 `[3, 3]` whose last is 1.

    Args:
        values: 3x3, or nine numbers.
        rgb_size: `(H, W)` of the RGB images, where known.

    Raises:
        SartmError: it has no inverse, mirrors the image, or its horizon crosses the RGB image.
    """
    matrix = np.array(values, np.float64)
    if matrix.size != 9 or matrix.shape not in ((9,), (3, 3)):
        raise SartmError(
            f'{matrix.size} numbers are no homography; expected 9, the rows of 3x3 one by one'
        )
    matrix = matrix.reshape(3, 3)
    if not np.isfinite(matrix).all():
        raise SartmError('the homography holds numbers that are not finite; expected 9 that are')
    if abs(matrix[2, 2]) <= _SINGULAR * np.abs(matrix).max():
        raise SartmError(
            'the last number of the homography is 0, which sends the first thermal pixel to '
            'infinity; expected 1, or another multiple of the whole'
        )
    matrix = matrix / matrix[2, 2]
    determinant = np.linalg.det(matrix)
    if abs(determinant) <= _SINGULAR * np.linalg.norm(matrix, axis=0).prod():
        raise SartmError(
            'the homography has no inverse (determinant 0): it would press the thermal image '
            'into a line; estimate it anew with sartm align'
        )
    if determinant < 0:
        raise SartmError(
            'the homography mirrors the image (negative determinant); two cameras never do: '
            'are x and y exchanged, or points in another order?'
        )
    if rgb_size is not None:
        _check_horizon(matrix, rgb_size)
    return matrix


def _check_horizon(matrix: np.ndarray, rgb_size: tuple[int, int]) -> None:
    """Every RGB pixel must see a thermal place in front of the camera: w > 0 in all corners."""
    bottom, right = rgb_size[0] - 1, rgb_size[1] - 1
    corners = np.array([[0, 0, 1], [right, 0, 1], [0, bottom, 1], [right, bottom, 1]])
    depths = corners @ np.linalg.inv(matrix)[2]  # 1 / w
    if (depths <= 0).any():
        raise SartmError(
            f'the homography is degenerate in an RGB image of {rgb_size[1]}x{rgb_size[0]}: '
            'its horizon crosses the image; estimate it anew with sartm align for this size'
        )


def read_homography(path: Path) -> np.ndarray:
    """The matrix in a ROS parameter file, such as `write_homography` makes.

    Raises:
        SartmError: it is no such file, or holds none or several, or one that cannot be used.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise SartmError(f'{path} does not exist; expected a file that sartm align wrote') from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = ' '.join(str(error).split())
        raise SartmError(f'{path} is not a YAML file: {reason}') from error
    found = [value for name, value in _flat(document) if name.endswith(PARAMETER)]
    if len(found) != 1:
        raise SartmError(f'{path} has {len(found)} entries {PARAMETER}; expected one')
    try:
        return check_homography(found[0])
    except (SartmError, TypeError, ValueError) as error:
        raise SartmError(f'{path}: {PARAMETER}: {error}') from error


def write_homography(path: Path, matrix: np.ndarray, notes: Sequence[str]) -> None:
    """Write a ROS parameter file that sets the matrix, with `notes` as its first lines."""
    rows = [', '.join(_decimal(value) for value in row) for row in matrix]
    lines = [f'# {note}' for note in notes]
    lines += ['/**:', '  ros__parameters:', '    thermal:', '      homography: [']
    lines += [f'        {row},' for row in rows[:2]] + [f'        {rows[2]}]']
    write_file(path, '\n'.join(lines) + '\n')


def _decimal(value: float) -> str:
    """The shortest text that reads back alike; rcl and YAML both need its decimal point."""
    mantissa, exponent, power = repr(float(value)).partition('e')
    return mantissa + ('' if '.' in mantissa else '.0') + exponent + power


def _flat(tree: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    if not isinstance(tree, dict):
        yield prefix.removesuffix('.'), tree
        return
    for key, value in tree.items():
        yield from _flat(value, f'{prefix}{key}.')
