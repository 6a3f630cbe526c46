"""Faults of a robot's cameras, applied to training crops; all of them are off by default.

The labels are not changed. They belong to RGB, in whose geometry results are published, and where
thermal shows something else the network is to learn not to trust it. A camera that fails
completely is `data.drop_modality`.
"""

from __future__ import annotations

import cv2
import numpy as np

from sartm_model.config import DataConfig

FROZEN_ZOOM = (1.05, 1.3)
"""Range of the zoom of a frozen thermal image, which was taken further away from the scene."""

FROZEN_SHIFT = 0.15
"""Largest sideways shift of a frozen image, as a part of the crop's width."""

PATTERN_NOISE = 0.5
"""Standard deviation of the noise of columns, and of rows, relative to that of the pixels."""


def corrupt_thermal(
    thermal: np.ndarray, config: DataConfig, rng: np.random.Generator
) -> np.ndarray:
    """Misalign, freeze and add noise to a scaled thermal image, float32 `[H, W]`.

    Misalignment (`thermal_shift`, `thermal_scale`) is a shift and a zoom about the centre. Parallax
    and a wrong homography look like that as long as depth varies little.

    A frozen image (`thermal_freeze`) is that of a moment ago: the shutter of an uncooled camera is
    closed, or its stream is lost. The data sets hold single frames, so the earlier image is made of
    the same one, as it looked before the robot drove on and turned: smaller, shifted sideways, and
    mirrored beyond its edge. Objects that move by themselves are not modelled.

    Noise (`thermal_noise`) is white Gaussian noise plus a fixed pattern of columns and rows, which
    uncooled cameras show between two shutter events.
    """
    zoom, shift = 1.0, np.zeros(2)
    if config.thermal_shift > 0:
        shift = rng.uniform(-config.thermal_shift, config.thermal_shift, size=2)
    if config.thermal_scale > 0:
        zoom = rng.uniform(1 - config.thermal_scale, 1 + config.thermal_scale)
    if config.thermal_freeze > 0 and rng.random() < config.thermal_freeze:
        zoom *= rng.uniform(*FROZEN_ZOOM)
        shift[0] += rng.uniform(-FROZEN_SHIFT, FROZEN_SHIFT) * thermal.shape[1]
    if zoom != 1 or shift.any():
        thermal = _zoom_and_shift(thermal, zoom, shift)
    if config.thermal_noise > 0:
        sigma = rng.uniform(0, config.thermal_noise)
        height, width = thermal.shape
        noise = rng.standard_normal((height, width), np.float32)
        noise += PATTERN_NOISE * rng.standard_normal((1, width), np.float32)
        noise += PATTERN_NOISE * rng.standard_normal((height, 1), np.float32)
        noise *= np.float32(sigma)
        noise += thermal
        return noise
    return thermal


def corrupt_rgb(rgb: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
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


def _zoom_and_shift(image: np.ndarray, zoom: float, shift: np.ndarray) -> np.ndarray:
    """The image whose pixel p is the old pixel c + zoom (p - c) + shift, with c the centre.

    A zoom above 1 shows things smaller; `shift` is (x, y) in pixels.
    """
    height, width = image.shape
    centre = np.array([width - 1, height - 1]) / 2
    offset = centre - zoom * centre + shift
    inverse = np.array([[zoom, 0, offset[0]], [0, zoom, offset[1]]])
    linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        image, inverse, (width, height), flags=linear, borderMode=cv2.BORDER_REFLECT_101
    )
