"""What goes wrong with a robot's cameras, put into a training crop: all of it off by default.

Labels stay with RGB: outputs are in RGB geometry, and where thermal shows something else the
network is to learn to distrust it. A camera that is missing altogether is `data.drop_modality`.
"""

from __future__ import annotations

import cv2
import numpy as np

from sartm_model.config import DataConfig

STALE_ZOOM = (1.05, 1.3)
"""How much smaller a frozen thermal image shows what the robot has approached since."""

STALE_SHIFT = 0.15
"""Largest shift of a frozen image, in widths of the crop: how far the robot has turned since."""

PATTERN = 0.5
"""Standard deviation of the noise of columns, and of rows, as a part of that of the pixels."""


def spoil_thermal(thermal: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """Displace, freeze and add noise to a scaled thermal image, float32 `[H, W]`.

    Misalignment (`thermal_shift`, `thermal_scale`) is a shift and a zoom about the centre, which
    is what a parallax or a wrong homography looks like over a small depth range.

    A frozen image (`thermal_freeze`: the shutter of an uncooled camera, or a lost stream) shows
    what was seen a moment ago. The data sets are no sequences, so there is no earlier frame to
    take, and another frame's image would be of another place, which a look at the whole tells. So
    the image itself is taken as it was before a robot drove on and turned: smaller and shifted
    sideways, mirrored where it ends. What moved by itself is not modelled.

    Noise (`thermal_noise`) is white Gaussian noise and a fixed pattern of columns and rows, as
    uncooled cameras have between two shutter events.
    """
    zoom, shift = 1.0, np.zeros(2)
    if config.thermal_shift > 0:
        shift = rng.uniform(-config.thermal_shift, config.thermal_shift, size=2)
    if config.thermal_scale > 0:
        zoom = rng.uniform(1 - config.thermal_scale, 1 + config.thermal_scale)
    if config.thermal_freeze > 0 and rng.random() < config.thermal_freeze:
        zoom *= rng.uniform(*STALE_ZOOM)
        shift[0] += rng.uniform(-STALE_SHIFT, STALE_SHIFT) * thermal.shape[1]
    if zoom != 1 or shift.any():
        thermal = _displace(thermal, zoom, shift)
    if config.thermal_noise > 0:
        sigma = rng.uniform(0, config.thermal_noise)
        height, width = thermal.shape
        noise = rng.standard_normal((height, width), np.float32)
        noise += PATTERN * rng.standard_normal((1, width), np.float32)
        noise += PATTERN * rng.standard_normal((height, 1), np.float32)
        thermal = thermal + np.float32(sigma) * noise
    return thermal


def spoil_rgb(rgb: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """Over-expose an RGB image, uint8 `[H, W, 3]`, with the probability `over_exposure`.

    By a gain of 1.5 to 4, by glare (a white Gaussian blob that saturates at its centre: the sun,
    a head light), or by both, with equal chance; what is beyond 255 is lost.
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


def _displace(image: np.ndarray, zoom: float, shift: np.ndarray) -> np.ndarray:
    """Pixel p shows what was at c + zoom (p - c) + shift; c is the centre, shift is (x, y)."""
    height, width = image.shape
    centre = np.array([width - 1, height - 1]) / 2
    offset = centre - zoom * centre + shift
    inverse = np.array([[zoom, 0, offset[0]], [0, zoom, offset[1]]])
    smooth = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        image, inverse, (width, height), flags=smooth, borderMode=cv2.BORDER_REFLECT_101
    )
