"""Augmentation of a frame into a training sample.

Geometry is changed in all images and the labels alike; the rest is up to each modality (see
`Modality.photometric`). All of it runs in the loader's worker processes and costs little beside
reading the files; `python -m benchmarks.training_loader` measures the whole loader.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from sartm_model.config import DataConfig
from sartm_model.data.frame import Frame
from sartm_model.data.transforms import to_input
from sartm_model.labels import IGNORE_ID
from sartm_model.modalities import MODALITIES


class Sample(NamedTuple):
    """One training sample, or a batch of samples with a leading B and a list of names.

    Images are kept in their smallest form, in which they are passed between processes; `inputs`
    converts them on the training device.

    Attributes:
        name: of the frame it was made from.
        images: modality -> scaled image `[H, W]` or `[H, W, C]`, uint8 or float16.
        labels: uint8 `[H, W]` of class ids, 255 for 'not labelled'.
        drop_mask: bool `[M]`, true for a modality that is hidden from the network, in the order of
            `images`.
        excluded: bool `[K]`, true for a class that the frame's data set does not label; `[0]` in a
            run whose data sets label all classes.
        embeddings: modality -> MA-CLIP's embedding of the frame's whole image, float32 `[D]`; empty
            in a training that uses none.
    """

    name: str
    images: dict[str, Tensor]
    labels: Tensor
    drop_mask: Tensor
    excluded: Tensor
    embeddings: dict[str, Tensor]

    def inputs(self) -> dict[str, Tensor]:
        """Normalised images of a batch, float32 `[B, C, H, W]`, by modality."""
        return {name: to_input(name, scaled) for name, scaled in self.images.items()}

    def full_drop_mask(self, modalities: Sequence[str]) -> Tensor:
        """Return the mask of a batch for all modalities of a network, bool `[B, M]`.

        It is false for a modality that the batch does not have.
        """
        given = dict(zip(self.images, self.drop_mask.unbind(1), strict=True))
        absent = torch.zeros_like(self.drop_mask[:, 0])
        return torch.stack([given.get(name, absent) for name in modalities], dim=1)


def augment(
    frame: Frame,
    config: DataConfig,
    rng: np.random.Generator,
    donor: Frame | None = None,
    *,
    background_id: int | None,
    excluded: np.ndarray | None = None,
) -> Sample:
    """Make a training sample of a labelled frame.

    Args:
        frame: with labels, and an image of each modality of the network, in the network's order.
        config: sizes and probabilities, those of the sensor faults included.
        rng: source of every random choice.
        donor: a second frame; some of its objects are pasted into the sample, at the place and size
            that a random crop of the donor gives them (copy-paste, Ghiasi et al., CVPR 2021).
        background_id: the class whose pixels are no objects; None if all are.
        excluded: see `Sample`; None for `[0]`.
    """
    crop = random_resized_crop(frame, config, rng, background_id)
    if donor is not None:
        donor_crop = random_resized_crop(donor, config, rng, background_id)
        crop = paste(crop, donor_crop, rng, background_id)
    return to_sample(photometric(crop, config, rng), config, rng, excluded)


def random_resized_crop(
    frame: Frame, config: DataConfig, rng: np.random.Generator, background_id: int | None
) -> Frame:
    """Take a random window of a frame, resize it to the crop's size and flip it at random.

    The images of the result are scaled, `[H, W]` or `[H, W, C]`, uint8 or float32.

    One affine map does all three. The range that an image is scaled by is taken from the whole
    frame, as on the robot, and applied to the crop, which has fewer pixels. Where the window leaves
    the frame, the images are mirrored and the labels are 255.
    """
    assert frame.labels is not None
    scale = np.exp(rng.uniform(np.log(config.scale_min), np.log(config.scale_max)))
    window = np.array([config.crop_height, config.crop_width]) / scale
    top, left = _corner(frame.labels, window, config.object_crop, rng, background_id)
    # Crop pixel (u, v) shows frame pixel (left + u / scale, top + v / scale). The halves are there
    # because a pixel's coordinates are those of its centre.
    inverse = np.array(
        [[1 / scale, 0, left + 0.5 / scale - 0.5], [0, 1 / scale, top + 0.5 / scale - 0.5]]
    )
    is_mirrored = rng.random() < 0.5
    if is_mirrored:
        inverse = inverse @ [[-1, 0, config.crop_width - 1], [0, 1, 0], [0, 0, 1]]
    size = (config.crop_width, config.crop_height)
    linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    nearest = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    mirror = cv2.BORDER_REFLECT_101
    labels = cv2.warpAffine(frame.labels, inverse, size, flags=nearest, borderValue=IGNORE_ID)
    images = {}
    for name, image in frame.images.items():
        modality = MODALITIES[name]
        counts, limits = modality.fill_invalid(image)
        warped = cv2.warpAffine(counts, inverse, size, flags=linear, borderMode=mirror)
        scaled = modality.scale(warped, limits)
        images[name] = modality.mirror(scaled) if is_mirrored else scaled
    return replace(frame, images=images, labels=labels)


def photometric(crop: Frame, config: DataConfig, rng: np.random.Generator) -> Frame:
    """Change the scaled images as each modality does it; the labels stay as they are."""
    images = {
        name: MODALITIES[name].photometric(image, config, rng)
        for name, image in crop.images.items()
    }
    return replace(crop, images=images)


def to_sample(
    crop: Frame,
    config: DataConfig,
    rng: np.random.Generator,
    excluded: np.ndarray | None = None,
) -> Sample:
    """Convert a crop to tensors and choose whether a modality is hidden, and which."""
    drop_mask = np.zeros(len(crop.images), bool)
    limits = np.cumsum(config.drop_probabilities(tuple(crop.images)))
    # The first limit above the number drawn belongs to the hidden modality; there may be none.
    drop_mask[np.flatnonzero(rng.random() < limits)[:1]] = True
    images = {
        modality: torch.from_numpy(image if image.dtype == np.uint8 else image.astype(np.float16))
        for modality, image in crop.images.items()
    }
    excluded = np.zeros(0, bool) if excluded is None else excluded
    labels, drops, classes = map(torch.from_numpy, (crop.labels, drop_mask, excluded))
    return Sample(crop.name, images, labels, drops, classes, {})


def _corner(
    labels: np.ndarray,
    window: np.ndarray,
    object_crop: float,
    rng: np.random.Generator,
    background_id: int | None,
) -> np.ndarray:
    """Top and left of a window of size (height, width): anywhere in the frame, or on an object.

    For a window on an object, a class is drawn from those in the frame with equal probability,
    then one of its pixels: small objects are chosen as often as large ones.
    """
    room = np.array(labels.shape) - window
    lowest, highest = np.minimum(0, room), np.maximum(0, room)
    corner = rng.uniform(lowest, highest)
    if rng.random() >= object_crop:
        return corner
    classes = _object_classes(labels, background_id)
    if classes.size:
        pixels = np.flatnonzero(labels == rng.choice(classes))
        pixel = np.unravel_index(pixels[rng.integers(len(pixels))], labels.shape)
        corner = (pixel - rng.uniform(0, window)).clip(lowest, highest)
    return corner


def paste(crop: Frame, donor: Frame, rng: np.random.Generator, background_id: int | None) -> Frame:
    """Paste each object class of the donor's crop into `crop` with a probability of one half."""
    assert crop.labels is not None
    assert donor.labels is not None
    classes = _object_classes(donor.labels, background_id)
    mask = np.isin(donor.labels, classes[rng.random(classes.size) < 0.5])

    def merge(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        return np.where(mask[..., None] if new.ndim == 3 else mask, new, old)

    images = {name: merge(donor.images[name], image) for name, image in crop.images.items()}
    return replace(crop, images=images, labels=merge(donor.labels, crop.labels))


def _object_classes(labels: np.ndarray, background_id: int | None) -> np.ndarray:
    """Return the ids that occur in labels, without the background and 'not labelled'."""
    counts = np.bincount(labels.ravel(), minlength=256)
    counts[[IGNORE_ID, *([] if background_id is None else [background_id])]] = 0
    return np.flatnonzero(counts)
