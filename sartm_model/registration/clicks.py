"""Collects points that both cameras see by letting the user click in a matplotlib window."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np

from sartm_model.errors import SartmError

TITLE = (
    'Click a point in RGB (left), then the same point in thermal (right), and so on; at least '
    'four.\nBackspace removes the last click, Enter ends.'
)


def click_pairs(rgb: np.ndarray, thermal: np.ndarray) -> np.ndarray:
    """Let the user click points in both images.

    Returns:
        `[N, 4]`: thermal x, thermal y, RGB x, RGB y, in pixels.

    Raises:
        SartmError: there is no display or no matplotlib, or a click is missing or in the wrong
            image.
    """
    if sys.platform == 'linux' and not (os.environ.keys() & {'DISPLAY', 'WAYLAND_DISPLAY'}):
        raise SartmError('--click needs a display, and there is none; use --points')
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise SartmError('--click needs matplotlib; install it, or use --points') from error
    if plt.get_backend().lower() == 'agg':
        raise SartmError(
            '--click needs a window, and matplotlib has no toolkit for one; use --points'
        )
    canvas, scale = side_by_side(rgb, thermal)
    figure, axes = plt.subplots(figsize=(16, 8))
    axes.imshow(canvas)
    axes.set_axis_off()
    axes.set_title(TITLE)
    clicks = plt.ginput(n=-1, timeout=0)
    plt.close(figure)
    return clicks_to_pairs(clicks, rgb.shape[1], scale)


def side_by_side(rgb: np.ndarray, thermal: np.ndarray) -> tuple[np.ndarray, float]:
    """Place thermal, resized to the height of RGB, to the right of RGB.

    Returns:
        The image, uint8 `[H, W, 3]`, and the factor by which thermal was resized.
    """
    import cv2

    from sartm_model.utils.visualization import to_grey

    height = rgb.shape[0]
    scale = height / thermal.shape[0]
    size = (round(thermal.shape[1] * scale), height)
    grey = cv2.resize(to_grey(thermal), size, interpolation=cv2.INTER_NEAREST)
    return np.hstack([rgb, np.repeat(grey[..., None], 3, axis=2)]), scale


def clicks_to_pairs(
    clicks: Sequence[tuple[float, float]], rgb_width: int, scale: float
) -> np.ndarray:
    """Convert clicks on the image of `side_by_side` to point pairs `[N, 4]`.

    Args:
        clicks: (x, y), alternately in RGB and in thermal.
        rgb_width: width of the RGB image in pixels.
        scale: the factor by which thermal was resized.

    Raises:
        SartmError: a click is missing or in the wrong image.
    """
    if len(clicks) % 2:
        raise SartmError(
            f'{len(clicks)} clicks; expected an even number, alternately in RGB and thermal'
        )
    pairs = []
    for number, ((u, v), (x, y)) in enumerate(zip(clicks[::2], clicks[1::2], strict=True), start=1):
        if u > rgb_width - 0.5 or x < rgb_width - 0.5:
            raise SartmError(f'pair {number}: expected a click in RGB (left), then one in thermal')
        pairs.append([(x - rgb_width + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5, u, v])
    return np.array(pairs).reshape(-1, 4)
