"""From camera counts to the network's input, the same in training, on the robot and in exports."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sartm_model.data.thermal_range import (
    GRID_STEP,
    PERCENTILES,
    ThermalRange,
    enforce_min_span,
    scale_counts,
)

RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's RGB in [0, 1], with which SAM2 was trained."""

THERMAL_MEAN = 0.449
THERMAL_STD = 0.226
"""Thermal has one channel where the network expects three: these are the means of the above."""


def to_nchw(rgb: Tensor) -> Tensor:
    """Convert RGB counts `[B, H, W, 3]` to float32 counts `[B, 3, H, W]`."""
    return rgb.permute(0, 3, 1, 2).float()


def resize(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Resize `[B, C, h, w]` to `size` = (H, W), bilinear. None keeps the size."""
    if size is None or tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode='bilinear', align_corners=False)


def preprocess_rgb(rgb: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Resize RGB images and normalise them with ImageNet's statistics.

    Args:
        rgb: uint8 `[B, H, W, 3]`.
        size: height and width of the result; those of the images where left out.

    Returns:
        float32 `[B, 3, H, W]`.
    """
    # Resizing commutes with the normalisation, and leaves fewer pixels to normalise. Scalars, not
    # a tensor of the statistics, which a CUDA graph could not bring to the device.
    counts = resize(to_nchw(rgb), size)
    channels = zip(counts.unbind(1), RGB_MEAN, RGB_STD, strict=True)
    return torch.stack([(x - 255 * mean) / (255 * std) for x, mean, std in channels], dim=1)


def preprocess_thermal(
    scaled: Tensor,
    rgb_size: tuple[int, int] | None = None,
    matrix: Tensor | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Normalise scaled thermal images, bring them into the RGB image's geometry and resize them.

    Args:
        scaled: float32 `[B, h, w]`, as `scale_thermal` returns it.
        rgb_size: height and width of the RGB image; None where thermal is alone.
        matrix: float32 `[3, 3]`, as `warp_matrix` returns it, to warp the images by a homography.
            They are resized where it is left out.
        size: height and width of the result; those of the RGB image where left out.

    Returns:
        float32 `[B, 1, H, W]`.
    """
    images = ((scaled - THERMAL_MEAN) / THERMAL_STD)[:, None]  # [B, 1, h, w]
    if matrix is not None:
        assert rgb_size is not None
        images = warp_thermal(images, matrix, rgb_size)
    else:
        images = resize(images, rgb_size)
    return resize(images, size)


def scale_thermal(thermal: Tensor, range_: ThermalRange) -> Tensor:
    """Map thermal counts to float32 in [-1, 2], with the ends of the range at 0 and 1.

    Args:
        thermal: uint8 or uint16 `[h, w]`.
        range_: fixed, or percentiles of this image. An image whose percentiles nearly meet is
            centred instead of stretched.
    """
    counts = to_counts(thermal)
    if range_.mode == 'fixed':
        return scale_counts(counts, (range_.low, range_.high))
    ends = enforce_min_span(percentile_range(counts), thermal.dtype == torch.uint8)
    return scale_counts(counts, ends)


def to_counts(thermal: Tensor) -> Tensor:
    """Convert uint8 or uint16 to float32, by way of int32, as torch has few uint16 operations."""
    return thermal.to(torch.int32).float()


def percentile_range(counts: Tensor) -> Tensor:
    """Return the two `PERCENTILES` of an image, float32 `[2]`, linear between two counts.

    Equals `torch.quantile` over every fourth row and column. Only the pixels outside the range are
    sorted, which is faster than sorting all, and is recorded by a CUDA graph and exported to ONNX.

    Args:
        counts: float32 `[h, w]`, as `to_counts` returns it.
    """
    sample = counts[::GRID_STEP, ::GRID_STEP].flatten()
    outside = PERCENTILES[0]  # the same share lies above the other percentile
    rank = outside * (len(sample) - 1)
    below = int(rank)
    above = min(below + 1, len(sample) - 1)
    ends = [sample.topk(above + 1, largest=largest).values for largest in (False, True)]
    return torch.stack([torch.lerp(end[below], end[above], rank - below) for end in ends])


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
    disjoint = (new_range[0] > running_range[1]) | (new_range[1] < running_range[0])
    return torch.where(disjoint, new_range, torch.lerp(running_range, new_range, weight))


def warp_matrix(homography: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the matrix that takes RGB pixels to thermal coordinates in [-1, 1].

    It is inverted in double precision, so that float32 suffices afterwards.

    Args:
        homography: float64 `[3, 3]`, thermal pixel -> RGB pixel, checked.
        height, width: of the thermal image.

    Returns:
        float32 `[3, 3]`.
    """
    to_unit = np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])
    return (to_unit @ np.linalg.inv(homography)).astype(np.float32)


def warp_thermal(images: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample thermal images `[B, 1, h, w]` to the RGB camera's view, float32 `[B, 1, H, W]`.

    RGB pixel p takes the thermal image at inverse(homography) p, bilinear. What the thermal camera
    does not see becomes 0, the mean of a normalised image. Repeating or mirroring the edge would
    show hot objects where the camera has not looked.

    Args:
        images: normalised.
        matrix: float32 `[3, 3]`, as `warp_matrix` returns it, on the device.
        size: height and width of the RGB image.
    """
    x = torch.arange(size[1], device=images.device, dtype=torch.float32)
    y = torch.arange(size[0], device=images.device, dtype=torch.float32)[:, None, None]
    homogeneous = x[None, :, None] * matrix[:, 0] + y * matrix[:, 1] + matrix[:, 2]  # [H, W, 3]
    grid = homogeneous[..., :2] / homogeneous[..., 2:]
    grid = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images.float(), grid, padding_mode='zeros', align_corners=False)


def network_inputs(
    rgb: Tensor | None, thermal: Tensor | None, range_: ThermalRange
) -> dict[str, Tensor]:
    """Preprocess one pair at its own size.

    Args:
        rgb: uint8 `[H, W, 3]`, or None.
        thermal: uint8 or uint16 `[h, w]` of the same field of view, or None.
        range_: how thermal counts are scaled.

    Returns:
        The images that are given, float32: 'rgb' `[1, 3, H, W]` and 'thermal' `[1, 1, H, W]`
        (`[1, 1, h, w]` where there is no RGB).
    """
    images = {}
    if rgb is not None:
        images['rgb'] = preprocess_rgb(rgb[None])
    if thermal is not None:
        rgb_size = None if rgb is None else (rgb.shape[0], rgb.shape[1])
        images['thermal'] = preprocess_thermal(scale_thermal(thermal, range_)[None], rgb_size)
    return images
