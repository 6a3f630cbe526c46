"""Which thermal counts the network sees as 0 and as 1.

The functions that compute with images take numpy arrays and torch tensors, so that both backends
scale thermal images by the same code. torch is imported where it is needed alone: an exported
network runs without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sartm_model.errors import SartmError
from sartm_model.modalities.base import to_counts
from sartm_model.utils.percentiles import percentiles

if TYPE_CHECKING:
    from torch import Tensor

PERCENTILES = (0.01, 0.99)
"""Shares of the pixels below the low and below the high end of an image's own range."""

GRID_STEP = 4
"""Percentiles are taken over every fourth row and column, a sixteenth of the pixels."""

OVERSHOOT = 1.0
"""Counts outside the range keep their contrast up to this many times the range on either side."""

MIN_SPAN_8BIT = 8.0
MIN_SPAN_16BIT = 64.0
"""Counts between the percentiles below which an image is flat: stretching it would show noise."""


@dataclass(frozen=True)
class ThermalRange:
    """How thermal counts are scaled for the network.

    Attributes:
        mode: 'percentile' takes the 1st and the 99th percentile of each image; 'fixed' takes
            `low` and `high`.
        low: counts that become 0 (mode 'fixed').
        high: counts that become 1 (mode 'fixed').
        smoothing_s: time constant, in seconds, of an exponential moving average of the percentiles
            over the images of a video. 0 gives each image its own percentiles. Only `Predictor`
            uses it, because it needs the images in order.

    Raises:
        SartmError: the mode is unknown, the range is empty or the time constant is negative.
    """

    mode: str = 'percentile'
    low: float = 0.0
    high: float = 255.0
    smoothing_s: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in ('percentile', 'fixed'):
            raise SartmError(f'thermal range mode {self.mode!r}; expected percentile or fixed')
        if self.mode == 'fixed' and not self.low < self.high:
            raise SartmError(
                f'thermal range [{self.low}, {self.high}] is empty; expected low < high, in counts'
            )
        if not self.smoothing_s >= 0:
            raise SartmError(f'thermal smoothing is {self.smoothing_s} s; expected 0 or more')

    @property
    def ends(self) -> tuple[float, float] | None:
        """The counts that become 0 and 1; None if each image has its own."""
        return (self.low, self.high) if self.mode == 'fixed' else None

    def describe(self) -> str:
        """Return the range as an error message names it."""
        smoothing = f', smoothed over {self.smoothing_s:g} s' if self.smoothing_s else ''
        ends = f' {self.low:g} to {self.high:g}' if self.mode == 'fixed' else ''
        return self.mode + ends + smoothing


def min_span(eight_bits: bool) -> float:
    """Return the counts between an image's percentiles below which it counts as flat."""
    return MIN_SPAN_8BIT if eight_bits else MIN_SPAN_16BIT


def enforce_min_span(ends: Any, eight_bits: bool) -> tuple[Any, Any]:
    """Move the ends of a percentile range apart, so that a flat image is not stretched.

    Args:
        ends: low and high in counts, float32 `[2]`.
        eight_bits: whether the image is uint8 rather than uint16.

    Returns:
        Low and high at least `min_span` apart, around the same centre.
    """
    low, high = ends
    widen = (min_span(eight_bits) - (high - low)).clip(0) / 2
    return low - widen, high + widen


def scale_counts(counts: Any, ends: Any) -> Any:
    """Map counts to [-1, 2], with the ends of the range at 0 and 1.

    Args:
        counts: float32 array or tensor of any shape.
        ends: low and high in counts.
    """
    low, high = ends
    return ((counts - low) / (high - low)).clip(-OVERSHOOT, 1 + OVERSHOOT)


def has_8_bits(thermal: Any) -> bool:
    """Return whether the image is uint8 rather than uint16."""
    return thermal.itemsize == 1


def own_range(thermal: Any) -> Any:
    """Return the two `PERCENTILES` of an image `[h, w]` in counts, float32 `[2]`."""
    if isinstance(thermal, np.ndarray):
        return np.array(percentiles(thermal[::GRID_STEP, ::GRID_STEP], PERCENTILES), np.float32)
    return percentile_range(to_counts(thermal))


def percentile_range(counts: Tensor) -> Tensor:
    """Return the two `PERCENTILES` of an image, float32 `[2]`, linear between two counts.

    Equals `torch.quantile` over every fourth row and column. Only the pixels outside the range are
    sorted, which is faster than sorting all, and is recorded by a CUDA graph and exported to ONNX.

    Args:
        counts: float32 `[h, w]`, as `to_counts` returns it.
    """
    import torch

    sample = counts[::GRID_STEP, ::GRID_STEP].flatten()
    outside = PERCENTILES[0]  # the same share lies above the other percentile
    rank = outside * (len(sample) - 1)
    below = int(rank)
    above = min(below + 1, len(sample) - 1)
    ends = [sample.topk(above + 1, largest=largest).values for largest in (False, True)]
    return torch.stack([torch.lerp(end[below], end[above], rank - below) for end in ends])


def running_ends(running_range: Tensor, thermal: Tensor, weight: Tensor) -> tuple[Any, Any]:
    """Update the running range with the next image of a video and return its ends, in counts.

    Args:
        running_range: float32 `[2]`, the average up to the previous image, which is overwritten: a
            CUDA graph reads it there the next time.
        thermal: uint8 or uint16 `[h, w]`.
        weight: of this image's range, as `ema_weight` returns it, a tensor on the device.
    """
    running_range.copy_(ema_update(running_range, own_range(thermal), weight))
    return enforce_min_span(running_range, has_8_bits(thermal))


def ema_update(running_range: Tensor, new_range: Tensor, weight: Tensor) -> Tensor:
    """Return the exponential moving average of the thermal range over the images of a video.

    A hot object that enters the image then does not darken everything else from one image to the
    next. The average restarts at the new range where the two do not overlap, which is another scene
    or a camera that has recalibrated itself. The choice is made on the device, so that the host
    does not wait for it.

    Args:
        running_range: float32 `[2]`, the average up to the previous image.
        new_range: float32 `[2]`, this image's, as `percentile_range` returns it.
        weight: of the new range, as `ema_weight` returns it, a tensor on the device.
    """
    import torch

    disjoint = (new_range[0] > running_range[1]) | (new_range[1] < running_range[0])
    return torch.where(disjoint, new_range, torch.lerp(running_range, new_range, weight))


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
