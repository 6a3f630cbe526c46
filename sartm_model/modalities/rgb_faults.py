"""Faults of a colour camera at five severities, to measure how much a network suffers from them.

Each function returns a corrupted image, uint8 `[H, W, 3]`; the arguments are those of
`base.Corruption`.
"""

from __future__ import annotations

import numpy as np

from sartm_model.modalities.base import Corruption, EarlierImage, round_counts

# One value per severity.
DARK = (0.5, 0.25, 0.12, 0.05, 0.02)  # remaining fraction of the light
GLARE = (0.25, 0.5, 1.0, 1.5, 2.0)  # brightest added light, relative to white
NOISE = (0.03, 0.06, 0.12, 0.2, 0.3)  # standard deviation, relative to white

GAMMA = 2.2  # pixel value = light^(1 / GAMMA), about that of sRGB


def dark(
    rgb: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Reduce the light to between a half and a fiftieth, at the same exposure."""
    return round_counts(rgb * DARK[severity - 1] ** (1 / GAMMA), rgb.dtype)


def glare(
    rgb: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Add a headlight that shines into the camera: a round light and a veil over the whole image.

    The light falls off from its centre as a Gaussian whose standard deviation is a sixth of the
    image's height; the veil has a tenth of its brightness.
    """
    height, width = rgb.shape[:2]
    rows = (np.arange(height) - rng.uniform(0.3, 0.8) * height) / (height / 6)
    columns = (np.arange(width) - rng.uniform(0.1, 0.9) * width) / (height / 6)
    light = 0.9 * np.outer(np.exp(-(rows**2) / 2), np.exp(-(columns**2) / 2)) + 0.1
    return round_counts(rgb + 255 * GLARE[severity - 1] * light[..., None], rgb.dtype)


def noise(
    rgb: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Add Gaussian noise of 3 to 30 % of white, one value per pixel and channel."""
    return round_counts(rgb + 255 * NOISE[severity - 1] * rng.standard_normal(rgb.shape), rgb.dtype)


CORRUPTIONS: dict[str, Corruption] = {'dark': dark, 'glare': glare, 'noise': noise}
