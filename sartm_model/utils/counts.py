"""Thermal images of temperatures or of signed numbers as counts, uint16, which the network takes.

A pixel that is not known becomes `INVALID`.
"""

from __future__ import annotations

import numpy as np

INVALID = 0
"""The count of a pixel without a value."""

COUNTS_PER_KELVIN = 100
ZERO_CELSIUS_K = 273.15

KELVIN_ABOVE = 150.0
"""Temperatures are in kelvin if their median is above this, and otherwise in degrees Celsius."""

SIGNED_OFFSET = 32768

_HOTTEST = 65534  # 65535 would look like a saturated pixel


def from_temperatures(values: np.ndarray) -> np.ndarray:
    """Convert temperatures to counts of 0.01 K, uint16 `[h, w]`: 20 degrees Celsius are 29315.

    The unit is decided image by image, by the median of its finite pixels: see `KELVIN_ABOVE`. NaN,
    infinity and what is not above absolute zero become `INVALID`. Temperatures above 655.34 K
    become that.

    Args:
        values: float `[h, w]`, in kelvin or degrees Celsius.
    """
    finite = np.isfinite(values)
    known = values[finite]
    in_kelvin = known.size > 0 and np.median(known[:: 1 + known.size // 10_000]) > KELVIN_ABOVE
    kelvin = np.where(finite, values, 0)
    kelvin += 0 if in_kelvin else ZERO_CELSIUS_K
    np.clip(kelvin, 0, _HOTTEST / COUNTS_PER_KELVIN, out=kelvin)
    kelvin *= COUNTS_PER_KELVIN
    kelvin += 0.5  # the conversion cuts what is behind the point
    counts = kelvin.astype(np.uint16)
    counts *= finite
    return counts


def from_signed(values: np.ndarray) -> np.ndarray:
    """Convert int16 to uint16 of the same shape by adding `SIGNED_OFFSET`: -32768 is `INVALID`."""
    return values.view(np.uint16) ^ np.uint16(SIGNED_OFFSET)
