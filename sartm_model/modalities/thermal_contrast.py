"""Whether the network sees contrast in a thermal image, by the range that scales it."""

from __future__ import annotations

import numpy as np

from sartm_model.modalities.base import to_counts
from sartm_model.modalities.thermal_range import OVERSHOOT, PERCENTILES
from sartm_model.modalities.thermal_settings import ThermalSettings, crop_image
from sartm_model.modalities.thermal_valid import MIN_SPAN_8BIT, invalid_pixels, min_span
from sartm_model.utils.percentiles import percentiles


def range_warning(image: np.ndarray, settings: ThermalSettings) -> str:
    """Return the warning of `judge_contrast` for a raw image before the crop, or ''.

    Raises SartmError if the crop leaves nothing.
    """
    if settings.fixed_range is None:
        return ''
    seen = crop_image(image, settings.crop)
    invalid = invalid_pixels(to_counts(seen), seen.dtype == np.uint8, settings.invalid)
    return judge_contrast(seen, invalid, settings)[1]


def judge_contrast(
    image: np.ndarray, invalid: np.ndarray, settings: ThermalSettings
) -> tuple[bool, str]:
    """Return whether a raw image is flat, and a warning if a fixed range hides its contrast.

    It is flat where it has less contrast than `least_contrast`. The warning, else '', is of an
    image that is not flat and of which a fixed range leaves less than that: counts beyond the range
    keep their contrast as far as `OVERSHOOT`, and all others become one.

    Args:
        image: uint8 or uint16 `[h, w]`, after the crop.
        invalid: bool `[h, w]`, of the pixels that see nothing.
        settings: the range.
    """
    least = least_contrast(image.dtype == np.uint8, settings)
    ends = _sampled_percentiles(image, invalid)
    if not ends[1] - ends[0] >= least:
        return True, ''
    if settings.fixed_range is None:
        return False, ''
    low, high = settings.fixed_range
    reach = OVERSHOOT * (high - low)
    darkest, brightest = np.clip(ends, low - reach, high + reach)
    # An image that fills a range of a few counts is not outside of it.
    if brightest - darkest >= min(least, high - low):
        return False, ''
    return False, (
        f'thermal counts from {ends[0]:.0f} to {ends[1]:.0f} (1st and 99th percentile) are outside '
        f'of the fixed range from {low:g} to {high:g}, so that the network sees no contrast: set '
        'thermal.low and thermal.high to the counts of the scene, or thermal.range to percentile'
    )


def _sampled_percentiles(image: np.ndarray, invalid: np.ndarray) -> tuple[float, ...]:
    """Return the two `PERCENTILES` of the valid pixels, NaN where there are none.

    Only a grid of about sixty rows is examined, which takes a fraction of the time.
    """
    step = max(1, min(image.shape) // 60)
    valid = image[::step, ::step][~invalid[::step, ::step]]
    return percentiles(valid, PERCENTILES) if valid.size else (np.nan, np.nan)


def least_contrast(eight_bits: bool, settings: ThermalSettings) -> float:
    """Return the counts between the percentiles of a thermal image below which it is flat.

    With the range of each image it is the least span that the preprocessing stretches. A fixed
    range shows the size of the camera's counts, which may be 0.01 K or 0.1 K: in 16 bits the limit
    is then the part of the range that it is of 8 bits, but not below the noise, nor above the limit
    without a fixed range.

    Args:
        eight_bits: whether the image is uint8 rather than uint16.
        settings: the range.
    """
    least = min_span(eight_bits)
    if settings.fixed_range is None:
        return least
    low, high = settings.fixed_range
    return min(least, max(MIN_SPAN_8BIT, MIN_SPAN_8BIT / 255 * (high - low)))
