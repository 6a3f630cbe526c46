"""From camera counts to the network's input; the same in training and on the robot."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sartm_model.errors import SartmError

# Mean and standard deviation of ImageNet's RGB in [0, 1], which SAM2 was trained with.
RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)
# One channel stands for three in thermal: the means of the above.
THERMAL_MEAN = 0.449
THERMAL_STD = 0.226

PERCENTILES = (0.01, 0.99)
# A scene's hottest and coldest places lie outside the percentiles and keep some of their contrast.
_OVERSHOOT = 1.0
# A range narrower than this many counts is a flat frame: stretching it would show only noise.
_MIN_SPAN_8BIT = 8.0
_MIN_SPAN_16BIT = 64.0


@dataclass(frozen=True)
class ThermalRange:
    """Which counts of a thermal image are shown to the network as 0 and as 1.

    Attributes:
        mode: 'percentile' takes the 1st and the 99th percentile of each image; 'fixed' takes
            `low` and `high`.
        low: counts that become 0 (mode 'fixed').
        high: counts that become 1 (mode 'fixed').
        smoothing_s: time constant in seconds with which the percentiles follow those of a video;
            0: each image has its own. Only for who knows the image before, as `Predictor` does.
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


def planes(rgb: Tensor) -> Tensor:
    """uint8 or float counts `[B, H, W, 3]` -> float32 counts `[B, 3, H, W]`."""
    return rgb.permute(0, 3, 1, 2).float()


def normalise_rgb(counts: Tensor) -> Tensor:
    """Counts as of `planes`, `[B, 3, H, W]` -> the same with ImageNet's statistics."""
    mean, std = _rgb_statistics(counts.device)
    return (counts - mean) / std


@functools.lru_cache
def _rgb_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in counts, `[3, 1, 1]`; sent to a device once, not each time."""
    with torch.inference_mode(False):  # training uses them as well
        mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (RGB_MEAN, RGB_STD))
        return mean.to(device), std.to(device)


def thermal_ends(thermal: Tensor, range_: ThermalRange) -> Tensor:
    """The range of an image, float32 `[2]` in counts; arguments as of `scale_thermal`."""
    if range_.mode == 'fixed':
        return torch.tensor((range_.low, range_.high), device=thermal.device)
    return percentile_range(thermal)


def percentile_range(thermal: Tensor) -> Tensor:
    """The `PERCENTILES` of a sixteenth of the pixels, float32 `[2]`, linear between two counts."""
    ordered = _counts(thermal)[..., ::4, ::4].flatten().sort().values
    ends = []
    for share in PERCENTILES:
        below, part = divmod(share * (len(ordered) - 1), 1)
        above = min(int(below) + 1, len(ordered) - 1)
        ends.append(torch.lerp(ordered[int(below)], ordered[above], part))
    return torch.stack(ends)


def follow(held: Tensor, ends: Tensor, weight: Tensor) -> Tensor:
    """The smoothed range with the next image of a video: an exponential average over time.

    A hot thing that comes into view then does not darken all else from one image to the next.
    Begins anew where the ranges do not meet: another scene, or a camera that has set itself anew.
    Decided on the device, for which nobody waits.

    Args:
        held: float32 `[2]`, the smoothed range up to the image before.
        ends: of this image, as `percentile_range` gives them.
        weight: of this image, as `ema_weight` gives it, as a tensor of the device.
    """
    apart = (ends[0] > held[1]) | (ends[1] < held[0])
    return torch.where(apart, ends, torch.lerp(held, ends, weight))


def ema_weight(before_s: float | None, time_s: float, smoothing_s: float) -> float:
    """How much of the range is the next image's own: 1 - exp(-dt / smoothing), or all of it.

    Args:
        before_s: time of the image before, if any. All begins anew where time goes back. After a
            long time little is left of what was before.
        time_s: of this image.
        smoothing_s: time constant; 0 where each image has its own range.
    """
    if before_s is None or time_s < before_s or not smoothing_s:
        return 1.0
    return 1 - math.exp((before_s - time_s) / smoothing_s)


def scale_thermal(thermal: Tensor, range_: ThermalRange) -> Tensor:
    """Counts -> float32 in [-1, 2], with the range's ends at 0 and 1; shape kept.

    Args:
        thermal: uint8 or uint16 `[..., H, W]`; one range is taken over all of it.
        range_: fixed, or percentiles of a sixteenth of the pixels (a grid of every fourth). A
            frame whose percentiles nearly meet is centred instead of stretched.
    """
    ends = thermal_ends(thermal, range_)
    return scale_between(
        thermal, enforce_min_span(ends, thermal) if range_.mode == 'percentile' else ends
    )


def enforce_min_span(ends: Tensor, thermal: Tensor) -> Tensor:
    """Percentiles `[2]` of an image, moved apart where they nearly meet: no noise is stretched."""
    widen = (min_span(thermal.dtype == torch.uint8) - (ends[1] - ends[0])).clamp_min(0) / 2
    return torch.stack((ends[0] - widen, ends[1] + widen))


def scale_between(thermal: Tensor, ends: Tensor) -> Tensor:
    """Counts -> float32 in [-1, 2], with `ends`, float32 `[2]`, at 0 and 1; shape kept."""
    low, high = ends
    return ((_counts(thermal) - low) / (high - low)).clamp(-_OVERSHOOT, 1 + _OVERSHOOT)


def _counts(thermal: Tensor) -> Tensor:
    return thermal.to(torch.int32).float()  # uint16 has few operations of its own


def min_span(eight_bits: bool) -> float:
    """Counts between the `PERCENTILES` of an image below which it is a flat frame."""
    return _MIN_SPAN_8BIT if eight_bits else _MIN_SPAN_16BIT


def normalise_thermal(scaled: Tensor) -> Tensor:
    """What `scale_thermal` gave, `[B, H, W]` -> `[B, 1, H, W]` with ImageNet's mean statistics."""
    return ((scaled - THERMAL_MEAN) / THERMAL_STD)[:, None]


def resize_thermal(thermal: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a thermal map `[B, 1, h, w]` to the RGB image's `(H, W)`, bilinear."""
    if tuple(thermal.shape[-2:]) == size:
        return thermal
    return F.interpolate(thermal, size=size, mode='bilinear', align_corners=False)


def warp_matrix(homography: np.ndarray, height: int, width: int) -> np.ndarray:
    """The float32 `[3, 3]` that takes an RGB pixel to a thermal image's coordinates in [-1, 1].

    Inverted in double precision, so that float32 suffices afterwards.

    Args:
        homography: float64 `[3, 3]`, thermal pixel -> RGB pixel, checked.
        height, width: of the thermal image.
    """
    to_unit = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    return (to_unit @ np.linalg.inv(homography)).astype(np.float32)


def warp_thermal(thermal: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Show a thermal map `[B, 1, h, w]` as the RGB camera would see it, `[B, 1, H, W]` float32.

    RGB pixel p takes the thermal map at `inverse(homography) p`, bilinear. What the thermal camera
    does not see is 0, the mean of a normalised map: it tells nothing. To repeat or to mirror the
    edge would show hot things where no one has looked.

    Args:
        thermal: as `normalise_thermal` gives it.
        matrix: as `warp_matrix` gives it, on the device.
        size: `(H, W)` of the RGB image.
    """
    x = torch.arange(size[1], device=thermal.device, dtype=torch.float32)
    y = torch.arange(size[0], device=thermal.device, dtype=torch.float32)[:, None, None]
    homogeneous = x[None, :, None] * matrix[:, 0] + y * matrix[:, 1] + matrix[:, 2]  # [H, W, 3]
    grid = homogeneous[..., :2] / homogeneous[..., 2:]
    grid = grid.expand(len(thermal), -1, -1, -1)
    return F.grid_sample(thermal.float(), grid, padding_mode='zeros', align_corners=False)


def network_inputs(
    rgb: Tensor | None, thermal: Tensor | None, range_: ThermalRange
) -> tuple[Tensor | None, Tensor | None]:
    """One pair of images as the network takes them.

    Args:
        rgb: uint8 `[H, W, 3]`, or None.
        thermal: uint8 or uint16 `[h, w]` of the same field of view, or None.
        range_: how thermal counts are scaled.

    Returns:
        float32 `[1, 3, H, W]` and `[1, 1, H, W]` (`[1, 1, h, w]` where there is no RGB), or None.
    """
    rgb_input = None if rgb is None else normalise_rgb(planes(rgb[None]))
    if thermal is None:
        return rgb_input, None
    thermal_input = normalise_thermal(scale_thermal(thermal, range_)[None])
    if rgb is not None:
        thermal_input = resize_thermal(thermal_input, (rgb.shape[0], rgb.shape[1]))
    return rgb_input, thermal_input
