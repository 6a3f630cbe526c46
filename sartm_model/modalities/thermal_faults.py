"""Faults of a thermal camera: in training samples, and at five severities for an evaluation.

The labels are not changed. They belong to RGB, in whose geometry results are published, and where
thermal shows something else the network is to learn not to trust it. A camera that fails
completely is `data.drop_modality`.
"""

from __future__ import annotations

import cv2
import numpy as np

from sartm_model.config import DataConfig
from sartm_model.modalities.base import Corruption, EarlierImage, round_counts
from sartm_model.modalities.faults import blackout, freeze, shift
from sartm_model.modalities.thermal_valid import invalid_pixels
from sartm_model.utils.percentiles import percentiles

FROZEN_ZOOM = (1.05, 1.3)
"""Range of the zoom of a frozen thermal image, which was taken further away from the scene."""

FROZEN_SHIFT = 0.15
"""Largest sideways shift of a frozen image, as a part of the crop's width."""

PATTERN_NOISE = 0.5
"""Standard deviation of the noise of columns, and of rows, relative to that of the pixels."""

# One value per severity of an evaluation.
NOISE = (0.03, 0.06, 0.12, 0.2, 0.3)  # standard deviation, relative to the image's range


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

    Noise (`thermal_noise`) is that of `add_noise`.
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
        return add_noise(thermal, rng.uniform(0, config.thermal_noise), rng)
    return thermal


def add_noise(thermal: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise plus a fixed pattern of columns and rows, float32 `[h, w]`.

    Uncooled cameras show such a pattern between two shutter events. `deviation` is that of the
    noise of pixels; with the pattern the standard deviation is sqrt(1.5) times as large.
    """
    height, width = thermal.shape
    noise = rng.standard_normal((height, width), np.float32)
    noise += PATTERN_NOISE * rng.standard_normal((1, width), np.float32)
    noise += PATTERN_NOISE * rng.standard_normal((height, 1), np.float32)
    noise *= np.float32(deviation)
    noise += thermal
    return noise


def noise(
    thermal: np.ndarray, severity: int, rng: np.random.Generator, earlier: EarlierImage
) -> np.ndarray:
    """Add noise, as in training, of 3 to 30 % of the range from the 1st to the 99th percentile.

    Pixels that see nothing count for nothing and stay as they are.
    """
    invalid = invalid_pixels(thermal.astype(np.float32), thermal.itemsize == 1)
    if invalid.all():
        return thermal
    low, high = percentiles(thermal[~invalid], (0.01, 0.99))
    deviation = NOISE[severity - 1] * max(high - low, 1.0) / np.sqrt(1 + 2 * PATTERN_NOISE**2)
    return np.where(
        invalid, thermal, round_counts(add_noise(thermal, deviation, rng), thermal.dtype)
    )


CORRUPTIONS: dict[str, Corruption] = {
    'shift': shift, 'noise': noise, 'freeze': freeze, 'blackout': blackout
}  # fmt: skip


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
