"""Faults that images of several kinds of sensor can have, at five severities for an evaluation."""

from __future__ import annotations

import numpy as np

from sartm_model.modalities.base import SEVERITIES, EarlierImage

SHIFT = (0.005, 0.01, 0.02, 0.03, 0.05)
"""Distance by which `shift` moves an image at each severity, relative to its width."""


def shift(
    image: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Move the image by 0.5 to 5 % of its width in any direction, as bad calibration does.

    The pixels that come in from outside repeat the border.
    """
    height, width = image.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    step = SHIFT[severity - 1] * width * np.array([np.cos(angle), np.sin(angle)])
    right, down = (np.sign(step) * np.ceil(np.abs(step))).astype(int).tolist()
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return image[rows][:, columns]


def freeze(
    image: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Show the image of `severity` frames earlier, as while a sensor's shutter is closed.

    The first frames show the first image. If the data set is not a sequence, the image shows
    another scene.
    """
    return earlier(severity)


def blackout(
    image: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Set the image to its mean in 20 to 100 % of the frames, as in sensor dropouts."""
    if rng.random() >= severity / len(SEVERITIES):
        return image
    return np.full_like(image, round(float(image.mean())))
