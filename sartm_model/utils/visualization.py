"""Images made ready for people: thermal in false colour, and encoded as files hold them."""

from __future__ import annotations

import cv2
import numpy as np

from sartm_model.errors import SartmError


def false_color(thermal: np.ndarray) -> np.ndarray:
    """Thermal `[h, w]` as uint8 `[h, w, 3]` RGB, black cold to yellow hot.

    The range is the image's own 1st to 99.7th percentile.
    """
    low, high = np.percentile(thermal, (1, 99.7))
    unit = (thermal.astype(np.float32) - low) / max(high - low, 1.0)
    grey = (np.clip(unit, 0, 1) * 255).astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[..., ::-1]


def encode(image: np.ndarray, kind: str = 'png') -> bytes:
    """Ids `[H, W]` or RGB `[H, W, 3]`, uint8, as the content of a 'png' or 'jpg' file."""
    done, encoded = cv2.imencode(f'.{kind}', image[..., ::-1] if image.ndim == 3 else image)
    if not done:
        raise SartmError(f'an image of {image.shape} cannot be written as {kind.upper()}')
    return encoded.tobytes()
