"""Places seen by both cameras: clicked by hand, in a window of matplotlib."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np

from sartm_model.errors import SartmError

TITLE = (
    'Click a place in RGB (left), then the same place in thermal (right), and so on; at least '
    'four.\nBackspace takes a click back, Enter ends.'
)


def click_pairs(rgb: np.ndarray, thermal: np.ndarray) -> np.ndarray:
    """Let the user click, and return `[N, 4]`: thermal x, thermal y, RGB x, RGB y.

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
    return pairs_of(clicks, rgb.shape[1], scale)


def side_by_side(rgb: np.ndarray, thermal: np.ndarray) -> tuple[np.ndarray, float]:
    """Both images in one, thermal enlarged to RGB's height; and by how much it was enlarged."""
    import cv2

    from sartm_model.utils.visualization import to_grey

    height = rgb.shape[0]
    scale = height / thermal.shape[0]
    size = (round(thermal.shape[1] * scale), height)
    grey = cv2.resize(to_grey(thermal), size, interpolation=cv2.INTER_NEAREST)
    return np.hstack([rgb, np.repeat(grey[..., None], 3, axis=2)]), scale


def pairs_of(clicks: Sequence[tuple[float, float]], rgb_width: int, scale: float) -> np.ndarray:
    """Clicks on `side_by_side`, in turn left and right, as point pairs `[N, 4]`."""
    if len(clicks) % 2:
        raise SartmError(f'{len(clicks)} clicks; expected an even number, RGB and thermal in turn')
    pairs = []
    for number, ((u, v), (x, y)) in enumerate(zip(clicks[::2], clicks[1::2], strict=True), start=1):
        if u > rgb_width - 0.5 or x < rgb_width - 0.5:
            raise SartmError(f'pair {number}: expected a click in RGB (left), then one in thermal')
        pairs.append([(x - rgb_width + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5, u, v])
    return np.array(pairs).reshape(-1, 4)
