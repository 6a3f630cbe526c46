"""Which thermal counts the network sees as 0 and as 1, and the scaling between them.

The functions that compute with images take numpy arrays and torch tensors, so that both backends
scale thermal images by the same code. torch is imported where it is needed alone: an exported
network runs without it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sartm_model.modalities.base import to_counts
from sartm_model.modalities.thermal_valid import invalid_pixels, min_span
from sartm_model.utils.percentiles import percentiles

if TYPE_CHECKING:
    from torch import Tensor

PERCENTILES = (0.01, 0.99)
"""Shares of the pixels below the low and below the high end of an image's own range."""

_HUNDREDTHS = round(100 * PERCENTILES[0])

GRID_STEP = 4
"""Percentiles are taken over every fourth row and column, a sixteenth of the pixels."""

OVERSHOOT = 1.0
"""Counts outside the range keep their contrast up to this many times the range on either side."""

MEAN = 0.449
"""Mean of scaled thermal images. Pixels that see nothing have it: the network sees 0 there."""


def enforce_min_span(limits: Any, eight_bits: bool) -> tuple[Any, Any]:
    """Move the limits of a percentile range apart, so that a flat image is not stretched.

    Args:
        limits: low and high in counts, float32 `[2]`.
        eight_bits: whether the image is uint8 rather than uint16.

    Returns:
        Low and high at least `min_span` apart, around the same centre.
    """
    low, high = limits
    widen = (min_span(eight_bits) - (high - low)).clip(0) / 2
    return low - widen, high + widen


def scale_thermal(
    thermal: Any,
    limits: Any = None,
    *,
    running: tuple[Tensor, Tensor] | None = None,
    invalid_values: tuple[int, ...] = (),
    black_hot: bool = False,
    eight_bits: bool | None = None,
) -> Any:
    """Scale a thermal image for the network.

    Args:
        thermal: uint8 or uint16 `[h, w]`, array or tensor, after the crop; or float32 of the same
            counts, with `eight_bits`.
        limits: the counts that become 0 and 1; the percentiles of the valid pixels if left out.
        running: the running range that the percentiles update and the weight of this image, see
            `update_running_range`; the image has its own range if left out.
        invalid_values: `ThermalSettings.invalid`.
        black_hot: whether hot things have low counts; the limits are then exchanged.
        eight_bits: whether the camera gives uint8 rather than uint16; by the image if left out.

    Returns:
        float32 `[h, w]` in [-1, 2], and `MEAN` where the image sees nothing.
    """
    counts = to_counts(thermal)
    eight_bits = has_8_bits(thermal) if eight_bits is None else eight_bits
    invalid = invalid_pixels(counts, eight_bits, invalid_values)
    if limits is None:
        if running is None:
            own = own_range(thermal, invalid)
        else:
            own = update_running_range(running[0], thermal, invalid, running[1])
        limits = enforce_min_span(own, eight_bits)
    low, high = limits
    scaled = scale_counts(counts, (high, low) if black_hot else (low, high))
    return replace_invalid(scaled, invalid, MEAN)


def replace_invalid(image: Any, invalid: Any, value: Any) -> Any:
    """Return a float32 image, array or tensor, with `value` in the invalid pixels."""
    if isinstance(image, np.ndarray):
        return np.where(invalid, np.float32(value), image)
    return image.masked_fill(invalid, value)


def scale_counts(counts: Any, limits: Any) -> Any:
    """Map counts to [-1, 2], with the limits of the range at 0 and 1.

    Args:
        counts: float32 array or tensor of any shape.
        limits: low and high in counts.
    """
    low, high = limits
    return ((counts - low) / (high - low)).clip(-OVERSHOOT, 1 + OVERSHOOT)


def has_8_bits(thermal: Any) -> bool:
    """Return whether the image is uint8 rather than uint16."""
    return thermal.itemsize == 1


def own_range(counts: Any, invalid: Any) -> Any:
    """Return the two `PERCENTILES` of the valid pixels of an image, float32 `[2]`, in counts.

    Linear between two counts, over every fourth row and column. NaN where no pixel is valid.

    Args:
        counts: `[h, w]`, as an array of any type, or a float32 tensor.
        invalid: bool `[h, w]`, of the pixels to leave out.
    """
    sample, left_out = (image[::GRID_STEP, ::GRID_STEP] for image in (counts, invalid))
    if not isinstance(counts, np.ndarray):
        return percentile_range(sample.flatten(), left_out.flatten())
    valid = sample[~left_out]
    return np.array(percentiles(valid, PERCENTILES) if valid.size else (np.nan,) * 2, np.float32)


def percentile_range(counts: Tensor, invalid: Tensor) -> Tensor:
    """Return the two `PERCENTILES` of the valid counts, float32 `[2]`, linear between two counts.

    Equals `torch.quantile` over the valid ones, and NaN where there is none. No shape depends on
    the image, so that a CUDA graph can record it.

    Args:
        counts: `[n]`, uint8 or uint16; or float32, which an exported network has.
        invalid: bool `[n]`.
    """
    import torch

    of_ranks = _values_of_ranks if counts.is_floating_point() else _counts_of_ranks
    last = (~invalid).sum() - 1
    zero = torch.zeros_like(last)  # TensorRT clips floats alone
    # The same share lies below one percentile and above the other.
    position = last * _HUNDREDTHS
    below = torch.maximum(position // 100, zero)
    ranks = torch.stack([below, torch.minimum(below + 1, torch.maximum(last, zero))])
    inner, outer = of_ranks(counts, invalid, ranks, last)
    limits = torch.lerp(inner, outer, (position % 100) / 100)
    return torch.where(last < 0, math.nan, limits)


def _counts_of_ranks(counts: Tensor, invalid: Tensor, ranks: Tensor, last: Tensor) -> Tensor:
    """Return the valid counts of these ranks, by a histogram.

    Args:
        counts: uint8 or uint16 `[n]`.
        invalid: bool `[n]`.
        ranks: int64 `[r]`, from 0.
        last: the largest rank, an int64 number.

    Returns:
        float32 `[r, 2]`: the counts of these ranks from below, and from above.
    """
    import torch

    bins = 256 if counts.itemsize == 1 else 65536
    places = counts.to(torch.int64).masked_fill(invalid, bins)
    histogram = torch.zeros(bins + 1, dtype=torch.int32, device=counts.device)
    histogram.scatter_add_(0, places, torch.ones_like(places, dtype=torch.int32))
    up_to = histogram[:bins].cumsum(0)
    both = torch.stack([ranks, last - ranks], dim=1)
    return torch.searchsorted(up_to, both, right=True).float()


def _values_of_ranks(counts: Tensor, invalid: Tensor, ranks: Tensor, last: Tensor) -> Tensor:
    """Return what `_counts_of_ranks` does, of float32 counts and ranks outside of the percentiles.

    Only the counts outside the range are sorted. Their number is that of an image in which all are
    valid. ONNX and TensorRT have operators for this, but none for a histogram.
    """
    import torch

    outside = min((len(counts) - 1) * _HUNDREDTHS // 100 + 2, len(counts))
    columns = []
    for largest, filler in ((False, math.inf), (True, -math.inf)):
        filled = torch.where(invalid, filler, counts)
        columns.append(filled.topk(outside, largest=largest).values[ranks])
    return torch.stack(columns, dim=1)


def update_running_range(
    running_range: Tensor, counts: Tensor, invalid: Tensor, weight: Tensor
) -> Tensor:
    """Update the running range with the next image of a video and return it, in counts.

    Args:
        running_range: float32 `[2]`, the average up to the previous image, which is overwritten: a
            CUDA graph reads it there the next time.
        counts: float32 `[h, w]`.
        invalid: bool `[h, w]`, of the pixels to leave out.
        weight: of this image's range, as `ema_weight` returns it, a tensor on the device.
    """
    running_range.copy_(ema_update(running_range, own_range(counts, invalid), weight))
    return running_range


def ema_update(running_range: Tensor, new_range: Tensor, weight: Tensor) -> Tensor:
    """Return the exponential moving average of the thermal range over the images of a video.

    A hot object that enters the image then does not darken everything else from one image to the
    next. The average restarts at the new range where the two do not overlap, which is another scene
    or a camera that has recalibrated itself. The choice is made on the device, so that the host
    does not wait for it. An image without a valid pixel, whose range is NaN, changes nothing.

    Args:
        running_range: float32 `[2]`, the average up to the previous image, NaN where none counts.
        new_range: float32 `[2]`, this image's, as `percentile_range` returns it.
        weight: of the new range, as `ema_weight` returns it, a tensor on the device.
    """
    import torch

    disjoint = (new_range[0] > running_range[1]) | (new_range[1] < running_range[0])
    restart = disjoint | running_range.isnan()
    updated = torch.where(restart, new_range, torch.lerp(running_range, new_range, weight))
    return torch.where(new_range.isnan(), running_range, updated)


def ema_weight(previous_s: float | None, time_s: float, smoothing_s: float) -> float:
    """Return the weight of an image's own range in the moving average, 1 - exp(-dt / smoothing).

    The weight is 1 for the first image, where time goes back, and without smoothing.

    Args:
        previous_s: time of the previous image in seconds, or None where there is none.
        time_s: time of this image in seconds.
        smoothing_s: time constant in seconds, 0 for no smoothing.
    """
    if previous_s is None or time_s < previous_s or not smoothing_s:
        return 1.0
    return 1 - math.exp((previous_s - time_s) / smoothing_s)
