"""Images made ready for people: counts stretched to grey, and images encoded as files."""

from __future__ import annotations

import cv2
import numpy as np

from sartm_model.errors import SartmError
from sartm_model.utils.percentiles import percentiles

MAX_WIDTH = 480
"""Pixels of an image in a report or a log; larger ones would make files of many megabytes."""


def to_grey(image: np.ndarray, shares: tuple[float, float] = (0.01, 0.99)) -> np.ndarray:
    """Stretch counts `[h, w]` between two of their percentiles to uint8.

    Args:
        image: counts of any type.
        shares: of the pixels below the count that becomes 0 and below the one that becomes 255.
    """
    low, high = percentiles(image, shares)
    scaled = (image.astype(np.float32) - low) / max(high - low, 1.0)
    return (scaled.clip(0, 1) * 255).astype(np.uint8)


def shrink(image: np.ndarray, interpolation: int = cv2.INTER_AREA) -> np.ndarray:
    """Shrink an image `[h, w]` or `[h, w, C]` to `MAX_WIDTH` pixels if it is wider."""
    height, width = image.shape[:2]
    if width <= MAX_WIDTH:
        return image
    size = (MAX_WIDTH, max(round(height * MAX_WIDTH / width), 1))
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=interpolation)


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
