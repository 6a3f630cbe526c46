"""Augmentation of a frame into a training sample: geometry on both images, colour on RGB only."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from sartm_model.config import DataConfig
from sartm_model.datasets.base import Frame
from sartm_model.labels import IGNORE_ID
from sartm_model.preprocess import (
    ThermalRange,
    normalise_rgb,
    normalise_thermal,
    scale_thermal,
)


class Sample(NamedTuple):
    """One training sample, or a batch of them with a leading B.

    Attributes:
        rgb: `[3, H, W]`, normalised.
        thermal: `[1, H, W]`, normalised.
        labels: int64 `[H, W]`.
        absent: bool `[2]`, which modality the network is to do without.
    """

    rgb: Tensor
    thermal: Tensor
    labels: Tensor
    absent: Tensor


def augment(frame: Frame, config: DataConfig, rng: np.random.Generator) -> Sample:
    """A random resize, crop and flip of a labelled frame, with colour jitter and blur on its RGB.

    The thermal range is taken from the whole frame, as on the robot, before anything is cut off.
    """
    assert frame.rgb is not None
    assert frame.thermal is not None
    assert frame.labels is not None
    counts = torch.from_numpy(np.ascontiguousarray(frame.thermal))
    thermal = scale_thermal(counts, ThermalRange()).numpy()
    rgb, thermal, labels = _crop(frame.rgb, thermal, frame.labels, config, rng)
    if rng.random() < 0.5:
        rgb, thermal, labels = (np.flip(image, axis=1) for image in (rgb, thermal, labels))
    rgb = _jitter(np.ascontiguousarray(rgb), rng)
    absent = np.zeros(2, bool)
    if rng.random() < config.drop_modality:
        absent[rng.integers(2)] = True
    return Sample(
        normalise_rgb(torch.from_numpy(rgb)[None])[0].contiguous(),
        normalise_thermal(torch.from_numpy(np.ascontiguousarray(thermal))[None])[0],
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(absent),
    )


def _crop(
    rgb: np.ndarray,
    thermal: np.ndarray,
    labels: np.ndarray,
    config: DataConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut a window at random and resize it to the crop: a resize-crop without the large image."""
    height, width = labels.shape
    scale = np.exp(rng.uniform(np.log(config.scale_min), np.log(config.scale_max)))
    window_h, window_w = round(config.crop_height / scale), round(config.crop_width / scale)
    top = rng.integers(min(0, height - window_h), max(0, height - window_h) + 1)
    left = rng.integers(min(0, width - window_w), max(0, width - window_w) + 1)
    # Crop pixel (u, v) shows frame pixel (left + u / scale, top + v / scale), pixel centres kept.
    inverse = np.array(
        [[1 / scale, 0, left + 0.5 / scale - 0.5], [0, 1 / scale, top + 0.5 / scale - 0.5]]
    )
    size = (config.crop_width, config.crop_height)
    smooth = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    return (
        cv2.warpAffine(rgb, inverse, size, flags=smooth),
        cv2.warpAffine(thermal, inverse, size, flags=smooth),
        cv2.warpAffine(labels, inverse, size, flags=nearest, borderValue=IGNORE_ID),
    )


def _jitter(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation by up to a half either way, now and then a blur."""
    gain, contrast, saturation = rng.uniform(0.5, 1.5, size=3)
    image = rgb.astype(np.float32) * gain
    grey = image.mean(axis=2, keepdims=True)
    image = grey + (image - grey) * saturation
    image = image.mean() + (image - image.mean()) * contrast
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.5))
    return image.clip(0, 255)
