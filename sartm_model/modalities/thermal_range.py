"""Which thermal counts the network sees as 0 and as 1, and the scaling between them.

The functions that compute with images take numpy arrays and torch tensors, so that both backends
scale thermal images by the same code. torch is imported where it is needed alone: an exported
network runs without it.
"""

from __future__ import annotations

import math
from types import ModuleType
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
            `ema_update`; the image has its own range if left out.
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
        own = own_range(thermal, invalid)
        if running is not None:
            own = ema_update(running[0], own, running[1])
        limits = enforce_min_span(nan_to_zero(own), eight_bits)
    low, high = limits
    scaled = scale_counts(counts, (high, low) if black_hot else (low, high))
    return replace_invalid(scaled, invalid, MEAN)


def nan_to_zero(limits: Any) -> Any:
    """Return a range, array or tensor, with 0 for NaN, which it has where no pixel is valid."""
    if isinstance(limits, np.ndarray):
        return np.nan_to_num(limits)
    return limits.nan_to_num()


def replace_invalid(image: Any, invalid: Any, value: float) -> Any:
    """Return a float32 image, array or tensor, with `value` in the invalid pixels."""
    if isinstance(image, np.ndarray):
        image = image.copy()
        image[invalid] = value  # faster than np.where
        return image
    import torch

    return torch.where(invalid, value, image)  # on a CPU faster than masked_fill


def scale_counts(counts: Any, limits: Any) -> Any:
    """Map counts to [-1, 2], with the limits of the range at 0 and 1.

    Args:
        counts: float32 array or tensor of any shape.
        limits: low and high in counts.
    """
    low, high = limits
    scaled = counts - low
    scaled /= high - low  # in place, as on a CPU new memory costs more than the division
    return scaled.clip(-OVERSHOOT, 1 + OVERSHOOT)


def has_8_bits(thermal: Any) -> bool:
    """Return whether the image is uint8 rather than uint16."""
    return thermal.itemsize == 1


def own_range(counts: Any, invalid: Any) -> Any:
    """Return the two `PERCENTILES` of the valid pixels of an image, float32 `[2]`, in counts.

    Linear between two counts, over every fourth row and column. NaN where no pixel is valid.

    Args:
        counts: `[h, w]`, array or tensor, uint8, uint16 or float32.
        invalid: bool `[h, w]`, of the pixels to leave out.
    """
    sample, left_out = (image[::GRID_STEP, ::GRID_STEP] for image in (counts, invalid))
    if not isinstance(counts, np.ndarray):
        return percentile_range(sample, left_out)
    valid = sample[~left_out]
    return np.array(percentiles(valid, PERCENTILES) if valid.size else (np.nan,) * 2, np.float32)


def percentile_range(counts: Tensor, invalid: Tensor) -> Tensor:
    """Return the two `PERCENTILES` of the valid counts, float32 `[2]`, linear between two counts.

    Equals `torch.quantile` over the valid ones, and NaN where there is none. No shape depends on
    the image, so that a CUDA graph can record it.

    Args:
        counts: uint8 or uint16 of any shape; or float32, which an exported network has.
        invalid: bool, of the same shape.
    """
    import torch

    of_ranks = _values_of_ranks if counts.is_floating_point() else _counts_of_ranks
    (outside, inside), weight = of_ranks(counts, invalid)
    return torch.lerp(outside, inside, weight)


def _ranks(number: Any, xp: ModuleType) -> tuple[Any, Any]:
    """Return which of the sorted valid counts are the neighbours of the two `PERCENTILES`.

    Args:
        number: how many valid counts there are, integers `[m]`, array or tensor, one for each case.
        xp: its module.

    Returns:
        Ranks from 0, integers `[m, 2, 2]`: the neighbours of the low and of the high percentile
        that lie outside of the range, then those inside. And how far both percentiles lie towards
        the latter, float `[m]`, NaN where there are no counts.
    """
    last = number - 1
    zero = xp.zeros_like(last)  # TensorRT clips floats alone
    # The same share lies below one percentile and above the other.
    position = last * _HUNDREDTHS
    outside = xp.maximum(position // 100, zero)
    inside = xp.minimum(outside + 1, xp.maximum(last, zero))
    low = xp.stack([outside, inside], 1)
    weights = xp.where(last < 0, math.nan, (position % 100) / 100)
    return xp.stack([low, last[:, None] - low], 2), weights


def _counts_of_ranks(counts: Tensor, invalid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the valid counts of `_ranks`, float32 `[2, 2]`, and the weight, by a histogram.

    On a GPU the ranks are looked up in a table, because each operation costs some microseconds.

    Args:
        counts: uint8 or uint16.
        invalid: bool, of the same shape.
    """
    import torch

    from sartm_model.utils.grid_cache import constant_tensors

    bins = 256 if counts.itemsize == 1 else 65536

    def constants() -> tuple[np.ndarray, ...]:
        return np.array(bins), np.ones(1, np.int64)

    def rank_table() -> tuple[np.ndarray, ...]:
        ranks, weights = _ranks(np.arange(counts.numel() + 1), np)
        return ranks, weights.astype(np.float32)

    beyond, one = constant_tensors(('histogram', bins), constants, counts.device)
    places = torch.where(invalid, beyond, counts.to(torch.int64)).flatten()
    histogram = torch.zeros(bins + 1, dtype=torch.int64, device=counts.device)
    histogram.scatter_add_(0, places, one.expand(places.shape))
    up_to = histogram[:bins].cumsum(0)
    number = up_to[-1:]
    if counts.device.type == 'cpu':
        ranks, weight = _ranks(number, torch)
    else:
        key = ('ranks', counts.numel())
        table = constant_tensors(key, rank_table, counts.device)
        ranks, weight = (entries[number] for entries in table)
    return torch.searchsorted(up_to, ranks[0], right=True).float(), weight


def _values_of_ranks(counts: Tensor, invalid: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `_counts_of_ranks` does, of float32 counts.

    Only the counts outside of the percentiles are sorted. Their number is that of an image in which
    all are valid. ONNX and TensorRT have operators for this, but none for a histogram.
    """
    import torch

    ranks, weight = _ranks((~invalid).sum().reshape(1), torch)
    outside = min((counts.numel() - 1) * _HUNDREDTHS // 100 + 2, counts.numel())
    columns = []
    for largest, filler in ((False, math.inf), (True, -math.inf)):
        filled = torch.where(invalid, filler, counts).flatten()
        columns.append(filled.topk(outside, largest=largest).values[ranks[0, :, 0]])
    return torch.stack(columns, dim=1), weight


def ema_update(running_range: Tensor, new_range: Tensor, weight: Tensor) -> Tensor:
    """Update the exponential moving average of the thermal range over a video, and return it.

    A hot object that enters the image then does not darken everything else from one image to the
    next. The average restarts at the new range where the two do not overlap, which is another scene
    or a camera that has recalibrated itself. The choice is made on the device, so that the host
    does not wait for it. An image without a valid pixel, whose range is NaN, changes nothing.

    Args:
        running_range: float32 `[2]`, the average up to the previous image, NaN where none counts.
            It is overwritten: a CUDA graph reads it there the next time.
        new_range: float32 `[2]`, this image's, as `percentile_range` returns it.
        weight: of the new range, as `ema_weight` returns it, a tensor on the device.
    """
    import torch

    # False also where one of them is NaN.
    overlap = (new_range[0] <= running_range[1]) & (new_range[1] >= running_range[0])
    updated = torch.where(overlap, torch.lerp(running_range, new_range, weight), new_range)
    return torch.where(new_range.isnan(), running_range, updated, out=running_range)


def ema_weight(previous_s: float | None, time_s: float, smoothing_s: float) -> float:
    """Return the weight of an image's own range in the moving average, 1 - exp(-dt / smoothing).

    The weight is 1 for the first image and where time goes back.

    Args:
        previous_s: time of the previous image in seconds, or None where there is none.
        time_s: time of this image in seconds.
        smoothing_s: time constant in seconds, above 0.
    """
    if previous_s is None or time_s < previous_s:
        return 1.0
    return 1 - math.exp((previous_s - time_s) / smoothing_s)
