"""Faults of a thermal camera at five severities, to measure how much a network suffers from them.

Each function returns a corrupted image, uint8 or uint16 `[h, w]`; the arguments are those of
`base.Corruption`.
"""

from __future__ import annotations

import numpy as np

from sartm_model.modalities.base import SEVERITIES, Corruption, EarlierImage, round_counts
from sartm_model.utils.percentiles import percentiles

# One value per severity.
SHIFT = (0.005, 0.01, 0.02, 0.03, 0.05)  # of the width
NOISE = (0.03, 0.06, 0.12, 0.2, 0.3)  # standard deviation, relative to the image's range


def shift(
    thermal: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Move the image by 0.5 to 5 % of its width in any direction, as bad calibration does.

    The pixels that come in from outside repeat the border.
    """
    height, width = thermal.shape
    angle = rng.uniform(0, 2 * np.pi)
    step = SHIFT[severity - 1] * width * np.array([np.cos(angle), np.sin(angle)])
    right, down = (np.sign(step) * np.ceil(np.abs(step))).astype(int).tolist()
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return thermal[rows][:, columns]


def noise(
    thermal: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Add Gaussian noise of 3 to 30 % of the range from the 1st to the 99th percentile.

    Half of its variance is one value per column, as in uncooled sensors, half one per pixel.
    """
    low, high = percentiles(thermal, (0.01, 0.99))
    deviation = NOISE[severity - 1] * max(high - low, 1.0) / np.sqrt(2)
    pattern = rng.standard_normal(thermal.shape) + rng.standard_normal(thermal.shape[1])
    return round_counts(thermal + deviation * pattern, thermal.dtype)


def freeze(
    thermal: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Show the image of `severity` frames earlier, as while a sensor's shutter is closed.

    The first frames show the first image. If the data set is not a sequence, the image shows
    another scene.
    """
    return earlier(severity)


def blackout(
    thermal: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Set the image to its mean in 20 to 100 % of the frames, as in sensor dropouts."""
    if rng.random() >= severity / len(SEVERITIES):
        return thermal
    return np.full_like(thermal, round(float(thermal.mean())))


CORRUPTIONS: dict[str, Corruption] = {
    'shift': shift, 'noise': noise, 'freeze': freeze, 'blackout': blackout
}  # fmt: skip
