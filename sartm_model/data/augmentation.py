"""Augmentation of a frame into a training sample: geometry on both images, colour on RGB only.

All of it runs in the loader's workers, none on the training device: what a device is good at,
colour and blur, is one matrix a pixel here (`cv2.transform`) and a small part of a sample's time,
most of which is reading the files; `python -m benchmarks.training_loader` measures both.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from sartm_model.config import DataConfig
from sartm_model.data.frame import Frame
from sartm_model.data.sensor_faults import spoil_rgb, spoil_thermal
from sartm_model.data.transforms import (
    ThermalRange,
    normalise_rgb,
    normalise_thermal,
    planes,
    scale_thermal,
)
from sartm_model.labels import IGNORE_ID

BLUR = 0.2
"""The paper's probability of a blur."""


class Sample(NamedTuple):
    """One training sample, or a batch of them with a leading B (and a list of names).

    It crosses from the loader's process in the smallest form; `Sample.inputs` is for the device.

    Attributes:
        name: of the frame it was made of.
        rgb: uint8 `[H, W, 3]`.
        thermal: float16 `[H, W]`, scaled to about [0, 1].
        labels: uint8 `[H, W]` of class ids, 255 where there is none.
        drop_mask: bool `[2]`, true for a modality that the network is not given.
    """

    name: str
    rgb: Tensor
    thermal: Tensor
    labels: Tensor
    drop_mask: Tensor

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Of a batch: normalised RGB `[B, 3, H, W]` and thermal `[B, 1, H, W]`, float32."""
        return normalise_rgb(planes(self.rgb)), normalise_thermal(self.thermal.float())


class Crop(NamedTuple):
    """A window of a frame at the crop's size: rgb uint8, thermal float scaled, labels uint8."""

    rgb: np.ndarray
    thermal: np.ndarray
    labels: np.ndarray


def augment(
    frame: Frame, config: DataConfig, rng: np.random.Generator, donor: Frame | None = None
) -> Sample:
    """A random resize, crop and flip of a labelled frame, with colour jitter and blur on its RGB.

    Args:
        frame: with both images and labels.
        config: sizes and probabilities, those of the sensor faults among them.
        rng: what is drawn comes from it alone.
        donor: a second frame, some of whose objects are pasted into the sample at the place and
            size a crop of their own gives them (copy-paste, Ghiasi et al., CVPR 2021).
    """
    crop = cut(frame, config, rng)
    if donor is not None:
        crop = _paste(crop, cut(donor, config, rng), rng)
    return pack(frame.name, disturb(crop, config, rng), config, rng)


def disturb(crop: Crop, config: DataConfig, rng: np.random.Generator) -> Crop:
    """Colour jitter and blur on RGB, then what the cameras do wrong; labels stay."""
    rgb = spoil_rgb(_jitter(crop.rgb, config, rng), config, rng)
    return crop._replace(rgb=rgb, thermal=spoil_thermal(crop.thermal, config, rng))


def pack(name: str, crop: Crop, config: DataConfig, rng: np.random.Generator) -> Sample:
    """Tensors of a crop, and which modality is left out."""
    drop_mask = np.zeros(2, bool)
    if rng.random() < config.drop_modality:
        drop_mask[rng.integers(2)] = True
    return Sample(
        name,
        torch.from_numpy(crop.rgb),
        torch.from_numpy(crop.thermal.astype(np.float16)),
        torch.from_numpy(crop.labels),
        torch.from_numpy(drop_mask),
    )


def cut(frame: Frame, config: DataConfig, rng: np.random.Generator) -> Crop:
    """Cut a window at random, resize it to the crop and flip it, without the large image between.

    The thermal range is taken from the whole frame, as on the robot, before anything is cut off.
    Outside of the frame the images are mirrored and the labels say so with 255.
    """
    assert frame.rgb is not None
    assert frame.thermal is not None
    assert frame.labels is not None
    counts = torch.from_numpy(np.ascontiguousarray(frame.thermal))
    thermal = scale_thermal(counts, ThermalRange()).numpy()
    scale = np.exp(rng.uniform(np.log(config.scale_min), np.log(config.scale_max)))
    window = np.array([config.crop_height, config.crop_width]) / scale
    top, left = _corner(frame.labels, window, config.object_crop, rng)
    # Crop pixel (u, v) shows frame pixel (left + u / scale, top + v / scale), pixel centres kept.
    inverse = np.array(
        [[1 / scale, 0, left + 0.5 / scale - 0.5], [0, 1 / scale, top + 0.5 / scale - 0.5]]
    )
    if rng.random() < 0.5:
        inverse = inverse @ [[-1, 0, config.crop_width - 1], [0, 1, 0], [0, 0, 1]]
    size = (config.crop_width, config.crop_height)
    smooth = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    mirror = cv2.BORDER_REFLECT_101
    return Crop(
        cv2.warpAffine(frame.rgb, inverse, size, flags=smooth, borderMode=mirror),
        cv2.warpAffine(thermal, inverse, size, flags=smooth, borderMode=mirror),
        cv2.warpAffine(frame.labels, inverse, size, flags=nearest, borderValue=IGNORE_ID),
    )


def _corner(
    labels: np.ndarray, window: np.ndarray, object_crop: float, rng: np.random.Generator
) -> np.ndarray:
    """Top and left of a window `(height, width)`: anywhere in the frame, or on an object.

    For an object one of the frame's classes is drawn, all alike, then one of the class's pixels:
    a cone is met as often as a car. Class 0 is the background in every label space here.
    """
    room = np.array(labels.shape) - window
    lowest, highest = np.minimum(0, room), np.maximum(0, room)
    corner = rng.uniform(lowest, highest)
    if rng.random() >= object_crop:
        return corner
    classes = np.unique(labels)
    classes = classes[(classes != 0) & (classes != IGNORE_ID)]
    if classes.size:
        places = np.argwhere(labels == rng.choice(classes))
        place = places[rng.integers(len(places))]
        corner = (place - rng.uniform(0, window)).clip(lowest, highest)
    return corner


def _paste(crop: Crop, donor: Crop, rng: np.random.Generator) -> Crop:
    """Lay each object class of the donor's crop over `crop`, or leave it, with equal chance."""
    there = np.unique(donor.labels)
    there = there[(there != 0) & (there != IGNORE_ID)]
    mask = np.isin(donor.labels, there[rng.random(there.size) < 0.5])
    return Crop(
        *(
            np.where(mask[..., None] if new.ndim == 3 else mask, new, old)
            for old, new in zip(crop, donor, strict=True)
        )
    )


def _jitter(rgb: np.ndarray, config: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """Brightness, saturation and contrast by up to a half either way, now and then a blur.

    With gain g, saturation s, contrast c and the image's mean m, a colour x becomes
    c g (s x + (1 - s) grey(x)) + (1 - c) g m: one affine map of the three channels.
    """
    if rng.random() < config.colour_jitter:
        gain, contrast, saturation = rng.uniform(0.5, 1.5, size=3)
        mix = contrast * gain * (saturation * np.eye(3) + (1 - saturation) / 3)
        offset = (1 - contrast) * gain * np.mean(cv2.mean(rgb)[:3])
        rgb = cv2.transform(rgb, np.column_stack([mix, np.full(3, offset)]))
    if rng.random() < BLUR:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.3, 1.5))
    return rgb
