"""Estimates the homography between two cameras from points seen by both, for `sartm align`.

All points are used, by least squares. A point that is probably wrong is reported, but not left out.
The result is exact for the plane in which the points lie; elsewhere the parallax remains.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sartm_model.data.base import FrameDataset
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.modalities import MODALITIES
from sartm_model.registration.checkerboard import corner_pairs, parse_pattern
from sartm_model.registration.clicks import click_pairs
from sartm_model.registration.homography import check_homography

MIN_POINTS = 4
BLEND_TILES = 8
"""Number of tiles along the shorter side of a blend."""

_MIN_SPREAD_RATIO = 0.02
"""Points are collinear if their spread across a line is below this fraction of that along it."""

_OUTLIER_FACTOR = 3.0
"""A point is an outlier if the RMS error of the others alone is smaller by this factor."""


@dataclass(frozen=True)
class Alignment:
    """A homography and how well it fits.

    Attributes:
        homography: float64 `[3, 3]`, thermal pixel -> RGB pixel.
        errors: `[N]`, distance of each RGB point from its projected thermal point, in RGB pixels.
    """

    homography: np.ndarray
    errors: np.ndarray

    @property
    def rms(self) -> float:
        """Root mean square error in RGB pixels."""
        return float(np.sqrt((self.errors**2).mean()))


def read_points(path: Path) -> np.ndarray:
    """Read point pairs from a text file: thermal x, thermal y, RGB x, RGB y on each line.

    Numbers are separated by commas or blanks; `#` starts a comment.

    Returns:
        `[N, 4]`, in pixels.

    Raises:
        SartmError: the file does not exist, or a line has another form.
    """
    try:
        lines = path.read_text(encoding='utf-8-sig').splitlines()
    except FileNotFoundError:
        raise SartmError(f'{path} does not exist; expected a file of point pairs') from None
    except UnicodeDecodeError as error:
        raise SartmError(f'{path} is not a text file: {error}') from error
    points = []
    for number, line in enumerate(lines, start=1):
        words = line.partition('#')[0].replace(',', ' ').split()
        if not words:
            continue
        try:
            point = [float(word) for word in words]
        except ValueError:
            point = []
        if len(point) != 4 or not np.isfinite(point).all():
            raise SartmError(
                f'{path}, line {number}: {line.strip()!r}; expected four numbers: thermal x, '
                'thermal y, RGB x, RGB y, in pixels'
            )
        points.append(point)
    return np.array(points).reshape(-1, 4)


def collect_points(
    frames: FrameDataset, file: Path | None, checkerboard: str | None
) -> dict[str, np.ndarray]:
    """Collect point pairs from a file, from a checkerboard, or by letting the user click.

    Args:
        frames: the images; more than one pair only with a checkerboard.
        file: a file for `read_points`, or None.
        checkerboard: inner corners as COLUMNSxROWS, or None.

    Returns:
        Name of the frame -> `[N, 4]`, see `read_points`. Frames in which the checkerboard is not
        found in both images are left out.

    Raises:
        SartmError: no points are found, the frames differ in size, or several frames are given
            without a checkerboard.
    """
    if checkerboard is None and len(frames) > 1:
        raise SartmError(f'{len(frames)} pairs of images; only --checkerboard takes more than one')
    if file is not None:
        return {frames.names[0]: read_points(file)}
    if checkerboard is None:
        return {frames.names[0]: click_pairs(*_images(frames[0]))}
    pattern = parse_pattern(checkerboard)
    sizes, points = set(), {}
    for frame in frames:
        rgb, thermal = _images(frame)
        sizes.add((rgb.shape, thermal.shape))
        pairs = corner_pairs(rgb, thermal, pattern)
        if pairs is not None:
            points[frame.name] = pairs
    if len(sizes) > 1:
        raise SartmError(
            'the pairs of images differ in size; expected images of one pair of cameras'
        )
    if not points:
        raise SartmError(
            f'no {checkerboard} checkerboard is found in both images of a pair; expected its inner '
            'corners as COLUMNSxROWS, and the whole board sharp in both images'
        )
    return points


def align(
    points: np.ndarray, thermal_size: tuple[int, int], rgb_size: tuple[int, int]
) -> Alignment:
    """Compute the homography with the least sum of squared errors in the RGB image.

    Args:
        points: `[N, 4]` thermal x, thermal y, RGB x, RGB y, in pixels.
        thermal_size: `(h, w)`.
        rgb_size: `(H, W)`.

    Raises:
        SartmError: there are fewer than four points, they lie outside of the images or on a line,
            or no valid homography fits them.
    """
    if len(points) < MIN_POINTS:
        raise SartmError(f'{len(points)} point pairs; expected at least {MIN_POINTS}')
    for name, image_points, size in (
        ('thermal', points[:, :2], thermal_size),
        ('RGB', points[:, 2:], rgb_size),
    ):
        _check_inside(name, image_points, size)
        _check_spread(name, image_points)
    return _fit(points, rgb_size)


def find_outliers(points: np.ndarray, alignment: Alignment, rgb_size: tuple[int, int]) -> list[int]:
    """Return the indices of the points without which the others fit much better."""
    if len(points) <= MIN_POINTS + 1:  # four points always fit exactly
        return []
    outliers = []
    for index in range(len(points)):
        try:
            others = _fit(np.delete(points, index, axis=0), rgb_size)
        except SartmError:  # the other points determine no homography
            continue
        if others.rms * _OUTLIER_FACTOR < alignment.rms and alignment.rms > 1.0:
            outliers.append(index)
    return outliers


def describe_points(
    points: dict[str, np.ndarray], alignment: Alignment, rgb_size: tuple[int, int]
) -> list[str]:
    """List the errors in text lines: one per point for a single frame, otherwise one per frame."""
    if len(points) > 1:
        lines, begin = [], 0
        for name, frame_points in points.items():
            count = len(frame_points)
            errors = alignment.errors[begin : begin + count]
            begin += count
            rms = np.sqrt((errors**2).mean())
            lines.append(f'{name}: {count} points, RMS {rms:.2f}, largest {errors.max():.2f}')
        return lines
    (pairs,) = points.values()
    outliers = find_outliers(pairs, alignment, rgb_size)
    lines = []
    for index, ((x, y, u, v), error) in enumerate(zip(pairs, alignment.errors, strict=True)):
        hint = '  the others fit far better without it: is it wrong?' if index in outliers else ''
        lines.append(f'{index + 1:4d}  ({x:.1f}, {y:.1f}) -> ({u:.1f}, {v:.1f}) {error:7.2f}{hint}')
    return lines


def blend(rgb: np.ndarray, thermal: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """Alternate tiles of RGB and of warped thermal, like a checkerboard.

    Where the homography is right, edges continue from tile to tile. Thermal is scaled as for the
    network.

    Returns:
        uint8 `[H, W, 3]`.
    """
    import torch

    from sartm_model.data.transforms import warp, warp_matrix

    size = (rgb.shape[0], rgb.shape[1])
    scaled = torch.from_numpy(MODALITIES['thermal'].scale(thermal).clip(0, 1))[None, None]
    matrix = warp_matrix(check_homography(homography, size), thermal.shape[0], thermal.shape[1])
    warped = warp(scaled, torch.from_numpy(matrix), size)[0, 0].numpy()
    tile = max(min(size) // BLEND_TILES, 1)
    y, x = np.indices(size) // tile
    grey = (warped * 255).round().astype(np.uint8)
    return np.where(((x + y) % 2 == 0)[..., None], rgb, grey[..., None])


def file_comments(
    alignment: Alignment,
    source: str,
    thermal_size: tuple[int, int],
    rgb_size: tuple[int, int],
) -> list[str]:
    """Return the lines of comment for the file with the homography."""
    (height, width), (rgb_height, rgb_width) = thermal_size, rgb_size
    return [
        f'Thermal pixel -> RGB pixel, by sartm align from {len(alignment.errors)} points of '
        f'{source}.',
        f'Only for thermal images of {width}x{height} and RGB images of {rgb_width}x{rgb_height}, '
        'and exact only',
        'at the distance of these points.',
        f'Reprojection error in RGB pixels: RMS {alignment.rms:.2f}, '
        f'largest {alignment.errors.max():.2f}.',
    ]


def _images(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    return frame.images['rgb'], frame.images['thermal']


def _fit(points: np.ndarray, rgb_size: tuple[int, int]) -> Alignment:
    import cv2

    thermal_points, rgb_points = points[:, :2].copy(), points[:, 2:].copy()
    matrix, _ = cv2.findHomography(thermal_points, rgb_points, 0)
    matrix = check_homography(matrix, rgb_size)
    projected = cv2.perspectiveTransform(thermal_points[:, None], matrix)[:, 0]
    return Alignment(matrix, np.linalg.norm(projected - rgb_points, axis=1))


def _check_inside(name: str, points: np.ndarray, size: tuple[int, int]) -> None:
    outside = np.flatnonzero(((points < -0.5) | (points > np.array(size[::-1]) - 0.5)).any(axis=1))
    if outside.size:
        x, y = points[outside[0]]
        raise SartmError(
            f'point {outside[0] + 1} is at ({x:g}, {y:g}) of the {name} image, outside of its '
            f'{size[1]}x{size[0]} pixels; are thermal and RGB, or x and y, exchanged?'
        )


def _check_spread(name: str, points: np.ndarray) -> None:
    """Raise SartmError if all points but one (or all) lie on one line."""
    for index in range(len(points)):
        others = np.delete(points, index, axis=0)
        along, across = np.linalg.svd(others - others.mean(axis=0), compute_uv=False)
        if across <= _MIN_SPREAD_RATIO * along:
            raise SartmError(
                f'{"three" if len(points) == MIN_POINTS else "nearly all"} of the points lie on '
                f'one line of the {name} image; spread them over the image'
            )
