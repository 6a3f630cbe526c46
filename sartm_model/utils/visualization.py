"""Images made ready for people: thermal in grey or false colours, and encoded as files."""

from __future__ import annotations

import cv2
import numpy as np

from sartm_model.errors import SartmError
from sartm_model.utils.percentiles import percentiles


def to_grey(thermal: np.ndarray, shares: tuple[float, float] = (0.01, 0.99)) -> np.ndarray:
    """Stretch thermal counts `[h, w]` between two of their percentiles to uint8.

    Args:
        thermal: counts of any type.
        shares: of the pixels below the count that becomes 0 and below the one that becomes 255.
    """
    low, high = percentiles(thermal, shares)
    scaled = (thermal.astype(np.float32) - low) / max(high - low, 1.0)
    return (scaled.clip(0, 1) * 255).astype(np.uint8)


def false_color(thermal: np.ndarray) -> np.ndarray:
    """Show thermal `[h, w]` as uint8 RGB `[h, w, 3]`, from black for cold to yellow for hot.

    The range is the image's own 1st to 99.7th percentile.
    """
    grey = to_grey(thermal, (0.01, 0.997))
    return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]


def encode(image: np.ndarray, kind: str = 'png') -> bytes:
    """Encode an image as the content of a file.

    Args:
        image: uint8, class ids `[H, W]` or RGB `[H, W, 3]`.
        kind: 'png' or 'jpg'.

    Raises:
        SartmError: the image cannot be written as such a file.
    """
    done, encoded = cv2.imencode(f'.{kind}', image[..., ::-1] if image.ndim == 3 else image)
    if not done:
        raise SartmError(f'an image of {image.shape} cannot be written as {kind.upper()}')
    return encoded.tobytes()
