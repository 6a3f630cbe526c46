"""Estimates the homography between the cameras from places seen in both (`sartm align`).

Every place counts, by least squares: one that was clicked wrong is reported, never silently left
out. The result is exact for the plane in which the places lie, and off by the parallax elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sartm_model.data.base import PairDataset
from sartm_model.data.frame import Frame
from sartm_model.errors import SartmError
from sartm_model.registration.checkerboard import corner_pairs, parse_pattern
from sartm_model.registration.clicks import click_pairs
from sartm_model.registration.homography import check_homography

MIN_POINTS = 4
BLEND_TILES = 8
"""Tiles along the shorter side of the blend."""

_THINNEST = 0.02
"""Points whose spread across a line is less than this share of that along it lie on the line."""

_SUSPECT = 3.0
"""A point without which the error falls to less than this fraction is suspected."""


@dataclass(frozen=True)
class Alignment:
    """A homography and how well it fits.

    Attributes:
        homography: float64 `[3, 3]`, thermal pixel -> RGB pixel.
        errors: `[N]`, distance in RGB pixels between each RGB point and where its thermal point
            comes to lie.
    """

    homography: np.ndarray
    errors: np.ndarray

    @property
    def rms(self) -> float:
        """Root of the mean square error, RGB pixels."""
        return float(np.sqrt((self.errors**2).mean()))


def read_points(path: Path) -> np.ndarray:
    """Point pairs `[N, 4]` of a text file: thermal x, thermal y, RGB x, RGB y a line.

    Numbers are parted by commas or blanks; `#` begins a comment.

    Raises:
        SartmError: there is no such file, or a line is something else.
    """
    try:
        lines = path.read_text().splitlines()
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
    frames: PairDataset, file: Path | None, checkerboard: str | None
) -> dict[str, np.ndarray]:
    """Point pairs `[N, 4]` of a file, of a checkerboard, or else of clicks, by the frame's name.

    Frames in which the checkerboard is not seen by both cameras are left out.

    Raises:
        SartmError: they cannot be had; the frames differ in size; of several frames something else
            than a checkerboard is asked for.
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
        found = corner_pairs(rgb, thermal, pattern)
        if found is not None:
            points[frame.name] = found
    if len(sizes) > 1:
        raise SartmError(
            'the pairs of images differ in size; expected those of one pair of cameras'
        )
    if not points:
        raise SartmError(
            f'no {checkerboard} checkerboard is seen by both cameras; expected its inner corners '
            'as COLUMNSxROWS, and the whole board sharp in both images'
        )
    return points


def align(
    points: np.ndarray, thermal_size: tuple[int, int], rgb_size: tuple[int, int]
) -> Alignment:
    """The homography with the least sum of squared errors in the RGB image.

    Args:
        points: `[N, 4]` thermal x, thermal y, RGB x, RGB y, in pixels.
        thermal_size: `(h, w)`.
        rgb_size: `(H, W)`.

    Raises:
        SartmError: they are fewer than four, lie outside of the images or on a line, or contradict
            each other so much that no two cameras could see them so.
    """
    if len(points) < MIN_POINTS:
        raise SartmError(f'{len(points)} point pairs; expected at least {MIN_POINTS}')
    for name, places, size in (
        ('thermal', points[:, :2], thermal_size),
        ('RGB', points[:, 2:], rgb_size),
    ):
        _check_inside(name, places, size)
        _check_spread(name, places)
    return _fit(points, rgb_size)


def suspects(points: np.ndarray, alignment: Alignment, rgb_size: tuple[int, int]) -> list[int]:
    """Indices of the points without which the others would fit much better: clicked wrong?"""
    if len(points) <= MIN_POINTS + 1:  # without one, the others would fit whatever they are
        return []
    found = []
    for index in range(len(points)):
        try:
            others = _fit(np.delete(points, index, axis=0), rgb_size)
        except SartmError:  # the others do not suffice
            continue
        if others.rms * _SUSPECT < alignment.rms and alignment.rms > 1.0:
            found.append(index)
    return found


def describe_points(
    points: dict[str, np.ndarray], alignment: Alignment, rgb_size: tuple[int, int]
) -> list[str]:
    """The errors: a line a point where there is one frame, otherwise a line a frame."""
    if len(points) > 1:
        lines, begin = [], 0
        for name, some in points.items():
            errors = alignment.errors[begin : begin + len(some)]
            begin += len(some)
            rms = np.sqrt((errors**2).mean())
            lines.append(f'{name}: {len(some)} points, RMS {rms:.2f}, greatest {errors.max():.2f}')
        return lines
    (every,) = points.values()
    wrong = suspects(every, alignment, rgb_size)
    lines = []
    for index, ((x, y, u, v), error) in enumerate(zip(every, alignment.errors, strict=True)):
        hint = '  without it the others fit far better: is it wrong?' if index in wrong else ''
        lines.append(f'{index + 1:4d}  ({x:.1f}, {y:.1f}) -> ({u:.1f}, {v:.1f}) {error:7.2f}{hint}')
    return lines


def blend(rgb: np.ndarray, thermal: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """Tiles of the RGB image and of thermal laid over it, like a checkerboard, uint8 `[H, W, 3]`.

    Thermal is shown as the network gets it. Where the fit is good, edges run on from tile to tile.
    """
    import torch

    from sartm_model.data.thermal_range import ThermalRange
    from sartm_model.data.transforms import scale_thermal, warp_matrix, warp_thermal

    size = (rgb.shape[0], rgb.shape[1])
    counts = torch.from_numpy(np.ascontiguousarray(thermal))
    scaled = scale_thermal(counts, ThermalRange()).clamp(0, 1)[None, None]
    matrix = warp_matrix(check_homography(homography, size), *counts.shape)
    warped = warp_thermal(scaled, torch.from_numpy(matrix), size)[0, 0].numpy()
    tile = max(min(size) // BLEND_TILES, 1)
    y, x = np.indices(size) // tile
    grey = (warped * 255).round().astype(np.uint8)
    return np.where(((x + y) % 2 == 0)[..., None], rgb, grey[..., None])


def notes(
    alignment: Alignment,
    source: str,
    thermal_size: tuple[int, int],
    rgb_size: tuple[int, int],
) -> list[str]:
    """What is worth knowing of an alignment beside its nine numbers, line by line."""
    (height, width), (rgb_height, rgb_width) = thermal_size, rgb_size
    return [
        f'Thermal pixel -> RGB pixel, by sartm align from {len(alignment.errors)} points of '
        f'{source}.',
        f'Only for thermal images of {width}x{height} and RGB images of {rgb_width}x{rgb_height}, '
        'and exact only',
        'at the distance at which the points were.',
        f'Reprojection error in RGB pixels: RMS {alignment.rms:.2f}, '
        f'greatest {alignment.errors.max():.2f}.',
    ]


def _images(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    assert frame.rgb is not None
    assert frame.thermal is not None
    return frame.rgb, frame.thermal


def _fit(points: np.ndarray, rgb_size: tuple[int, int]) -> Alignment:
    import cv2

    here, there = points[:, :2].copy(), points[:, 2:].copy()
    matrix, _ = cv2.findHomography(here, there, 0)
    if matrix is None:
        raise SartmError(
            'no homography fits the points; are thermal and RGB exchanged, or three of them on '
            'one line?'
        )
    matrix = check_homography(matrix, rgb_size)
    places = cv2.perspectiveTransform(here[:, None], matrix)[:, 0]
    return Alignment(matrix, np.linalg.norm(places - there, axis=1))


def _check_inside(name: str, places: np.ndarray, size: tuple[int, int]) -> None:
    outside = np.flatnonzero(((places < -0.5) | (places > np.array(size[::-1]) - 0.5)).any(axis=1))
    if outside.size:
        x, y = places[outside[0]]
        raise SartmError(
            f'point {outside[0] + 1} is at ({x:g}, {y:g}) of the {name} image, outside of its '
            f'{size[1]}x{size[0]} pixels; are thermal and RGB, or x and y, exchanged?'
        )


def _check_spread(name: str, places: np.ndarray) -> None:
    """Of four points no three may lie on a line, and of more not all but one."""
    for index in range(len(places)):
        others = np.delete(places, index, axis=0)
        along, across = np.linalg.svd(others - others.mean(axis=0), compute_uv=False)
        if across <= _THINNEST * along:
            raise SartmError(
                f'{"three" if len(places) == MIN_POINTS else "nearly all"} of the points lie on '
                f'one line of the {name} image; spread them over the image'
            )
