"""Changes of colour images in training samples, and faults at five severities for an evaluation."""

from __future__ import annotations

import cv2
import numpy as np

from sartm_model.config import DataConfig
from sartm_model.modalities.base import Corruption, EarlierImage, round_counts

BLUR_PROBABILITY = 0.2
"""Probability that RGB is blurred, from the paper."""

# One value per severity of an evaluation.
DARK = (0.5, 0.25, 0.12, 0.05, 0.02)  # remaining fraction of the light
GLARE = (0.25, 0.5, 1.0, 1.5, 2.0)  # brightest added light, relative to white
NOISE = (0.03, 0.06, 0.12, 0.2, 0.3)  # standard deviation, relative to white

GAMMA = 2.2  # pixel value = light^(1 / GAMMA), about that of sRGB


def color_jitter(rgb: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, saturation and contrast by up to a half, and blur, each at random.

    With brightness g, saturation s, contrast c and the image's mean m, a colour x becomes
    c g (s x + (1 - s) grey(x)) + (1 - c) g m, which is one affine map of the three channels.
    With `colour_jitter` 0 there is no blur either.
    """
    if not config.colour_jitter:
        return rgb
    if rng.random() < config.colour_jitter:
        brightness, contrast, saturation = rng.uniform(0.5, 1.5, size=3)
        mix = contrast * brightness * (saturation * np.eye(3) + (1 - saturation) / 3)
        offset = (1 - contrast) * brightness * np.mean(cv2.mean(rgb)[:3])
        rgb = cv2.transform(rgb, np.column_stack([mix, np.full(3, offset)]))
    if rng.random() < BLUR_PROBABILITY:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.3, 1.5))
    return rgb


def over_expose(rgb: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """Over-expose an RGB image, uint8 `[H, W, 3]`, with the probability `over_exposure`.

    The fault is a gain of 1.5 to 4, or glare (a white Gaussian blob that saturates at its centre,
    such as the sun or a head light), or both, with equal probability. Values are clipped to 255.
    """
    if not config.over_exposure or rng.random() >= config.over_exposure:
        return rgb
    kind = rng.integers(3)
    light = rgb.astype(np.float32)
    if kind != 1:
        light *= rng.uniform(1.5, 4)
    if kind != 0:
        height, width = rgb.shape[:2]
        radius = rng.uniform(0.05, 0.25) * min(height, width)
        column = np.exp(-((np.arange(height) - rng.uniform(0, height)) ** 2) / (2 * radius**2))
        row = np.exp(-((np.arange(width) - rng.uniform(0, width)) ** 2) / (2 * radius**2))
        light += (rng.uniform(255, 600) * np.outer(column, row)).astype(np.float32)[..., None]
    return light.clip(0, 255).astype(np.uint8)


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
